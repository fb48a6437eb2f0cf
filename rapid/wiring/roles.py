"""Run one role until it is told to stop: what a pod runs.

A role imports only what it needs, when it starts: a worker that was killed is back twice as fast without the parts of
head, gather and web pages.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import WorkerSpec
from rapid.errors import ConfigurationError
from rapid.results.store import open_results
from rapid.wiring.camera import adopt_camera
from rapid.wiring.lifeline import stop_with_supervisor
from rapid.wiring.settings import RoleSettings

if TYPE_CHECKING:
    from fastapi import APIRouter

    from rapid.access import Access
    from rapid.arrival.source import RawSource
    from rapid.camera.models import Camera


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT and the end of our supervisor set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stop_with_supervisor(stop)
    return stop


@contextlib.asynccontextmanager
async def _board(settings: RoleSettings) -> AsyncIterator[AsyncBoard]:
    camera = adopt_camera(settings.camera)
    board = AsyncBoard(
        settings.redis_url,
        camera.name,
        lease_ms=settings.lease_ms,
        grace_ms=settings.grace_ms,
        backlog_age_ms=round(settings.backlog_age_s * 1000),
        memory_ms=round(settings.board_memory_s * 1000),
        outage_s=settings.outage_s,
    )
    try:
        yield board
    finally:
        await board.close()


async def _with_health(
    settings: RoleSettings,
    board: AsyncBoard,
    ready: asyncio.Event,
    run: Callable[[], Awaitable[None]],
    *,
    routers: "tuple[APIRouter, ...]" = (),
    tells_of_board: bool = False,
) -> None:
    """Run a role beside its health endpoint, if it has a port for one."""
    if not settings.metrics_port:
        await run()
        return
    from rapid.wiring.board_metrics import BoardMetrics
    from rapid.wiring.health import Health, serve_health

    before_scrape = BoardMetrics(board).refresh if tells_of_board else None
    health = Health(board.ping, ready, routers=routers, before_scrape=before_scrape)
    server = asyncio.create_task(serve_health(health, port=settings.metrics_port))
    try:
        await run()
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


def checked_thresholds(settings: RoleSettings) -> "Path | None":
    """Return where the site's thresholds are, once they could be read: a mistake in them ends a worker at its start.

    Raises
    ------
    ConfigurationError
        Raised, naming file and entry, for anything in them that is not valid.
    """
    from rapid.verification.thresholds import load_thresholds

    load_thresholds(settings.thresholds)
    return settings.thresholds.absolute() if settings.thresholds else None


def _open_source(settings: RoleSettings, camera: "Camera") -> "RawSource":
    """Return where raws arrive: a directory, a bucket, or a Butler repository that they are ingested into."""
    from rapid.arrival.source import open_source

    if not settings.raws.startswith("butler:"):
        return open_source(settings.raws, camera=camera)
    from rapid.ingest.triggered import ButlerSource

    # A board of its own: it waits while the head's is busy, and ends with the process.
    board = AsyncBoard(settings.redis_url, camera.name, outage_s=settings.outage_s)
    return ButlerSource(settings.raws, camera, board, run=settings.ingest_run or f"{camera.name}/raw/all")


def _access(settings: RoleSettings) -> "Access":
    """Return who may change things over HTTP."""
    from rapid.access import Access, AccessSettings

    return Access(
        AccessSettings(
            token=settings.token, proxy_header=settings.proxy_header, trusted_proxies=settings.trusted_proxies
        )
    )


async def run_head(
    settings: RoleSettings, stop: asyncio.Event | None = None, *, source: "RawSource | None" = None
) -> None:
    """Run a head node; its raws come from where the settings say, unless a source is given."""
    from rapid.arrival.bucket import BucketSource
    from rapid.campaign.listings import open_listing
    from rapid.control.keeper import ControlKeeper
    from rapid.control.rubintv import RubinTVDoor
    from rapid.control.store import AsyncControlStore
    from rapid.head.choice import Waits
    from rapid.head.role import Head
    from rapid.next_visit.desk import VisitDesk
    from rapid.pipeline.store import default_book
    from rapid.results.control_log import ControlLog
    from rapid.wiring.kafka import run_beside, visit_topics

    stop = stop or stop_on_signals()
    if not settings.raws and source is None:
        raise ConfigurationError("raws", "a head node needs to know where raws arrive")
    camera = adopt_camera(settings.camera)
    results = await asyncio.to_thread(open_results, settings.results)
    source = source or _open_source(settings, camera)
    # A bucket's notifications come in by HTTP, at /notify beside the health endpoints; its listing is the safety net.
    routers: tuple[APIRouter, ...] = ()
    if isinstance(source, BucketSource):
        from rapid.arrival.webhook import notify_router

        routers = (notify_router(source),)
    async with _board(settings) as board:
        desk = VisitDesk(camera.name, board)
        if settings.metrics_port:
            from rapid.next_visit.http import visit_router

            routers = (*routers, visit_router(desk, _access(settings)))
        control = AsyncControlStore(board.connection, camera, default_book())
        head = Head(
            settings.process_name("head"),
            camera,
            board,
            results,
            source,
            default_book(),
            control=control,
            keeper=ControlKeeper(control, ControlLog(results.engine)),
            rubintv=RubinTVDoor(board, settings.redis_url, control) if settings.rubintv else None,
            lead_ttl_s=settings.lead_ttl_s,
            waits=Waits(
                round(settings.gather_timeout_s * 1000),
                round(settings.regather_timeout_s * 1000),
                round(settings.deadline_s * 1000),
            ),
            build_calibs=settings.build_calibs,
            thresholds=checked_thresholds(settings),
            listing=open_listing(settings.raws, camera, ingest_run=settings.ingest_run),
        )
        topics = visit_topics(settings, desk)

        async def run() -> None:
            await run_beside(topics, lambda: head.run(stop), stop)

        await _with_health(settings, board, head.ready, run, routers=routers, tells_of_board=True)
    results.close()


async def run_worker(settings: RoleSettings, stop: asyncio.Event | None = None) -> None:
    """Run a worker."""
    from rapid.patterns.placement import pinned_detectors
    from rapid.pipeline.store import default_book
    from rapid.wiring.pools import warm_pipelines
    from rapid.worker.messages import ChildSettings
    from rapid.worker.role import Worker

    stop = stop or stop_on_signals()
    results = await asyncio.to_thread(open_results, settings.results)
    camera = adopt_camera(settings.camera)
    worker_id = settings.name or f"{settings.process_name('worker')}.{os.getpid()}"
    spec = WorkerSpec(
        worker_id=worker_id,
        pools=tuple(part.strip() for part in settings.pools.split(",") if part.strip()),
        pinned=pinned_detectors(settings.pinned, camera, worker_id),
        host=os.uname().nodename,
    )
    child = ChildSettings(
        results_url=settings.results,
        products_url=settings.products,
        calibs_path=Path(settings.calibs),
        thresholds=checked_thresholds(settings),
        templates=settings.templates.absolute() if settings.templates else None,
        warm=list(warm_pipelines(default_book(), camera=camera.name, pools=spec.pools)),
    )
    async with _board(settings) as board:
        await board.load()
        worker = Worker(spec, board, results, child, drain_s=settings.drain_s, camera=camera)
        await _with_health(settings, board, worker.ready, lambda: worker.run(stop))
    results.close()


async def run_gather(settings: RoleSettings, stop: asyncio.Event | None = None) -> None:
    """Run a gather."""
    from rapid.gather.installed import installed_steps
    from rapid.gather.role import Gatherer
    from rapid.gather.studio import Studio
    from rapid.gather.sweep import add_donut_pair, add_focus_sweep
    from rapid.gather.verification import VerificationStep
    from rapid.gather.wavefront import WavefrontStep
    from rapid.products.store import open_products
    from rapid.trends.follow import TrendFollower

    stop = stop or stop_on_signals()
    results = await asyncio.to_thread(open_results, settings.results)
    products = open_products(settings.products)
    ready = asyncio.Event()
    camera = adopt_camera(settings.camera)
    trends = TrendFollower(results.engine, camera.name, interval_s=settings.trend_interval_s)
    wavefront = WavefrontStep(budget_s=settings.wavefront_fit_s, n_pairs=settings.wavefront_pairs)
    async with _board(settings) as board:
        await board.load()
        studio = Studio(
            board,
            results_url=settings.results,
            products_url=settings.products,
            movie_period_s=settings.movie_period_s,
            task_s=settings.plot_task_s,
        )
        gatherer = Gatherer(
            settings.name or f"{settings.process_name('gather')}.{os.getpid()}",
            board,
            results,
            products,
            steps=(
                add_focus_sweep,
                add_donut_pair,
                VerificationStep(checked_thresholds(settings)),
                wavefront,
                *installed_steps(),
                trends,
            ),
            on_stop=wavefront.stop,
            on_summary=studio.offer,
            lease_ms=settings.gather_lease_ms,
        )
        ready.set()
        drawing = asyncio.create_task(studio.run(stop))
        following = asyncio.create_task(trends.run(stop))
        try:
            await _with_health(settings, board, ready, lambda: gatherer.run(stop))
        finally:
            drawing.cancel()
            if not stop.is_set():
                following.cancel()  # the role has failed; else a search in hand ends by itself
            await asyncio.gather(drawing, following, return_exceptions=True)
    results.close()


async def run_display(settings: RoleSettings, stop: asyncio.Event | None = None) -> None:
    """Run the display until it is told to stop; prints its URL when it listens."""
    from rapid.display.app import serve
    from rapid.display.settings import DisplaySettings

    stop = stop or stop_on_signals()
    display = DisplaySettings(
        camera=adopt_camera(settings.camera).name,
        redis_url=settings.redis_url,
        results_url=settings.results,
        products_url=settings.products,
        raws_url=settings.raws,
        ingest_run=settings.ingest_run,
        calibs_path=settings.calibs,
        thresholds=checked_thresholds(settings),
        title=settings.title,
        cadence_s=settings.cadence_s,
        tolerances=settings.tolerances,
        images_kept=settings.images_kept,
        image_s=settings.image_s,
        compare_s=settings.compare_s,
        token=settings.token,
        proxy_header=settings.proxy_header,
        trusted_proxies=settings.trusted_proxies,
    )

    def announce(url: str) -> None:
        print(url, flush=True)  # noqa: T201 - the one line of output that a supervisor reads

    serving = asyncio.create_task(serve(display, host=settings.host, port=settings.port, ready=announce))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if serving.done():
        serving.result()
        return
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
