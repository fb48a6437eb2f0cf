"""Files that wait to be ingested, in this process: newest arrivals, and those that are tried again later."""

import asyncio
import contextlib
import heapq
import itertools
from collections import deque

from rapid.ingest.models import Item


class Inbox:
    """What waits. All calls from one event loop.

    Parameters
    ----------
    limit
        From so many on, whoever puts something in waits.
    """

    def __init__(self, limit: int = 5_000) -> None:
        self._limit = limit
        self._ready: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    @property
    def oldest_since_s(self) -> float | None:
        """Since when the oldest file waits, monotonic."""
        waiting = [item.since_s for item in self._ready] + [entry[2].since_s for entry in self._later]
        return min(waiting, default=None)

    async def put(self, item: Item) -> None:
        """Take in a file, once there is room."""
        while len(self) >= self._limit:
            self._has_room.clear()
            await self._has_room.wait()
        self._ready.append(item)
        self._changed.set()

    def put_back(self, item: Item, pause_s: float = 0.0) -> None:
        """Take in a file again, to be given out after a pause."""
        if pause_s <= 0.0:
            self._ready.appendleft(item)
        else:
            due = asyncio.get_running_loop().time() + pause_s
            heapq.heappush(self._later, (due, next(self._numbers), item))
        self._changed.set()

    async def take(self, limit: int, *, linger_s: float, timeout_s: float) -> list[Item]:
        """Return what waits, as soon as there is something; nothing after the timeout.

        Parameters
        ----------
        linger_s
            How long to wait for more once there is something: one transaction for many costs little more.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._collect() and loop.time() < deadline:
            await self._wait(min([deadline, *(entry[0] for entry in self._later[:1])]) - loop.time())
        until = loop.time() + linger_s
        while self._ready and self._collect() < limit and loop.time() < until:
            await self._wait(until - loop.time())
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        if len(self) < self._limit:
            self._has_room.set()
        return taken

    def _collect(self) -> int:
        """Move what is due to what is ready; return how much is ready."""
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        return len(self._ready)

    async def _wait(self, timeout_s: float) -> None:
        # Nothing comes between a look that found nothing and this: no change is missed.
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(timeout_s, 0.001)):
                await self._changed.wait()
