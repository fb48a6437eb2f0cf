"""Build the publish role, and publish a night of the past."""

import asyncio
from typing import TYPE_CHECKING

from rapid.errors import ConfigurationError
from rapid.results.store import open_results
from rapid.wiring.camera import adopt_camera
from rapid.wiring.roles import _board, _with_health, stop_on_signals
from rapid.wiring.settings import RoleSettings, publishes

if TYPE_CHECKING:
    from rapid.camera.models import Camera
    from rapid.control.store import AsyncControlStore
    from rapid.publish.lead import Lead
    from rapid.publish.metrics import PublishMetrics
    from rapid.publish.outbox import Outbox
    from rapid.publish.rubintv import RubinTVPublisher
    from rapid.publish.sinks import RowSink
    from rapid.publish.status import PublishStatus
    from rapid.results.store import ResultsStore

RETRY_S = 5.0
"""Before the control state is asked for again, after the board did not answer."""

NIGHT_PAGE = "/night?day_obs={day_obs}"


class _Witness:
    """The detector that stands for all: the one chosen at RubinTV's admin page, else the camera's."""

    def __init__(self, default: int) -> None:
        self.detector = default
        self._default = default

    def __call__(self) -> int:
        return self.detector

    async def follow(self, store: "AsyncControlStore") -> None:
        """Keep up with the control state, until cancelled."""
        from rapid.errors import RapidError
        from rapid.pause import pause

        version = 0
        document = None
        while True:
            try:
                document = await (store.read() if document is None else store.wait(version, 60.0))
                if document is not None:
                    version = document.version
                    chosen = document.state.witness_detector
                    self.detector = self._default if chosen is None else chosen
                else:
                    continue
            except RapidError:
                await pause(RETRY_S)


def _make_rubintv(
    settings: RoleSettings,
    camera: "Camera",
    results: "ResultsStore",
    metrics: "PublishMetrics",
    witness: "_Witness",
    lead: "Lead | None" = None,
) -> "tuple[RubinTVPublisher | None, Outbox | None]":
    from rapid.products.store import open_products
    from rapid.publish.bucket import open_bucket
    from rapid.publish.catalogue import load_catalogue
    from rapid.publish.outbox import Outbox
    from rapid.publish.rubintv import BucketDestination, RubinTVPublisher

    if not settings.publish_rubintv:
        return None, None
    bucket = open_bucket(settings.publish_rubintv)
    may_send = (lambda: True) if lead is None else lead.is_held
    age_s = settings.publish_max_age_s
    outbox = Outbox(BucketDestination(bucket), max_age_s=age_s, metrics=metrics, may_send=may_send)
    links = {}
    if settings.publish_display_url:
        links["This night on our own display"] = settings.publish_display_url.rstrip("/") + NIGHT_PAGE
    publisher = RubinTVPublisher(
        load_catalogue(camera.name, None, settings.publish_channels),
        camera,
        results,
        open_products(settings.products),
        bucket,
        outbox,
        witness=witness,
        links=links,
    )
    return publisher, outbox


def _make_sinks(
    settings: RoleSettings, camera: "Camera", results: "ResultsStore", metrics: "PublishMetrics", lead: "Lead"
) -> "tuple[RowSink, ...]":
    """Return whoever else is told of summaries."""
    from rapid.publish.catalogue import load_catalogue
    from rapid.publish.consdb import ConsDBClient, ConsDBSink
    from rapid.wiring.metric_sinks import make_pumps

    pumps: tuple[RowSink, ...] = make_pumps(settings, results)
    if settings.publish_butler:
        pumps = (_make_butler(settings, camera, results, metrics, lead), *pumps)
    if not settings.publish_consdb:
        return pumps
    instrument = load_catalogue(camera.name, None, settings.publish_channels).consdb
    if not instrument:
        raise ConfigurationError("publish_consdb", f"ConsDB has no instrument for {camera.name}; a table can name one")
    token = settings.publish_consdb_token
    client = ConsDBClient(settings.publish_consdb, token=token.get_secret_value() if token is not None else "")
    age_s = settings.publish_max_age_s
    consdb = ConsDBSink(client, results, instrument=instrument, max_age_s=age_s, metrics=metrics, may_send=lead.is_held)
    return (consdb, *pumps)


def _make_butler(
    settings: RoleSettings, camera: "Camera", results: "ResultsStore", metrics: "PublishMetrics", lead: "Lead"
) -> "RowSink":
    """Return the sink of a Butler repository; raises `ConfigurationError` if the Butler is not installed."""
    from rapid.butler.middleware import daf_butler
    from rapid.butler.repository import RepositorySettings, open_repository
    from rapid.products.store import open_products
    from rapid.publish.butler import ButlerDestination, ButlerSink

    daf_butler()
    where = RepositorySettings(
        root=settings.publish_butler,
        database=settings.butler_db,
        schema=settings.butler_schema,
        class_name=settings.butler_instrument,
    )
    destination = ButlerDestination(
        lambda: open_repository(where, camera),
        results,
        open_products(settings.products),
        settings.calibs,
        root=settings.publish_butler,
    )
    age_s = settings.publish_max_age_s
    return ButlerSink(destination, results, camera=camera.name, max_age_s=age_s, metrics=metrics, may_send=lead.is_held)


async def run_publish(settings: RoleSettings, stop: asyncio.Event | None = None) -> None:
    """Run the publish role."""
    from rapid.control.store import AsyncControlStore
    from rapid.pipeline.store import default_book
    from rapid.publish.butler import ButlerSink
    from rapid.publish.consdb import ConsDBSink
    from rapid.publish.lead import Lead
    from rapid.publish.metrics import registered
    from rapid.publish.role import Publisher
    from rapid.wiring.telemetry import make_mount_motion

    stop = stop or stop_on_signals()
    if not publishes(settings):
        raise ConfigurationError(
            "publish_rubintv",
            "there is nobody to publish to: give --rubintv, --consdb or --butler, or set a metric sink",
        )
    camera = adopt_camera(settings.camera)
    metrics = registered()
    witness = _Witness(camera.witness_detector)
    results = await asyncio.to_thread(open_results, settings.results)
    async with _board(settings) as board:
        await board.load()
        name = settings.process_name("publish")
        lead = Lead(board, name)
        rubintv, outbox = _make_rubintv(settings, camera, results, metrics, witness, lead)
        sinks = _make_sinks(settings, camera, results, metrics, lead)
        sinks = (*sinks, *make_mount_motion(settings, board, results))
        publisher = Publisher(
            name,
            board,
            results,
            camera=camera.name,
            rubintv=rubintv,
            outbox=outbox,
            sinks=sinks,
            # RubinTV, ConsDB and metrics have one number for an exposure: the night's own.
            campaign_sinks=tuple(sink for sink in sinks if isinstance(sink, ButlerSink)),
            n_nights=settings.publish_nights,
            report_s=settings.publish_report_s,
            cluster_s=1.0 if settings.publish_cluster and rubintv is not None else None,
            drain_s=settings.publish_drain_s,
            metrics=metrics,
            lead=lead,
        )
        if rubintv is not None:
            rubintv.on_published = publisher.note_published
            rubintv.on_row = publisher.note_row
        for sink in sinks:
            if isinstance(sink, ConsDBSink):
                sink.on_row = publisher.note_row
        control = AsyncControlStore(board.connection, camera, default_book())
        following = asyncio.create_task(witness.follow(control))
        try:
            await _with_health(settings, board, publisher.ready, lambda: publisher.run(stop))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    results.close()


async def publish_nights(settings: RoleSettings, days: list[int], *, timeout_s: float) -> dict[str, object]:
    """Publish nights of the past to RubinTV's bucket and return; no board is needed.

    Raises
    ------
    ConfigurationError
        Raised if there is no bucket.
    """
    from rapid.publish.keys import date_of
    from rapid.publish.metrics import PublishMetrics
    from rapid.publish.role import MAX_NIGHT

    for day_obs in days:
        try:
            date_of(day_obs)
        except ValueError as error:
            raise ConfigurationError("night", f"{day_obs} is no day as YYYYMMDD: {error}") from None
    camera = adopt_camera(settings.camera)
    results = await asyncio.to_thread(open_results, settings.results)
    try:
        rubintv, outbox = _make_rubintv(settings, camera, results, PublishMetrics(), _Witness(camera.witness_detector))
        if rubintv is None or outbox is None:
            raise ConfigurationError("publish_rubintv", "there is no bucket to publish to: give --rubintv")
        stop = asyncio.Event()
        sending = asyncio.create_task(outbox.run(stop))
        n_exposures = {}
        try:
            for day_obs in days:
                rubintv.take_known(await asyncio.to_thread(rubintv.known, day_obs))
                summaries = await asyncio.to_thread(
                    lambda day=day_obs: results.summaries(camera.name, day_obs=day, limit=MAX_NIGHT)  # type: ignore[misc]
                )
                for summary in summaries:
                    rubintv.put(summary, day_obs=day_obs)
                last = await asyncio.to_thread(rubintv.last_frame, day_obs)
                rubintv.offer_report(day_obs, is_over=True, last_frame=last)
                n_exposures[str(day_obs)] = len({summary.exposure for summary in summaries})
                is_whole = await outbox.drain(timeout_s)
        finally:
            stop.set()
            await sending
        return {
            "nights": n_exposures,
            "is_complete": is_whole and not outbox.status.n_dead,
            **outbox.status.model_dump(mode="json", include={"n_sent", "n_waiting", "n_dead", "error", "dead"}),
        }
    finally:
        results.close()


async def read_status(settings: RoleSettings) -> "PublishStatus | None":
    """Return how publishing stands, as the role told the board; None if nobody publishes."""
    from rapid.publish.store import get_status

    async with _board(settings) as board:
        return await board.connection.run(get_status(board.prefix))
