"""Results into a Butler repository, off the fast path: one parcel an exposure, made and put when its turn comes.

What is there already with the same content stays, so that a parcel may be sent again at any time. What was put is noted
in the results store, so that the rest is found whenever it came to be (`rapid.publish.catch_up`).
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from rapid.butler.calibs import CalibShelf
from rapid.butler.output import ResultsShelf, pieces_of
from rapid.butler.repository import Repository
from rapid.errors import NotFoundError, PayloadError, RapidError, StoreError
from rapid.products.store import ProductsStore
from rapid.publish.catch_up import CatchUp
from rapid.publish.metrics import PublishMetrics
from rapid.publish.outbox import Outbox, Parcel
from rapid.publish.status import DestinationStatus
from rapid.results.changes import CalibLine, Changes, DueSummary
from rapid.results.models import CalibRecord, CalibState, DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

MAX_ATTEMPTS = 5
"""What the Butler refuses so often is given up, visibly."""


LIVE, CALIBS, LATER = 0, 1, 2
"""What goes first: the night's own summaries, then calibs, then campaigns and what was missed."""

MAX_PLACE = 200


def place_of(root: str) -> str:
    """Return the name under which it is noted what a repository has."""
    name = f"butler {root}"
    return name if len(name) <= MAX_PLACE else f"butler {hashlib.sha256(root.encode()).hexdigest()}"


class ButlerDestination:
    """The repository, as an outbox talks to it; opened when it is first needed.

    Parameters
    ----------
    open_repository
        Opens it. Raises `StoreError` for what may pass.
    calibs
        Folder of certified calibs.
    root
        The repository's root, or any name of its own.
    """

    name = "butler"

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        results: ResultsStore,
        products: ProductsStore,
        calibs: Path,
        *,
        root: str = "",
    ) -> None:
        self._open_repository = open_repository
        self._results = results
        self._products = products
        self._calibs = calibs
        self._changes = Changes(results.engine)
        self.place = place_of(root)
        self._shelf: ResultsShelf | None = None
        self._calib_shelf: CalibShelf | None = None
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

    def prepare(self, camera: str) -> None:
        """Open the repository; of one that was made anew, note that it has nothing.

        Raises
        ------
        StoreError
            Raised if it does not answer.
        """
        self._thread.submit(self._open, camera).result()

    def _open(self, camera: str) -> tuple[ResultsShelf, CalibShelf]:
        if self._shelf is None or self._calib_shelf is None:
            self._repository = self._open_repository()
            if self._repository.is_new:
                self._changes.forget(self.place, camera)
                self._repository.is_new = False
            self._shelf = ResultsShelf(self._repository)
            self._calib_shelf = CalibShelf(self._shelf, self._load_calib)
        return self._shelf, self._calib_shelf

    def _put(self, document: dict[str, Any]) -> None:
        if "line" in document:
            self._put_line(document)
            return
        summary = ExposureSummary.model_validate(document["summary"])
        shelf, calibs = self._open(summary.camera)
        results = [DetectorResult.model_validate(one) for one in document["results"]]
        n_new = shelf.put_exposure(summary, pieces_of(summary, results, self._products.get))
        for result in results:
            for calib_id in (*result.provenance.calibs.values(), *_built_by(result)):
                self._put_calib(calibs, summary.camera, calib_id)
        put = DueSummary(summary.exposure, summary.day_obs, summary.run, summary.pipeline, document["n_changes"])
        self._changes.note_put(self.place, summary.camera, put)
        log.info("exposure put into the Butler", exposure_id=summary.exposure, pipeline=summary.pipeline, n_new=n_new)

    def _put_calib(self, calibs: CalibShelf, camera: str, calib_id: str) -> None:
        """Put a calib that a result was made with; it is certified for its time if it still is with us."""
        if calib_id in self._calibs_put:
            return
        try:
            record = self._results.calib(camera, calib_id)
        except NotFoundError as error:
            log.warning("a calib is unknown and is left out", calib_id=calib_id, error=error.message)
            return
        if calibs.put(record) is None:
            return
        line = self._results.calibs(
            camera, kind=record.kind, detector=record.detector, physical_filter=record.physical_filter or ""
        )
        calibs.certify(line, record)
        self._calibs_put.add(calib_id)

    def _put_line(self, document: dict[str, Any]) -> None:
        like = CalibRecord.model_validate(document["line"])
        _, calibs = self._open(like.camera)
        records = [CalibRecord.model_validate(one) for one in document["records"]]
        if calibs.certify(records, like):
            log.info("calibs certified in the Butler", kind=like.kind, detector=like.detector, n_calibs=len(records))

    def _load_calib(self, record: CalibRecord) -> bytes:
        try:
            return (self._calibs / record.path).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError("calib file", record.path) from error


def _built_by(result: DetectorResult) -> tuple[str, ...]:
    """Return the calib that a job built and that was certified; what was refused stays with us."""
    calib_id = result.metrics.get("calib_id")
    is_certified = result.metrics.get("calib_state") == CalibState.CERTIFIED.value
    return (calib_id,) if isinstance(calib_id, str) and is_certified else ()


class ButlerSink:
    """Turns summaries into parcels for the repository.

    Parameters
    ----------
    camera
        Whose results, to be caught up with.
    look_s
        Time after which it is looked anew for what was missed, if nothing is told [s].
    """

    name = ButlerDestination.name

    def __init__(
        self,
        destination: ButlerDestination,
        results: ResultsStore,
        *,
        camera: str = "",
        max_age_s: float = 86_400.0,
        look_s: float = 10.0,
        metrics: PublishMetrics | None = None,
        **outbox: Any,
    ) -> None:
        self._destination = destination
        self._results = results
        self._changes = Changes(results.engine)
        metrics = metrics or PublishMetrics()
        self._outbox = Outbox(destination, n_parallel=1, max_age_s=max_age_s, metrics=metrics, **outbox)
        self._camera = camera
        self._catch_up = CatchUp(
            self._changes,
            self._outbox,
            place=destination.place,
            camera=camera,
            summary_parcel=self._later,
            calib_parcel=self._line,
            look_s=look_s,
            metrics=metrics,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop."""
        try:
            await self._outbox.run(stop)
        finally:
            await asyncio.to_thread(self._destination.close)

    async def catch_up(self) -> None:
        """Put what was missed, for ever, as long as the right to publish is ours."""
        try:
            await asyncio.to_thread(self._destination.prepare, self._camera)
        except Exception as error:  # noqa: BLE001 - told with the first parcel, which is tried again or given up for it
            log.warning("the Butler's repository cannot be opened yet", error=str(error)[:300])
        await self._catch_up.run()

    def look_again(self) -> None:
        """Have it looked now for what was missed."""
        self._catch_up.wake()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is sent; return whether it is."""
        return await self._outbox.drain(timeout_s)

    def put(self, summary: ExposureSummary) -> None:
        """Take in a summary; never waits."""
        if not summary.n_finished:
            return
        rank = LIVE if summary.run == "prompt" else LATER
        key = DueSummary(summary.exposure, summary.day_obs, summary.run, summary.pipeline, 0)
        self._outbox.offer(self._parcel(key, summary.camera, rank))
        self._catch_up.note_offered(self._key(key, summary.camera))

    @staticmethod
    def _key(due: DueSummary, camera: str) -> str:
        return f"{camera}/{due.run}/{due.day_obs}/{due.exposure % 100_000}/{due.pipeline}"

    def _later(self, due: DueSummary) -> Parcel:
        return self._parcel(due, self._camera, LATER)

    def _parcel(self, due: DueSummary, camera: str, rank: int) -> Parcel:
        # Contents are made when they are sent, of what is stored then: one parcel of a key is as good as another.
        return Parcel(self._key(due, camera), lambda: self._document(due, camera), rank=(rank, -due.exposure))

    def _document(self, due: DueSummary, camera: str) -> bytes | None:
        # Counted before it is read: what changes in between is due once more.
        n_changes = self._changes.n_changes(
            camera, day_obs=due.day_obs, run=due.run, exposure=due.exposure, pipeline=due.pipeline
        )
        summary = self._results.latest_summary(camera, due.exposure, pipeline=due.pipeline, run=due.run)
        if summary is None:
            self._changes.note_put(self._destination.place, camera, due)  # it was taken away: there is nothing to put
            return None
        results = self._results.results(due.exposure, camera=camera, run=due.run, pipeline=due.pipeline)
        document = {
            "summary": summary.model_dump(mode="json"),
            "results": [result.model_dump(mode="json") for result in results],
            "n_changes": n_changes,
        }
        return json.dumps(document, sort_keys=True).encode()

    def _line(self, line: CalibLine) -> Parcel:
        key = f"{self._camera}/calib/{line.kind}/{line.detector}/{line.physical_filter}"
        return Parcel(key, lambda: self._line_document(line), rank=(CALIBS, -line.event))

    def _line_document(self, line: CalibLine) -> bytes | None:
        facts: dict[str, Any] = {
            "kind": line.kind, "detector": line.detector, "physical_filter": line.physical_filter,
        }  # fmt: skip
        any_state = self._results.calibs(self._camera, **facts, state=None)
        records = [one for one in any_state if one.state is CalibState.CERTIFIED]
        ever = {one.calib_id for one in any_state if one.state is not CalibState.REJECTED}
        if not ever:
            return None  # refused, and never there
        document = {
            "line": any_state[0].model_dump(mode="json"),
            "records": [record.model_dump(mode="json") for record in records],
        }
        return json.dumps(document, sort_keys=True).encode()

    @property
    def status(self) -> DestinationStatus:
        """How it stands."""
        status = self._outbox.status
        n_behind = self._catch_up.n_behind
        notes = [*status.notes, *([self._catch_up.note] if self._catch_up.note else [])]
        return status.model_copy(update={"n_behind": n_behind, "notes": notes})
