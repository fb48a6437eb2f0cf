"""Build the ingest role, and what its command line asks of the board and the repository."""

import asyncio
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from rapid.errors import ConfigurationError, StoreError
from rapid.kafka.models import parse_kafka
from rapid.wiring.camera import adopt_camera
from rapid.wiring.kafka import notification_topics, run_beside
from rapid.wiring.roles import _board, _with_health, stop_on_signals
from rapid.wiring.settings import RoleSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from rapid.camera.models import Camera
    from rapid.dispatch.board import AsyncBoard
    from rapid.ingest.desk import IngestDesk
    from rapid.ingest.files import FileRule
    from rapid.ingest.models import IngestStatus, SetAsideRecord


BUTLER = "butler:"
"""How ``raws`` begins if the head waits for a repository: no door of files."""


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def make_desk(settings: RoleSettings, camera: "Camera", rules: "tuple[FileRule, ...]") -> "IngestDesk":
    """Return who talks to the repository that the settings name; nothing is opened yet.

    Raises
    ------
    ConfigurationError
        Raised if the Butler is not installed.
    """
    from rapid.butler.middleware import daf_butler
    from rapid.butler.raws import Transfer
    from rapid.butler.repository import RepositorySettings, open_repository
    from rapid.ingest.desk import IngestDesk

    daf_butler()
    where = RepositorySettings(
        root=settings.butler,
        database=settings.butler_db,
        schema=settings.butler_schema,
        class_name=settings.butler_instrument,
    )
    return IngestDesk(
        camera,
        lambda: open_repository(where, camera),
        run=settings.ingest_run or f"{camera.name}/raw/all",
        transfer=Transfer(settings.ingest_transfer),
        formatter=settings.ingest_formatter,
        rules=rules,
    )


def check_ingest(settings: RoleSettings) -> None:
    """Refuse what an ingest process could not begin with; nothing is opened.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, if nothing says where files come from, the rules are not valid, or the Butler is not
        installed.
    """
    from rapid.butler.middleware import daf_butler
    from rapid.ingest.files import load_rules

    parse_kafka(settings.kafka)
    if not (_raws(settings) or settings.ingest_buckets or settings.ingest_queues or settings.ingest_files):
        raise ConfigurationError(
            "raws", "ingest needs to know where files come from: raws, ingest_buckets or ingest_queues"
        )
    if settings.ingest_files and not load_rules(settings.ingest_rules):
        raise ConfigurationError("ingest_files", "needs rules that say what is done with them: ingest_rules")
    daf_butler()


def _raws(settings: RoleSettings) -> str:
    """Return where raws arrive as files; empty if the settings name a repository that they are waited for in."""
    return "" if settings.raws.startswith(BUTLER) else settings.raws


async def run_ingest(settings: RoleSettings, stop: asyncio.Event | None = None) -> None:
    """Run an ingest process.

    Raises
    ------
    ConfigurationError
        Raised if nothing says where files come from, or the repository cannot be used.
    """
    from rapid.arrival.bucket import BucketSource
    from rapid.arrival.source import open_source
    from rapid.butler.place import adopt_endpoint
    from rapid.ingest.archived import Archive
    from rapid.ingest.decide import RetryPolicy
    from rapid.ingest.door import DoorSettings, IngestDoor, ingest_router
    from rapid.ingest.files import load_rules
    from rapid.ingest.metrics import registered
    from rapid.ingest.role import Batching, Ingester
    from rapid.ingest.store import foreign_queue
    from rapid.ingest.tree import FileTree

    stop = stop or stop_on_signals()
    buckets = _words(settings.ingest_buckets)
    queues = _words(settings.ingest_queues)
    check_ingest(settings)
    raws = _raws(settings)
    camera = adopt_camera(settings.camera)
    rules = load_rules(settings.ingest_rules)
    for url in (raws, settings.ingest_files):
        adopt_endpoint(url)
    secret = settings.ingest_secret.get_secret_value() if settings.ingest_secret is not None else None
    desk = make_desk(settings, camera, rules)
    name = settings.process_name("ingest")
    async with _board(settings) as board:
        await board.load()
        archive = Archive(settings.butler, camera, run=desk.run, told=_told_by(board, settings.outage_s))
        source = (
            open_source(raws, camera=camera, n_days=settings.ingest_days or None, is_done=archive.holds)
            if raws
            else None
        )
        ingester = Ingester(
            name,
            camera,
            board,
            desk,
            repository=settings.butler,
            sources=() if source is None else (source,),
            trees=(FileTree(settings.ingest_files, rules, camera.name),) if settings.ingest_files else (),
            queues=[foreign_queue(bucket, name) for bucket in queues],
            policy=RetryPolicy(max_attempts=settings.ingest_attempts, max_age_s=settings.ingest_max_age_s),
            batching=Batching(settings.ingest_batch, settings.ingest_linger_s),
            metrics=registered(),
        )
        bucket = source if isinstance(source, BucketSource) else None
        door = IngestDoor(camera, board, DoorSettings(frozenset(buckets), rules=rules, secret=secret), source=bucket)
        routers: tuple[APIRouter, ...] = (ingest_router(door),)
        topics = notification_topics(settings, camera, door)

        async def run() -> None:
            await run_beside(topics, lambda: ingester.run(stop), stop)

        try:
            await _with_health(settings, board, ingester.ready, run, routers=routers)
        finally:
            await asyncio.to_thread(archive.close)


def _told_by(board: "AsyncBoard", timeout_s: float) -> "Callable[[int, str], frozenset[int]]":
    """Return what asks the board, from a thread, which detectors of an exposure were told to be in."""
    from rapid.ingest.store import get_told

    loop = asyncio.get_running_loop()

    def told(exposure_id: int, kind: str) -> frozenset[int]:
        asked = asyncio.run_coroutine_threadsafe(board.connection.run(get_told(board.prefix, exposure_id, kind)), loop)
        try:
            return asked.result(timeout_s)
        except (TimeoutError, CancelledError):
            asked.cancel()
            raise StoreError("the board does not answer") from None

    return told


async def read_statuses(settings: RoleSettings) -> "list[IngestStatus]":
    """Return how ingest processes stand, as they told the board."""
    from rapid.ingest.store import get_statuses

    async with _board(settings) as board:
        return await board.connection.run(get_statuses(board.prefix))


async def read_set_aside(settings: RoleSettings) -> "list[SetAsideRecord]":
    """Return what was set aside, the newest first."""
    from rapid.ingest.store import get_set_aside

    async with _board(settings) as board:
        return await board.connection.run(get_set_aside(board.prefix))


async def retry_files(settings: RoleSettings, uris: list[str], *, all_: bool) -> list[str]:
    """Have files that were set aside tried again; return which."""
    from rapid.ingest.store import get_set_aside, retry_set_aside

    async with _board(settings) as board:
        if all_:
            uris = [record.uri for record in await board.connection.run(get_set_aside(board.prefix))]
        return await board.connection.run(retry_set_aside(board.prefix, uris))


async def wait_for_exposure(
    settings: RoleSettings, exposure_id: int, detectors: frozenset[int] | None, *, timeout_s: float
) -> frozenset[int]:
    """Wait until raws of an exposure are in the repository; return which are, after the timeout at the latest.

    Parameters
    ----------
    detectors
        Which to wait for; None for one, whichever.
    """
    from rapid.ingest.wait import wait_for_ingested

    async with _board(settings) as board:
        return await wait_for_ingested(board, exposure_id, detectors, timeout_s=timeout_s)
