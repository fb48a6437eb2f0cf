"""Build a calib for a request: the batch that follows the processing.

The build is the same job as that of an afternoon's sequence (`rapid.head.builds`), and the same batch if it is of the same
exposures. The job that builds a calib verifies it (`rapid.worker.verify`); `rapid.requests.verify` says what came of it.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapid.camera.models import Camera
from rapid.campaign.plan import Listing
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec
from rapid.head.build_inputs import BuildInputs, find_build_inputs
from rapid.head.builds import apply_rules
from rapid.head.exclusions import Exclusions
from rapid.head.known import KnownExposures
from rapid.head.targets import Stage, Target
from rapid.pipeline.models import Pipeline, PipelineBook
from rapid.pipeline.store import load_pipeline
from rapid.requests.models import PROMPT, RequestRecord
from rapid.results.models import DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore

VERIFY_SUFFIX = "-verify"
"""Of the run under which checks of calibs were stored, before the job that builds one verified it."""


@dataclass(frozen=True)
class Means:
    """What requests are fulfilled with.

    Attributes
    ----------
    lead_token
        The lead under which batches are posted.
    began_ms
        Board time when the lead began.
    thresholds
        A site's own thresholds of verifications.
    listing
        Where raws are looked up by night, for campaigns; None if nobody said where raws are.
    """

    camera: Camera
    board: AsyncBoard
    results: ResultsStore
    book: PipelineBook
    known: KnownExposures
    exclusions: Exclusions
    lead_token: int
    began_ms: int = 0
    thresholds: Path | None = None
    listing: Listing | None = None


async def begin_build(
    means: Means,
    record: RequestRecord,
    kind: str,
    members: tuple[int, ...],
    *,
    detectors: frozenset[int] | None,
) -> Target:
    """Have a calib built, or follow its build if the afternoon's own one is of the same exposures.

    Parameters
    ----------
    members
        Exposures to combine, in order; all have been processed.
    detectors
        Detectors to build for; None for all that were read out.
    """
    last = members[-1]
    camera, results = means.camera, means.results
    pipeline = load_pipeline(f"build_{kind}", means.book)

    spec = record.spec

    def look_up() -> tuple[BuildInputs, list[ExposureSummary], list[DetectorResult]]:
        # A build that is told to make do with fewer fails by itself if it cannot.
        least = 1 if spec is not None and spec.config else None
        found = find_build_inputs(results, camera, kind, members, detectors=detectors, least=least)
        prompt = results.results(last, camera=camera.name, run=PROMPT, pipeline=pipeline.name)
        return found, results.summary_versions(camera.name, last), prompt

    await apply_rules(results, camera.name, members)
    inputs, summaries, built = await asyncio.to_thread(look_up)
    info = next((summary.info for summary in summaries if summary.info), {})
    is_plain = spec is not None and spec.reuse and not spec.config and spec.run is None and detectors is None
    is_whole_group = info.get("group_id") is not None and info.get("group_size") == len(members)
    # Nor is it the same batch if one of its exposures, or a detector, has been excluded since.
    is_other = not all(inputs.is_of_these(result) for result in built)
    run = PROMPT if is_plain and is_whole_group and not is_other else record.run
    target = Target(
        key=BatchKey(run=run, exposure_id=last, pipeline=pipeline.name),
        stage=Stage.BUILD,
        is_own=run != PROMPT,
        wanted=frozenset(inputs.raws.keys() | inputs.unusable.keys()),
    )
    image_type = next((summary.image_type for summary in summaries), kind)
    await _post(
        means,
        record,
        target,
        image_type,
        pipeline,
        found=inputs,
        info=info,
        inputs=members,
        config=spec.config if spec else {},
    )
    return target


async def _post(
    means: Means,
    record: RequestRecord,
    target: Target,
    image_type: str,
    pipeline: Pipeline,
    *,
    found: BuildInputs,
    info: dict[str, Any],
    inputs: tuple[int, ...],
    config: dict[str, dict[str, Any]],
) -> None:
    key, camera = target.key, means.camera.name

    def stored() -> tuple[ExposureSummary | None, dict[int, Any]]:
        built = means.results.results(key.exposure_id, camera=camera, run=key.run, pipeline=key.pipeline)
        newest = means.results.latest_summary(camera, key.exposure_id, pipeline=key.pipeline, run=key.run)
        return newest, {result.detector: dict(result.metrics) for result in built}

    summary, finished = await asyncio.to_thread(stored)
    if summary is not None and target.is_settled_in(summary):
        target.take(summary)
        return
    limit_ms = int(pipeline.time_limit_s * 1000)
    target.spec = BatchSpec(
        key=key,
        camera=camera,
        image_type=image_type,
        expected=frozenset(found.raws.keys() | found.unusable.keys()),
        excluded=found.unusable,
        raws=found.raws,
        pool=pipeline.pool,
        info=info,
        inputs=inputs,
        config=config,
        control={} if key.run == PROMPT else {"request": record.request_id},
        finished={detector: metrics for detector, metrics in finished.items() if detector in found.raws},
        version=summary.version if summary else 0,
        time_limit_ms=limit_ms,
        gather_timeout_ms=limit_ms,
        regather_timeout_ms=2 * limit_ms,
        deadline_ms=4 * limit_ms,
    )
    await means.board.post(target.spec, lead_token=means.lead_token)
