"""Raws that land in a bucket: told by notifications, with listing as the safety net.

An object is complete when it is seen: S3 shows none before its upload has ended. Notifications may be
lost, repeated or late; listing finds what they left out, and every few seconds if none ever come.
"""

import asyncio
import contextlib
import functools
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog

from rapid.arrival.decide import FileKind, kind_of
from rapid.arrival.dedupe import Content
from rapid.arrival.door import Door, expected_sensors, quarantined
from rapid.arrival.models import Arrival, IsDone, RawHeader
from rapid.arrival.notification import NotificationReceipt, ObjectCreated, Sequencers, parse_notification
from rapid.arrival.ranged import RangedBytes, read_raw_header, read_sidecar
from rapid.arrival.sweep import newest_first
from rapid.camera.models import Camera
from rapid.errors import NotFoundError, RawError, StoreError
from rapid.products.s3 import S3_ERRORS, S3Location, as_rapid_error, client_for, parse_object_uri

log = structlog.get_logger()

UNTOLD_SWEEP_S = 2.0
"""Between listings while no notification has come."""

SWEEP_SHARE = 5
"""Listing may take a fifth of the time: a night of 200 000 objects takes seconds to list."""

RETRY_S = 2.0
"""Before a key whose object could not be read is tried again."""

REMEMBERED = 500_000
"""Keys that are not looked at again when listed: two nights of LSSTCam."""

_DAY = re.compile(r"(?:19|20)\d{6}/$")


@dataclass(frozen=True)
class _Found:
    """An object to look at."""

    key: str
    size_bytes: int | None = None
    etag: str = ""
    is_listed: bool = False


@dataclass(frozen=True)
class _Seen:
    """What a look at an object saw."""

    found: _Found
    header: RawHeader | None = None
    sensors: frozenset[str] | None = None
    problem: RawError | None = None
    is_done: bool = False


class BucketSource:
    """A bucket into which raws are uploaded.

    Parameters
    ----------
    place
        Bucket and prefix.
    camera
        The camera its raws should be from; any known one if left out.
    sweep_s
        Between two listings once notifications come, the safety net [s].
    n_days
        If given, only the newest so many ``YYYYMMDD/`` folders are listed.
    n_threads
        Objects looked at together; each takes some twenty short reads.
    secret
        What ``opaqueData`` of notifications must say.
    is_done
        Whether an object that was listed is done with; see `rapid.arrival.source.open_source`.
    """

    def __init__(
        self,
        place: S3Location,
        *,
        camera: Camera | None = None,
        sweep_s: float = 60.0,
        n_days: int | None = None,
        n_threads: int = 16,
        secret: str | None = None,
        is_done: IsDone | None = None,
    ) -> None:
        self.place = place
        self._camera = camera
        self._sweep_s = sweep_s
        self._n_days = n_days
        self._n_threads = n_threads
        self._secret = secret
        self._is_done = is_done
        self._door = Door()
        self._watch: _BucketWatch | None = None
        self._lock = threading.Lock()
        self.is_told = False

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrives: first what is there, newest exposure first, then what comes.

        Every call begins anew. A bucket that does not answer is asked again; nothing is lost by it.
        """
        self._door = Door()
        watch = _BucketWatch(self, asyncio.get_running_loop())
        with self._lock:
            self._watch = watch
        try:
            while True:
                for seen in await watch.next_looks():
                    arrival = self._arrival(seen)
                    if arrival is not None:
                        yield arrival
        finally:
            with self._lock:
                if self._watch is watch:
                    self._watch = None
            await watch.stop()

    def notify(self, body: bytes | str) -> NotificationReceipt:
        """Take in a notification, from any thread; quick, whatever it says.

        Without a running watch it is dropped: a watch lists the bucket when it begins.
        """
        created, receipt = parse_notification(body, secret=self._secret)
        if receipt.n_bad or receipt.n_refused:
            log.warning("bad notification records", n_bad=receipt.n_bad, n_refused=receipt.n_refused)
        ours = [one for one in created if one.bucket == self.place.bucket and self._is_ours(one.key)]
        with self._lock:
            if ours and self._watch is not None:
                self.is_told = True
                self._watch.take_soon(ours)
        return receipt

    def _is_ours(self, key: str) -> bool:
        prefix = f"{self.place.path}/" if self.place.path else ""
        return key.startswith(prefix) and kind_of(key, self._camera) is not FileKind.OTHER

    def read(self, uri: str) -> bytes:
        """Return a raw's bytes."""
        return read_object(uri)

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is; see `rapid.arrival.source.RawSource`."""
        header = self._door.header_of(uri)
        if header is not None:
            return header
        place = parse_object_uri(uri)
        seen = self.look(_Found(place.path))
        if seen.header is None:
            raise seen.problem or NotFoundError("raw", uri)
        return seen.header

    def look(self, found: _Found) -> _Seen:
        """Look at an object.

        Raises
        ------
        NotFoundError
            Raised if it is gone.
        StoreError
            Raised if the server did not answer.
        """
        uri = self.place.uri(found.key)
        kind = kind_of(found.key, self._camera)
        is_old_raw = found.is_listed and kind is FileKind.RAW
        if is_old_raw and self._is_done is not None and self._is_done(uri, found.size_bytes or 0):
            return _Seen(found, is_done=True)
        try:
            if found.size_bytes is None or not found.etag:
                found = self._ask(found.key)
            seen = self._read(found, kind, uri)
            if seen.problem is not None and not found.is_listed:
                # Servers tell of sizes that are none (of a part, or 0): nobody's raw is bad by hearsay.
                asked = self._ask(found.key)
                seen = seen if asked == found else self._read(asked, kind, uri)
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="raw", key=found.key) from error
        return seen

    def _ask(self, key: str) -> _Found:
        """Return an object's size and ETag as the server has them now."""
        about = client_for(self.place).head_object(Bucket=self.place.bucket, Key=key)
        return _Found(key, int(about["ContentLength"]), str(about["ETag"]).strip('"'))

    def _read(self, found: _Found, kind: FileKind, uri: str) -> _Seen:
        header, sensors, problem = None, None, None
        data = RangedBytes(found.size_bytes or 0, functools.partial(self._fetch, found.key), ahead=64 * 1024)
        try:
            if kind is FileKind.RAW:
                header = read_raw_header(data, uri=uri, camera=self._camera)
            else:
                sensors = read_sidecar(data)
        except RawError as error:
            problem = error
        return _Seen(found, header, sensors, problem)

    def _fetch(self, key: str, offset: int, length: int) -> bytes:
        answer: Any = client_for(self.place).get_object(
            Bucket=self.place.bucket, Key=key, Range=f"bytes={offset}-{offset + length - 1}"
        )
        with answer["Body"] as body:
            data: bytes = body.read()
        return data

    def _arrival(self, seen: _Seen) -> Arrival | None:
        uri, size = self.place.uri(seen.found.key), seen.found.size_bytes or 0
        if seen.is_done:
            return None
        if seen.problem is not None:
            return quarantined(uri, seen.problem, size)
        if seen.header is not None:
            return self._door.admit(seen.header, Content(uri, size, seen.found.etag))
        return expected_sensors(uri, seen.sensors or frozenset(), self._camera)

    def sweep(self) -> Iterator[_Found]:
        """Yield the raws and side-cars of the bucket."""
        base = f"{self.place.path}/" if self.place.path else ""
        try:
            if self._n_days is None:
                yield from self._list(base)
            else:
                yield from self._list_days(base, self._n_days, depth=3)
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="bucket", key=self.place.bucket) from error

    def _list(self, prefix: str) -> Iterator[_Found]:
        pages = client_for(self.place).get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.place.bucket, Prefix=prefix):
            yield from self._found(page)

    def _found(self, page: Any) -> Iterator[_Found]:
        for entry in page.get("Contents", ()):
            if kind_of(entry["Key"], self._camera) is not FileKind.OTHER:
                yield _Found(entry["Key"], entry["Size"], entry["ETag"].strip('"'), is_listed=True)

    def _list_days(self, prefix: str, n_days: int, *, depth: int) -> Iterator[_Found]:
        """Yield objects of the newest days, wherever in the first levels the days are."""
        pages = client_for(self.place).get_paginator("list_objects_v2")
        folders: list[str] = []
        for page in pages.paginate(Bucket=self.place.bucket, Prefix=prefix, Delimiter="/"):
            yield from self._found(page)
            folders += [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
        days = sorted(folder for folder in folders if _DAY.search(folder))
        for folder in reversed(days[-n_days:]):
            yield from self._list(folder)
        for folder in folders:
            if folder not in days:
                yield from self._list_days(folder, n_days, depth=depth - 1) if depth > 1 else self._list(folder)

    @property
    def sweep_s(self) -> float:
        """Time between two listings [s]."""
        return self._sweep_s if self.is_told else min(UNTOLD_SWEEP_S, self._sweep_s)

    @property
    def n_threads(self) -> int:
        """Objects looked at together."""
        return self._n_threads


class _BucketWatch:
    """One run of a bucket's watch; lives in one event loop."""

    def __init__(self, source: BucketSource, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self._pool = ThreadPoolExecutor(source.n_threads, thread_name_prefix="look")
        self._sequencers = Sequencers()
        self._fresh: OrderedDict[str, _Found] = OrderedDict()
        self._swept: deque[_Found] = deque()
        self._retry_s: dict[str, float] = {}
        self._settled: OrderedDict[str, str] = OrderedDict()
        self._looks: dict[asyncio.Future[_Seen | None], str] = {}
        self._sweep: asyncio.Future[list[_Found]] | None = None
        self._sweep_began_s = 0.0
        self._next_sweep_s = 0.0
        self._wake = asyncio.Event()

    def take_soon(self, created: list[ObjectCreated]) -> None:
        """Take in events from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, created)

    def _take(self, created: list[ObjectCreated]) -> None:
        for one in created:
            if self._sequencers.take(one):
                self._fresh[one.key] = _Found(one.key, one.size_bytes, one.etag)
        self._wake.set()

    async def next_looks(self) -> list[_Seen]:
        """Return looks at objects that are news, after at most one wait; may be empty."""
        now_s = time.monotonic()
        if self._sweep is None and now_s >= self._next_sweep_s:
            self._sweep_began_s = now_s
            self._sweep = self._loop.run_in_executor(self._pool, lambda: list(self._source.sweep()))
        for key in [key for key, due_s in self._retry_s.items() if due_s <= now_s]:
            del self._retry_s[key]
            self._fresh.setdefault(key, _Found(key))
        self._begin_looks()
        wake = asyncio.ensure_future(self._wake.wait())
        waits: set[asyncio.Future[Any]] = {wake, *self._looks}
        if self._sweep is not None:
            waits.add(self._sweep)
        due_s = min([self._next_sweep_s if self._sweep is None else now_s + 3600.0, *self._retry_s.values()])
        try:
            await asyncio.wait(waits, timeout=max(0.0, due_s - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
        finally:
            wake.cancel()
        self._wake.clear()
        self._end_sweep()
        return self._end_looks()

    def _begin_looks(self) -> None:
        busy = set(self._looks.values())
        while len(self._looks) < self._source.n_threads - 1:  # one thread lists
            found = self._next_found(busy)
            if found is None:
                return
            busy.add(found.key)
            self._looks[self._loop.run_in_executor(self._pool, self._look, found)] = found.key

    def _next_found(self, busy: set[str]) -> _Found | None:
        for key in list(self._fresh):
            if key not in busy:
                return self._fresh.pop(key)
        while self._swept:
            found = self._swept.popleft()
            if found.key not in busy and self._settled.get(found.key) != found.etag:
                return found
        return None

    def _look(self, found: _Found) -> _Seen | None:
        try:
            return self._source.look(found)
        except NotFoundError:
            return None  # deleted meanwhile

    def _end_looks(self) -> list[_Seen]:
        seen: list[_Seen] = []
        for future in [future for future in self._looks if future.done()]:
            key = self._looks.pop(future)
            try:
                look = future.result()
            except StoreError as error:
                log.warning("object cannot be read, will try again", key=key, error=error.message)
                self._retry_s[key] = time.monotonic() + RETRY_S
                # What we could not reach may have lost notifications, too.
                self._next_sweep_s = min(self._next_sweep_s, time.monotonic() + RETRY_S)
                continue
            if look is None or self._settled.get(key) == look.found.etag != "":
                continue
            self._settled[key] = look.found.etag
            self._settled.move_to_end(key)
            while len(self._settled) > REMEMBERED:
                self._settled.popitem(last=False)
            seen.append(look)
        return seen

    def _end_sweep(self) -> None:
        if self._sweep is None or not self._sweep.done():
            return
        sweep, self._sweep = self._sweep, None
        now_s = time.monotonic()
        self._next_sweep_s = now_s + max(self._source.sweep_s, SWEEP_SHARE * (now_s - self._sweep_began_s))
        try:
            found = {one.key: one for one in sweep.result()}
        except (StoreError, NotFoundError) as error:
            log.error("bucket cannot be listed, will try again", error=error.message)
            self._next_sweep_s = now_s + RETRY_S
            return
        queued = {one.key for one in self._swept} | set(self._looks.values()) | self._retry_s.keys()
        new = [key for key, one in found.items() if self._settled.get(key) != one.etag and key not in queued]
        self._swept.extend(found[key] for key in newest_first(new))

    async def stop(self) -> None:
        """End the watch; looks that are under way come to nothing."""
        for future in self._looks:
            future.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)


def read_object(uri: str) -> bytes:
    """Return an object's bytes.

    Raises
    ------
    NotFoundError
        Raised if it is not there.
    StoreError
        Raised if its server did not answer.
    """
    place = parse_object_uri(uri)
    try:
        answer: Any = client_for(place).get_object(Bucket=place.bucket, Key=place.path)
        with answer["Body"] as body:
            data: bytes = body.read()
    except S3_ERRORS as error:
        raise as_rapid_error(error, kind="raw", key=uri) from error
    return data
