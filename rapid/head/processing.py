"""Have the exposures of a request processed: by the night's own batches where they are what is asked for, else by ours."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError

from rapid.camera.models import Purpose
from rapid.dispatch.commands import order_of
from rapid.dispatch.models import BatchKey, BatchSpec, Priority
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.head.building import Means
from rapid.head.known import KnownExposure
from rapid.head.targets import Stage, Target
from rapid.pipeline.models import Pipeline
from rapid.pipeline.store import choose_pipeline, load_pipeline
from rapid.requests.faults import BadRequestError
from rapid.requests.models import PROMPT, Combine, RequestPriority, RequestRecord, RequestSpec
from rapid.results.models import DetectorState, DetectorStatus, ExposureSummary, Scalar

log = structlog.get_logger()

POST_PATIENCE_S = 3.0
"""How long the night's own batch of an exposure that has just come may take to appear on the board."""

GATHER_MS = 60_000
"""From the first result to a summary that is not whole: a request wants the whole one."""

DEADLINE_MS = 120_000
"""How long raws that were announced and do not come are waited for: as by the night's own batches."""


class Processing:
    """Finds and posts the batches of one request.

    Parameters
    ----------
    record
        The request, as it was accepted.
    detectors
        Detectors it asks for; None for all science detectors.
    """

    def __init__(self, record: RequestRecord, detectors: frozenset[int] | None, means: Means) -> None:
        if record.spec is None:
            raise BadRequestError("request", "cannot be read")
        self.spec: RequestSpec = record.spec
        self._record = record
        self._detectors = detectors
        self._means = means

    async def may_come_by_itself(self, known: KnownExposure, pipeline: Pipeline) -> bool:
        """Whether the night's own batch of an exposure is not on the board, and may be a moment away."""
        is_young = known.is_live and self._means.known.age_s(known.exposure_id) < POST_PATIENCE_S
        if not is_young or not self.spec.reuse or self._is_special:
            return False
        key = BatchKey(run=PROMPT, exposure_id=known.exposure_id, pipeline=pipeline.name)
        return await self._means.board.state(key) is None

    def plan(self, known: KnownExposure) -> list[tuple[Pipeline, frozenset[int]]]:
        """Return the pipelines of an exposure and the detectors of each."""
        camera = self._means.camera
        wanted = self._detectors if self._detectors is not None else camera.science_ids
        if self.spec.pipeline is not None:
            return [(load_pipeline(self.spec.pipeline, self._means.book), wanted)]
        plans: dict[str, tuple[Pipeline, frozenset[int]]] = {}
        for purpose in Purpose:
            detectors = frozenset(number for number in wanted if camera.by_id[number].purpose is purpose)
            if detectors:
                pipeline = choose_pipeline(
                    self._info_of(known, min(detectors)), dict(known.header or {}), self._means.book, purpose=purpose
                )
                before = plans.get(pipeline.name, (pipeline, frozenset()))[1]
                plans[pipeline.name] = (pipeline, before | detectors)
        return list(plans.values())

    def _info_of(self, known: KnownExposure, detector: int) -> ExposureInfo:
        camera = self._means.camera
        place = {"detector": detector, "detector_name": camera.by_id[detector].name}
        place["is_guider"] = detector in known.guiders and detector not in known.raws
        try:
            return ExposureInfo.model_validate({**known.info, **place})
        except ValidationError:
            return ExposureInfo(
                camera=camera.name,
                exposure_id=known.exposure_id,
                obs_id=str(known.exposure_id),
                controller="O",
                day_obs=known.exposure_id // 100_000,
                seq_num=known.exposure_id % 100_000,
                image_type=ImageType(known.image_type),
                detector=detector,
                detector_name=camera.by_id[detector].name,
            )

    @property
    def _is_special(self) -> bool:
        """Whether it wants something that the night's own processing does not do."""
        return bool(self.spec.config) or self.spec.run is not None or not self.spec.reuse

    async def reuse(self, known: KnownExposure, pipeline: Pipeline, wanted: frozenset[int]) -> Target | None:
        """Return the night's own batch of an exposure, if it is what is asked for."""
        if self._is_special and not (self.spec.combine and self.spec.combine.builds and self.spec.reuse):
            return None
        key = BatchKey(run=PROMPT, exposure_id=known.exposure_id, pipeline=pipeline.name)
        state = await self._means.board.state(key)
        if state is not None:
            statuses: Mapping[int, DetectorStatus] = state.detectors
            finished = state.finished
        else:
            summary = await self.summary_of(key)
            if summary is None:
                return None
            statuses = summary.detectors
            finished = frozenset(d for d, s in statuses.items() if s.state is DetectorState.FINISHED)
        left_out = {DetectorState.SUPERSEDED, DetectorState.EXCLUDED}
        if self._detectors is not None:
            # Its numbers are medians over its detectors: they have to be the same.
            if {d for d, s in statuses.items() if s.state not in left_out} != set(wanted):
                return None
        elif self.spec.combine not in {Combine.FOCUS_SWEEP, Combine.DONUT_PAIR} and any(
            s.state is DetectorState.SUPERSEDED and d not in finished for d, s in statuses.items()
        ):
            return None
        wanted = frozenset(statuses) if self._detectors is None else wanted
        return Target(key=key, stage=Stage.PROCESS, is_own=False, wanted=wanted, done=set(finished & wanted))

    async def post_own(
        self, known: KnownExposure, pipeline: Pipeline, wanted: frozenset[int], now_ms: int, *, again: bool = False
    ) -> Target:
        """Post a batch under the request's own run; ``again``: also if all its detectors have ended."""
        camera = self._means.camera
        raws = known.guiders if pipeline.name == "guider" else known.raws
        expected = wanted
        if known.read_out is not None:
            expected &= {camera.by_name[name].id for name in known.read_out if name in camera.by_name} | set(raws)
        elif not known.is_live:
            expected &= set(raws)
        target = Target(
            key=BatchKey(run=self._record.run, exposure_id=known.exposure_id, pipeline=pipeline.name),
            stage=Stage.PROCESS,
            is_own=True,
            wanted=expected,
            without_raw=dict.fromkeys(wanted - expected, "there is no raw of it")
            if self._detectors is not None
            else {},
            give_up_ms=now_ms + DEADLINE_MS,
        )
        if not expected:
            target.has_ended = True
            return target
        stored = await self.summary_of(target.key)
        if stored is not None and target.is_settled_in(stored) and not again:
            target.take(stored)
            return target
        off = await self._means.exclusions.of(begin_of(known))
        target.spec = BatchSpec(
            key=target.key,
            camera=camera.name,
            image_type=known.image_type,
            expected=expected,
            raws={detector: raws[detector] for detector in expected & set(raws)},
            excluded=off.among(expected),
            pool=pipeline.pool,
            info={**known.info, **off.facts},
            config=_merged(off.config_for(pipeline), self.spec.config),
            control={"request": self._record.request_id, "guaranteed": self.spec.guaranteed},
            time_limit_ms=int(pipeline.time_limit_s * 1000),
            gather_timeout_ms=GATHER_MS,
            regather_timeout_ms=2 * GATHER_MS,
            deadline_ms=max(DEADLINE_MS, int(2 * pipeline.time_limit_s * 1000)),
            **self._order(known.exposure_id),
        )
        await self._post(target)
        if known.quarantined:
            reasons = {detector: why for detector, why in known.quarantined.items() if detector in expected}
            if reasons:
                await self._means.board.settle(target.key, DetectorState.QUARANTINED, reasons)
        return target

    def _order(self, exposure_id: int) -> dict[str, Any]:
        if self.spec.priority is RequestPriority.BACKLOG:
            return {"priority": Priority.BACKLOG}
        if self.spec.priority is RequestPriority.URGENT:
            return {"order": max(order_of(exposure_id), self._means.known.newest or 0)}
        return {}

    async def _post(self, target: Target) -> None:
        """Post a batch with what is already stored of it (I2)."""
        if target.spec is None:
            return
        key, results, camera = target.key, self._means.results, self._means.camera.name

        def stored() -> tuple[int, dict[int, dict[str, Scalar]]]:
            found = results.results(key.exposure_id, camera=camera, run=key.run, pipeline=key.pipeline)
            newest = results.latest_summary(camera, key.exposure_id, pipeline=key.pipeline, run=key.run)
            return newest.version if newest else 0, {result.detector: dict(result.metrics) for result in found}

        version, finished = await asyncio.to_thread(stored)
        finished = {detector: metrics for detector, metrics in finished.items() if detector in target.wanted}
        spec = target.spec.model_copy(update={"finished": finished, "version": version})
        receipt = await self._means.board.post(spec, lead_token=self._means.lead_token)
        target.done |= set(finished)
        target.raws = frozenset(spec.raws)
        if receipt.created:
            log.info(
                "request posted",
                request_id=self._record.request_id,
                batch=key.id,
                n_expected=len(target.wanted),
                n_queued=receipt.queued,
            )

    async def add_raws(self, target: Target) -> None:
        """Post raws that came after the batch."""
        known = self._means.known.live(target.key.exposure_id)
        if known is None or target.spec is None:
            return
        raws = known.guiders if target.key.pipeline == "guider" else known.raws
        new = {detector: raws[detector] for detector in target.wanted & set(raws) - target.raws}
        if new:
            await self._means.board.arrive(target.key, new)
            target.raws |= set(new)
        bad = {detector: why for detector, why in known.quarantined.items() if detector in target.wanted}
        if bad:
            await self._means.board.settle(target.key, DetectorState.QUARANTINED, bad)

    async def summary_of(self, key: BatchKey) -> ExposureSummary | None:
        """Return the newest summary of a batch, or None."""
        return await asyncio.to_thread(
            lambda: self._means.results.latest_summary(
                self._means.camera.name, key.exposure_id, pipeline=key.pipeline, run=key.run
            )
        )


def begin_of(known: KnownExposure) -> datetime | None:
    """Return when an exposure began [TAI], as its facts say."""
    begin = known.info.get("begin")
    try:
        return datetime.fromisoformat(begin) if isinstance(begin, str) else None
    except ValueError:
        return None


def _merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return settings by payload, with changes to some of them."""
    return {name: {**config.get(name, {}), **changes.get(name, {})} for name in {**config, **changes}}
