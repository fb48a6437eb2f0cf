"""Build calibs when the afternoon's sequences are whole: a policy of the leading head."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec, Event, EventKind, Priority
from rapid.exclusions.rule_store import RuleStore
from rapid.head.build_inputs import find_build_inputs
from rapid.head.decide import SEQUENCE_TYPES, calib_groups, choose_builds
from rapid.head.events import follow_events
from rapid.head.models import CalibGroup
from rapid.pipeline.models import PipelineBook
from rapid.pipeline.store import load_pipeline
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

RUN = "prompt"
CALIBRATION_PIPELINES = frozenset({"bias", "dark", "flat"})


class CalibBuilder:
    """Posts builds of combined calibs, as long as its head leads.

    Parameters
    ----------
    camera, board, results, book
        As for the head.
    lead_token
        The lead under which it posts.
    """

    def __init__(
        self, camera: Camera, board: AsyncBoard, results: ResultsStore, book: PipelineBook, *, lead_token: int
    ) -> None:
        self._camera = camera
        self._board = board
        self._results = results
        self._book = book
        self._token = lead_token

    async def run(self) -> None:
        """Build what is due, now and after every summary that may complete a sequence."""
        last = await self._board.last_event_id()
        nights = await asyncio.to_thread(self._results.nights, self._camera.name)
        if nights:
            await self._build(nights[0][0])
        async for events in follow_events(self._board, last):
            for day_obs in sorted({_day_of(event) for event in events if _may_complete_sequence(event)}):
                await self._build(day_obs)

    async def _build(self, day_obs: int) -> None:
        summaries = await asyncio.to_thread(
            lambda: self._results.summaries(self._camera.name, day_obs=day_obs, limit=10_000, run=RUN)
        )
        groups = calib_groups(summaries)
        built: dict[tuple[str, int], bool] = {}
        for group in groups:
            key = BatchKey(run=RUN, exposure_id=group.members[-1], pipeline=f"build_{group.kind}")
            done = next((s for s in summaries if s.exposure == key.exposure_id and s.pipeline == key.pipeline), None)
            if done is not None:
                built[group.key] = True
            elif await self._board.state(key) is not None:
                built[group.key] = False
        recent = await self._board.recent(500)
        for group in choose_builds(groups, built, ungathered=ungathered_of(day_obs, recent, summaries)):
            await self._post_build(group)

    async def _post_build(self, group: CalibGroup) -> None:
        last = group.members[-1]
        await apply_rules(self._results, self._camera.name, group.members)
        found = await asyncio.to_thread(find_build_inputs, self._results, self._camera, group.kind, group.members)
        if not found.raws and not found.unusable:
            return
        pipeline = load_pipeline(f"build_{group.kind}", self._book)
        summaries = await asyncio.to_thread(self._results.summary_versions, self._camera.name, last)
        await self._board.post(
            BatchSpec(
                key=BatchKey(run=RUN, exposure_id=last, pipeline=pipeline.name),
                camera=self._camera.name,
                image_type=group.image_type,
                expected=frozenset(found.raws.keys() | found.unusable.keys()),
                excluded=found.unusable,
                raws=found.raws,
                pool=pipeline.pool,
                info=summaries[0].info if summaries else {},
                inputs=group.members,
                # Defects wait: nothing of this night's is worse for having those of the last.
                priority=Priority.BACKLOG if group.kind == "defects" else Priority.CURRENT,
                time_limit_ms=int(pipeline.time_limit_s * 1000),
                gather_timeout_ms=int(pipeline.time_limit_s * 1000),
                deadline_ms=int(4 * pipeline.time_limit_s * 1000),
            ),
            lead_token=self._token,
        )
        log.info("calib build posted", kind=group.kind, n_inputs=len(group.members), n_detectors=len(found.raws))
        for detector, why in found.unusable.items():
            log.info("no calib of a detector", kind=group.kind, detector=detector, reason=why)


def ungathered_of(day_obs: int, recent: Iterable[BatchKey], summaries: Iterable[ExposureSummary]) -> set[int]:
    """Return the calibration exposures of a night that were posted and have no summary yet.

    Parameters
    ----------
    recent
        Batches on the board, of this night and of others: those of the afternoon before have their summaries elsewhere,
        and would hold up this one's builds for as long as the board remembers them.
    summaries
        The night's.
    """
    gathered = {(summary.exposure, summary.pipeline) for summary in summaries}
    return {
        key.exposure_id
        for key in recent
        if key.exposure_id // 100_000 == day_obs
        and key.run == RUN
        and key.pipeline in CALIBRATION_PIPELINES
        and (key.exposure_id, key.pipeline) not in gathered
    }


async def apply_rules(results: ResultsStore, camera: str, members: tuple[int, ...]) -> None:
    """Let the rules on metrics exclude what is bad of some exposures, before something is built from them."""
    found = await asyncio.to_thread(lambda: RuleStore(results.engine).apply(camera, members, now=datetime.now(UTC)))
    for one in found:
        log.warning("left out of builds", what=one.name, reason=one.why)


def _may_complete_sequence(event: Event) -> bool:
    return event.kind is EventKind.SUMMARY_READY and event.data.get("image_type") in SEQUENCE_TYPES


def _day_of(event: Event) -> int:
    return int(event.data.get("day_obs") or (event.exposure_id or 0) // 100_000)
