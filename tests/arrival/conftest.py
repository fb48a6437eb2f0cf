"""Watches on real directories and buckets."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from rapid.arrival.models import Arrival, RawArrived, RawQuarantined
from rapid.camera.store import load_camera
from tests.support.s3 import serve_s3


class Watched:
    """Collects what a source says, and waits for it."""

    def __init__(self, source) -> None:
        self.source = source
        self.said: list[Arrival] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        iterator = self.source.arrivals()
        try:
            async for arrival in iterator:
                async with self._changed:
                    self.said.append(arrival)
                    self._changed.notify_all()
        finally:
            await iterator.aclose()

    async def wait_for(self, is_enough: Callable[[list[Arrival]], bool], timeout_s: float = 20.0) -> list[Arrival]:
        """Wait until what was said is enough; an end of the watch is an error."""

        async def enough() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: is_enough(self.said))

        waiting = asyncio.create_task(enough())
        await asyncio.wait({waiting, self._task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            waiting.cancel()
            self._task.result()
        if not waiting.done():
            waiting.cancel()
            raise TimeoutError(f"in {timeout_s} s only: {self.said}")
        return list(self.said)

    async def count(self, n: int, timeout_s: float = 20.0) -> list[Arrival]:
        """Wait for so many messages."""
        return await self.wait_for(lambda said: len(said) >= n, timeout_s)

    async def nothing_more(self, for_s: float = 0.5) -> None:
        """Check that nothing is said for a while."""
        before = len(self.said)
        with contextlib.suppress(TimeoutError):
            await self.wait_for(lambda said: len(said) > before, for_s)
        assert self.said[before:] == []

    @property
    def raws(self) -> list[RawArrived]:
        return [one for one in self.said if isinstance(one, RawArrived)]

    @property
    def quarantined(self) -> list[RawQuarantined]:
        return [one for one in self.said if isinstance(one, RawQuarantined)]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def watch():
    """Begin watches that end with the test."""
    watches: list[Watched] = []

    def begin(source) -> Watched:
        watches.append(Watched(source))
        return watches[-1]

    yield begin
    for one in watches:
        await one.stop()


@pytest.fixture(scope="session")
def lsstcam():
    return load_camera("LSSTCam")


@pytest.fixture(scope="session")
def s3_server():
    with serve_s3() as server:
        yield server
