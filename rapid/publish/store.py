"""What publishing keeps on the board: how it stands, how far sinks have come, when rows were sent, who publishes."""

import json
import time
from collections.abc import Mapping
from datetime import datetime

from pydantic import ValidationError

from rapid.dispatch.library import function_name
from rapid.dispatch.talk import Command, Talk
from rapid.publish.status import PublishStatus, SentRow

KEY = "publish_status"
MARKS = "publish_marks"

SENT = "publish_sent"
LEAD_WAKE = "publish_lead_wake"

SENT_EXPIRE_S = 3 * 86_400
"""As long as the board remembers when an exposure was posted, and longer than a night is looked at."""

SLICE_S = 10.0
"""Longest single wait for another role to stop."""

EXPIRE_S = 60
"""Written at least every ten seconds: a minute of silence means that nobody publishes."""


def put_status(prefix: str, status: PublishStatus) -> Talk[None]:
    """Write the status."""
    yield Command(("SET", f"{prefix}{KEY}", status.model_dump_json(), "EX", EXPIRE_S))


def get_status(prefix: str) -> Talk[PublishStatus | None]:
    """Read the status; None if nobody publishes, or one that a newer version wrote and this one cannot read."""
    found = yield Command(("GET", f"{prefix}{KEY}"))
    if found is None:
        return None
    try:
        return PublishStatus.model_validate(json.loads(found))
    except (ValidationError, ValueError):
        return None


def put_marks(prefix: str, marks: Mapping[str, datetime]) -> Talk[None]:
    """Note up to when sinks have had everything, by their names."""
    yield Command(
        ("HSET", f"{prefix}{MARKS}", *(part for name, at in marks.items() for part in (name, at.isoformat())))
    )


def get_marks(prefix: str) -> Talk[dict[str, datetime]]:
    """Read the marks; one that makes no sense is left out: its sink is then told everything again."""
    found = yield Command(("HGETALL", f"{prefix}{MARKS}"))
    marks = {}
    for name, text in zip(found[::2], found[1::2], strict=True):
        try:
            at = datetime.fromisoformat(text.decode())
        except ValueError:
            continue
        if at.tzinfo is not None:
            marks[name.decode()] = at
    return marks


def put_sent(prefix: str, day_obs: int, rows: list[SentRow]) -> Talk[None]:
    """Note when rows were sent."""
    key = f"{prefix}{SENT}:{day_obs}"
    fields = (part for row in rows for part in (row.field, f"{row.begin_ms} {row.end_ms}"))
    yield Command(("HSET", key, *fields))
    yield Command(("EXPIRE", key, SENT_EXPIRE_S))


def get_sent(prefix: str, day_obs: int) -> Talk[list[SentRow]]:
    """Read when rows of a night were sent; what makes no sense is left out."""
    found = yield Command(("HGETALL", f"{prefix}{SENT}:{day_obs}"))
    rows = []
    for name, text in zip(found[::2], found[1::2], strict=True):
        row = SentRow.parse(name.decode(), text.decode())
        if row is not None:
            rows.append(row)
    return rows


def take_lead(prefix: str, who: str, ttl_ms: int) -> Talk[tuple[bool, float]]:
    """Take or keep the right to publish; return whether it is ours, and for how long it is whose it is [s]."""
    is_ours, lasts_ms = yield Command(("FCALL", function_name("publish_lead"), 1, prefix, who, ttl_ms))
    return bool(is_ours), lasts_ms / 1000


def resign_lead(prefix: str, who: str) -> Talk[None]:
    """Give the right up."""
    yield Command(("FCALL", function_name("publish_resign"), 1, prefix, who))


def wait_for_lead(prefix: str, timeout_s: float) -> Talk[None]:
    """Wait until whoever publishes stops, at most so long."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        seconds = min(max(left, 0.001), SLICE_S)
        reply = yield Command(("BLPOP", f"{prefix}{LEAD_WAKE}", f"{seconds:.3f}"), block_s=seconds)
        if reply is not None:
            return
