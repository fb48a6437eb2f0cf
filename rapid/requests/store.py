"""Requests over a connection: `RequestBoard` blocks, `AsyncRequestBoard` awaits."""

from collections.abc import Iterable
from typing import Any

from rapid.dispatch.connection import AsyncConnection, BlockingConnection
from rapid.requests.commands import Post, Put, RequestCommands
from rapid.requests.models import RequestChange, RequestRecord, RequestSpec

TOLD_BYTES = 16_384
"""Of a request that was refused at a door, this much is handed on: enough to see what it was."""


class RequestBoard:
    """The requests of one camera over a blocking connection: what a script needs.

    Parameters
    ----------
    connection
        That of a `Board`, or one of its own.
    camera
        Name of the camera.
    """

    def __init__(self, connection: BlockingConnection, camera: str) -> None:
        self._connection = connection
        self._say = RequestCommands(camera)

    def post(self, spec: RequestSpec, *, by: str = "", door: str = "redis") -> str:
        """Put a request into the inbox and return its ticket.

        Raises
        ------
        QueueFullError
            Raised if nobody looks at the inbox and it is full.
        StoreError
            Raised if the server stays away.
        """
        return self._connection.run(self._say.post(spec.model_dump_json(), by=by, door=door, outside={}))

    def cancel(self, request_id: str, *, by: str = "") -> str:
        """Ask for the end of a request; its record says when it has ended."""
        return self._connection.run(self._say.cancel(request_id, by=by))

    def read(self, request_id: str) -> RequestRecord:
        """Return a request as it stands; a ticket of a repeated post gives the first one.

        Raises
        ------
        NotFoundError
            Raised for one that was never posted, or is forgotten.
        """
        return self._connection.run(self._say.read(request_id))

    def recent(self, limit: int = 50, *, refused: bool = False) -> list[RequestRecord]:
        """Return requests, newest first: the accepted ones, or those that were refused."""
        return self._connection.run(self._say.recent(limit, refused=refused))

    def changes(self, request_id: str, after: str = "0", *, timeout_s: float) -> list[tuple[str, RequestChange]]:
        """Return the changes after an entry of a request's log, waiting for the next one; empty after the timeout."""
        return self._connection.run(self._say.changes(request_id, after, timeout_s))

    def wait(self, request_id: str, *, timeout_s: float, after_version: int | None = None) -> RequestRecord | None:
        """Return a request once it has ended, or has changed after a version; None after the timeout."""
        return self._connection.run(self._say.wait(request_id, timeout_s, after_version=after_version))


class AsyncRequestBoard:
    """The requests of one camera over an asyncio connection, and the head's side of them."""

    def __init__(self, connection: AsyncConnection, camera: str) -> None:
        self._connection = connection
        self._say = RequestCommands(camera)

    async def post(
        self, spec: RequestSpec, *, by: str = "", door: str = "redis", outside: dict[str, str] | None = None
    ) -> str:
        """See `RequestBoard.post`; ``outside``: what a compatible door needs to answer."""
        return await self._connection.run(
            self._say.post(spec.model_dump_json(), by=by, door=door, outside=outside or {})
        )

    async def tell_refused(self, body: bytes, *, by: str, door: str) -> None:
        """Hand on what a door has refused: the head refuses it too, and counts and lists it."""
        text = body[:TOLD_BYTES].decode(errors="replace")
        await self._connection.run(self._say.post(text, by=by, door=door, outside={}))

    async def cancel(self, request_id: str, *, by: str = "") -> str:
        """See `RequestBoard.cancel`."""
        return await self._connection.run(self._say.cancel(request_id, by=by))

    async def read(self, request_id: str) -> RequestRecord:
        """See `RequestBoard.read`."""
        return await self._connection.run(self._say.read(request_id))

    async def recent(self, limit: int = 50, *, refused: bool = False) -> list[RequestRecord]:
        """See `RequestBoard.recent`."""
        return await self._connection.run(self._say.recent(limit, refused=refused))

    async def changes(self, request_id: str, after: str = "0", *, timeout_s: float) -> list[tuple[str, RequestChange]]:
        """See `RequestBoard.changes`."""
        return await self._connection.run(self._say.changes(request_id, after, timeout_s))

    async def wait(
        self, request_id: str, *, timeout_s: float, after_version: int | None = None
    ) -> RequestRecord | None:
        """See `RequestBoard.wait`."""
        return await self._connection.run(self._say.wait(request_id, timeout_s, after_version=after_version))

    # The leading head

    async def open_inbox(self) -> None:
        """Make sure that the inbox can be read."""
        await self._connection.run(self._say.open_inbox())

    async def next_posts(self, *, timeout_s: float = 60.0, again: bool = False) -> list[Post]:
        """Take posts: new ones, waiting for them, or those that a head had in hand when it died."""
        return await self._connection.run(self._say.next_posts(timeout_s, again=again))

    async def put(
        self, record: RequestRecord, *, lead_token: int, counter: str = "", dealt_with: tuple[str, ...] = ()
    ) -> int:
        """Write a record and tell those who wait. Returns the board's time [ms].

        Raises
        ------
        RefusedError
            Raised if another head leads.
        """
        return await self._connection.run(self._say.put(Put(record, counter, dealt_with), lead_token=lead_token))

    async def repeat(self, ticket: str, record: RequestRecord, *, lead_token: int) -> None:
        """Point a repeated post to the request it repeats."""
        await self._connection.run(self._say.repeat(ticket, record, lead_token=lead_token))

    async def dealt_with(self, entry_ids: Iterable[str]) -> None:
        """Settle entries of the inbox that need no record."""
        await self._connection.run(self._say.dealt_with(entry_ids))

    async def open_ids(self) -> list[str]:
        """Return the ids of the requests that have not ended."""
        return await self._connection.run(self._say.open_ids())

    async def take_pushed(self, list_key: str, *, door: str, kind: str, timeout_s: float = 60.0) -> int:
        """Move what a script pushed to a list into the inbox; how many."""
        return await self._connection.run(self._say.take_pushed(list_key, door=door, kind=kind, timeout_s=timeout_s))


def record_facts(record: RequestRecord) -> dict[str, Any]:
    """Return a record as JSON facts, what is empty left out."""
    return record.model_dump(mode="json", exclude_none=True)
