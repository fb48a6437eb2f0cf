"""Post afterburners: expensive payloads that add to an exposure's results once it has been gathered.

They are backlog from the start, so that nothing current waits for them. What is missing is told from the results alone:
a finished detector whose result has no afterburner's numbers. A leader that begins looks at the newest nights for it, and
at what campaigns and requests have made, so that nothing is forgotten with the board (I2); and a result that is done
again, with other calibs, is posted again.

Of runs other than the night's own a few batches are on the board at a time: a campaign is larger than a night, and is
called off with all that follows from it.
"""

import asyncio
import time
from collections.abc import Iterable

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec, BatchState, Event, EventKind, Priority
from rapid.dispatch.redo import NotRedone, redo
from rapid.errors import RapidError, RefusedError, StoreError
from rapid.exclusions.decide import merge_config
from rapid.head.after_runs import RunPlan, RunPlans
from rapid.head.events import WAIT_S, follow_events
from rapid.head.exclusions import Exclusions
from rapid.pipeline.models import Pipeline, PipelineBook, base_of
from rapid.requests.models import PROMPT
from rapid.results.afterburned import AfterburnedRows
from rapid.results.models import DetectorResult, DetectorState, ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

N_NIGHTS = 2
"""Newest nights that a new leader looks through: older ones are beyond what the board keeps on the backlog."""

MAX_UNDER_WAY = 20
"""Batches of campaigns and requests on the board at a time: as many as of a campaign itself."""

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
    max_under_way
        Most batches of runs other than the night's own that are on the board at a time.
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
        max_under_way: int = MAX_UNDER_WAY,
    ) -> None:
        self._camera = camera
        self._board = board
        self._results = results
        self._token = lead_token
        self._settling_s = settling_s
        self._max_under_way = max_under_way
        self._pipelines = {pipeline.name: pipeline for pipeline in book.pipelines if pipeline.afterburner}
        self._of_every_run = {name for name, one in self._pipelines.items() if one.after_runs == "every"}
        self._exclusions = Exclusions(camera, results)
        self._plans = RunPlans(camera, results)
        self._lacking = AfterburnedRows(results.engine).lacking
        self._partial: dict[BatchKey, float] = {}
        self._waiting: set[BatchKey] = set()
        self._under_way: set[BatchKey] = set()

    async def run(self) -> None:
        """Post what is missing, now and after every summary; for ever, also if no pipeline has an afterburner."""
        if not self._pipelines:
            await asyncio.Event().wait()
        last = await self._board.last_event_id()
        await self._sweep()
        async for events in follow_events(self._board, last, wait_s=lambda: self._patience_s):
            now_s = time.monotonic()
            ripe = {key for key, since_s in self._partial.items() if now_s - since_s >= self._settling_s}
            gathered = self._gathered(events)
            for key in sorted({*gathered, *ripe}, key=lambda one: one.exposure_id, reverse=True):
                await self._look(key, is_final=key in ripe)
            for request_id in self._ended(events):
                await self._take_request(request_id)
            if not events:
                await self._let_go_lost()
            await self._begin_next()

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
            base = base_of(key.pipeline)
            key = key.model_copy(update={"pipeline": base or key.pipeline})
            if base is not None:
                self._under_way.discard(key)
            if key.pipeline in (self._pipelines if key.run == PROMPT else self._of_every_run):
                found.add(key)
        return found

    @staticmethod
    def _ended(events: Iterable[Event]) -> list[str]:
        """Return the requests that events tell the end of."""
        ended = ("done", "failed", "cancelled", "expired")
        changes = (event.data for event in events if event.kind is EventKind.REQUEST_CHANGED)
        return [str(data.get("request_id")) for data in changes if data.get("state") in ended]

    async def _sweep(self) -> None:
        """Look at every exposure of the newest nights, and of what campaigns and requests have made lately."""

        def search() -> list[BatchKey]:
            nights = [day_obs for day_obs, _ in self._results.nights(self._camera.name)[:N_NIGHTS]]
            return self._lacking_of(PROMPT, nights)

        for key in await asyncio.to_thread(search):
            await self._look(key)
        if not self._of_every_run:
            return
        now_ms = await self._board.now_ms()
        for plan in await asyncio.to_thread(lambda: self._plans.recent(now_ms)):
            await self._take_run(plan)
        await self._begin_next()

    def _lacking_of(self, run: str, nights: Iterable[int]) -> list[BatchKey]:
        names = self._pipelines if run == PROMPT else self._of_every_run
        found = self._lacking(self._camera.name, run=run, nights=list(nights), pipelines=list(names))
        return [BatchKey(run=run, exposure_id=exposure_id, pipeline=name) for exposure_id, name in found]

    # Runs other than the night's own

    async def _take_request(self, request_id: str) -> None:
        """Look at all of a run whose request has ended: a campaign that went on has said nothing of what was there."""
        if not self._of_every_run:
            return
        plan = await asyncio.to_thread(self._plans.of_request, request_id)
        if plan is not None:
            await self._take_run(plan)

    async def _take_run(self, plan: RunPlan) -> None:
        """Have what a run lacks posted in its turn; of one that was called off, take from the board what waits."""
        keys = await asyncio.to_thread(lambda: self._lacking_of(plan.run, self._plans.nights(plan)))
        if not plan.is_off:
            self._waiting.update(key for key in keys if key not in self._under_way)
            return
        self._waiting = {key for key in self._waiting if key.run != plan.run}
        self._partial = {key: since_s for key, since_s in self._partial.items() if key.run != plan.run}
        for key in {*keys, *(key for key in self._under_way if key.run == plan.run)}:
            after = key.model_copy(update={"pipeline": self._after_of(key).name})
            state = await self._board.state(after)
            if state is not None:
                why = dict.fromkeys(state.expected - state.finished, _called_off(plan.run))
                await self._board.settle(after, DetectorState.EXCLUDED, why)

    async def _begin_next(self) -> None:
        """Post what waits for its turn, newest exposure first."""
        while self._waiting and len(self._under_way) < self._max_under_way:
            key = max(self._waiting, key=lambda one: (one.exposure_id, one.id))
            self._waiting.discard(key)
            await self._look(key)

    async def _let_go_lost(self) -> None:
        """Forget what the board has forgotten, or ended while its events were out of reach."""
        for key in list(self._under_way) if self._waiting else []:
            state = await self._board.state(key.model_copy(update={"pipeline": self._after_of(key).name}))
            if state is None or not any(status.state in PENDING for status in state.detectors.values()):
                self._under_way.discard(key)

    def _after_of(self, key: BatchKey) -> Pipeline:
        """Return the afterburner's pipeline; of a definition that has gone meanwhile there is no key here."""
        after = self._pipelines[key.pipeline].after
        if after is None:
            raise KeyError(key.pipeline)
        return after

    # One exposure

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
        if not missing:
            return
        plan = None
        if key.run != PROMPT:
            plan = await asyncio.to_thread(self._plans.of_run, key.run)
            if plan is None or plan.is_off:
                return
            if key not in self._under_way and len(self._under_way) >= self._max_under_way:
                self._waiting.add(key)
                return
        await self._post(key, self._after_of(key), summary, missing, plan)

    async def _post(
        self,
        base: BatchKey,
        after: Pipeline,
        summary: ExposureSummary,
        missing: dict[int, DetectorResult],
        plan: RunPlan | None,
    ) -> None:
        key = base.model_copy(update={"pipeline": after.name})
        off = await self._exclusions.of(next(iter(missing.values())).begin)
        raws = {detector: result.provenance.raw for detector, result in missing.items()}
        state = await self._board.state(key)
        if state is not None:
            again = {
                detector: raws[detector]
                for detector in self._to_redo(state, raws.keys() - off.detectors.keys(), key.run)
            }
            if again:
                # Their results were done again meanwhile. During a gather: the summary it ends with brings us here again.
                n = await redo(self._board.connection, self._camera.name, key, again)
                if not isinstance(n, NotRedone) and n:
                    log.info("afterburner posted again", exposure_id=key.exposure_id, n_queued=n)
            if plan is not None and (again or any(status.state in PENDING for status in state.detectors.values())):
                self._under_way.add(base)
            raws = {detector: uri for detector, uri in raws.items() if detector not in state.expected}
            if not raws:
                return
        config = off.config_for(after)
        if plan is not None:
            names = {step.payload for step in after.steps}
            config = merge_config(config, {name: plan.config[name] for name in plan.config.keys() & names})
            self._under_way.add(base)
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
                config=config,
                control={"request": plan.request_id} if plan is not None else {},
                time_limit_ms=int(after.time_limit_s * 1000),
                gather_timeout_ms=WAIT_MS,
                regather_timeout_ms=WAIT_MS,
                deadline_ms=WAIT_MS,
            ),
            lead_token=self._token,
        )
        log.info("afterburner posted", exposure_id=key.exposure_id, pipeline=after.name, n_queued=receipt.queued)

    @staticmethod
    def _to_redo(state: BatchState, wanted: Iterable[int], run: str) -> set[int]:
        """Return detectors whose afterburner has ended and is wanted again.

        It was done, and the result it added to was done again; or it was taken off the board with a campaign that goes on.
        """
        again = set()
        for detector in wanted:
            status = state.detectors.get(detector)
            if detector in state.finished or (status is not None and status.reason == _called_off(run)):
                again.add(detector)
        return again


def _called_off(run: str) -> str:
    return f"{run} was called off"
