"""The JSON API and the live stream. Everything a page shows can be had here; nothing here changes anything."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from starlette.responses import StreamingResponse

from rapid.access import ErrorAnswer
from rapid.display.archive import Archive
from rapid.display.hub import Hub, Message, heartbeat
from rapid.display.models import (
    CameraView,
    DetectorView,
    ExposureView,
    FailuresView,
    Health,
    MovieView,
    NightCount,
    NightView,
    NowView,
    QuarantineView,
    StatusView,
)
from rapid.display.night_csv import night_as_csv
from rapid.display.reader import Reader
from rapid.display.settings import DisplaySettings
from rapid.display.timeline import Timeline
from rapid.gather.rollup import NightRollup
from rapid.nightlog.store import NightLog
from rapid.results.models import ExposureSummary

DayObs = Annotated[int, Path(ge=19900101, le=99991231, description="Observing day, YYYYMMDD.")]
ExposureId = Annotated[int, Path(gt=0, le=9999_12_31_99999, description="day_obs * 100000 + seq_num.")]
DetectorId = Annotated[int, Path(ge=0, le=100_000, description="Detector number.")]

ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such thing."},
    422: {"model": ErrorAnswer, "description": "A parameter is not valid; `field` says which."},
    503: {"model": ErrorAnswer, "description": "The board or the results store does not answer."},
}


def api_routes(settings: DisplaySettings, archive: Archive, reader: Reader, hub: Hub, nightlog: NightLog) -> APIRouter:
    """Return the routes below ``/api``, and the health checks."""
    router = APIRouter(responses=ERRORS)

    @router.get("/api/camera", tags=["facts"], summary="The camera, and how its numbers are named")
    async def camera() -> CameraView:
        """Return detectors with their places [mm], quantities with units, and the tiles."""
        return archive.camera_view

    @router.get("/api/now", tags=["exposures"], summary="The newest exposure")
    async def now() -> NowView:
        """Return the newest exposure as it stands, and the event id to go on from."""
        return archive.now()

    @router.get("/api/nights", tags=["exposures"], summary="All nights, newest first")
    async def nights() -> list[NightCount]:
        """Return each night with its number of exposures."""
        return await archive.nights()

    @router.get("/api/nights/{day_obs}", tags=["exposures"], summary="A night, newest exposure first")
    async def night(day_obs: DayObs) -> NightView:
        """Return a night's exposures; a night without any is empty, not an error."""
        return await archive.night(day_obs)

    @router.get("/api/nights/{day_obs}/csv", tags=["exposures"], summary="A night as CSV", response_class=Response)
    async def night_csv(day_obs: DayObs) -> Response:
        """Return every column of every exposure, oldest first, with the night log's flags and comments."""
        view = await archive.night(day_obs)
        log = await reader.ask_results(lambda: nightlog.entries(archive.camera.name, day_obs=day_obs))
        text = night_as_csv(view.exposures, log)
        name = f"{archive.camera.name}_{day_obs}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    @router.get("/api/exposures/{exposure_id}", tags=["exposures"], summary="One exposure")
    async def exposure(exposure_id: ExposureId) -> ExposureView:
        """Return the newest summary of each pipeline and every detector's state, with reasons."""
        return await archive.exposure(exposure_id)

    @router.get("/api/exposures/{exposure_id}/versions", tags=["exposures"], summary="All versions of its summaries")
    async def versions(exposure_id: ExposureId) -> list[ExposureSummary]:
        """Return every version of every summary, newest first."""
        return await archive.versions(exposure_id)

    @router.get("/api/exposures/{exposure_id}/timeline", tags=["exposures"], summary="Its way through the system")
    async def timeline(exposure_id: ExposureId) -> Timeline:
        """Return arrival, queue, payloads and gathers of every detector, as bars in time."""
        return await archive.timeline(exposure_id)

    @router.get("/api/nights/{day_obs}/rollup", tags=["exposures"], summary="A night in numbers")
    async def rollup(day_obs: DayObs) -> NightRollup:
        """Return counts by type and filter, what is missing and why, and how the main numbers were distributed."""
        return await archive.rollup(day_obs)

    @router.get("/api/nights/{day_obs}/movie", tags=["exposures"], summary="Where a night's movie is")
    async def movie(day_obs: DayObs) -> MovieView | None:
        """Return the address of a night's movie and which exposure each frame shows; null while there is none."""
        return await archive.movie(day_obs)

    @router.get("/api/exposures/{exposure_id}/failures", tags=["failures"], summary="Failed jobs of an exposure")
    async def exposure_failures(exposure_id: ExposureId) -> FailuresView:
        """Return the failures with their tracebacks."""
        return FailuresView(failures=await archive.failures(exposure_id))

    @router.get("/api/exposures/{exposure_id}/detectors/{detector}", tags=["exposures"], summary="One detector")
    async def detector(exposure_id: ExposureId, detector: DetectorId) -> DetectorView:
        """Return a detector's results with amps, timings and provenance, and its failures."""
        return await archive.detector(exposure_id, detector)

    @router.get("/api/status", tags=["system"], summary="The board: queues, workers, counters")
    async def status() -> StatusView:
        """Return the board's report of itself."""
        return await archive.status(viewers=hub.n_viewers)

    @router.get("/api/quarantine", tags=["failures"], summary="Raws that could not be read")
    async def quarantine() -> QuarantineView:
        """Return quarantined raws with the reason, newest first."""
        return QuarantineView(records=await archive.quarantine())

    @router.get("/api/failures", tags=["failures"], summary="Jobs that failed for good")
    async def failures() -> FailuresView:
        """Return failed jobs of all nights, newest first."""
        return FailuresView(failures=await archive.failures())

    @router.get(
        "/api/events",
        tags=["live"],
        summary="What happens, as server-sent events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def events(
        after: Annotated[str | None, Query(description="Id of the last event known; that of /api/now.")] = None,
        last_event_id: Annotated[str | None, Header(description="As browsers send it on reconnecting.")] = None,
    ) -> StreamingResponse:
        """Stream changes: ``exposures``, ``sources``, ``alert``, ``control``, ``exclusions``, ``requests``, ``heartbeat``.

        ``reset`` asks to load data anew.
        """
        return StreamingResponse(
            _frames(settings, reader, hub, last_event_id or after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @router.get("/healthz", tags=["system"], summary="Is the process alive")
    async def healthz() -> Health:
        """Answer."""
        return Health(status="alive")

    @router.get("/readyz", tags=["system"], summary="Can it show anything")
    async def readyz(response: Response) -> Health:
        """Answer 200 if board and results store answer, else 503."""
        await reader.check()
        response.status_code = 200 if reader.is_ready else 503
        return Health(status="ready" if reader.is_ready else "not ready", sources=reader.sources)

    return router


async def _frames(settings: DisplaySettings, reader: Reader, hub: Hub, after: str | None) -> AsyncIterator[bytes]:
    with hub.subscribe(after) as viewer:
        # The first bytes go out at once: the browser then knows that it is connected.
        sources = [source.model_dump(mode="json") for source in reader.sources]
        told = Message.make("sources", {"sources": sources}).frame + heartbeat()
        yield b"retry: 1000\n\n" + told
        async for frame in viewer.frames(heartbeat_s=settings.heartbeat_s):
            yield frame
