"""The pages. The server paints them first, with their data inside; the scripts in ``static/js`` keep them alive."""

import json
from pathlib import Path as FilePath
from typing import Any

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from pydantic import BaseModel
from starlette.responses import HTMLResponse, RedirectResponse, Response

from rapid.dispatch.models import WorkerMode
from rapid.display.api import DayObs, ExposureId
from rapid.display.archive import Archive
from rapid.display.models import ExposureView, TileView
from rapid.display.settings import DisplaySettings
from rapid.exposure.models import ImageType
from rapid.patterns import VisitMode
from rapid.pipeline.store import default_book
from rapid.requests.models import Combine, RequestPriority
from rapid.results.models import Scalar

DASH = "—"

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FilePath(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def shown_day(day_obs: int | None) -> str:
    """Return an observing day with dashes.

    Examples
    --------
    >>> shown_day(20261120), shown_day(None)
    ('2026-11-20', '—')
    """
    text = str(day_obs or "")
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 else DASH


def shown_tile(tile: TileView, metrics: dict[str, Scalar]) -> str:
    """Return a tile's number as text, an em dash where nothing was measured."""
    found = next((v for k in tile.keys if isinstance(v := metrics.get(k), int | float)), None)
    return DASH if found is None else f"{found:.{tile.decimals}f}".replace("-", "−")


def tile_set(view: ExposureView | None) -> str:
    """Return which tiles an exposure is shown with."""
    return "calibration" if view is not None and view.row.image_type in {"bias", "dark", "flat"} else "sky"


def boot_data(**data: Any) -> str:
    """Return data as JSON that may stand inside a page: no ``<`` can end the script element it is in."""
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value for name, value in data.items()
    }
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def wants_page(request: Request) -> bool:
    """Whether an error is to be shown to a person: a browser that opened an address, not a script or a picture."""
    path = request.url.path
    return "text/html" in request.headers.get("accept", "") and not path.startswith(("/api/", "/products/", "/static/"))


def render_page(template: str, settings: DisplaySettings, *, status: int = 200, **data: Any) -> HTMLResponse:
    """Return a template as a page that no cache keeps."""
    text = _ENVIRONMENT.get_template(template).render(title=settings.title, **data)
    return HTMLResponse(text, status_code=status, headers={"Cache-Control": "no-store"})


def error_page(settings: DisplaySettings, *, status: int, message: str) -> Response:
    """Return a page that says what went wrong, with a way back."""
    return render_page(
        "error.html", settings, status=status, message=message, camera=settings.camera, page="", day_obs=None
    )


def page_routes(settings: DisplaySettings, archive: Archive) -> APIRouter:
    """Return the pages' routes."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    camera = archive.camera.name

    @router.get("/")
    async def now() -> Response:
        view = archive.now()
        kind = tile_set(view.exposure)
        tiles = archive.camera_view.tiles[kind]
        metrics = view.exposure.row.metrics if view.exposure is not None else {}
        values = [(tile, shown_tile(tile, metrics)) for tile in tiles]
        return render_page(
            "now.html",
            settings,
            page="now",
            camera=camera,
            day_obs=view.day_obs,
            day=shown_day(view.day_obs),
            row=view.exposure.row if view.exposure is not None else None,
            tiles=values,
            n_tiles=sum(not tile.is_optional or value != DASH for tile, value in values),
            boot=boot_data(camera=archive.camera_view, now=view, heartbeat_s=settings.heartbeat_s),
        )

    @router.get("/night")
    async def newest_night() -> Response:
        nights = await archive.nights()
        if not nights:
            return render_page("error.html", settings, message="There is no night yet: nothing has been taken.",
                           camera=camera, page="night", day_obs=None)  # fmt: skip
        return RedirectResponse(f"/night/{nights[0].day_obs}", status_code=307)

    @router.get("/night/{day_obs}")
    async def night(day_obs: DayObs) -> Response:
        view = archive.now()
        return render_page(
            "night.html",
            settings,
            page="night",
            camera=camera,
            day_obs=day_obs,
            day=shown_day(day_obs),
            boot=boot_data(
                camera=archive.camera_view, day_obs=day_obs, as_of=view.as_of, heartbeat_s=settings.heartbeat_s
            ),
        )

    @router.get("/exposure/{exposure_id}")
    async def exposure(exposure_id: ExposureId) -> Response:
        now_view = archive.now()
        view = await archive.exposure(exposure_id)
        return render_page(
            "exposure.html",
            settings,
            page="exposure",
            camera=camera,
            day_obs=view.row.day_obs,
            day=shown_day(view.row.day_obs),
            row=view.row,
            boot=boot_data(
                camera=archive.camera_view, view=view, as_of=now_view.as_of, heartbeat_s=settings.heartbeat_s
            ),
        )

    @router.get("/control")
    async def control() -> Response:
        view = archive.now()
        book = default_book()
        return render_page(
            "control.html",
            settings,
            page="control",
            camera=camera,
            day_obs=view.day_obs,
            boot=boot_data(
                camera=archive.camera_view,
                amps={detector.id: list(detector.amp_by_name) for detector in archive.camera.detectors},
                image_types=[kind.value for kind in ImageType],
                pipelines=[name for name in book.names if (found := book.get(name)) and found.builds is None],
                visit_modes=[mode.value for mode in VisitMode],
                worker_modes=[mode.value for mode in WorkerMode],
                as_of=view.as_of,
                heartbeat_s=settings.heartbeat_s,
            ),
        )

    @router.get("/requests")
    async def requests() -> Response:
        view = archive.now()
        book = default_book()
        return render_page(
            "requests.html",
            settings,
            page="requests",
            camera=camera,
            day_obs=view.day_obs,
            boot=boot_data(
                camera=archive.camera_view,
                day_obs=view.day_obs,
                image_types=[kind.value for kind in ImageType],
                pipelines=[name for name in book.names if (found := book.get(name)) and found.builds is None],
                combines=[kind.value for kind in Combine],
                priorities=[kind.value for kind in RequestPriority],
                as_of=view.as_of,
                heartbeat_s=settings.heartbeat_s,
            ),
        )

    return router
