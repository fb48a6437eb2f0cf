"""Straight to the arrival door: a head in this process that is handed raws, with no watch and no bucket between.

What the door does with a raw is what both sources do with it (`rapid.arrival.door`): look at it, deduplicate it, put it
into words. Workers read it from the folder that it is kept in.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from rapid.arrival.decide import FileKind, kind_of
from rapid.arrival.dedupe import Content
from rapid.arrival.door import Door, expected_sensors, quarantined
from rapid.arrival.look import Look, look_at
from rapid.arrival.models import Arrival, RawHeader
from rapid.arrival.source import read_raw
from rapid.camera.models import Camera
from rapid.errors import NotFoundError, StoreError
from replay.fits_writer import write_whole

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


class DoorSource:
    """A raw source that is handed its raws, from any thread; also a target to play to.

    Parameters
    ----------
    root
        Where raws are kept for the workers.
    """

    def __init__(self, root: Path, camera: Camera) -> None:
        self._root = root
        self._camera = camera
        self._door = Door()
        self._lock = threading.Lock()
        self._kept: list[str] = []
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Queue[str]] | None = None

    def put(self, key: str, data: bytes) -> None:
        """Hand in a file."""
        path = self._root / key.split("/", 1)[1]
        write_whole(path, data)
        with self._lock:
            self._kept.append(str(path))
            if self._waiting is not None:
                loop, queue = self._waiting
                with contextlib.suppress(RuntimeError):  # its loop has ended: the next one begins with all that is kept
                    loop.call_soon_threadsafe(queue.put_nowait, str(path))

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what was handed in so far, and then what is; every call begins anew."""
        self._door = Door()
        queue: asyncio.Queue[str] = asyncio.Queue()
        with self._lock:
            for path in self._kept:
                queue.put_nowait(path)
            self._waiting = (asyncio.get_running_loop(), queue)
        while True:
            arrival = await asyncio.to_thread(self._look, await queue.get())
            if arrival is not None:
                yield arrival

    def _look(self, path: str) -> Arrival | None:
        look = look_at(path, kind=kind_of(path, self._camera), camera=self._camera)
        return None if look is None else self._arrival(path, look)

    def _arrival(self, path: str, look: Look) -> Arrival | None:
        if look.problem is not None:
            return quarantined(path, look.problem, look.stamp.size_bytes)
        if look.header is not None:
            return self._door.admit(look.header, Content(path, look.stamp.size_bytes, str(look.stamp.modified_ns)))
        return expected_sensors(path, look.sensors or frozenset(), self._camera)

    def read(self, uri: str) -> bytes:
        """Return a raw's bytes."""
        return read_raw(uri)

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is; see `rapid.arrival.source.RawSource`."""
        header = self._door.header_of(uri)
        if header is not None:
            return header
        look = look_at(uri, kind=FileKind.RAW, camera=self._camera)
        if look is None or look.header is None:
            raise (look.problem if look is not None and look.problem else NotFoundError("raw", uri))
        return look.header


class HeadThread:
    """A head in a thread of this process, from entering to leaving a `with` block.

    Parameters
    ----------
    run
        Makes and runs the head until the event that it is given is set.

    Attributes
    ----------
    error
        What ended the head before its time.
    """

    def __init__(self, run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        self._run = run
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="head", daemon=True)

    def __enter__(self) -> "HeadThread":
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise StoreError("the head did not start: no answer in time")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_TIMEOUT_S)

    def _main(self) -> None:
        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self._started.set()
            await self._run(self._stop)

        try:
            asyncio.run(serve())
        except Exception as error:  # noqa: BLE001 - told to who waits for it
            self.error = error
            self._started.set()
