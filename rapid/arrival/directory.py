"""Raws that land in a watched directory.

Events of the system (inotify) wake us; a sweep at the start finds what was there, a sweep of each new
folder what came before it was watched, and a slow sweep whatever an event was lost for. What an event
says is not relied on: every time, the file itself is looked at (`rapid.arrival.look`) and the decision is
one pure function (`rapid.arrival.decide`).
"""

import asyncio
import contextlib
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from rapid.arrival.decide import FileKind, FileLook, Patience, Verdict, decide_file, kind_of
from rapid.arrival.dedupe import Content
from rapid.arrival.door import Door, expected_sensors, quarantined
from rapid.arrival.look import Look, Stamp, look_at, stamp_at
from rapid.arrival.models import Arrival, IsDone, RawHeader
from rapid.arrival.settled import SettledFiles
from rapid.arrival.sweep import Sweeper, newest_first
from rapid.camera.models import Camera
from rapid.errors import ConfigurationError, NotFoundError, StoreError

log = structlog.get_logger()

BATCH = 16
"""Files looked at in one go: 3 ms each; more would delay the first of them, less cost a thread switch each."""

# A folder made while its parent is being listed is watched twice; watchdog says so, and all is well.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)

UNWATCHED_SWEEP_S = 2.0
"""Between sweeps, where the system grants no watch (inotify limits, network file systems)."""


@dataclass
class _Pending:
    """A file that is not decided: how it was at the last look, since when, and when to look again."""

    stamp: Stamp
    since_s: float
    due_s: float


class _Events(FileSystemEventHandler):
    """Hands paths from watchdog's thread to the loop."""

    def __init__(self, watch: "_Watch", loop: asyncio.AbstractEventLoop) -> None:
        self._watch = watch
        self._loop = loop

    def on_any_event(self, event: FileSystemEvent) -> None:
        path = str(event.dest_path if isinstance(event, FileMovedEvent | DirMovedEvent) else event.src_path)
        if not event.is_directory and self._watch.kind_of(path) is FileKind.OTHER:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._watch.notice, path, event.is_directory)


class DirectorySource:
    """A directory into which raws are written, copied, moved or linked.

    Parameters
    ----------
    root
        The directory; made if it is not there.
    camera
        The camera its raws should be from; any known one if left out.
    patience
        How long to wait for files to become complete.
    sweep_s
        Between two listings of the whole tree, the safety net [s].
    is_done
        Whether a raw that was there before the watch began is done with; see `rapid.arrival.source.open_source`.
    """

    def __init__(
        self,
        root: Path,
        *,
        camera: Camera | None = None,
        patience: Patience | None = None,
        sweep_s: float = 30.0,
        is_done: IsDone | None = None,
    ) -> None:
        self.root = root.absolute()
        self._camera = camera
        self._patience = patience or Patience()
        self._sweep_s = sweep_s
        self._is_done = is_done
        self._door = Door()

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrives: first what is there, newest exposure first, then what comes.

        Every call begins anew.

        Raises
        ------
        StoreError
            Raised if the directory cannot be made.
        """
        self._door = Door()
        watch = _Watch(self.root, self._camera, self._patience, self._sweep_s, self._door, self._is_done)
        try:
            await watch.start()
            while True:
                for arrival in await watch.next_arrivals():
                    yield arrival
        finally:
            await watch.stop()

    def read(self, uri: str) -> bytes:
        """Return a raw's bytes."""
        return read_file(uri)

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is.

        Raises
        ------
        RawError
            Raised as the subclass that names what is wrong.
        NotFoundError
            Raised if it is gone.
        """
        header = self._door.header_of(uri)
        if header is not None:
            return header
        look = look_at(uri, kind=FileKind.RAW, camera=self._camera)
        if look is None:
            raise NotFoundError("raw", uri)
        if look.header is None:
            raise look.problem or NotFoundError("raw", uri)
        return look.header


class _Watch:
    """One run of a directory's watch; lives in one event loop."""

    def __init__(
        self,
        root: Path,
        camera: Camera | None,
        patience: Patience,
        sweep_s: float,
        door: Door,
        is_done: IsDone | None = None,
    ) -> None:
        self._root = root
        self._camera = camera
        self._patience = patience
        self._sweep_s = sweep_s
        self._door = door
        self._is_done = is_done
        self._began_ns = time.time_ns()
        self._sweeper = Sweeper(camera)
        self._fresh: OrderedDict[str, None] = OrderedDict()
        self._folders: set[str] = set()
        self._swept: deque[str] = deque()
        self._pending: dict[str, _Pending] = {}
        self._settled = SettledFiles(self._sweeper.close)
        self._wake = asyncio.Event()
        self._observer: BaseObserver | None = None
        self._inode = 0
        self._next_sweep_s = 0.0
        self._has_listed = False

    def kind_of(self, path: str) -> FileKind:
        """Return what a file is by its name, to the camera that is watched for."""
        return kind_of(path, self._camera)

    def notice(self, path: str, is_folder: bool) -> None:
        """Take in that something happened to a path."""
        if is_folder:
            self._folders.add(path)
        else:
            self._fresh[path] = None
        self._wake.set()

    async def start(self) -> None:
        """Watch first, then list: what comes in between is seen twice, never not at all."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder of raws {self._root}: {error.strerror}") from error
        await self._observe()
        self._folders.add(str(self._root))

    async def _observe(self) -> None:
        loop = asyncio.get_running_loop()
        observer = Observer()
        kinds: list[type[FileSystemEvent]] = [
            # Not FileModifiedEvent: a raw comes in hundreds of writes.
            FileClosedEvent,
            FileCreatedEvent,
            FileMovedEvent,
            DirCreatedEvent,
            DirMovedEvent,
        ]
        observer.schedule(_Events(self, loop), str(self._root), recursive=True, event_filter=kinds)
        try:
            await asyncio.to_thread(observer.start)
            self._inode = self._root.stat().st_ino
        except OSError as error:
            log.warning("raws are found by listing: no watch", folder=str(self._root), error=str(error))
            self._observer = None
            return
        self._observer = observer

    async def stop(self) -> None:
        """End the watch and its threads."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            await asyncio.to_thread(observer.join, 5.0)

    async def next_arrivals(self) -> list[Arrival]:
        """Return what came, after at most one wait; may be empty."""
        now_s = time.monotonic()
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + (self._sweep_s if self._observer is not None else UNWATCHED_SWEEP_S)
            await self._watch_again_if_needed()
            self._folders.add(str(self._root))
        await self._sweep_folders()
        paths = self._take_paths(time.monotonic())
        if paths:
            if self._is_done is not None:
                paths = await asyncio.to_thread(self._not_done, paths, self._is_done)
            looks = await asyncio.to_thread(self._look_at_all, paths)
            return [arrival for path, look in looks for arrival in self._decide(path, look)]
        self._wake.clear()
        if self._folders or self._fresh:
            return []  # noticed while a sweep was under way
        due_s = min((pending.due_s for pending in self._pending.values()), default=self._next_sweep_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(
                asyncio.get_running_loop().time() + max(0.0, min(due_s, self._next_sweep_s) - time.monotonic())
            ):
                await self._wake.wait()
        return []

    async def _watch_again_if_needed(self) -> None:
        """Watch anew if the directory was replaced, or comes back: its old watch is dead."""
        if self._observer is None and self._inode == 0:
            return
        try:
            inode = self._root.stat().st_ino
        except OSError:
            return
        if inode != self._inode or self._observer is None:
            await self.stop()
            await self._observe()

    async def _sweep_folders(self) -> None:
        folders, self._folders = self._folders, set()
        if str(self._root) in folders:
            folders = {str(self._root)}
        for folder in folders:
            now_ns = time.time_ns()
            found = await asyncio.to_thread(self._sweeper.sweep, folder, now_ns=now_ns)
            queued = {*self._swept, *self._fresh}
            new = [
                path
                for path, stamp in found
                if not self._settled.holds(path, stamp) and path not in self._pending and path not in queued
            ]
            self._swept.extend(newest_first(new))
            if folder == str(self._root):
                self._doubt_the_watch(len(new))

    def _doubt_the_watch(self, n_new: int) -> None:
        """List more often while listing finds what no event told of: a dead watch, a folder behind a link."""
        if n_new and self._has_listed and self._observer is not None:
            log.warning("raws found that no event told of", n_raws=n_new, folder=str(self._root))
            self._next_sweep_s = min(self._next_sweep_s, time.monotonic() + UNWATCHED_SWEEP_S)
        self._has_listed = True

    def _take_paths(self, now_s: float) -> list[str]:
        """Return the next files to look at: what just happened, then what is due, then what a sweep found."""
        paths: list[str] = []
        while self._fresh and len(paths) < BATCH:
            paths.append(self._fresh.popitem(last=False)[0])
        if len(paths) < BATCH:
            paths += [path for path, pending in self._pending.items() if pending.due_s <= now_s and path not in paths]
        while self._swept and len(paths) < BATCH:
            paths.append(self._swept.popleft())
        return list(dict.fromkeys(paths))

    def _not_done(self, paths: list[str], is_done: IsDone) -> list[str]:
        """Return files that have to be looked at; those that are done with are decided."""
        left: list[str] = []
        for path in paths:
            stamp = stamp_at(path) if self.kind_of(path) is FileKind.RAW else None
            # What was written since goes the usual way: it is news, or was written anew.
            if stamp is not None and stamp.modified_ns < self._began_ns and is_done(path, stamp.size_bytes):
                self._settled.add(path, stamp)
                self._pending.pop(path, None)
            else:
                left.append(path)
        return left

    def _look_at_all(self, paths: list[str]) -> list[tuple[str, Look | None]]:
        return [(path, look_at(path, kind=self.kind_of(path), camera=self._camera)) for path in paths]

    def _decide(self, path: str, look: Look | None) -> list[Arrival]:
        if look is None or self._settled.holds(path, look.stamp):
            self._pending.pop(path, None)
            return []
        now_s = time.monotonic()
        before = self._pending.get(path)
        since_s = before.since_s if before and before.stamp == look.stamp else now_s
        # The server's clock and ours may differ: whichever saw it unchanged for longer.
        unchanged_s = max(now_s - since_s, look.idle_s)
        verdict, wait_s = decide_file(FileLook(look.writer, look.problem, unchanged_s), self._patience)
        if verdict is Verdict.WAIT:
            self._pending[path] = _Pending(look.stamp, since_s, now_s + wait_s)
            return []
        self._pending.pop(path, None)
        self._settled.add(path, look.stamp)
        arrival = self._arrival(path, look)
        return [] if arrival is None else [arrival]

    def _arrival(self, path: str, look: Look) -> Arrival | None:
        if look.problem is not None:
            return quarantined(path, look.problem, look.stamp.size_bytes)
        if look.header is not None:
            mark = f"{look.stamp.modified_ns}"
            return self._door.admit(look.header, Content(path, look.stamp.size_bytes, mark))
        return expected_sensors(path, look.sensors or frozenset(), self._camera)


def read_file(path: str) -> bytes:
    """Return a file's bytes.

    Raises
    ------
    NotFoundError
        Raised if it is not there.
    StoreError
        Raised if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("raw", path) from error
    except IsADirectoryError as error:
        raise ConfigurationError("raw", f"{path} is a folder") from error
    except OSError as error:
        raise StoreError(f"raw {path}: {error.strerror}", errno=error.errno) from error
