"""Process nights again as backlog, under a run of their own: catch-up after an outage, or a new pipeline's campaign.

A few exposures are on the board at a time, newest first; what the results store has of the run already is done. So a campaign
can be thrown away and made anew from its request at any time, by the next head or by who resumes it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import structlog

from rapid.campaign.plan import Candidate, choose_exposures, read_facts
from rapid.dispatch.models import BatchKey
from rapid.dispatch.redo import NotRedone, redo
from rapid.errors import RapidError
from rapid.head.building import Means
from rapid.head.fulfilment import Fulfilment, NothingFinishedError
from rapid.head.known import KnownExposure
from rapid.head.processing import Processing, begin_of
from rapid.head.targets import Target
from rapid.pipeline.models import Pipeline
from rapid.requests.answers import RequestAnswer
from rapid.requests.campaigns import MAX_TOLD, CampaignAnswer
from rapid.requests.faults import BadRequestError, fault_of
from rapid.requests.models import Progress, RequestFault, RequestPriority, RequestRecord, RequestState
from rapid.results.models import DetectorState

log = structlog.get_logger()

MAX_UNDER_WAY = 20
"""Batches on the board at a time: 3800 jobs of LSSTCam, enough for every worker, and soon cancelled."""

SLICE = 20
"""Exposures looked at in one go: other requests must not wait for a campaign to find out what is done."""

GUIDER = "guider"
"""The pipeline whose raws are the guiders' files."""


@dataclass
class _UnderWay:
    """A batch on the board.

    Attributes
    ----------
    after_version
        Version of the summary that was there before: a later one tells what came of it.
    is_tried_again
        Whether what had ended without a result was queued once more.
    """

    target: Target
    processing: Processing
    known: KnownExposure
    pipeline: Pipeline
    wanted: frozenset[int]
    after_version: int = 0
    is_tried_again: bool = False


@dataclass
class _Tally:
    """What came of what has ended."""

    n_before: int = 0
    n_results: int = 0
    n_failed: int = 0
    not_done: dict[str, str] = field(default_factory=dict)
    bad_exposures: set[int] = field(default_factory=set)

    def miss(self, exposure_id: int, pipeline: str, why: str, n_detectors: int) -> None:
        """Note that detectors of an exposure have no result."""
        self.n_failed += n_detectors
        self.bad_exposures.add(exposure_id)
        if len(self.not_done) < MAX_TOLD:
            self.not_done[f"{exposure_id} {pipeline}".strip()] = why[:500]


class CampaignFulfilment(Fulfilment):
    """One campaign.

    Parameters
    ----------
    record
        As it was accepted, or as it was when another head had it.
    detectors
        Detectors it asks for; None for all that there are raws of.
    """

    def __init__(self, record: RequestRecord, detectors: frozenset[int] | None, means: Means) -> None:
        super().__init__(record, means)
        if self.spec.select.campaign is None:
            raise BadRequestError("select.campaign", "names no nights")
        self._select = self.spec.select.campaign
        self._detectors = detectors
        # Whatever the request says: a campaign never stands in the way of the night.
        low = self.spec.model_copy(update={"priority": RequestPriority.BACKLOG})
        self._as_backlog = record.model_copy(update={"spec": low})
        self._waiting: list[Candidate] | None = None
        self._n_exposures = 0
        self._nights: tuple[int, ...] = ()
        self._under_way: dict[str, _UnderWay] = {}
        self._open: dict[int, int] = {}
        self._n_of = 0
        self._tally = _Tally()

    async def find_members(self, now_ms: int) -> None:  # noqa: ARG002 - what was there when it was accepted
        """Choose the exposures.

        Raises
        ------
        BadRequestError
            Raised, naming the field, for a night without data or a selection that leaves nothing.
        """
        if self._waiting is not None:
            return
        means, select = self._means, self._select
        chosen = await asyncio.to_thread(
            lambda: choose_exposures(select, results=means.results, camera=means.camera.name, listing=means.listing)
        )
        self._n_exposures = len(chosen)
        self._nights = tuple(sorted({one.day_obs for one in chosen}))
        self._waiting = chosen[::-1]  # the next one is the last

    def note_event(self, batch_id: str, detector: int | None, *, has_summary: bool) -> bool:
        """Take in that something happened to a batch; whether it is one of this campaign's."""
        one = self._under_way.get(batch_id)
        if one is None:
            return False
        if detector is not None and detector in one.target.wanted:
            one.target.done.add(detector)
        one.target.is_stale |= has_summary
        return True

    def note_gap(self) -> None:
        """Take in that events may have been missed."""
        for one in self._under_way.values():
            one.target.is_stale = True

    async def advance(self, now_ms: int) -> None:
        """Take in what has ended; begin the next exposures."""
        self.has_more = False
        try:
            await self.find_members(now_ms)
            for one in list(self._under_way.values()):
                if one.target.is_stale:
                    await self._look(one, now_ms)
            await self._begin_next(now_ms)
            if not self._waiting and not self._under_way:
                if not self._tally.n_results:
                    why = next(iter(self._tally.not_done.items()), ("", "nothing is left to do"))
                    raise NothingFinishedError(f"no detector has a result; {why[0]}: {why[1]}")
                await self.end(RequestState.DONE, None)
        except (BadRequestError, NothingFinishedError) as error:
            await self.end(RequestState.FAILED, fault_of(error), reason=error.message)
        except RapidError as error:
            if error.code in {"store_failed", "refused"}:
                raise
            await self.end(RequestState.FAILED, fault_of(error), reason=error.message)

    async def _begin_next(self, now_ms: int) -> None:
        begun = 0
        while self._waiting and len(self._under_way) < MAX_UNDER_WAY:
            if begun >= SLICE:
                self.has_more = True
                return
            await self._begin(self._waiting[-1], now_ms)
            self._waiting.pop()
            begun += 1

    async def _begin(self, candidate: Candidate, now_ms: int) -> None:
        """Have one exposure processed, as far as it is not."""
        known = await self._known(candidate)
        gone = candidate.gone if self._detectors is None else candidate.gone & self._detectors
        if gone and not self._select.holes:
            names = ", ".join(self._name(detector) for detector in sorted(gone)[:6])
            more = f" and {len(gone) - 6} more" if len(gone) > 6 else ""
            self._tally.miss(candidate.exposure_id, "", f"raws are gone: {names}{more}", len(gone))
        if known is None:
            if not candidate.gone:
                self._tally.miss(candidate.exposure_id, "", "there is no raw of it that can be read", 1)
            return
        wanted = self._wanted(candidate, known)
        if not wanted:
            if not self._select.holes and not candidate.gone:
                self._tally.miss(candidate.exposure_id, "", "there is no raw of the wanted detectors", 1)
            return
        processing = Processing(self._as_backlog, wanted, self._means)
        plans = await asyncio.to_thread(processing.plan, known)
        for pipeline, detectors in plans:
            await self._post(processing, known, pipeline, detectors, now_ms)

    def _wanted(self, candidate: Candidate, known: KnownExposure) -> frozenset[int]:
        there = frozenset({*known.raws, *known.guiders})
        if self.spec.pipeline == GUIDER:
            there = frozenset(known.guiders)
        elif self.spec.pipeline is not None and self._detectors is None:
            there &= self._means.camera.science_ids
        if self._detectors is not None:
            there &= self._detectors
        return there - candidate.finished if self._select.holes else there

    async def _known(self, candidate: Candidate) -> KnownExposure | None:
        """Return what there is of an exposure: what this head has seen arrive, else what was listed."""
        live = self._means.known.live(candidate.exposure_id)
        if live is not None and self._means.listing is None:
            return live
        # A head forgets the headers of what is long posted: then one is read again.
        header = dict(live.header) if live is not None and live.header else None
        listing = self._means.listing
        if listing is not None and header is None:
            found = await asyncio.to_thread(read_facts, candidate, listing)
            header = dict(found) if found is not None else None
        if not candidate.image_type or not (candidate.raws.raws or candidate.raws.guiders):
            return None
        return KnownExposure(
            candidate.exposure_id,
            candidate.image_type,
            info=candidate.info,
            header=header,
            raws=candidate.raws.raws,
            guiders=candidate.raws.guiders,
        )

    async def _post(
        self, processing: Processing, known: KnownExposure, pipeline: Pipeline, wanted: frozenset[int], now_ms: int
    ) -> None:
        target = await processing.post_own(known, pipeline, wanted, now_ms)
        one = _UnderWay(target, processing, known, pipeline, wanted)
        self._n_of += len(target.wanted)
        if target.has_ended and not (target.summary is not None and await self._tries_again(one, now_ms)):
            self._tally.n_before += target.summary is not None
            self._count(one)
            return
        self._under_way[one.target.key.id] = one
        self._open[known.exposure_id] = self._open.get(known.exposure_id, 0) + 1

    async def _to_try_again(self, target: Target, known: KnownExposure) -> dict[int, str]:
        """Return the raws of detectors that ended without a result: failed, or taken off the board with a campaign."""
        if target.summary is None:
            return {}
        off = (await self._means.exclusions.of(begin_of(known))).among(target.wanted)
        statuses = target.summary.detectors
        raws = {**known.guiders, **known.raws}
        return {
            d: raws[d]
            for d in target.wanted & raws.keys() - off.keys()
            if d not in statuses or statuses[d].state is not DetectorState.FINISHED
        }

    async def _tries_again(self, one: _UnderWay, now_ms: int) -> bool:
        """Queue what ended without a result once more, if the campaign is resumed; whether there is something to wait for."""
        if not self._select.resume or one.is_tried_again:
            return False
        raws = await self._to_try_again(one.target, one.known)
        if not raws:
            return False
        key, summary = one.target.key, one.target.summary
        one.after_version = summary.version if summary is not None else 0
        queued = await redo(self._means.board.connection, self._means.camera.name, key, raws)
        if queued is NotRedone.GATHERING:
            one.target.has_ended, one.target.is_stale = False, False
            return True  # the end of that gather is an event of this batch, and brings us back here
        one.is_tried_again = True
        if not queued:
            return False
        for detector in raws:
            await asyncio.to_thread(self._means.results.forget_failure, key.job_id(detector))
        if queued is NotRedone.UNKNOWN:
            one.target = await one.processing.post_own(one.known, one.pipeline, one.wanted, now_ms, again=True)
        one.target.has_ended, one.target.is_stale = False, True
        one.target.done -= raws.keys()
        return True

    async def _look(self, one: _UnderWay, now_ms: int) -> None:
        """Read what became of a batch."""
        target = one.target
        target.is_stale = False  # before the look: what is told of meanwhile makes it stale again
        summary = await asyncio.to_thread(self._summary_of, target.key)
        if summary is None or summary.version <= one.after_version:
            return
        target.take(summary)
        if target.has_ended and not await self._tries_again(one, now_ms):
            self._under_way.pop(target.key.id, None)
            left = self._open.get(target.key.exposure_id, 1) - 1
            self._open[target.key.exposure_id] = left
            if left <= 0:
                self._open.pop(target.key.exposure_id)
            self._count(one)

    def _summary_of(self, key: BatchKey) -> Any:
        return self._means.results.latest_summary(
            self._means.camera.name, key.exposure_id, pipeline=key.pipeline, run=key.run
        )

    def _count(self, one: _UnderWay) -> None:
        """Add what came of a batch to the tally."""
        target = one.target
        self._tally.n_results += target.n_finished
        missing = {**target.without_raw, **target.not_finished}
        if missing:
            first = min(missing)
            names = ", ".join(self._name(d) for d in sorted(missing)[:4]) + (" ..." if len(missing) > 4 else "")
            why = f"{len(missing)} of {len(target.wanted)} detectors ({names}): {missing[first]}"
            self._tally.miss(target.key.exposure_id, target.key.pipeline, why, len(missing))

    def _name(self, detector: int) -> str:
        known = self._means.camera.by_id.get(detector)
        return known.name if known is not None else str(detector)

    async def end(self, state: RequestState, fault: RequestFault | None, *, reason: str = "") -> None:
        """End the campaign. Jobs that have not started leave the board; running ones finish."""
        for one in self._under_way.values():
            why = dict.fromkeys(one.target.wanted, (reason or f"campaign {state.value}")[:300])
            await self._means.board.settle(one.target.key, DetectorState.EXCLUDED, why)
        self.ending = (state, fault)

    def as_record(self, now_ms: int) -> RequestRecord:
        """Return the record as it stands now; the version is the caller's."""
        left = len(self._waiting) if self._waiting is not None else 0
        n_ended = self._n_exposures - left - len(self._open)
        n_under_way = sum(len(one.target.done & one.target.wanted) for one in self._under_way.values())
        n_open = sum(len(one.target.wanted) for one in self._under_way.values())
        begun = self._waiting is not None and left < self._n_exposures
        state = self.ending[0] if self.ending else (RequestState.RUNNING if begun else RequestState.ACCEPTED)
        changes: dict[str, Any] = {
            "state": state,
            "error": self.ending[1] if self.ending else None,
            "progress": Progress(
                done=self._n_of - n_open + n_under_way,
                of=self._n_of,
                exposures_done=n_ended,
                exposures_of=self._n_exposures or None,
            ),
            "started_ms": self.record.started_ms or (now_ms if begun else None),
        }
        if state.is_final:
            tally = self._tally
            n_done = n_ended - len(tally.bad_exposures - self._open.keys())
            answer = CampaignAnswer(
                run=self.record.run,
                nights=self._nights,
                n_exposures=self._n_exposures,
                n_done=max(n_done, 0),
                n_before=tally.n_before,
                n_results=tally.n_results,
                n_failed=tally.n_failed,
                not_done=dict(tally.not_done),
            )
            complete = state is RequestState.DONE and not tally.bad_exposures
            changes |= {"finished_ms": now_ms, "answer": RequestAnswer(is_complete=complete, campaign=answer)}
        return self.record.model_copy(update=changes)
