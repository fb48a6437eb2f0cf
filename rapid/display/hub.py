"""Hand every message to every viewer, once encoded, without one viewer holding up another.

A viewer that falls behind is let go; its browser reconnects, names the last message it saw, and is given
what it missed from the history, or told to load the page's data anew if that is too long ago.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


def stream_position(event_id: str) -> tuple[int, int]:
    """Return a stream id ("1763683200000-3") as a pair that compares in order of time.

    Raises
    ------
    ValueError
        Raised if the text is not a stream id.
    """
    milliseconds, _, counter = event_id.partition("-")
    return int(milliseconds), int(counter or 0)


@dataclass(frozen=True)
class Message:
    """One server-sent event, encoded for the wire when it is made."""

    position: tuple[int, int] | None
    frame: bytes

    @classmethod
    def make(cls, kind: str, data: Any, *, event_id: str = "") -> "Message":
        """Encode a message; only one with an ``event_id`` is kept for viewers that reconnect."""
        head = f"id: {event_id}\n" if event_id else ""
        # Compact JSON has no line breaks, so one data line always holds it.
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        frame = f"{head}event: {kind}\ndata: {text}\n\n".encode()
        return cls(position=stream_position(event_id) if event_id else None, frame=frame)


def heartbeat() -> bytes:
    """Return a sign of life with the server's time.

    A named event, not a comment: browsers keep comments from the page, which watches for silence.
    """
    return Message.make("heartbeat", {"server_time": datetime.now(UTC).isoformat()}).frame


class Subscription:
    """One viewer's share of the messages."""

    def __init__(self, backlog: list[Message], *, limit: int) -> None:
        self._queue: deque[Message] = deque(backlog)
        self._limit = max(limit, len(backlog))
        self._wake = asyncio.Event()
        self.is_closed = False

    def push(self, message: Message) -> None:
        """Queue a message, or close for good if the viewer is too far behind."""
        if len(self._queue) >= self._limit:
            self._queue.clear()
            self.is_closed = True
        if not self.is_closed:
            self._queue.append(message)
        self._wake.set()

    def close(self) -> None:
        """End the stream once what is queued has been sent."""
        self.is_closed = True
        self._wake.set()

    async def frames(self, *, heartbeat_s: float) -> AsyncIterator[bytes]:
        """Yield bytes for the wire until closed; a sign of life after each silence of ``heartbeat_s``."""
        while True:
            if self._queue:
                frame = b"".join(message.frame for message in self._queue)
                self._queue.clear()
                yield frame
                continue
            if self.is_closed:
                return
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout=heartbeat_s)
            except TimeoutError:
                yield heartbeat()


class Hub:
    """All viewers of this process.

    Parameters
    ----------
    history
        Messages kept for viewers that reconnect.
    limit
        Messages a viewer may lag behind.
    """

    def __init__(self, *, history: int, limit: int) -> None:
        self._history: deque[Message] = deque(maxlen=history)
        self._limit = limit
        self._viewers: set[Subscription] = set()
        self._start: tuple[int, int] = (0, 0)
        self._is_closed = False

    @property
    def n_viewers(self) -> int:
        """Viewers connected now."""
        return len(self._viewers)

    def start_at(self, event_id: str) -> None:
        """Forget the history: what viewers know up to ``event_id`` comes from the pages' data."""
        self._history.clear()
        self._start = stream_position(event_id) if event_id else (0, 0)

    def publish(self, message: Message) -> None:
        """Hand a message to every viewer. Never blocks."""
        if message.position is not None:
            if len(self._history) == self._history.maxlen:
                self._start = self._history[0].position or self._start
            self._history.append(message)
        for viewer in self._viewers:
            viewer.push(message)

    def missed_since(self, event_id: str) -> list[Message] | None:
        """Return the messages after an id, or `None` if they are no longer all here."""
        try:
            position = stream_position(event_id)
        except ValueError:
            return None
        if position < self._start:
            return None
        return [message for message in self._history if message.position is not None and message.position > position]

    @contextmanager
    def subscribe(self, after: str | None) -> Iterator[Subscription]:
        """Give a viewer its subscription for the length of a ``with`` block.

        Parameters
        ----------
        after
            Id of the last message the viewer has seen; `None` for one that begins now.
        """
        backlog: list[Message] = []
        if after is not None:
            missed = self.missed_since(after)
            backlog = missed if missed is not None else [Message.make("reset", {"reason": "too long away"})]
        viewer = Subscription(backlog, limit=self._limit)
        if self._is_closed:
            viewer.close()
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """End every viewer's stream: the process is about to stop."""
        self._is_closed = True
        for viewer in self._viewers:
            viewer.close()
