"""Raws as they come into a Butler repository: a source for a head that begins when a raw is ingested, and no sooner.

Messages of the ingest role wake it (`rapid.ingest.store`); a query of the newest days, at the start and every minute,
is the safety net. The repository is the truth: a message only says where to look.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from rapid.arrival.dedupe import Content
from rapid.arrival.door import Door, quarantined
from rapid.arrival.models import Arrival, RawHeader
from rapid.butler.middleware import daf_butler
from rapid.butler.place import from_butler
from rapid.butler.repository import open_reader, passing_errors
from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.errors import ConfigurationError, NotFoundError, RawError, StoreError
from rapid.ingest import store
from rapid.ingest.look import look_at_raw
from rapid.pause import pause

log = structlog.get_logger()

SCHEME = "butler:"
SWEEP_S = 60.0
RETRY_S = 2.0
RETRY_MAX_S = 16.0
"""Longest pause before files that a server did not give are asked for again; it doubles."""
N_LOOKS = 8
KINDS = ("raw", "guider_raw")


def is_butler_url(url: str) -> bool:
    """Whether raws are to be taken from a Butler repository.

    Examples
    --------
    >>> is_butler_url("butler:/repo/main"), is_butler_url("/data/raws")
    (True, False)
    """
    return url.startswith(SCHEME)


class ButlerSource:
    """The raws of a repository.

    Parameters
    ----------
    url
        ``butler:`` and the repository's root.
    board
        Where ingest tells what is in.
    run
        RUN collection of the raws.
    n_days
        Newest observing days that are queried; older raws come by a request.
    """

    def __init__(
        self,
        url: str,
        camera: Camera,
        board: AsyncBoard,
        *,
        run: str,
        n_days: int = 2,
        sweep_s: float = SWEEP_S,
    ) -> None:
        root = url.removeprefix(SCHEME)
        if not root:
            raise ConfigurationError("raws", "butler: is followed by the root of a repository")
        daf_butler()
        self._root = root
        self._camera = camera
        self._board = board
        self._run = run
        self._n_days = n_days
        self._sweep_s = sweep_s
        self._door = Door()
        self._butler: Any = None

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what is in the repository: first what is there, newest exposure first, then what comes.

        Every call begins anew. A repository or board that does not answer is asked again.
        """
        self._door = Door()
        seen: set[str] = set()
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="butler")
        looks = ThreadPoolExecutor(N_LOOKS, thread_name_prefix="look")
        after = "0-0"
        sweep_at = loop.time()
        unread: list[str] = []
        retry_at, retry_s = math.inf, RETRY_S
        try:
            while True:
                try:
                    exposures: list[int] | None = None
                    is_retry = loop.time() >= retry_at
                    if is_retry:
                        retry_at = math.inf
                    elif loop.time() >= sweep_at:
                        # The stream's end first: what comes in between is seen twice, never not at all.
                        after = await self._board.connection.run(store.last_ingested_id(self._board.prefix))
                    else:
                        messages = await self._board.connection.run(
                            store.follow_ingested(
                                self._board.prefix,
                                after,
                                timeout_s=min(max(min(sweep_at, retry_at) - loop.time(), 0.001), store.BLOCK_S),
                            )
                        )
                        if not messages:
                            continue
                        after = messages[-1][0]
                        exposures = sorted({message.exposure_id for _, message in messages}, reverse=True)
                    if is_retry:
                        uris, unread = unread, []
                    else:
                        uris = await loop.run_in_executor(thread, self._query, exposures)
                        if exposures is None:
                            sweep_at = loop.time() + self._sweep_s
                    arrivals, missed = await self._look([uri for uri in uris if uri not in seen], looks)
                    for arrival in arrivals:
                        seen.add(arrival.uri)
                        yield arrival
                    if missed:
                        # One that its server does not give holds up no other.
                        log.warning("raws cannot be read for now", n=len(missed), uri=missed[0])
                        unread = list(dict.fromkeys([*unread, *missed]))
                        retry_s = min(2.0 * retry_s, RETRY_MAX_S) if is_retry else RETRY_S
                        retry_at = loop.time() + retry_s
                except (StoreError, ConfigurationError) as error:
                    # Before the first raw is ingested there is no repository.
                    log.warning("the repository is not read for now", error=error.message)
                    sweep_at = loop.time()
                    await pause(RETRY_S)
        finally:
            await loop.run_in_executor(thread, self._close)
            thread.shutdown(wait=False)
            looks.shutdown(wait=False, cancel_futures=True)

    async def _look(self, uris: Sequence[str], looks: ThreadPoolExecutor) -> tuple[list[Arrival], list[str]]:
        """Return what arrived, and which of the files were not given by their server."""
        loop = asyncio.get_running_loop()
        found: list[Arrival] = []
        missed: list[str] = []
        for begin in range(0, len(uris), 500):
            some = uris[begin : begin + 500]
            answers = await asyncio.gather(*(loop.run_in_executor(looks, self._look_at, uri) for uri in some))
            found += [answer for answer in answers if answer is not None and not isinstance(answer, str)]
            missed += [answer for answer in answers if isinstance(answer, str)]
        return found, missed

    def _look_at(self, uri: str) -> Arrival | str | None:
        """Return what arrived; the URI if its server does not answer; None if there is nothing to tell."""
        try:
            header, size = look_at_raw(uri, self._camera)
        except RawError as error:
            return quarantined(uri, error, None)
        except NotFoundError:
            log.warning("a raw of the repository is gone", uri=uri)
            return None
        except StoreError as error:
            log.info("a raw of the repository cannot be read for now", uri=uri, error=error.message)
            return uri
        return self._door.admit(header, Content(uri, size, str(size)))

    def _query(self, exposures: Iterable[int] | None) -> list[str]:
        """Return where raws are, of exposures or of the newest days, newest exposure first."""
        with passing_errors():
            if self._butler is None:
                self._butler = open_reader(self._root)
            here = {"instrument": self._camera.name}
            if exposures is None:
                try:
                    days = self._butler.query_dimension_records("day_obs", **here, explain=False, limit=None)
                except daf_butler().DimensionValueError:
                    return []  # the instrument is not registered: nothing has been ingested
                wheres = [{"day_obs": day} for day in sorted((day.id for day in days), reverse=True)[: self._n_days]]
            else:
                wheres = [{"exposure": exposure_id} for exposure_id in exposures]
            return [uri for where in wheres for kind in KINDS for uri in self._uris(kind, {**here, **where})]

    def _uris(self, kind: str, where: dict[str, Any]) -> list[str]:
        lsst = daf_butler()
        try:
            refs = self._butler.query_datasets(
                kind,
                collections=self._run,
                data_id=where,
                limit=None,
                explain=False,
                order_by=["-exposure", "detector"],
            )
        except (lsst.MissingDatasetTypeError, lsst.MissingCollectionError):
            self._butler.close()
            self._butler = None  # made since we opened it, perhaps
            return []
        if not refs:
            return []
        found = self._butler.get_many_uris(refs, allow_missing=True)
        return [from_butler(str(found[ref].primaryURI)) for ref in refs if ref in found]

    def _close(self) -> None:
        if self._butler is not None:
            self._butler.close()
            self._butler = None

    def read(self, uri: str) -> bytes:
        """Return a raw's bytes."""
        from rapid.arrival.source import read_raw

        return read_raw(uri)

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is; see `rapid.arrival.source.RawSource`."""
        header = self._door.header_of(uri)
        return header if header is not None else look_at_raw(uri, self._camera)[0]
