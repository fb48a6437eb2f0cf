"""`rapid up`: all roles on one machine."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer


def up(
    camera: Annotated[str, typer.Option(help="Camera whose raws arrive.")],
    raws: Annotated[str, typer.Option(help="Where they arrive: a directory (made if need be) or s3://bucket/prefix.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of results, products, calibs, logs; rapid-data by default [RAPID_DATA]."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers; one per core by default.")] = os.cpu_count() or 2,
    wavefront_workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Workers for wavefronts alone; 1 if the camera and the installation can, 0 leaves them to all."
        ),
    ] = None,
    max_workers: Annotated[
        int | None,
        typer.Option(min=1, help="More the display cannot ask for; twice the cores by default."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the display; 0 for a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address the display listens on.")] = "127.0.0.1",
    redis: Annotated[str, typer.Option(help="Use this Redis or Valkey instead of an embedded one.")] = "",
    rubintv: Annotated[
        str | None, typer.Option(help="Publish to RubinTV's bucket: s3://... or a directory [RAPID_PUBLISH_RUBINTV].")
    ] = None,
    butler: Annotated[
        str | None,
        typer.Option(help="Ingest raws into this Butler repository, made if need be [RAPID_BUTLER_REPO]."),
    ] = None,
    consdb: Annotated[
        str | None, typer.Option(help="Write rows to ConsDB's REST server [RAPID_PUBLISH_CONSDB].")
    ] = None,
) -> None:
    """Run everything on one machine and process whatever raws arrive, until stopped.

    Example: rapid up --camera LSSTComCam --raws /data/raws

    Ctrl-C drains: work in hand is finished or kept for the next start; nothing is lost.
    """
    from rapid.access import Access, AccessSettings
    from rapid.pipeline.store import default_book, packaged_book
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.ingesting import BUTLER, check_ingest
    from rapid.wiring.pools import own_pools
    from rapid.wiring.scaling import Scaler, most_workers
    from rapid.wiring.settings import ingests, make_settings
    from rapid.wiring.supervisor import Supervisor
    from rapid.worker.registry import check_book

    name = adopt_camera(camera).name
    check_book(default_book(), trusted=packaged_book())
    if "://" not in raws and not raws.startswith(BUTLER):
        Path(raws).mkdir(parents=True, exist_ok=True)
        raws = str(Path(raws).absolute())
    settings = make_settings(
        camera=name,
        raws=raws,
        data=data,
        port=port,
        host=host,
        redis_url=redis or None,
        publish_rubintv=rubintv,
        publish_consdb=consdb,
        butler_repo=None if butler is None else _absolute(butler),
    )
    if ingests(settings):
        check_ingest(settings)
    # A display that cannot start for it would be started again and again.
    Access(
        AccessSettings(
            token=settings.token, proxy_header=settings.proxy_header, trusted_proxies=settings.trusted_proxies
        )
    )
    pool_workers = own_pools(default_book(), camera=name)
    if wavefront_workers is not None:
        pool_workers["wavefront"] = wavefront_workers
    supervisor = Supervisor(settings, n_workers=workers, pool_workers=pool_workers, embedded=not redis)
    supervisor.on_restart = lambda role, status: print(
        f"{role} ended with status {status}; starting it again (see {supervisor.log_of(role)})", file=sys.stderr
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    own = "".join(f", {n} for {pool}" for pool, n in pool_workers.items() if n)
    scaler = Scaler(supervisor, name, max_workers=max(max_workers or most_workers(workers), workers))
    others = ", ingest" if ingests(settings) else ""
    print(
        f"rapid: starting head, gather{others}, {workers} workers{own} and display for {name}; data in {settings.data}",
        flush=True,
    )
    try:
        supervisor.start()
        scaler.start()
        print(f"display   {supervisor.display_url}", flush=True)
        print(f"raws      {raws}", flush=True)
        if ingests(settings):
            print(f"butler    {settings.butler}", flush=True)
        print(f"board     {supervisor.redis_url}", flush=True)
        print("Ctrl-C stops.", flush=True)
        stop.wait()
        print("rapid: draining", flush=True)
    finally:
        scaler.stop()
        supervisor.stop()
    print("rapid: stopped", flush=True)


def _absolute(place: str) -> str:
    """Return a folder's absolute path; a URL as it is."""
    return place if "://" in place or not place else str(Path(place).absolute())


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)
