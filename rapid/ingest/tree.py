"""Files that are no raws, where they arrive: a directory or a bucket that is listed, again and again.

The directory's events only make the next listing come sooner. A file is complete once it has not changed for a while;
an object is when it is seen.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from rapid.errors import StoreError
from rapid.ingest.files import FileRule, find_rule
from rapid.ingest.inbox import Inbox
from rapid.ingest.models import Item
from rapid.products.s3 import S3_ERRORS, S3Location, as_rapid_error, client_for, is_s3_uri, parse_store_url
from rapid.products.store import path_of

log = structlog.get_logger()

SETTLE_S = 2.0


class FileTree:
    """A place that is listed for files that a rule is for.

    Parameters
    ----------
    sweep_s
        Between two listings without an event [s].
    settle_s
        A file must be unchanged for so long [s].
    """

    def __init__(
        self,
        url: str,
        rules: tuple[FileRule, ...],
        camera: str,
        *,
        sweep_s: float = 30.0,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._place = parse_store_url(url) if is_s3_uri(url) else None
        self._root = None if self._place is not None else path_of(url).absolute()
        self._rules = rules
        self._camera = camera
        self._sweep_s = sweep_s
        self._settle_s = settle_s
        self._seen: dict[str, str] = {}

    async def follow(self, inbox: Inbox) -> None:
        """Put in every file that a rule is for, once for each content, until cancelled.

        Raises
        ------
        StoreError
            Raised if the place cannot be listed.
        """
        wake = asyncio.Event()
        with self._watch(wake):
            while True:
                wake.clear()
                found, due_s = await asyncio.to_thread(self._list)
                for uri, size, mark in found:
                    self._seen[uri] = mark
                    await inbox.put(Item(uri, since_s=time.monotonic(), size_bytes=size))
                if due_s is not None:
                    # Something is being written, or was a moment ago: look when it has had time to settle.
                    await _wait_for(asyncio.Event(), min(due_s + 0.01, self._sweep_s))
                else:
                    await _wait_for(wake, self._sweep_s)

    @contextlib.contextmanager
    def _watch(self, wake: asyncio.Event) -> Iterator[None]:
        if self._root is None:
            yield
            return
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder of files {self._root}: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        handler = FileSystemEventHandler()

        def notice(_event: FileSystemEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)

        handler.on_closed = notice  # type: ignore[method-assign, assignment] # of every kind of event alike
        handler.on_moved = notice  # type: ignore[method-assign, assignment] # of every kind of event alike
        observer = Observer()
        observer.schedule(handler, str(self._root), recursive=True)
        try:
            observer.start()
        except OSError as error:
            log.warning("files are found by listing: no watch", folder=str(self._root), error=str(error))
            yield
            return
        try:
            yield
        finally:
            observer.stop()
            observer.join(5.0)

    def _list(self) -> tuple[list[tuple[str, int, str]], float | None]:
        """Return URI, size and mark of what is new, and after how long something will have settled [s]."""
        news: list[tuple[str, int, str]] = []
        due_s: float | None = None
        now_s = datetime.now(UTC).timestamp()
        for uri, size, mark, changed_s in self._objects(self._place) if self._place else self._files():
            if self._seen.get(uri) == mark or find_rule(uri, self._rules, self._camera) is None:
                continue
            left_s = changed_s + self._settle_s - now_s
            if left_s > 0:
                due_s = min(due_s or left_s, left_s)
            else:
                news.append((uri, size, mark))
        return news, due_s

    def _files(self) -> Iterator[tuple[str, int, str, float]]:
        root = self._root
        assert root is not None  # noqa: S101 - asked by `_list`
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(OSError):  # gone, or a dangling link
                    facts = path.stat()
                    if not name.startswith("."):
                        yield str(path), facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}", facts.st_ctime

    @staticmethod
    def _objects(place: S3Location) -> Iterator[tuple[str, int, str, float]]:
        prefix = f"{place.path}/" if place.path else ""
        try:
            pages = client_for(place).get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield place.uri(entry["Key"]), entry["Size"], entry["ETag"], 0.0
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="bucket", key=place.bucket) from error


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
