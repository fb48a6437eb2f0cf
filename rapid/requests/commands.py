"""What is said about requests over Redis, without saying how it is sent.

As `rapid.dispatch.commands`: each operation is a conversation that a blocking or an asyncio connection holds. Those who ask
add to a stream and block on the stream of their request's changes; the leading head reads the inbox as a consumer group, so
that what it had in hand when it died is read again by the next one (I1). Nothing polls.
"""

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rapid.dispatch import keys
from rapid.dispatch.library import function_name
from rapid.dispatch.talk import SLICE_S, Command, Talk, to_json
from rapid.errors import NotFoundError, StoreError
from rapid.requests.faults import QueueFullError
from rapid.requests.models import REQUEST_ID, RequestChange, RequestRecord, RequestState

MAX_INBOX = 1000
"""Posts that nobody has looked at yet; more and the inbox is full."""

KEEP_MS = 7 * 86_400_000
"""How long a request is remembered on the board after it ended; the results store keeps it longer."""

GROUP = "head"
CONSUMER = "leader"
"""One name for every head: of several only one leads, and it takes over what the last one had in hand."""


@dataclass(frozen=True, slots=True)
class Post:
    """One entry of the inbox, as it came."""

    entry_id: str
    fields: dict[str, bytes]

    def text(self, name: str, limit: int = 200) -> str:
        """Return a short field as text; empty if it is not there."""
        return self.fields.get(name, b"").decode(errors="replace")[:limit]


@dataclass(frozen=True, slots=True)
class Put:
    """A change of a record to be written by the head.

    Attributes
    ----------
    counter
        Total of the board to add one to; none if empty.
    dealt_with
        Entries of the inbox that this settles.
    """

    record: RequestRecord
    counter: str = ""
    dealt_with: tuple[str, ...] = ()


class RequestCommands:
    """What is said about the requests of one camera."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.prefix = keys.prefix(camera)
        self.inbox = f"{self.prefix}requests"

    def _fcall(self, name: str, *args: Any) -> Command:
        return Command(("FCALL", function_name(name), 2, self.prefix, self.inbox, *args))

    # Whoever asks -----------------------------------------------------------

    def _post(self, *fields: Any) -> Talk[str]:
        n_waiting = yield Command(("XLEN", self.inbox))
        if n_waiting >= MAX_INBOX:
            raise QueueFullError(f"{n_waiting} requests are in the inbox and nobody has looked at them yet; try later")
        entry_id = yield Command(("XADD", self.inbox, "*", *fields))
        return str(entry_id.decode())

    def post(self, text: str, *, by: str, door: str, outside: dict[str, str]) -> Talk[str]:
        """Put a request into the inbox."""
        extra = ("outside", to_json(outside)) if outside else ()
        ticket = yield from self._post("request", text, "by", by, "door", door, *extra)
        return ticket

    def cancel(self, request_id: str, *, by: str) -> Talk[str]:
        """Put a cancellation into the inbox."""
        ticket = yield from self._post("cancel", request_id, "by", by)
        return ticket

    def read(self, request_id: str) -> Talk[RequestRecord]:
        """Read a record; of a repeated post that of the first, of one in the inbox that it is there."""
        for _ in range(2):
            text = yield Command(("GET", f"{self.prefix}request:{request_id}"))
            if text is None:
                break
            if b'"repeats"' not in text[:20]:
                return _decode_record(text)
            request_id = json.loads(text)["repeats"]
        if re.fullmatch(REQUEST_ID, request_id):
            entries = yield Command(("XRANGE", self.inbox, request_id, request_id))
            if entries:
                return RequestRecord(
                    request_id=request_id,
                    camera=self.camera,
                    state=RequestState.POSTED,
                    created_ms=int(request_id.partition("-")[0]),
                )
        raise NotFoundError("request", request_id[:100])

    def recent(self, limit: int, *, refused: bool) -> Talk[list[RequestRecord]]:
        """List records, newest first."""
        if refused:
            ids = yield Command(("LRANGE", f"{self.prefix}requests_refused", 0, limit - 1))
        else:
            ids = yield Command(("ZREVRANGE", f"{self.prefix}requests_recent", 0, limit - 1))
        if not ids:
            return []
        texts = yield Command(("MGET", *(f"{self.prefix}request:{item.decode()}" for item in ids)))
        return [_decode_record(text) for text in texts if text is not None]

    def changes(self, request_id: str, after: str, timeout_s: float) -> Talk[list[tuple[str, RequestChange]]]:
        """Wait for changes of a request."""
        deadline = time.monotonic() + timeout_s
        log = f"{self.prefix}request_log:{request_id}"
        while True:
            remaining = deadline - time.monotonic()
            block_s = min(max(remaining, 0.001), SLICE_S)
            block_ms = max(round(block_s * 1000), 1)
            reply = yield Command(("XREAD", "COUNT", 500, "BLOCK", block_ms, "STREAMS", log, after), block_s=block_s)
            if reply:
                return [
                    (entry_id.decode(), RequestChange.model_validate_json(flat[1])) for entry_id, flat in reply[0][1]
                ]
            if time.monotonic() >= deadline:
                return []

    def wait(
        self, request_id: str, timeout_s: float, *, after_version: int | None = None
    ) -> Talk[RequestRecord | None]:
        """Wait for the end of a request, or for any change after a version."""
        deadline = time.monotonic() + timeout_s
        after = "0"
        while True:
            changes = yield from self.changes(request_id, after, max(deadline - time.monotonic(), 0.0))
            if not changes:
                return None
            after, last = changes[-1]
            if last.request_id != request_id:  # a repeated post: the first one is what there is to wait for
                request_id, after = last.request_id, "0"
                continue
            if last.state.is_final or (after_version is not None and last.version > after_version):
                record = yield from self.read(request_id)
                return record

    # The leading head ---------------------------------------------------------

    def open_inbox(self) -> Talk[None]:
        """Make the consumer group, if there is none. Entries from the very first on are the head's."""
        existing = yield Command(("EXISTS", self.inbox))
        groups = (yield Command(("XINFO", "GROUPS", self.inbox))) if existing else []
        if not any(GROUP.encode() in group for group in groups):
            yield Command(("XGROUP", "CREATE", self.inbox, GROUP, "0", "MKSTREAM"))

    def next_posts(self, timeout_s: float, *, again: bool, limit: int = 50) -> Talk[list[Post]]:
        """Take posts from the inbox: those taken before and not dealt with, or new ones, waiting for them."""
        deadline = time.monotonic() + timeout_s
        start = ("XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", limit)
        while True:
            if again:
                reply = yield Command((*start, "STREAMS", self.inbox, "0"))
            else:
                block_s = min(max(deadline - time.monotonic(), 0.001), SLICE_S)
                block_ms = max(round(block_s * 1000), 1)
                reply = yield Command((*start, "BLOCK", block_ms, "STREAMS", self.inbox, ">"), block_s=block_s)
            entries = reply[0][1] if reply else []
            if entries or again or time.monotonic() >= deadline:
                return [
                    # An entry that was trimmed away meanwhile has no fields: it is refused like any other nonsense.
                    Post(entry_id.decode(), _fields(flat or []))
                    for entry_id, flat in entries
                ]

    def put(self, put: Put, *, lead_token: int) -> Talk[int]:
        """Write a record, tell those who wait, and settle entries of the inbox, all at once."""
        record = put.record
        ended = "refused" if record.state is RequestState.REFUSED else "final" if record.state.is_final else ""
        now_ms = yield self._fcall(
            "request_put",
            lead_token,
            record.request_id,
            record.model_dump_json(),
            RequestChange.of(record).model_dump_json(),
            KEEP_MS if ended else 2 * KEEP_MS,
            ended,
            put.counter,
            " ".join(record.tickets),
            " ".join(put.dealt_with),
        )
        return int(now_ms)

    def repeat(self, ticket: str, record: RequestRecord, *, lead_token: int) -> Talk[None]:
        """Point a repeated post to the request it repeats."""
        answer = record.model_dump_json() if record.state.is_final else ""
        change = RequestChange.of(record).model_dump_json()
        pointer = to_json({"repeats": record.request_id})
        yield self._fcall("request_repeat", lead_token, ticket, record.request_id, pointer, change, 2 * KEEP_MS, answer)

    def dealt_with(self, entry_ids: Iterable[str]) -> Talk[None]:
        """Settle entries of the inbox."""
        yield self._fcall("request_done", *entry_ids)

    def open_ids(self) -> Talk[list[str]]:
        """List the requests that have not ended."""
        ids = yield Command(("SMEMBERS", f"{self.prefix}requests_open"))
        return sorted(item.decode() for item in ids)

    def take_pushed(self, list_key: str, *, door: str, kind: str, timeout_s: float) -> Talk[int]:
        """Move what a script pushed to a list into the inbox, waiting for it."""
        deadline = time.monotonic() + timeout_s
        while True:
            block_s = min(max(deadline - time.monotonic(), 0.001), SLICE_S)
            # From the list to itself: it waits, and whoever dies here has taken nothing.
            moved = yield Command(("BLMOVE", list_key, list_key, "RIGHT", "RIGHT", f"{block_s:.3f}"), block_s=block_s)
            if moved is not None:
                command = ("FCALL", function_name("request_take"), 3, self.prefix, self.inbox, list_key, door, kind)
                taken = yield Command(command)
                return int(taken)
            if time.monotonic() >= deadline:
                return 0


def _fields(flat: list[bytes]) -> dict[str, bytes]:
    return {name.decode(errors="replace"): value for name, value in zip(flat[::2], flat[1::2], strict=False)}


def _decode_record(text: bytes) -> RequestRecord:
    try:
        return RequestRecord.model_validate_json(text)
    except ValidationError as error:
        where = error.errors(include_input=False)[0]["loc"]
        raise StoreError(f"a request on the board cannot be read: {where}", error="unreadable") from error
