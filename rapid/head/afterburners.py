"""Post afterburners: expensive payloads that add to an exposure's results once it has been gathered.

They are backlog from the start, so that nothing current waits for them. What is missing is told from the results alone:
a finished detector whose result has no afterburner's numbers. A leader that begins looks at the newest nights for it, so
that nothing is forgotten with the board (I2); and a result that is done again, with other calibs, is posted again.
"""

import asyncio
import time
from collections.abc import Iterable

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec, Event, EventKind, Priority
from rapid.dispatch.redo import NotRedone, redo
from rapid.errors import RapidError, RefusedError, StoreError
from rapid.head.events import WAIT_S, follow_events
from rapid.head.exclusions import Exclusions
from rapid.pipeline.models import Pipeline, PipelineBook, base_of
from rapid.results.models import DetectorResult, DetectorState, ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

RUN = "prompt"
"""Afterburners belong to the night's own processing; a request names the payloads it wants."""

N_NIGHTS = 2
"""Newest nights that a new leader looks through: older ones are beyond what the board keeps on the backlog."""

PENDING = frozenset({DetectorState.WAITING, DetectorState.QUEUED, DetectorState.RUNNING})
"""Detectors that may still bring a result soon: the summary will be made again then."""

SETTLING_S = 120.0
"""How long a summary that is not whole is waited for to become so: as long as the night's own batches wait for raws."""

WAIT_MS = 2 * 24 * 3600 * 1000
"""Until a gather of an afterburner that is not done. Backlog may wait for the whole night; the summary is drawn once."""


class Afterburners:
    """Posts what the pipelines' afterburners lack, as long as its head leads.

    Parameters
    ----------
    camera, board, results, book
        As for the head.
    lead_token
        The lead under which it posts.
    settling_s
        How long a partial summary may become whole before the afterburner begins with what is there.
    """

    def __init__(
        self,
        camera: Camera,
        board: AsyncBoard,
        results: ResultsStore,
        book: PipelineBook,
        *,
        lead_token: int,
        settling_s: float = SETTLING_S,
    ) -> None:
        self._camera = camera
        self._board = board
        self._results = results
        self._token = lead_token
        self._settling_s = settling_s
        self._pipelines = {pipeline.name: pipeline for pipeline in book.pipelines if pipeline.afterburner}
        self._exclusions = Exclusions(camera, results)
        self._partial: dict[BatchKey, float] = {}

    async def run(self) -> None:
        """Post what is missing, now and after every summary; for ever, also if no pipeline has an afterburner."""
        if not self._pipelines:
            await asyncio.Event().wait()
        last = await self._board.last_event_id()
        await self._sweep()
        async for events in follow_events(self._board, last, wait_s=lambda: self._patience_s):
            now_s = time.monotonic()
            ripe = {key for key, since_s in self._partial.items() if now_s - since_s >= self._settling_s}
            for key in sorted({*self._gathered(events), *ripe}, key=lambda one: one.exposure_id, reverse=True):
                await self._look(key, is_final=key in ripe)

    @property
    def _patience_s(self) -> float:
        if not self._partial:
            return WAIT_S
        return min(max(min(self._partial.values()) + self._settling_s - time.monotonic(), 0.05), WAIT_S)

    def _gathered(self, events: Iterable[Event]) -> set[BatchKey]:
        """Return the batches with an afterburner that events tell a summary of; of the afterburner's own, that of its base."""
        found = set()
        for event in events:
            if event.kind is not EventKind.SUMMARY_READY or event.batch_id is None:
                continue
            key = BatchKey.parse(event.batch_id)
            name = base_of(key.pipeline) or key.pipeline
            if key.run == RUN and name in self._pipelines:
                found.add(key.model_copy(update={"pipeline": name}))
        return found

    async def _sweep(self) -> None:
        """Look at every exposure of the newest nights."""

        def search() -> list[BatchKey]:
            return [
                BatchKey(run=RUN, exposure_id=summary.exposure, pipeline=summary.pipeline)
                for day_obs, _ in self._results.nights(self._camera.name)[:N_NIGHTS]
                for summary in self._results.summaries(self._camera.name, day_obs=day_obs, limit=10_000, run=RUN)
                if summary.pipeline in self._pipelines and summary.n_afterburned < summary.n_finished
            ]

        for key in await asyncio.to_thread(search):
            await self._look(key)

    async def _look(self, key: BatchKey, *, is_final: bool = False) -> None:
        """Post what an exposure lacks; one that cannot be posted stops no other."""
        try:
            await self._post_missing(key, is_final=is_final)
        except (StoreError, RefusedError):
            raise
        except RapidError as error:
            log.error("afterburner cannot be posted", exposure_id=key.exposure_id, error=error.message)

    async def _post_missing(self, key: BatchKey, *, is_final: bool) -> None:
        summary = await asyncio.to_thread(
            lambda: self._results.latest_summary(self._camera.name, key.exposure_id, pipeline=key.pipeline, run=key.run)
        )
        if summary is None:
            self._partial.pop(key, None)
            return
        if not is_final and any(status.state in PENDING for status in summary.detectors.values()):
            # It will be drawn again: the afterburner begins once, with all of it.
            self._partial.setdefault(key, time.monotonic())
            return
        self._partial.pop(key, None)
        found = await asyncio.to_thread(
            lambda: self._results.results(key.exposure_id, camera=self._camera.name, run=key.run, pipeline=key.pipeline)
        )
        missing = {one.detector: one for one in found if one.provenance.afterburner is None}
        if missing:
            await self._post(key, self._pipelines[key.pipeline], summary, missing)

    async def _post(
        self, base: BatchKey, pipeline: Pipeline, summary: ExposureSummary, missing: dict[int, DetectorResult]
    ) -> None:
        after = pipeline.after
        if after is None:
            return
        key = base.model_copy(update={"pipeline": after.name})
        raws = {detector: result.provenance.raw for detector, result in missing.items()}
        state = await self._board.state(key)
        if state is not None:
            again = {detector: raws[detector] for detector in state.finished & raws.keys()}
            if again:
                # Their results were done again meanwhile. During a gather: the summary it ends with brings us here again.
                n = await redo(self._board.connection, self._camera.name, key, again)
                if not isinstance(n, NotRedone) and n:
                    log.info("afterburner posted again", exposure_id=key.exposure_id, n_queued=n)
            raws = {detector: uri for detector, uri in raws.items() if detector not in state.expected}
            if not raws:
                return
        off = await self._exclusions.of(next(iter(missing.values())).begin)
        receipt = await self._board.post(
            BatchSpec(
                key=key,
                camera=self._camera.name,
                image_type=summary.image_type,
                expected=frozenset(raws),
                raws=raws,
                pool=after.pool,
                priority=Priority.BACKLOG,
                info=summary.info,
                config=off.config_for(after),
                time_limit_ms=int(after.time_limit_s * 1000),
                gather_timeout_ms=WAIT_MS,
                regather_timeout_ms=WAIT_MS,
                deadline_ms=WAIT_MS,
            ),
            lead_token=self._token,
        )
        log.info("afterburner posted", exposure_id=key.exposure_id, pipeline=after.name, n_queued=receipt.queued)
