"""Health of a role over HTTP: ``/healthz`` (alive), ``/readyz`` (may get work), ``/metrics`` (Prometheus)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rapid.errors import RapidError

SCRAPE_S = 2.0
"""How long a scrape waits for the board; then it gets what was known before."""


class Health:
    """What a role knows of its own health.

    Parameters
    ----------
    check
        Raises `RapidError` if the role cannot do its work.
    ready
        Set once the role may get work.
    routers
        Further doors of the role, e.g. for bucket notifications.
    before_scrape
        Awaited before metrics are given, e.g. to read the board.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        ready: asyncio.Event,
        *,
        routers: tuple[APIRouter, ...] = (),
        before_scrape: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.before_scrape = before_scrape
        self.check = check
        self.ready = ready
        self.routers = routers


def health_app(health: Health) -> FastAPI:
    """Return the small web application with the three endpoints, and the role's own."""
    app = FastAPI(title="rapid role", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def is_ready(response: Response) -> dict[str, str]:
        if not health.ready.is_set():
            response.status_code = 503
            return {"status": "starting"}
        try:
            async with asyncio.timeout(2.0):
                await health.check()
        except (RapidError, TimeoutError) as error:
            response.status_code = 503
            return {"status": "not ready", "reason": str(error) or "no answer in time"}
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        if health.before_scrape is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SCRAPE_S):
                    await health.before_scrape()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    for router in health.routers:
        app.include_router(router)
    return app


class _ProbeServer(uvicorn.Server):
    """A server that leaves signals to the role."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


async def serve_health(health: Health, *, port: int, host: str = "0.0.0.0") -> None:
    """Serve until cancelled."""
    config = uvicorn.Config(health_app(health), host=host, port=port, log_level="warning", lifespan="off")
    await _ProbeServer(config).serve()
