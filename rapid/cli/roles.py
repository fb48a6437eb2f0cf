"""`rapid head|worker|gather|display`: one role each, what a pod runs."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.wiring.settings import RoleSettings

Redis = Annotated[str | None, typer.Option("--redis", help="URL of the board's Redis or Valkey [RAPID_REDIS_URL].")]
CameraName = Annotated[str | None, typer.Option("--camera", help="Camera [RAPID_CAMERA].")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder of results, products, calibs [RAPID_DATA].")]
Name = Annotated[str | None, typer.Option("--name", help="Name of this process on the board [RAPID_NAME].")]
MetricsPort = Annotated[int | None, typer.Option(help="Port of /metrics, /healthz, /readyz [RAPID_METRICS_PORT].")]


def _run(role: Callable[[RoleSettings], Coroutine[Any, Any, None]], **given: Any) -> None:
    from rapid.wiring.logs import configure_logs
    from rapid.wiring.settings import make_settings

    settings = make_settings(**given)
    configure_logs(format_=settings.log_format, level=settings.log_level)
    asyncio.run(role(settings))


def head(
    raws: Annotated[str | None, typer.Option(help="Where raws arrive: a directory or s3:// [RAPID_RAWS].")] = None,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    name: Name = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a head node: watch for raws and fan them out. A second one stands by."""
    from rapid.wiring.roles import run_head

    _run(run_head, raws=raws, camera=camera, redis_url=redis, data=data, name=name, metrics_port=metrics_port)


def worker(
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    name: Name = None,
    pools: Annotated[str | None, typer.Option(help="Worker groups served, by preference [RAPID_POOLS].")] = None,
    pinned: Annotated[str | None, typer.Option(help="Detectors it is pinned to [RAPID_PINNED].")] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a worker: claim jobs and run their payloads."""
    from rapid.wiring.roles import run_worker

    _run(
        run_worker,
        camera=camera,
        redis_url=redis,
        data=data,
        name=name,
        pools=pools,
        pinned=pinned,
        metrics_port=metrics_port,
    )


def gather(
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    name: Name = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a gather: make focal-plane summaries."""
    from rapid.wiring.roles import run_gather

    _run(run_gather, camera=camera, redis_url=redis, data=data, name=name, metrics_port=metrics_port)


def display(
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [RAPID_HOST].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [RAPID_PORT].")] = None,
) -> None:
    """Run the display: web pages with live results. Prints its URL."""
    from rapid.wiring.roles import run_display

    _run(run_display, camera=camera, redis_url=redis, data=data, host=host, port=port)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (head, worker, gather, display):
        app.command()(command)
