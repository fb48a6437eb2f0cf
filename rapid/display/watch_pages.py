"""The pages beside those of exposures: focus and wavefront, calibrations, the cluster, campaigns, the night log."""

from fastapi import APIRouter
from starlette.responses import HTMLResponse, RedirectResponse, Response

from rapid.display.api import DayObs
from rapid.display.archive import Archive
from rapid.display.pages import boot_data, render_page, shown_day
from rapid.display.settings import DisplaySettings
from rapid.exposure.models import ImageType
from rapid.nightlog.models import Flag
from rapid.pipeline.store import default_book


def watch_page_routes(settings: DisplaySettings, archive: Archive) -> APIRouter:
    """Return the pages' routes."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    camera = archive.camera.name

    def page(name: str, day_obs: int | None, **data: object) -> Response:
        view = archive.now()
        return render_page(
            f"{name}.html",
            settings,
            page=name,
            camera=camera,
            day_obs=day_obs or view.day_obs,
            day=shown_day(day_obs or view.day_obs),
            boot=boot_data(
                camera=archive.camera_view,
                day_obs=day_obs or view.day_obs,
                as_of=view.as_of,
                heartbeat_s=settings.heartbeat_s,
                **data,
            ),
        )

    @router.get("/focus")
    async def newest_focus() -> Response:
        # The page of the newest night, whatever it is: it stays open from night to night.
        return page("focus", None)

    @router.get("/focus/{day_obs}")
    async def focus(day_obs: DayObs) -> Response:
        return page("focus", day_obs)

    @router.get("/cluster")
    async def cluster() -> Response:
        return page("cluster", None)

    @router.get("/system")
    async def system() -> Response:
        return RedirectResponse("/cluster", status_code=308)

    @router.get("/calibrations")
    async def calibrations() -> Response:
        return page("calibrations", None)

    @router.get("/campaigns")
    async def campaigns() -> Response:
        book = default_book()
        return page(
            "campaigns",
            None,
            image_types=[kind.value for kind in ImageType],
            pipelines=[name for name in book.names if (found := book.get(name)) and found.builds is None],
        )

    @router.get("/log")
    async def newest_log() -> Response:
        return page("log", None, flags=[flag.value for flag in Flag])

    @router.get("/log/{day_obs}")
    async def log(day_obs: DayObs) -> Response:
        return page("log", day_obs, flags=[flag.value for flag in Flag])

    return router
