"""Fulfil a request about exposures: find them, have them processed, combine them, say how far it is."""

import asyncio
from collections.abc import Collection
from typing import Any

import structlog

from rapid.errors import RapidError
from rapid.head.answers import answers_of
from rapid.head.building import Means, begin_build
from rapid.head.fulfilment import CombineFailedError, Fulfilment, NothingFinishedError, RequestFailedError
from rapid.head.gate import Gate
from rapid.head.known import KnownExposure
from rapid.head.members import Members
from rapid.head.processing import DEADLINE_MS, Processing
from rapid.head.targets import Stage, Target
from rapid.requests.answers import CalibAnswer, RequestAnswer
from rapid.requests.combine import compare_pair, fit_sweep
from rapid.requests.completion import OnMissing
from rapid.requests.decide import state_of
from rapid.requests.faults import BadRequestError, fault_of
from rapid.requests.models import Combine, Progress, RequestFault, RequestRecord, RequestState
from rapid.requests.verify import calib_answer
from rapid.results.models import DetectorState, Scalar

log = structlog.get_logger()

SLICE = 20
"""Exposures begun in one go: a request for a whole night must not hold up the one that comes after it."""


class ExposureFulfilment(Fulfilment):
    """One request about exposures.

    Parameters
    ----------
    record
        As it was accepted, or as it was when another head had it.
    detectors
        Detectors it asks for; None for all science detectors.
    """

    def __init__(self, record: RequestRecord, detectors: frozenset[int] | None, means: Means) -> None:
        super().__init__(record, means)
        self._targets: dict[str, Target] = {}
        self._detectors = detectors
        self._processing = Processing(record, detectors, means)
        self._members = Members(record, means.known, began_ms=means.began_ms)
        self._gate = Gate(record, detectors, means)
        self._begun: set[int] = set()
        self._focus: dict[str, Scalar] | None = None
        self._pair: dict[str, Scalar] | None = None
        self._calib: CalibAnswer | None = None
        self._wake_ms: list[int] = []

    # What the desk asks

    @property
    def next_wake_ms(self) -> int | None:
        """Board time when it has to look again though nothing happened."""
        times = [*self._wake_ms, *self._members.wake_ms, *self._gate.wake_ms]
        if self.record.deadline_ms is not None:
            times.append(self.record.deadline_ms)
        return min(times, default=None)

    async def find_members(self, now_ms: int) -> None:
        """Find the exposures of the request that are there; see `Members.find`."""
        await self._members.find(now_ms, chosen=self.record.members)

    def may_concern(self, exposure_ids: Collection[int]) -> bool:
        """Whether exposures that have just come, or more of their raws, matter to this request."""
        return self._members.may_concern(exposure_ids)

    def note_event(self, batch_id: str, detector: int | None, *, has_summary: bool) -> bool:
        """Take in that something happened to a batch; whether it is one of this request's."""
        target = self._targets.get(batch_id)
        if target is None or target.has_ended:
            return False
        if has_summary:
            target.is_stale = True
        elif detector is not None and detector in target.wanted:
            target.done.add(detector)
        return True

    def note_gap(self) -> None:
        """Take in that events may have been missed."""
        for target in self._targets.values():
            target.is_stale = True

    async def advance(self, now_ms: int) -> None:
        """Find, process, combine."""
        self._wake_ms = []
        self.has_more = False
        try:
            await self.find_members(now_ms)
            self._gate.look(self._members, now_ms)
            if self._gate.is_late:
                await self._wait_no_longer(now_ms)
            if self.ending is not None or not self._gate.is_open:
                return
            await self._begin_members(now_ms)
            for target in list(self._targets.values()):
                if target.is_own and target.stage is Stage.PROCESS and not target.has_ended:
                    await self._processing.add_raws(target)
                await self._look(target, now_ms)
            if not self.has_more and self._members.membership.is_whole and self._has_ended(Stage.PROCESS):
                await self._conclude(now_ms)
        except (BadRequestError, RequestFailedError) as error:
            await self.end(RequestState.FAILED, fault_of(error), reason=error.message)

    async def _wait_no_longer(self, now_ms: int) -> None:
        """Do without what has not come, or end and say so; as the request wants it."""
        there = self._members.membership.members
        lacking = self._gate.lacking.in_words()
        if self.spec.on_missing is OnMissing.PROCESS and there:
            log.info("request goes on without what is missing", request_id=self.record.request_id, missing=lacking)
            self.record = self.record.model_copy(update={"closed_ms": now_ms, "members": there})
            self._members.close(self.record)
            await self.find_members(now_ms)
            self._gate.close(self.record)
            return
        message = f"not there within {self.spec.arrival_s:g} s: {lacking}"
        await self.end(RequestState.EXPIRED, RequestFault(code="incomplete", message=message), reason=message)

    def _has_ended(self, stage: Stage) -> bool:
        return len(self._begun) >= len(self._members.membership.members) and all(
            target.has_ended for target in self._targets.values() if target.stage is stage
        )

    # Processing

    async def _begin_members(self, now_ms: int) -> None:
        begun = 0
        for exposure_id in self._members.membership.members:
            if exposure_id in self._begun:
                continue
            if begun >= SLICE:
                self.has_more = True
                return
            # As it is now: more of its raws may have come since it was found.
            known = self._means.known.live(exposure_id) or self._members.exposures.get(exposure_id)
            if known is None:
                continue
            self._check_member(known)
            if await self._begin(known, now_ms):
                self._begun.add(exposure_id)
                begun += 1
            else:
                self._wake_ms.append(now_ms + 500)

    def _check_member(self, known: KnownExposure) -> None:
        combine = self.spec.combine
        if combine is None or combine.builds is None:
            return
        if known.image_type not in {kind.value for kind in combine.input_types}:
            named = " or ".join(sorted(kind.value for kind in combine.input_types))
            raise RequestFailedError(
                f"exposure {known.exposure_id} is a {known.image_type} image, not a {named}",
                field="select", exposure=known.exposure_id,
            )  # fmt: skip
        if combine in {Combine.BUILD_FLAT, Combine.BUILD_LINEARITY}:
            filters = {str(e.info.get("physical_filter")) for e in self._members.exposures.values()}
            if len(filters) > 1:
                raise RequestFailedError(
                    f"the flats are of several filters: {', '.join(sorted(filters))}", field="select"
                )

    async def _begin(self, known: KnownExposure, now_ms: int) -> bool:
        """Have one exposure processed, by the night's own batch or one of ours. False: ask again in a moment."""
        for pipeline, wanted in self._processing.plan(known):
            target = await self._processing.reuse(known, pipeline, wanted)
            if target is not None:
                # Nobody may have said that some raws will never come: the night's batch waits for them for good.
                target.give_up_ms = now_ms + DEADLINE_MS
            if target is None and await self._processing.may_come_by_itself(known, pipeline):
                return False
            if target is None:
                target = await self._processing.post_own(known, pipeline, wanted, now_ms)
            self._targets[target.key.id] = target
        return True

    async def _look(self, target: Target, now_ms: int) -> None:
        """Read what became of a batch, if something did."""
        if target.has_ended:
            return
        if target.is_stale:
            target.is_stale = False  # before the look: a summary that is told of meanwhile makes it stale again
            summary = await self._processing.summary_of(target.key)
            if summary is not None:
                target.take(summary)
            if target.has_ended:
                return
        if now_ms < target.give_up_ms:
            self._wake_ms.append(target.give_up_ms)
        elif target.give_up_ms and target.waits_for_raws_only:
            target.has_ended = True

    # The end

    async def _conclude(self, now_ms: int) -> None:
        """Combine what is to be combined; end, unless that takes further jobs."""
        processed = self._targets_of(Stage.PROCESS)
        combine = self.spec.combine
        if not any(target.n_finished for target in processed):
            raise NothingFinishedError(self._why_nothing(processed))
        if combine is not None:
            summaries = [target.summary for target in processed if target.summary is not None]
            try:
                if combine is Combine.FOCUS_SWEEP:
                    self._focus = await asyncio.to_thread(fit_sweep, summaries)
                elif combine is Combine.DONUT_PAIR:
                    self._pair = compare_pair(summaries, self._means.camera)
                elif not await self._build(now_ms):
                    return
            except RapidError as error:
                if error.code in {"store_failed", "refused"} or isinstance(error, RequestFailedError):
                    raise
                raise CombineFailedError(error.message) from error
        await self.end(RequestState.DONE, None)

    @staticmethod
    def _why_nothing(targets: list[Target]) -> str:
        for target in targets:
            for detector, why in {**target.without_raw, **target.excluded, **target.not_finished}.items():
                return f"no detector finished; exposure {target.key.exposure_id}, detector {detector}: {why}"
        return "no detector finished"

    def _targets_of(self, stage: Stage) -> list[Target]:
        return [target for target in self._targets.values() if target.stage is stage]

    async def _build(self, now_ms: int) -> bool:
        """Build, and read the verdict; whether that is done."""
        combine = self.spec.combine
        if combine is None or combine.builds is None:
            return True
        members = tuple(sorted(self._members.membership.members))
        if not self._targets_of(Stage.BUILD):
            build = await begin_build(self._means, self.record, combine.builds, members, detectors=self._detectors)
            self._targets[build.key.id] = build
            await self._look(build, now_ms)
        build = self._targets_of(Stage.BUILD)[0]
        if not build.has_ended:
            return False
        if not build.n_finished:
            raise CombineFailedError(f"no {combine.builds} was built: {self._why_nothing([build])}")
        self._calib = await asyncio.to_thread(self._verdict, combine.builds, members, build)
        return True

    def _verdict(self, kind: str, members: tuple[int, ...], build: Target) -> CalibAnswer:
        key, camera = build.key, self._means.camera
        built = self._means.results.results(key.exposure_id, camera=camera.name, run=key.run, pipeline=key.pipeline)
        return calib_answer(
            kind,
            inputs=members,
            built=[result for result in built if result.detector in build.wanted],
            not_built={camera.by_id[d].name: why for d, why in build.not_finished.items()},
            unusable={camera.by_id[d].name: why for d, why in sorted(build.excluded.items())},
        )

    async def end(self, state: RequestState, fault: RequestFault | None, *, reason: str = "") -> None:
        """End the request. Jobs of its own that have not started leave the board; running ones finish."""
        for target in self._targets.values():
            if target.is_own and not target.has_ended:
                why = dict.fromkeys(target.wanted, (reason or f"request {state.value}")[:300])
                await self._means.board.settle(target.key, DetectorState.EXCLUDED, why)
        if fault is not None and state is not RequestState.DONE:
            for target in self._targets.values():
                if not target.has_ended:
                    target.is_stale = True
                    summary = await self._processing.summary_of(target.key)
                    if summary is not None:
                        target.take(summary)
        self.ending = (state, fault)

    def as_record(self, now_ms: int) -> RequestRecord:
        """Return the record as it stands now; the version is the caller's."""
        targets = list(self._targets.values())
        processed = self._targets_of(Stage.PROCESS)
        exposures_done = {t.key.exposure_id for t in processed} - {
            t.key.exposure_id for t in processed if not t.has_ended
        }
        progress = Progress(
            done=sum(len(t.done & t.wanted) for t in targets),
            of=sum(len(t.wanted) for t in targets),
            exposures_done=len(exposures_done),
            exposures_of=self._members.membership.n_wanted,
            lacks="" if self.ending else self._gate.lacking.in_words(),
        )
        state, fault = self.ending or (
            state_of(
                is_whole=self._members.membership.is_whole,
                n_targets=len(targets),
                n_ended=sum(t.has_ended for t in targets),
            ),
            None,
        )
        changes: dict[str, Any] = {
            "state": state,
            "error": fault,
            "progress": progress,
            "members": self._members.membership.members,
            "closed_ms": self.record.closed_ms,
            "started_ms": self.record.started_ms or (now_ms if targets else None),
        }
        if state.is_final:
            changes |= {"finished_ms": now_ms, "answer": self._answer()}
        return self.record.model_copy(update=changes)

    def _answer(self) -> RequestAnswer:
        membership = self._members.membership
        answers, notes = answers_of(self._targets_of(Stage.PROCESS), self._means.camera)
        return RequestAnswer(
            is_complete=bool(answers)
            and membership.is_whole
            and self._gate.lacking.is_nothing
            and all(one.is_complete for one in answers),
            exposures=answers,
            missing=membership.missing[:1000],
            lacking=None if self._gate.lacking.is_nothing else self._gate.lacking,
            focus=self._focus,
            donut_pair=self._pair,
            calib=self._calib,
            notes=notes,
        )
