"""Verification and masters over HTTP, as the page of calibrations asks for them."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query

from rapid.display.api import ERRORS, DayObs, DetectorId, ExposureId
from rapid.display.asked import check_day, check_kind
from rapid.display.calibrations.assemble import masters_of, matrix_of, subject_of, tests_of, with_results
from rapid.display.calibrations.models import CalibrationNight, DetectorTests, MasterView, MatrixView, SubjectView
from rapid.display.reader import Reader
from rapid.display.summaries import summaries_of_night
from rapid.errors import NotFoundError
from rapid.results.models import CalibRecord, DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore

Pipeline = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="bias, build_bias, ...")]
N_KEPT = 8
"""Matrices kept, of 120 kB each: those of the newest exposures, which every viewer opens first."""
MAX_CALIBS = 10_000
"""Some fifty builds of all 205 detectors: older masters are found by `rapid calib list`."""


def calibration_routes(reader: Reader, results: ResultsStore, run: str) -> APIRouter:
    """Return the routes below ``/api/calibrations``."""
    router = APIRouter(tags=["calibrations"], responses=ERRORS)
    camera = reader.camera.name
    kept: dict[tuple[object, ...], MatrixView] = {}

    async def subject(exposure_id: int, pipeline: str) -> tuple[SubjectView, ExposureSummary]:
        summary = await reader.ask_results(
            lambda: results.latest_summary(camera, exposure_id, pipeline=pipeline, run=run)
        )
        found = subject_of(summary) if summary is not None else None
        if summary is None or found is None:
            raise NotFoundError("verification", f"{exposure_id} {pipeline}")
        return found, summary

    async def stored(exposure_id: int, pipeline: str, detector: int | None = None) -> list[DetectorResult]:
        return await reader.ask_results(
            lambda: results.results(exposure_id, camera=camera, run=run, pipeline=pipeline, detector=detector)
        )

    @router.get("/api/calibrations/nights/{day_obs}", summary="What was verified in a night")
    async def night(day_obs: DayObs) -> CalibrationNight:
        """Return calibration exposures and builds of masters with their verdicts, newest first."""
        check_day("day_obs", day_obs)
        summaries = await summaries_of_night(reader, day_obs)
        subjects = [found for summary in summaries if (found := subject_of(summary)) is not None]
        for at, one in enumerate(subjects):
            if one.is_master and one.outcome is None:
                subjects[at] = with_results(one, await stored(one.exposure_id, one.pipeline))
        nights = sorted(day for day, _ in await reader.ask_results(lambda: results.nights(camera)))
        return CalibrationNight(
            day_obs=day_obs,
            previous=max((day for day in nights if day < day_obs), default=None),
            next=min((day for day in nights if day > day_obs), default=None),
            subjects=sorted(subjects, key=lambda one: (one.exposure_id, one.is_master), reverse=True),
        )

    @router.get("/api/calibrations/matrix/{exposure_id}/{pipeline}", summary="Verification over the focal plane")
    async def matrix(exposure_id: ExposureId, pipeline: Pipeline) -> MatrixView:
        """Return how every detector and amp of a calibration exposure, or of a build, fared."""
        found, summary = await subject(exposure_id, pipeline)
        # Some twenty-five thousand tests are read for it: a second that the next viewer need not wait.
        key = (exposure_id, pipeline, summary.version, str(summary.gathered_at), summary.n_afterburned)
        made = kept.get(key)
        if made is None:
            rows = await stored(exposure_id, pipeline)
            made = await asyncio.to_thread(lambda: matrix_of(with_results(found, rows), summary, rows, reader.names))
            kept[key] = made
            while len(kept) > N_KEPT:
                kept.pop(next(iter(kept)))
        return made

    @router.get("/api/calibrations/matrix/{exposure_id}/{pipeline}/{detector}", summary="Every test of a detector")
    async def tests(exposure_id: ExposureId, pipeline: Pipeline, detector: DetectorId) -> DetectorTests:
        """Return every test of every amp of a detector: value, limits, outcome."""
        found, _ = await subject(exposure_id, pipeline)
        rows = await stored(exposure_id, pipeline, detector)
        if not rows:
            raise NotFoundError("result of detector", detector)
        return tests_of(found, rows[0])

    @router.get("/api/calibrations/masters", summary="Masters, built together shown together")
    async def masters(
        kind: Annotated[str | None, Query(max_length=32, description="Only these: bias, dark, flat, ...")] = None,
    ) -> list[MasterView]:
        """Return masters with state, version and validity, newest first; those that were rejected as well."""

        def look() -> list[CalibRecord]:
            check_kind(results, reader.camera, kind)
            return results.calibs(camera, kind=kind, state=None, limit=MAX_CALIBS)

        calibs = await reader.ask_results(look)
        return await asyncio.to_thread(lambda: masters_of(calibs, reader.names, now=datetime.now(UTC)))

    return router
