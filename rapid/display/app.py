"""Build the display's web application, and serve it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapid import __version__
from rapid.access import Access, AccessSettings, BodyLimit, UnauthorizedError, error_document, status_of
from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.campaign.listings import open_listing
from rapid.campaign.plan import Listing
from rapid.control.http import control_routes
from rapid.control.store import AsyncControlStore
from rapid.dispatch.board import AsyncBoard
from rapid.display.api import api_routes
from rapid.display.archive import Archive
from rapid.display.bad_inputs import bad_input_routes
from rapid.display.calibrations.routes import calibration_routes
from rapid.display.calibs import calib_routes
from rapid.display.campaigns.compare import RunComparer
from rapid.display.campaigns.routes import CampaignDoor, campaign_routes
from rapid.display.cluster.routes import cluster_routes
from rapid.display.drawing import drawing_routes
from rapid.display.exclusions import exclusion_routes
from rapid.display.files import products_routes
from rapid.display.focus.routes import focus_routes
from rapid.display.hub import Hub
from rapid.display.images.darkroom import Darkroom
from rapid.display.images.routes import image_routes
from rapid.display.metrics import metrics_routes
from rapid.display.nightlog import log_routes
from rapid.display.pages import page_routes, wants_page
from rapid.display.reader import Reader
from rapid.display.report import report_routes
from rapid.display.settings import DisplaySettings
from rapid.display.trends import trend_routes
from rapid.display.watch_pages import watch_page_routes
from rapid.errors import ConfigurationError, RapidError
from rapid.exclusions.store import ExclusionStore
from rapid.nightlog.store import NightLog
from rapid.operations.store import OperationsStore
from rapid.pipeline.store import default_book
from rapid.products.store import open_products
from rapid.requests.http import Waiters, request_routes
from rapid.requests.store import AsyncRequestBoard
from rapid.requests.uws import uws_routes
from rapid.results.store import open_results

log = structlog.get_logger()

STATIC = Path(__file__).parent / "static"

BOARD_OUTAGE_S = 2.0
"""How long a call to the board goes on trying: a page must say soon that the board is away."""

SECURITY_HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    b"frame-ancestors 'self'; base-uri 'none'; form-action 'self'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
}


class SecurityHeaders:
    """Adds headers to every answer that does not bring stricter ones. Plain ASGI, so that streams stay streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and its answer back."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                headers += [(name, value) for name, value in SECURITY_HEADERS.items() if name not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def create_app(settings: DisplaySettings) -> FastAPI:
    """Return the display as an ASGI application.

    Raises
    ------
    ConfigurationError
        Raised if camera, results or products cannot be opened as told.
    NotFoundError
        Raised for an unknown camera.
    StoreError
        Raised if the results store does not answer. The board may be away: the display says so and waits.
    """
    access = Access(
        AccessSettings(
            token=settings.token, proxy_header=settings.proxy_header, trusted_proxies=settings.trusted_proxies
        )
    )
    camera = load_camera(settings.camera)
    results = open_results(settings.results_url)
    products = open_products(settings.products_url)
    board = AsyncBoard(settings.redis_url, camera.name, outage_s=BOARD_OUTAGE_S)
    hub = Hub(history=settings.history, limit=settings.viewer_queue)
    reader = Reader(settings, camera, board, results, hub)
    archive = Archive(settings, camera, reader, results, products)
    darkroom = Darkroom(
        results_url=settings.results_url,
        calibs_path=settings.calibs_path or Path("calibs"),
        n_kept=settings.images_kept,
        task_s=settings.image_s,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(reader.run())
        following.add_done_callback(_say_why_it_ended)
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await darkroom.close()
            await board.close()
            results.close()

    app = FastAPI(
        title=settings.title,
        version=__version__,
        description="Quick-look results of the newest exposures. Live changes: `/api/events`. Reading is open; "
        "changes need a token.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from the network; the document itself is at /openapi.json
        redoc_url=None,
    )
    app.state.hub = hub
    app.add_middleware(BodyLimit)
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)
    app.add_middleware(SecurityHeaders)
    nightlog = NightLog(results.engine)
    app.include_router(api_routes(settings, archive, reader, hub, nightlog))
    app.include_router(image_routes(archive, products, darkroom))
    app.include_router(products_routes(products))
    app.include_router(page_routes(settings, archive))
    app.include_router(metrics_routes(reader, hub))
    app.include_router(access.routes())
    control = AsyncControlStore(board.connection, camera, default_book())
    app.include_router(control_routes(control, access))
    requests, waiters = AsyncRequestBoard(board.connection, camera.name), Waiters()

    async def saved_patterns() -> Mapping[str, str]:
        return (await control.read()).state.patterns

    app.include_router(request_routes(requests, camera, default_book(), access, named=saved_patterns, waiters=waiters))
    campaigns = CampaignDoor(
        reader,
        results,
        requests,
        default_book(),
        control,
        listing=_listing_of(settings, camera),
        comparer=RunComparer(camera.name, settings.results_url, limit_s=settings.compare_s),
    )
    app.include_router(campaign_routes(campaigns, access))
    app.include_router(uws_routes(requests, camera.name, access, waiters=waiters))
    app.include_router(drawing_routes(camera))
    app.include_router(focus_routes(reader, results, products, settings.run))
    app.include_router(log_routes(access, nightlog, reader, hub))
    app.include_router(calibration_routes(reader, results, settings.run))
    app.include_router(report_routes(reader, results, settings.run))
    app.include_router(cluster_routes(access, OperationsStore(results.engine), reader, hub))
    app.include_router(watch_page_routes(settings, archive))
    app.include_router(exclusion_routes(access, ExclusionStore(results.engine), reader, hub))
    app.include_router(calib_routes(access, results, reader, hub, run=settings.run, thresholds=settings.thresholds))
    app.include_router(bad_input_routes(access, results.engine, reader, hub))
    app.include_router(trend_routes(access, results.engine, reader))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _answer_errors(app, settings)
    return app


def _listing_of(settings: DisplaySettings, camera: Camera) -> Listing | None:
    """Return where raws are looked up; a display that cannot look shows everything else, and its reports say so."""
    try:
        return open_listing(settings.raws_url, camera, ingest_run=settings.ingest_run)
    except ConfigurationError as error:
        log.warning("raws cannot be looked up from here", error=error.message)
        return None


def _say_why_it_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("display no longer follows the board", error=str(error))


def _answer_errors(app: FastAPI, settings: DisplaySettings) -> None:
    def answer(
        request: Request,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        if wants_page(request):
            from rapid.display.pages import error_page

            return error_page(settings, status=status, message=message)
        return JSONResponse(error_document(code, message, field), status_code=status, headers=headers)

    @app.exception_handler(RapidError)
    async def refused(request: Request, error: RapidError) -> Response:
        headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, UnauthorizedError) else None
        field = error.facts.get("field")
        return answer(request, status_of(error), error.code, error.message, field, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return answer(request, 422, "bad_request", f"{field}: {first['msg']}", field)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status_code, "bad_request")
        return answer(request, error.status_code, code, error.detail, None, error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        log.error("request failed", path=request.url.path, error=repr(error))
        return answer(request, 500, "internal_error", "The display failed to answer; its log says why.")


async def serve(settings: DisplaySettings, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the display until cancelled; viewers' streams are ended first.

    Parameters
    ----------
    host, port
        Where to listen; port 0 for a free one.
    ready
        Called with the URL once it listens.

    Raises
    ------
    ConfigurationError
        Raised if nobody can listen there, and as `create_app` does.
    """
    app = await asyncio.to_thread(create_app, settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError("port", f"cannot listen on {host}:{port}: {error.strerror}") from error
        bound = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
            lifespan="on",
            server_header=False,
            proxy_headers=False,  # the peer's own address decides whether a proxy's word is believed
        )
        server = _Server(config, lambda: ready(f"http://{_shown(host)}:{bound}/"), app.state.hub.close)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            app.state.hub.close()  # open streams would hold the server until its timeout
            server.should_exit = True
            await running
            raise


class _Server(uvicorn.Server):
    """Uvicorn that says when it listens, and leaves signals to the role that runs it."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], close: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._close = close

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then stop."""
        self._close()
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _shown(host: str) -> str:
    if host in {"0.0.0.0", "::"}:
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
