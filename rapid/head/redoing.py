"""Do again what a bad calib or exposure has touched: exactly those results, in their place, as backlog.

Calibs first, in the order in which they were built of one another; then everything else, newest first. Each batch runs
under its own run, exposure and pipeline, so that new results stand where the bad ones stood, and one new summary follows.
"""

import asyncio
from typing import Any

import structlog

from rapid.dispatch.models import BatchKey, BatchSpec, Priority
from rapid.dispatch.redo import NotRedone, redo
from rapid.errors import RapidError
from rapid.exclusions.decide import merge_config
from rapid.head.building import Means
from rapid.head.fulfilment import Fulfilment, RequestFailedError
from rapid.head.redo_plan import (
    NotBadError,
    RedoPlan,
    RedoTarget,
    StoredBatch,
    calibs_in_place,
    prepare,
    read_stored,
    without_replacement,
)
from rapid.pipeline.store import load_pipeline
from rapid.provenance.models import AffectedError
from rapid.requests.answers import RedoAnswer, RequestAnswer
from rapid.requests.archive import RequestArchive
from rapid.requests.faults import BadRequestError, fault_of
from rapid.requests.models import PROMPT, Progress, RequestFault, RequestRecord, RequestState
from rapid.results.models import DetectorState

log = structlog.get_logger()

MAX_UNDER_WAY = 40
"""Batches on the board at a time: 7600 jobs of LSSTCam, enough for every worker, and soon cancelled."""

MAX_BEGUN = 3
"""How often the jobs of a batch are put on a board that forgets them."""

REGATHER_MS = 60_000
MAX_TOLD = 300

UNSETTLED = frozenset({DetectorState.WAITING, DetectorState.QUEUED, DetectorState.RUNNING})


class RedoFulfilment(Fulfilment):
    """One request to do again what is affected.

    Parameters
    ----------
    record
        As it was accepted, or as it was when another head had it: it goes on with what still uses what is bad.
    """

    def __init__(self, record: RequestRecord, means: Means) -> None:
        super().__init__(record, means)
        if self.spec.select.affected is None:
            raise BadRequestError("select.affected", "names nothing bad")
        self._targets: dict[str, RedoTarget] = {}
        self._what = self.spec.select.affected
        self._plan: RedoPlan | None = None
        self._n_before = record.progress.done
        self._answer: RedoAnswer | None = None

    def note_event(self, batch_id: str, detector: int | None, *, has_summary: bool) -> bool:
        """Take in that something happened to a batch; whether it is one of this request's."""
        target = self._targets.get(batch_id)
        if target is None or not target.is_under_way:
            return False
        if detector is not None and detector in target.wanted:
            target.done.add(detector)
        target.is_stale |= has_summary or detector is None or target.wanted <= target.done
        return True

    def note_gap(self) -> None:
        """Take in that events may have been missed."""
        for target in self._targets.values():
            target.is_stale = True

    async def advance(self, now_ms: int) -> None:  # noqa: ARG002 - no time plays a part
        """Put on the board what may be begun; take in what has ended."""
        self.has_more = False
        results, camera = self._means.results, self._means.camera
        try:
            if self._plan is None:
                self._plan = await asyncio.to_thread(lambda: prepare(results, camera, self._what, author=self.author))
                self._targets = {target.key.id: target for target in self._plan.targets}
            for target in self._targets.values():
                if target.is_under_way and target.is_stale:
                    await self._look(target)
            await self._begin_next()
            if all(target.has_ended for target in self._targets.values()):
                await self._conclude()
        except (AffectedError, NotBadError, BadRequestError, RequestFailedError) as error:
            await self.end(RequestState.FAILED, fault_of(error), reason=error.message)
        except RapidError as error:
            if error.code in {"store_failed", "refused"}:
                raise
            await self.end(RequestState.FAILED, fault_of(error), reason=error.message)

    async def _begin_next(self) -> None:
        """Put the next batches on the board: those of the first stage that has not ended."""
        waiting = [target for target in self._targets.values() if not target.has_ended]
        stage = min((target.batch.stage for target in waiting), default=0)
        n_under_way = sum(target.is_under_way for target in waiting)
        for target in waiting:
            if n_under_way >= MAX_UNDER_WAY:
                return
            if target.batch.stage == stage and target.n_begun == 0:
                await self._begin(target)
                n_under_way += 1
        if n_under_way == 0 and waiting:
            self.has_more = True  # all of this stage ended at once: on to the next

    async def _begin(self, target: RedoTarget) -> None:
        results, camera, plan = self._means.results, self._means.camera, self._plan
        if plan is None:
            return
        stored = await asyncio.to_thread(read_stored, results, camera, target.key)
        bad = frozenset((*plan.affected.calibs, *(one.calib_id for one in plan.affected.built)))
        missing = await asyncio.to_thread(without_replacement, results, camera, target, stored, bad)
        missing |= dict.fromkeys(target.wanted - stored.results.keys(), "its result has gone since")
        for detector, why in missing.items():
            plan.not_redone[target.key.job_id(detector)] = why
        target.wanted -= missing.keys()
        if not target.wanted:
            target.has_ended = True
            return
        raws = {detector: stored.results[detector].provenance.raw for detector in target.wanted}
        state = await self._means.board.state(target.key)
        target.version = state.version if state else stored.summary.version if stored.summary else 0
        queued = await redo(self._means.board.connection, camera.name, target.key, raws)
        if queued is NotRedone.GATHERING:
            target.n_begun, target.is_stale = 1, False  # the end of that gather is an event of this batch
            target.done.clear()
            return
        if queued is NotRedone.UNKNOWN:
            await self._post_anew(target, stored, raws)
        for detector in raws:
            await asyncio.to_thread(results.forget_failure, target.key.job_id(detector))
        target.n_begun += 1
        target.is_stale = True  # an event may have come before this
        log.info("redo queued", batch=target.key.id, n_detectors=len(raws), request_id=self.record.request_id)

    async def _post_anew(self, target: RedoTarget, stored: StoredBatch, raws: dict[int, str]) -> None:
        """Put a batch on the board that has forgotten it, as it was, with the detectors that are done again open."""
        means, key, summary = self._means, target.key, stored.summary
        pipeline = load_pipeline(key.pipeline, means.book)
        statuses = dict(summary.detectors) if summary else {}
        others = {d: result for d, result in stored.results.items() if d not in raws}
        settled = {
            d: status for d, status in statuses.items() if d not in stored.results and status.state not in UNSETTLED
        }
        excluded = {d: s.reason or "" for d, s in settled.items() if s.state is DetectorState.EXCLUDED}
        off = await means.exclusions.of(stored.begin)
        limit_ms = int(pipeline.time_limit_s * 1000)
        first = next(iter(stored.results.values()))
        spec = BatchSpec(
            key=key,
            camera=means.camera.name,
            image_type=first.image_type,
            expected=frozenset(raws) | frozenset(others) | frozenset(settled),
            raws=raws,
            excluded=excluded,
            priority=Priority.BACKLOG,
            pool=pipeline.pool,
            info=dict(summary.info) if summary else {},
            config=merge_config(off.config_for(pipeline), await self._config_of(key)),
            inputs=tuple(sorted({one for d in raws for one in stored.results[d].provenance.inputs})),
            control={**(summary.control if summary else {}), "redo": self.record.request_id},
            finished={d: dict(result.metrics) for d, result in others.items()},
            version=summary.version if summary else 0,
            summary_finished=0,
            time_limit_ms=limit_ms,
            gather_timeout_ms=REGATHER_MS,
            regather_timeout_ms=REGATHER_MS,
            deadline_ms=max(4 * limit_ms, 2 * REGATHER_MS),
        )
        await means.board.post(spec, lead_token=means.lead_token)
        for state in {status.state for status in settled.values()} - {DetectorState.EXCLUDED, DetectorState.FINISHED}:
            reasons = {d: status.reason or "" for d, status in settled.items() if status.state is state}
            await means.board.settle(key, state, reasons)

    async def _config_of(self, key: BatchKey) -> dict[str, dict[str, Any]]:
        """Return the settings that the request of a run had changed."""
        if key.run == PROMPT:
            return {}
        archive = RequestArchive(self._means.results.engine)
        record = await asyncio.to_thread(archive.by_run, self._means.camera.name, key.run)
        return dict(record.spec.config) if record is not None and record.spec is not None else {}

    async def _look(self, target: RedoTarget) -> None:
        """Read what became of a batch."""
        target.is_stale = False  # before the look: what is told of meanwhile makes it stale again
        state = await self._means.board.state(target.key)
        if state is None:
            if target.n_begun < MAX_BEGUN:
                await self._begin(target)
            else:
                self._end_target(target, dict.fromkeys(target.wanted, "the board has lost it"))
            return
        if any(d in state.detectors and state.detectors[d].state in UNSETTLED for d in target.wanted):
            return
        finished = target.wanted & state.finished
        if finished and state.version <= target.version:
            return  # the new summary is on its way, and is an event
        still_bad = finished & await asyncio.to_thread(self._still_bad, target.key)
        if still_bad and target.n_begun < MAX_BEGUN:
            # It could not be begun while a gather ran, or its worker had not heard of the change: once more.
            await self._begin(target)
            return
        failed = dict.fromkeys(still_bad, "its new result used what is bad again")
        for detector in target.wanted - finished:
            status = state.detectors.get(detector)
            failed[detector] = f"{status.state.value}: {status.reason}" if status else "not processed"
        self._end_target(target, failed)

    def _still_bad(self, key: BatchKey) -> set[int]:
        """Return the detectors of a batch whose stored result used what is bad."""
        plan = self._plan
        if plan is None:
            return set()
        bad = {*plan.affected.calibs, *(one.calib_id for one in plan.affected.built)}
        exposures = set(plan.affected.exposures)
        stored = read_stored(self._means.results, self._means.camera, key)
        return {
            d
            for d, result in stored.results.items()
            if bad & set(result.provenance.calibs.values()) or exposures & set(result.provenance.inputs)
        }

    def _end_target(self, target: RedoTarget, failed: dict[int, str]) -> None:
        target.has_ended = True
        target.failed = failed
        target.done = target.wanted - failed.keys()
        if self._plan is not None:
            for detector, why in failed.items():
                self._plan.not_redone[target.key.job_id(detector)] = why

    async def _conclude(self) -> None:
        plan = self._plan
        if plan is None:
            return
        rebuilt = await asyncio.to_thread(calibs_in_place, self._means.results, self._means.camera, plan.affected)
        self._make_answer(rebuilt)
        n_done = self._n_before + sum(len(target.done) for target in plan.targets)
        if plan.targets and plan.not_redone and not n_done:
            # Whoever asked would take "done" for a repair.
            why = next(iter(plan.not_redone.values()))
            fault = RequestFault(code="nothing_redone", message=f"none of it could be done again: {why}"[:1000])
            await self.end(RequestState.FAILED, fault, reason=fault.message)
            return
        await self.end(RequestState.DONE, None)

    def _make_answer(self, rebuilt: dict[str, str]) -> None:
        plan = self._plan
        if plan is None:
            return
        ended = [target for target in plan.targets if target.has_ended]
        self._answer = RedoAnswer(
            bad=tuple(map(str, (*plan.affected.calibs, *plan.affected.exposures)))[:MAX_TOLD],
            n_results=plan.affected.n_results,
            n_redone=sum(len(target.done) for target in ended),
            exposures=tuple(sorted({target.batch.exposure for target in ended if target.done})),
            rebuilt=dict(list(rebuilt.items())[:MAX_TOLD]),
            not_redone=dict(list(plan.not_redone.items())[:MAX_TOLD]),
        )

    async def end(self, state: RequestState, fault: RequestFault | None, *, reason: str = "") -> None:
        """End the request. What is on the board already runs to its end: each result is whole or as it was."""
        if self._answer is None and state is not RequestState.FAILED:
            self._make_answer({})
        if reason:
            log.info("redo ended", request_id=self.record.request_id, state=state.value, reason=reason)
        self.ending = (state, fault)

    def as_record(self, now_ms: int) -> RequestRecord:
        """Return the record as it stands now; the version is the caller's."""
        targets = list(self._targets.values())
        state = self.ending[0] if self.ending else (RequestState.RUNNING if targets else RequestState.WAITING)
        exposures = {target.batch.exposure for target in targets}
        open_ones = {target.batch.exposure for target in targets if not target.has_ended}
        progress = Progress(
            done=self._n_before + sum(len(t.done & t.wanted) + len(t.failed) for t in targets),
            of=self._n_before + sum(len(t.wanted) for t in targets),
            exposures_done=len(exposures - open_ones),
            exposures_of=len(exposures),
        )
        changes: dict[str, Any] = {
            "state": state,
            "error": self.ending[1] if self.ending else None,
            "progress": progress,
            "members": tuple(sorted(exposures)) or self.record.members,
            "started_ms": self.record.started_ms or (now_ms if targets else None),
        }
        if state.is_final:
            complete = self._plan is not None and not self._plan.not_redone and state is RequestState.DONE
            answer = RequestAnswer(is_complete=complete, redo=self._answer)
            changes |= {"finished_ms": now_ms, "answer": answer}
        return self.record.model_copy(update=changes)
