"""The requests that have not ended: which something happened to, and the telling of what becomes of them."""

import asyncio
from collections.abc import Iterator

import structlog

from rapid.dispatch.board import AsyncBoard
from rapid.head.fulfilment import Fulfilment
from rapid.requests.archive import RequestArchive
from rapid.requests.models import RequestRecord
from rapid.requests.store import AsyncRequestBoard

log = structlog.get_logger()


class OpenRequests:
    """Requests under way, by id.

    Attributes
    ----------
    lock : asyncio.Lock
        Held by whoever changes one: taking in, and looking at what happened, are tasks of their own.
    wake : asyncio.Event
        Set when one is to be looked at.
    """

    def __init__(
        self, board: AsyncBoard, requests: AsyncRequestBoard, archive: RequestArchive, *, lead_token: int
    ) -> None:
        self._board = board
        self._requests = requests
        self._archive = archive
        self._lead_token = lead_token
        self._by_id: dict[str, Fulfilment] = {}
        self._dirty: set[str] = set()
        self.lock = asyncio.Lock()
        self.wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Fulfilment]:
        return iter(self._by_id.values())

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._by_id

    def get(self, request_id: str) -> Fulfilment | None:
        """Return a request, None if it is not open."""
        return self._by_id.get(request_id)

    def add(self, fulfilment: Fulfilment) -> None:
        """Begin to follow a request."""
        self._by_id[fulfilment.record.request_id] = fulfilment

    def set_dirty(self, *request_ids: str) -> None:
        """Have requests looked at."""
        self._dirty.update(request_ids)
        self.wake.set()

    def take_dirty(self) -> set[str]:
        """Return, once, the requests that are to be looked at."""
        dirty, self._dirty = self._dirty, set()
        return dirty

    async def tell(self, fulfilment: Fulfilment, now_ms: int) -> None:
        """Publish a request's record if it changed; one that has ended is followed no more."""
        before = fulfilment.record
        after = fulfilment.as_record(now_ms)
        if after == before:
            return
        fulfilment.record = after.model_copy(update={"version": before.version + 1})
        await self.publish(fulfilment.record)
        if fulfilment.record.state.is_final:
            self._by_id.pop(before.request_id, None)
            log.info("request ended", request_id=before.request_id, state=fulfilment.record.state.value)

    async def publish(self, record: RequestRecord) -> None:
        """Publish a record as it is."""
        counter = ""
        if record.state.is_final:
            # First to the results store: an end that was told must outlive a flush.
            await asyncio.to_thread(self._archive.put, record)
            counter = f"requests_{record.state.value}"
        await self._requests.put(record, lead_token=self._lead_token, counter=counter)
