"""Results into a Butler repository, off the fast path: one parcel an exposure, made and put when its turn comes.

What is there already with the same content stays, so that a parcel may be sent again at any time.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from rapid.butler.output import ResultsShelf, pieces_of
from rapid.butler.repository import Repository
from rapid.errors import NotFoundError, PayloadError, RapidError, StoreError
from rapid.products.store import ProductsStore
from rapid.publish.metrics import PublishMetrics
from rapid.publish.outbox import Outbox, Parcel
from rapid.publish.status import DestinationStatus
from rapid.results.models import CalibState, DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

MAX_ATTEMPTS = 5
"""What the Butler refuses so often is given up, visibly."""


class ButlerDestination:
    """The repository, as an outbox talks to it; opened when the first parcel comes.

    Parameters
    ----------
    open_repository
        Opens it. Raises `StoreError` for what may pass.
    calibs
        Folder of certified calibs.
    """

    name = "butler"

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        results: ResultsStore,
        products: ProductsStore,
        calibs: Path,
    ) -> None:
        self._open_repository = open_repository
        self._results = results
        self._products = products
        self._calibs = calibs
        self._shelf: ResultsShelf | None = None
        self._repository: Repository | None = None
        # The Butler is not safe for several threads, and an outbox sends from any.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="butler")
        self._calibs_put: set[str] = set()
        self._attempts: Counter[str] = Counter()

    def send(self, parcel: Parcel, data: bytes) -> None:
        """Put an exposure's datasets; raises as an outbox's destination does."""
        try:
            self._thread.submit(self._put, json.loads(data)).result()
        except RapidError:
            raise
        except Exception as error:
            # Of what the Butler raises nothing tells whether it passes; a bounded number of attempts does.
            reason = f"the Butler does not take it: {type(error).__name__}: {str(error).strip()[:300]}"
            self._attempts[parcel.key] += 1
            if self._attempts[parcel.key] >= MAX_ATTEMPTS:
                del self._attempts[parcel.key]
                raise PayloadError(reason) from error
            raise StoreError(reason) from error
        self._attempts.pop(parcel.key, None)

    def remove(self, key: str) -> None:
        """Nothing is ever taken away."""

    def close(self) -> None:
        """Close the repository."""
        if self._repository is not None:
            self._thread.submit(self._repository.close).result()
        self._thread.shutdown()

    def _put(self, document: dict[str, Any]) -> None:
        if self._shelf is None:
            self._repository = self._open_repository()
            self._shelf = ResultsShelf(self._repository)
        summary = ExposureSummary.model_validate(document["summary"])
        results = [DetectorResult.model_validate(one) for one in document["results"]]
        n_new = self._shelf.put_exposure(summary, pieces_of(summary, results, self._products.get))
        for result in results:
            for calib_id in (*result.provenance.calibs.values(), *_built_by(result)):
                self._put_calib(summary.camera, calib_id)
        log.info("exposure put into the Butler", exposure_id=summary.exposure, pipeline=summary.pipeline, n_new=n_new)

    def _put_calib(self, camera: str, calib_id: str) -> None:
        if calib_id in self._calibs_put or self._shelf is None:
            return
        try:
            record = self._results.calib(camera, calib_id)
            data = (self._calibs / record.path).read_bytes()
        except (NotFoundError, FileNotFoundError) as error:
            log.warning("a calib is gone and is left out", calib_id=calib_id, error=str(error))
            return
        if record.physical_filter is not None and self._repository is not None:
            self._repository.register_filter(record.physical_filter)
        self._shelf.put_calib(record, data)
        self._calibs_put.add(calib_id)


def _built_by(result: DetectorResult) -> tuple[str, ...]:
    """Return the calib that a job built and that was certified; what was refused stays with us."""
    calib_id = result.metrics.get("calib_id")
    is_certified = result.metrics.get("calib_state") == CalibState.CERTIFIED.value
    return (calib_id,) if isinstance(calib_id, str) and is_certified else ()


class ButlerSink:
    """Turns summaries into parcels for the repository."""

    name = ButlerDestination.name

    def __init__(
        self,
        destination: ButlerDestination,
        results: ResultsStore,
        *,
        max_age_s: float = 86_400.0,
        metrics: PublishMetrics | None = None,
        **outbox: Any,
    ) -> None:
        self._destination = destination
        self._results = results
        self._outbox = Outbox(destination, n_parallel=1, max_age_s=max_age_s, metrics=metrics, **outbox)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop."""
        try:
            await self._outbox.run(stop)
        finally:
            await asyncio.to_thread(self._destination.close)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is sent; return whether it is."""
        return await self._outbox.drain(timeout_s)

    def put(self, summary: ExposureSummary) -> None:
        """Take in a summary; never waits."""
        if not summary.n_finished:
            return
        key = f"{summary.camera}/{summary.run}/{summary.day_obs}/{summary.seq_num}/{summary.pipeline}"
        self._outbox.offer(
            Parcel(key, lambda: self._document(summary), version=summary.version, rank=(-summary.exposure,))
        )

    def _document(self, summary: ExposureSummary) -> bytes:
        results = self._results.results(
            summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline
        )
        document = {
            "summary": summary.model_dump(mode="json"),
            "results": [result.model_dump(mode="json") for result in results],
        }
        return json.dumps(document, sort_keys=True).encode()

    @property
    def status(self) -> DestinationStatus:
        """How it stands."""
        return self._outbox.status
