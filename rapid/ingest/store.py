"""The ingest role's words with Redis: files told of, raws that are in, files set aside, how processes stand.

The lists work as embargo-butler's do: an entry is moved to a list of the process that takes it and removed from there
when it is dealt with, so that a killed process loses none (invariant I1). Ours hold URIs; embargo-butler's
``QUEUE:bucket`` hold ``bucket/key``.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from rapid.dispatch.talk import Command, Talk
from rapid.ingest.models import IngestedMessage, IngestStatus, SetAsideRecord

QUEUE = "ingest_queue"
TAKEN = "ingest_taken:"
NAMES = "ingest_names"
LISTS = "ingest_lists"
STATUS = "ingest_status:"
SET_ASIDE = "ingest_set_aside"
EVENTS = "ingested"
TOLD = "ingested:"

STATUS_EXPIRE_S = 60
"""Written at least every ten seconds; a process that was silent for so long is dead, and what it had in hand goes back."""

TOLD_EXPIRE_S = 3 * 86_400
EVENTS_KEPT = 20_000
SET_ASIDE_LIMIT = 5_000

HANDLED = "ingest_handled"
HANDLED_KEPT = 200_000

BLOCK_S = 10.0


@dataclass(frozen=True)
class QueueNames:
    """A list that files are told of by, and the one of what this process has in hand."""

    queue: str
    taken: str
    is_foreign: bool = False
    """Whether it is embargo-butler's: entries are ``bucket/key``."""


def own_queue(prefix: str, name: str) -> QueueNames:
    """Return our list's names for a process."""
    return QueueNames(f"{prefix}{QUEUE}", f"{prefix}{TAKEN}{name}")


def foreign_queue(bucket: str, name: str) -> QueueNames:
    """Return the names of embargo-butler's lists for a bucket.

    Examples
    --------
    >>> foreign_queue("rubin-summit", "ingest-0")
    QueueNames(queue='QUEUE:rubin-summit', taken='WORKER:rubin-summit:ingest-0', is_foreign=True)
    """
    return QueueNames(f"QUEUE:{bucket}", f"WORKER:{bucket}:{name}", is_foreign=True)


def tell_files(prefix: str, uris: Sequence[str]) -> Talk[None]:
    """Put files on our list: they are safe once this returns."""
    if uris:
        yield Command(("LPUSH", f"{prefix}{QUEUE}", *uris))


def take_files(names: QueueNames, limit: int, *, timeout_s: float = BLOCK_S) -> Talk[list[bytes]]:
    """Wait for files, move them to what this process has in hand, and return their entries; none after the timeout."""
    first = yield Command(("BLMOVE", names.queue, names.taken, "RIGHT", "LEFT", f"{timeout_s:.3f}"), block_s=timeout_s)
    if first is None:
        return []
    taken = [bytes(first)]
    while len(taken) < limit:
        found = yield Command(("LMOVE", names.queue, names.taken, "RIGHT", "LEFT"))
        if found is None:
            break
        taken.append(bytes(found))
    return taken


def taken_before(names: QueueNames) -> Talk[list[bytes]]:
    """Return what a process of this name had in hand when it ended."""
    found = yield Command(("LRANGE", names.taken, 0, -1))
    return [bytes(entry) for entry in found]


def let_go(taken_list: str, entry: bytes) -> Talk[None]:
    """Take an entry off what this process has in hand: it is dealt with."""
    yield Command(("LREM", taken_list, 0, entry))


def put_status(prefix: str, status: IngestStatus, lists: Iterable[QueueNames] = ()) -> Talk[None]:
    """Say how a process stands, that it lives, and which of embargo-butler's lists it takes from."""
    yield Command(("SET", f"{prefix}{STATUS}{status.name}", status.model_dump_json(), "EX", STATUS_EXPIRE_S))
    yield Command(("SADD", f"{prefix}{NAMES}", status.name))
    if foreign := [json.dumps([status.name, names.queue, names.taken]) for names in lists if names.is_foreign]:
        yield Command(("SADD", f"{prefix}{LISTS}", *foreign))


def get_statuses(prefix: str) -> Talk[list[IngestStatus]]:
    """Return how the living processes stand."""
    names = yield Command(("SMEMBERS", f"{prefix}{NAMES}"))
    found = []
    for name in sorted(bytes(one).decode() for one in names):
        text = yield Command(("GET", f"{prefix}{STATUS}{name}"))
        if text is None:
            continue
        try:
            found.append(IngestStatus.model_validate_json(text))
        except ValidationError:
            continue  # of another version
    return found


def adopt_orphans(prefix: str) -> Talk[int]:
    """Put back on the lists what dead processes had in hand; return how much."""
    n = yield from _adopt_lists(prefix)
    names = yield Command(("SMEMBERS", f"{prefix}{NAMES}"))
    for name in sorted(bytes(one).decode() for one in names):
        if (yield Command(("EXISTS", f"{prefix}{STATUS}{name}"))):
            continue
        n += yield from _put_back(f"{prefix}{TAKEN}{name}", f"{prefix}{QUEUE}")
        yield Command(("SREM", f"{prefix}{NAMES}", name))
    return n


def _adopt_lists(prefix: str) -> Talk[int]:
    """Put back on embargo-butler's lists what our dead processes took off them; return how much."""
    n = 0
    for entry in (yield Command(("SMEMBERS", f"{prefix}{LISTS}"))):
        try:
            name, queue, taken = json.loads(entry)
        except ValueError:
            continue  # of another version
        if (yield Command(("EXISTS", f"{prefix}{STATUS}{name}"))):
            continue
        n += yield from _put_back(taken, queue)
        yield Command(("SREM", f"{prefix}{LISTS}", entry))
    return n


def _put_back(taken: str, queue: str) -> Talk[int]:
    n = 0
    while (yield Command(("LMOVE", taken, queue, "LEFT", "RIGHT"))) is not None:
        n += 1
    return n


def n_queued(names: QueueNames) -> Talk[int]:
    """Return how many files nobody has taken yet."""
    found = yield Command(("LLEN", names.queue))
    return int(found)


# What is in


def tell_ingested(prefix: str, message: IngestedMessage) -> Talk[None]:
    """Tell everybody that raws are in the repository; told again it changes nothing."""
    # The stream first: killed in between, it is told twice rather than never.
    yield Command(
        (
            "XADD",
            f"{prefix}{EVENTS}",
            "MAXLEN",
            "~",
            EVENTS_KEPT,
            "*",
            "data",
            message.model_dump_json(exclude={"at_ms"}),
        )
    )
    key = _told(prefix, message.exposure_id, message.dataset_type)
    yield Command(("SADD", key, *message.detectors))
    yield Command(("EXPIRE", key, TOLD_EXPIRE_S))


def get_told(prefix: str, exposure_id: int, dataset_type: str = "raw") -> Talk[frozenset[int]]:
    """Return which detectors of an exposure were told to be in, within the last days."""
    found = yield Command(("SMEMBERS", _told(prefix, exposure_id, dataset_type)))
    return frozenset(int(one) for one in found)


def _told(prefix: str, exposure_id: int, dataset_type: str) -> str:
    return f"{prefix}{TOLD}{exposure_id}" + ("" if dataset_type == "raw" else f".{dataset_type}")


def last_ingested_id(prefix: str) -> Talk[str]:
    """Return the id of the newest message."""
    found = yield Command(("XREVRANGE", f"{prefix}{EVENTS}", "+", "-", "COUNT", 1))
    return bytes(found[0][0]).decode() if found else "0-0"


def follow_ingested(
    prefix: str, after_id: str, *, timeout_s: float = BLOCK_S, limit: int = 500
) -> Talk[list[tuple[str, IngestedMessage]]]:
    """Wait for messages and return them with their ids; none after the timeout."""
    found = yield Command(
        ("XREAD", "COUNT", limit, "BLOCK", max(round(timeout_s * 1000), 1), "STREAMS", f"{prefix}{EVENTS}", after_id),
        block_s=timeout_s,
    )
    messages = []
    for entry_id, flat in found[0][1] if found else []:
        facts = dict(zip(flat[::2], flat[1::2], strict=True))
        name = bytes(entry_id).decode()
        try:
            message = IngestedMessage.model_validate_json(facts.get(b"data", b""))
        except ValidationError:
            continue  # of another version
        messages.append((name, message.model_copy(update={"at_ms": int(name.partition("-")[0])})))
    return messages


# What is set aside


def set_aside(prefix: str, record: SetAsideRecord) -> Talk[None]:
    """Note a file that was not ingested; the first reason stays with the newest."""
    yield Command(("HSET", f"{prefix}{SET_ASIDE}", record.uri, record.model_dump_json()))
    n = yield Command(("HLEN", f"{prefix}{SET_ASIDE}"))
    if int(n) > SET_ASIDE_LIMIT:
        records = yield from get_set_aside(prefix)
        oldest = [one.uri for one in sorted(records, key=lambda one: one.at)[: int(n) - SET_ASIDE_LIMIT]]
        yield from release(prefix, oldest)


def get_set_aside(prefix: str) -> Talk[list[SetAsideRecord]]:
    """Return what was set aside, the newest first."""
    found = yield Command(("HGETALL", f"{prefix}{SET_ASIDE}"))
    records = []
    for text in found[1::2]:
        try:
            records.append(SetAsideRecord.model_validate(json.loads(text)))
        except (ValidationError, ValueError):
            continue  # of another version
    return sorted(records, key=lambda record: record.at, reverse=True)


def n_set_aside(prefix: str) -> Talk[int]:
    """Return how many files are set aside."""
    found = yield Command(("HLEN", f"{prefix}{SET_ASIDE}"))
    return int(found)


def release(prefix: str, uris: Iterable[str]) -> Talk[int]:
    """Forget that files were set aside; return how many were."""
    names = list(uris)
    if not names:
        return 0
    found = yield Command(("HDEL", f"{prefix}{SET_ASIDE}", *names))
    return int(found)


def retry_set_aside(prefix: str, uris: Sequence[str]) -> Talk[list[str]]:
    """Put files that were set aside on our list again; return those that were."""
    records = {record.uri: record for record in (yield from get_set_aside(prefix))}
    wanted = [uri for uri in uris if uri in records]
    yield from tell_files(prefix, wanted)  # first: killed in between, one is tried again and listed, never neither
    yield from release(prefix, wanted)
    return wanted


def was_handled(prefix: str, uri: str, mark: str) -> Talk[bool]:
    """Whether a handler has taken a file with this content before."""
    found = yield Command(("ZSCORE", f"{prefix}{HANDLED}", f"{mark} {uri}"))
    return found is not None


def note_handled(prefix: str, uri: str, mark: str, *, at_s: float) -> Talk[None]:
    """Note that a handler has taken a file, so that a restart does not hand it on again."""
    yield Command(("ZADD", f"{prefix}{HANDLED}", f"{at_s:.3f}", f"{mark} {uri}"))
    yield Command(("ZREMRANGEBYRANK", f"{prefix}{HANDLED}", 0, -HANDLED_KEPT - 1))


def entry_uri(entry: bytes, *, is_foreign: bool) -> str | None:
    """Return the URI that a list's entry names; None if it names nothing.

    Examples
    --------
    >>> entry_uri(b"rubin-summit/LSSTCam/20251115/x.fits", is_foreign=True)
    's3://rubin-summit/LSSTCam/20251115/x.fits'

    A profile says by which credentials the Butler finds a bucket; ours are the environment's.

    >>> entry_uri(b"embargo@rubin-summit/LSSTCam/20251115/x.fits", is_foreign=True)
    's3://rubin-summit/LSSTCam/20251115/x.fits'
    """
    try:
        text = entry.decode()
    except UnicodeDecodeError:
        return None
    if not text or "\x00" in text:
        return None
    if not is_foreign:
        return text
    place, _, key = text.removeprefix("s3://").partition("/")
    bucket = place.rpartition("@")[2]
    return f"s3://{bucket}/{key}" if bucket and key else None
