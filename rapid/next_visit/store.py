"""Announcements on the board: each until it expires, and a stream of what changed that workers follow.

A fan-out service tells of each detector by itself, of all of them at once and perhaps to several heads. So detectors are
a set of their own, whose entries begin with a digest of what was announced: added in any order none is lost, and those of
an announcement that was said anew and otherwise do not count.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from rapid.dispatch.talk import Command, Talk
from rapid.next_visit.models import NextVisit

STREAM = "visits"
VISIT = "visit:"
DETECTORS = "visit_detectors:"
RECENT = "visits_recent"
KEPT = 1_000
NEWS_KEPT = 10_000
"""Fifty visits of which a fan-out service tells by detector."""
ALL = "*"
BLOCK_S = 10.0


@dataclass(frozen=True)
class VisitNews:
    """A visit was announced, or canceled."""

    entry_id: str
    group_id: str
    visit: NextVisit | None
    """None if it was canceled."""


def announce(prefix: str, visit: NextVisit, *, life_s: float, now_ms: int) -> Talk[bool]:
    """Announce a visit; return False if it was announced before, just so and for these detectors."""
    key, detectors = f"{prefix}{VISIT}{visit.group_id}", f"{prefix}{DETECTORS}{visit.group_id}"
    life = max(round(life_s), 1)
    digest = _digest(visit)
    named = (ALL,) if visit.detectors is None else visit.detectors
    n_new = yield Command(("SADD", detectors, *(f"{digest} {one}" for one in named)))
    yield Command(("EXPIRE", detectors, life))
    before = _read((yield Command(("GET", key))))
    if before is not None and before[0].said == visit.said:
        if not int(n_new):
            return False
        now_ms = before[1]
    document = json.dumps({"visit": json.loads(visit.said), "announced_at_ms": now_ms})
    yield Command(("SET", key, document, "EX", life))
    yield Command(("ZADD", f"{prefix}{RECENT}", now_ms, visit.group_id))
    yield Command(("ZREMRANGEBYRANK", f"{prefix}{RECENT}", 0, -KEPT - 1))
    text = visit.model_dump_json(by_alias=False)
    yield Command(("XADD", f"{prefix}{STREAM}", "MAXLEN", "~", NEWS_KEPT, "*", "group", visit.group_id, "visit", text))
    return True


def cancel(prefix: str, group_id: str) -> Talk[bool]:
    """Take an announcement back; return whether there was one."""
    gone = yield Command(("DEL", f"{prefix}{VISIT}{group_id}"))
    yield Command(("DEL", f"{prefix}{DETECTORS}{group_id}"))
    yield Command(("ZREM", f"{prefix}{RECENT}", group_id))
    if not int(gone):
        return False
    yield Command(("XADD", f"{prefix}{STREAM}", "MAXLEN", "~", NEWS_KEPT, "*", "group", group_id))
    return True


def _digest(visit: NextVisit) -> str:
    return hashlib.sha256(visit.said.encode()).hexdigest()[:16]


def _read(text: bytes | None) -> tuple[NextVisit, int] | None:
    """Return an announcement and when it came [ms]; None if there is none, or it is of another version."""
    if text is None:
        return None
    try:
        document = json.loads(text)
        return NextVisit.model_validate(document["visit"]), int(document["announced_at_ms"])
    except (ValidationError, ValueError, KeyError, TypeError):
        return None


def _with_detectors(prefix: str, visit: NextVisit) -> Talk[NextVisit]:
    entries = yield Command(("SMEMBERS", f"{prefix}{DETECTORS}{visit.group_id}"))
    digest = _digest(visit)
    names = {name for entry in entries for mark, _, name in [bytes(entry).decode().partition(" ")] if mark == digest}
    if not names or ALL in names:
        return visit
    return visit.model_copy(update={"detectors": tuple(sorted(int(name) for name in names))})


def get_announced(prefix: str, limit: int = 200, *, tidy: bool = False) -> Talk[list[tuple[NextVisit, int]]]:
    """Return the announcements that count, the newest first, with when they came [ms].

    Parameters
    ----------
    tidy
        Forget those that have expired.
    """
    groups = yield Command(("ZREVRANGE", f"{prefix}{RECENT}", 0, limit - 1))
    found = []
    gone = []
    for group in groups:
        text = yield Command(("GET", f"{prefix}{VISIT}{bytes(group).decode()}"))
        if text is None:
            gone.append(bytes(group))
            continue
        one = _read(text)
        if one is not None:
            found.append(((yield from _with_detectors(prefix, one[0])), one[1]))
    if gone and tidy:
        yield Command(("ZREM", f"{prefix}{RECENT}", *gone))
    return found


def last_news_id(prefix: str) -> Talk[str]:
    """Return the id of the newest change."""
    found = yield Command(("XREVRANGE", f"{prefix}{STREAM}", "+", "-", "COUNT", 1))
    return bytes(found[0][0]).decode() if found else "0-0"


def follow(prefix: str, after_id: str, *, timeout_s: float = BLOCK_S) -> Talk[list[VisitNews]]:
    """Wait for changes; none after the timeout."""
    found = yield Command(
        ("XREAD", "COUNT", 100, "BLOCK", max(round(timeout_s * 1000), 1), "STREAMS", f"{prefix}{STREAM}", after_id),
        block_s=timeout_s,
    )
    return [_news(bytes(entry_id).decode(), flat) for entry_id, flat in (found[0][1] if found else [])]


def _news(entry_id: str, flat: Sequence[bytes]) -> VisitNews:
    facts = {bytes(name): bytes(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    visit = None
    if b"visit" in facts:
        try:
            visit = NextVisit.model_validate_json(facts[b"visit"])
        except ValidationError:
            visit = None  # of another version: as if canceled
    return VisitNews(entry_id, facts.get(b"group", b"").decode(errors="replace"), visit)
