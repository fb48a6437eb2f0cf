"""The report of a night: as JSON, and as a page that can be kept."""

from fastapi import APIRouter, Response
from starlette.responses import HTMLResponse

from rapid.display.api import ERRORS, DayObs
from rapid.display.reader import Reader
from rapid.nightlog.page import render_report
from rapid.nightlog.report import night_report
from rapid.nightlog.report_models import NightReport
from rapid.results.store import ResultsStore


def report_routes(reader: Reader, results: ResultsStore, run: str) -> APIRouter:
    """Return the routes of night reports."""
    router = APIRouter(tags=["night log"], responses=ERRORS)

    @router.get("/api/nights/{day_obs}/report", summary="The report of a night")
    async def report(day_obs: DayObs) -> NightReport:
        """Return efficiency, counts, quality, what is missing and why, calibrations, comments; as things stand now."""
        return await reader.ask_results(lambda: night_report(reader.camera, results, day_obs, run=run))

    @router.get("/night/{day_obs}/report", include_in_schema=False, response_class=HTMLResponse)
    async def report_page(day_obs: DayObs, download: bool = False) -> Response:
        def make() -> str:
            # A page that is kept must not point at wherever it is opened.
            return render_report(
                night_report(reader.camera, results, day_obs, run=run), link_to="" if download else "."
            )

        text = await reader.ask_results(make)
        headers = {"Cache-Control": "no-store"}
        if download:
            name = f"{reader.camera.name}_{day_obs}_report.html"
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return HTMLResponse(text, headers=headers)

    return router
