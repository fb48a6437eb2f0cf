"""Focus and wavefront over HTTP."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter

from rapid.display.api import ERRORS, DayObs, ExposureId
from rapid.display.focus.assemble import focus_of_night, has_wavefront, wavefront_detail
from rapid.display.focus.models import FocusNight, WavefrontDetail
from rapid.display.reader import Reader
from rapid.display.summaries import summaries_of_night
from rapid.errors import NotFoundError
from rapid.products.store import ProductsStore
from rapid.results.store import ResultsStore


def focus_routes(reader: Reader, results: ResultsStore, products: ProductsStore, run: str) -> APIRouter:
    """Return the routes of focus and wavefront."""
    router = APIRouter(tags=["focus"], responses=ERRORS)
    camera = reader.camera.name

    @router.get("/api/focus/{day_obs}", summary="Focus and wavefront of a night")
    async def focus(day_obs: DayObs) -> FocusNight:
        """Return sweeps, donut pairs, wavefronts and the history of the focus offset; empty if there are none."""
        summaries = await summaries_of_night(reader, day_obs)
        return await asyncio.to_thread(focus_of_night, day_obs, summaries)

    @router.get("/api/exposures/{exposure_id}/wavefront", summary="The wavefront of an exposure, place by place")
    async def wavefront(exposure_id: ExposureId) -> WavefrontDetail:
        """Return the newest joint wavefront of an exposure with its corners or detectors and the global fit."""
        versions = await reader.ask_results(lambda: results.summary_versions(camera, exposure_id))
        # Newest version first; of several pipelines, one that has a report.
        found = [summary for summary in versions if summary.run == run and has_wavefront(summary)]
        chosen = next((summary for summary in found if "wavefront" in summary.products), found[0] if found else None)
        if chosen is None:
            raise NotFoundError("wavefront of exposure", exposure_id)
        report: dict[str, Any] = {}
        if (key := chosen.products.get("wavefront")) is not None:
            report = json.loads(await asyncio.to_thread(products.get, key))
        return wavefront_detail(chosen, report)

    return router
