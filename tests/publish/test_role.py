"""The publish role on a real board: what happens there ends in the bucket, in rows and in streams."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard, Board
from rapid.dispatch.models import BatchKey, BatchSpec, EventKind, WorkerSpec
from rapid.dispatch.users import user_name
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.errors import NotFoundError, StoreError
from rapid.publish.bucket import open_bucket
from rapid.publish.catalogue import load_catalogue
from rapid.publish.outbox import Outbox
from rapid.publish.role import Publisher
from rapid.publish.rubintv import BucketDestination, RubinTVPublisher
from rapid.publish.status import DestinationStatus
from rapid.publish.store import get_marks, get_status
from rapid.results.models import DetectorState, DetectorStatus
from rapid.results.store import ResultsStore
from tests.support.records import make_result, make_summary
from tests.support.s3 import S3Server
from tests.support.users import add_users, remove_users, url_of

LONG_S = 60.0
DAY = 20261120
TABLE = "lsstcam/2026-11-20/metadata.json"
MOSAIC = "lsstcam/2026-11-20/focal_plane_mosaic/{0:06d}/lsstcam_focal_plane_mosaic_2026-11-20_{0:06d}.jpg"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def board(valkey: EmbeddedValkey) -> Iterator[Board]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    board = Board(valkey.url, "LSSTCam")
    board.load()
    yield board
    board.close()


class Watched(BucketDestination):
    """A bucket that tells a test of every object that comes, and can be away."""

    def __init__(self, bucket) -> None:
        super().__init__(bucket)
        self.is_down = False
        self.came = asyncio.Condition()
        self.loop = asyncio.get_running_loop()

    def send(self, parcel, data) -> None:
        if self.is_down:
            raise StoreError("bucket away")
        super().send(parcel, data)
        asyncio.run_coroutine_threadsafe(self._tell(), self.loop).result(LONG_S)

    async def _tell(self) -> None:
        async with self.came:
            self.came.notify_all()

    async def wait_for(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_S), self.came:
            await self.came.wait_for(is_so)


class Stage:
    """A running role and what is around it."""

    def __init__(self, publisher: Publisher, rubintv: RubinTVPublisher, outbox: Outbox, place: Watched, bucket) -> None:
        self.publisher, self.rubintv, self.outbox, self.place, self.bucket = publisher, rubintv, outbox, place, bucket

    def table(self) -> dict:
        try:
            return json.loads(self.bucket.get(TABLE))
        except NotFoundError:
            return {}

    def names(self) -> set[str]:
        return set(self.bucket.checksums(""))


@asynccontextmanager
async def running(url: str, target: str, results: ResultsStore, products, **more) -> AsyncIterator[Stage]:
    camera = load_camera("LSSTCam")
    bucket = open_bucket(target)
    place = Watched(bucket)
    outbox = Outbox(place, pause_s=0.02, pause_max_s=0.1)
    rubintv = RubinTVPublisher(load_catalogue("LSSTCam"), camera, results, products, bucket, outbox)
    async with AsyncBoard(url, "LSSTCam", outage_s=LONG_S) as board:
        publisher = Publisher(
            "publish.test", board, results, camera="LSSTCam", rubintv=rubintv, outbox=outbox,
            **{"report_s": 0.0, "cluster_s": 0.05, "today": lambda: DAY} | more,
        )  # fmt: skip
        stop = asyncio.Event()
        task = asyncio.create_task(publisher.run(stop))
        try:
            await asyncio.wait_for(publisher.ready.wait(), LONG_S)
            yield Stage(publisher, rubintv, outbox, place, bucket)
        finally:
            stop.set()
            await asyncio.wait_for(task, LONG_S)


def store(results: ResultsStore, products, seq_num: int, version: int = 1, **changes):
    """Put a summary with a mosaic into the stores, as a gather does."""
    key = f"LSSTCam/{DAY}/{seq_num:06d}/prompt/quicklook/mosaic.v{version}.jpg"
    products.put(key, f"mosaic {seq_num} version {version}".encode())
    summary = make_summary(seq_num, version, products={"mosaic": key}, **changes)
    results.put_summary(summary)
    return summary


def tell(board: Board, seq_num: int, kind: EventKind = EventKind.SUMMARY_READY) -> None:
    key = BatchKey(exposure_id=DAY * 100_000 + seq_num, pipeline="quicklook")
    board.publish(kind, batch=key)


@pytest.fixture(params=["directory", "S3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "bucket")
    s3: S3Server = request.getfixturevalue("s3")
    return s3.make_bucket(f"rubintv-{abs(hash(str(tmp_path))) % 10**9}")


def test_a_summary_is_a_row_and_a_picture(valkey, board, results, products, target):
    async def scenario():
        async with running(valkey.url, target, results, products) as stage:
            store(results, products, 12)
            tell(board, 12)
            await stage.place.wait_for(lambda: MOSAIC.format(12) in stage.names() and "12" in stage.table())
            assert stage.bucket.get(MOSAIC.format(12)) == b"mosaic 12 version 1"
            assert stage.table()["12"]["PSF FWHM"] == 0.8
            store(results, products, 12, 2, metrics={"psf_fwhm_arcsec_median": 0.6})
            tell(board, 12)
            await stage.place.wait_for(
                lambda: (
                    stage.table()["12"]["PSF FWHM"] == 0.6
                    and stage.bucket.get(MOSAIC.format(12)) == b"mosaic 12 version 2"
                )
            )
            assert sum(key.endswith("metadata.json") for key in stage.names() if key.startswith("lsstcam/")) == 1

    asyncio.run(scenario())


def test_an_exposure_is_in_the_table_before_it_is_processed(valkey, board, results, products, tmp_path):
    async def scenario():
        async with running(valkey.url, str(tmp_path / "bucket"), results, products) as stage:
            board.post(
                BatchSpec(
                    key=BatchKey(exposure_id=DAY * 100_000 + 7, pipeline="quicklook"),
                    camera="LSSTCam",
                    image_type="science",
                    expected=frozenset(range(4)),
                    info={"day_obs": DAY, "seq_num": 7, "exposure_time_s": 30.0},
                )
            )
            await stage.place.wait_for(lambda: "7" in stage.table())
            assert stage.table()["7"]["State"] == "processing"
            assert stage.table()["7"]["Exposure time"] == 30.0

    asyncio.run(scenario())


def test_a_restart_sends_what_is_missing_and_nothing_else(valkey, board, results, products, target):
    async def scenario():
        for number in (1, 2, 3):
            store(results, products, number)
        async with running(valkey.url, target, results, products) as stage:
            assert await stage.outbox.drain(LONG_S)
            assert stage.outbox.status.n_sent > 4
            assert set(stage.table()) == {"1", "2", "3"}
        store(results, products, 4)
        bucket = open_bucket(target)
        bucket.delete(MOSAIC.format(2))
        bucket.put(MOSAIC.format(3), b"of somebody else", content_type="image/jpeg")
        async with running(valkey.url, target, results, products, report_s=0.0) as stage:
            assert await stage.outbox.drain(LONG_S)
            assert set(stage.table()) == {"1", "2", "3", "4"}
            assert stage.bucket.get(MOSAIC.format(2)) == b"mosaic 2 version 1"
            assert stage.bucket.get(MOSAIC.format(3)) == b"mosaic 3 version 1"
            # Tables of the two cameras that list all exposures, three pictures; and the report, whose count changed.
            assert stage.outbox.status.n_sent <= 7

    asyncio.run(scenario())


def test_an_outage_of_the_bucket_blocks_nothing(valkey, board, results, products, tmp_path):
    async def scenario():
        async with running(valkey.url, str(tmp_path / "bucket"), results, products) as stage:
            down = asyncio.Event()
            stage.place.is_down = True
            stage.outbox.on_change = down.set
            for number in range(1, 11):
                store(results, products, number)
                tell(board, number)
            async with asyncio.timeout(LONG_S):
                await down.wait()
            assert not stage.outbox.status.is_up
            stage.place.is_down = False
            await stage.place.wait_for(
                lambda: len(stage.table()) == 10 and all(MOSAIC.format(n) in stage.names() for n in range(1, 11))
            )
            assert stage.outbox.status.n_dead == 0

    asyncio.run(scenario())


def test_a_product_that_is_gone_stops_nothing(valkey, board, results, products, tmp_path):
    async def scenario():
        async with running(valkey.url, str(tmp_path / "bucket"), results, products) as stage:
            gone = store(results, products, 1)
            products.delete(gone.products["mosaic"])
            tell(board, 1)
            store(results, products, 2)
            tell(board, 2)
            await stage.place.wait_for(lambda: {"1", "2"} <= stage.table().keys() and MOSAIC.format(2) in stage.names())
            assert await stage.outbox.drain(LONG_S)
            assert [letter.key for letter in stage.outbox.status.dead] == [MOSAIC.format(1)]

    asyncio.run(scenario())


def test_the_cluster_and_the_role_say_how_they_are(valkey, board, results, products, tmp_path):
    worker = WorkerSpec(worker_id="w0")
    board.claim(worker, timeout_s=0.01)

    async def scenario():
        async with (
            running(valkey.url, str(tmp_path / "bucket"), results, products) as stage,
            AsyncBoard(valkey.url, "LSSTCam") as other,
        ):
            store(results, products, 12, n_finished=0, is_complete=False, detectors={
                94: DetectorStatus(state=DetectorState.FAILED, reason="broken")
            })  # fmt: skip
            tell(board, 12)
            await stage.place.wait_for(lambda: stage.table().get("12", {}).get("State") == "failed")
            found = None
            async with asyncio.timeout(LONG_S):
                while found is None or found.n_exposures == 0 or not found.destinations[0].n_sent:
                    tell(board, 12, EventKind.JOB_STARTED)  # something happens, so that it is told anew
                    found = await other.connection.run(get_status(other.prefix))
                    await other.now_ms()
            assert found.night == DAY
            assert found.destinations[0].name == "rubintv"

    asyncio.run(scenario())
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        entries = client.xrevrange("stream:CLUSTER_STATUS_SFM_SET_0", count=1)
        document = json.loads(entries[0][1]["data"])
        assert document["94"]["type"] == "worker_status"
        assert client.xlen("stream:CLUSTER_STATUS_SFM_SET_0") <= 2
        assert 0 < client.ttl("stream:CLUSTER_STATUS_OTHER_QUEUES") <= 900


def test_it_needs_no_more_than_its_redis_user_may(valkey, board, results, products, tmp_path):
    add_users(valkey.url, "LSSTCam")
    try:

        async def scenario():
            url = url_of("publish", valkey.url)
            assert user_name("publish") in url
            async with running(url, str(tmp_path / "bucket"), results, products) as stage:
                store(results, products, 12)
                tell(board, 12)
                await stage.place.wait_for(lambda: "12" in stage.table())
                with redis.Redis.from_url(valkey.url) as client:
                    async with asyncio.timeout(LONG_S):
                        while not client.exists("stream:CLUSTER_STATUS_SFM_SET_0"):
                            tell(board, 12, EventKind.JOB_STARTED)
                            await asyncio.to_thread(client.ping)

        asyncio.run(scenario())
    finally:
        remove_users(valkey.url)


def test_a_night_has_a_report_and_a_movie_that_ends_as_final(valkey, board, results, products, tmp_path):
    movie = f"LSSTCam/{DAY}/night/prompt/movie"
    info = {"begin": "2026-11-21T03:00:00", "exposure_time_s": 30.0, "band": "r"}

    async def scenario():
        today = DAY
        async with running(valkey.url, str(tmp_path / "bucket"), results, products, today=lambda: today) as stage:
            for number in (1, 2):
                store(results, products, number, info=info | {"begin": f"2026-11-21T03:0{number}:00"})
            products.put(f"{movie}.mp4", b"a movie")
            products.put(f"{movie}.json", json.dumps({"exposures": [DAY * 100_000 + 1, DAY * 100_000 + 2]}).encode())
            tell(board, 1)
            tell(board, 2)
            folder = "lsstcam/2026-11-20/day_movie"
            shown = f"{folder}/000002/lsstcam_day_movie_2026-11-20_000002.mp4"
            await stage.place.wait_for(lambda: shown in stage.names())
            report = "lsstcam/2026-11-20/night_report"
            await stage.place.wait_for(
                lambda: f"{report}/Image-quality/lsstcam_night_report_2026-11-20_seeing.png" in stage.names()
            )
            texts = json.loads(stage.bucket.get(f"{report}/lsstcam_night_report_2026-11-20_md.json"))
            assert "2 exposures" in texts["text_010_night"]
            assert all(isinstance(text, str) for text in texts.values())
            today = 20261121
            board.publish(EventKind.PRODUCTS_ADDED, data={"day_obs": DAY})
            final = f"{folder}/final/lsstcam_day_movie_2026-11-20_final.mp4"
            await stage.place.wait_for(lambda: final in stage.names())
            assert await stage.outbox.drain(LONG_S)
            assert shown not in stage.names()

    asyncio.run(scenario())


class Rows:
    """A sink that remembers what it was told."""

    name = "rows"

    def __init__(self) -> None:
        self.told: list[int] = []
        self.n_waiting = 0

    async def run(self, stop) -> None:
        await stop.wait()

    def put(self, summary) -> None:
        self.told.append(summary.seq_num)

    @property
    def status(self) -> DestinationStatus:
        return DestinationStatus(name=self.name, n_waiting=self.n_waiting)


def test_a_restart_tells_a_sink_only_what_it_may_have_missed(valkey, board, results, products, tmp_path):
    now = datetime.now(UTC)
    first, behind, second = Rows(), Rows(), Rows()
    behind.name, behind.n_waiting = "behind", 1

    async def scenario():
        store(results, products, 1, gathered_at=now - timedelta(hours=1))
        store(results, products, 2, gathered_at=now)
        async with (
            running(valkey.url, str(tmp_path / "bucket"), results, products, sinks=(first, behind)) as stage,
            AsyncBoard(valkey.url, "LSSTCam") as other,
        ):
            assert sorted(first.told) == [1, 2]
            async with asyncio.timeout(LONG_S):
                while "rows" not in await other.connection.run(get_marks(other.prefix)):
                    tell(board, 1, EventKind.JOB_STARTED)
            assert "behind" not in await other.connection.run(get_marks(other.prefix))
            assert stage.outbox is not None
        async with running(valkey.url, str(tmp_path / "bucket"), results, products, sinks=(second,)):
            assert second.told == [2]

    asyncio.run(scenario())


class FindsByItself(Rows):
    """One that catches up with what it was not told of."""

    name = "every"

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.asked = asyncio.Event(), asyncio.Event()
        self.n_looks = 0

    async def catch_up(self) -> None:
        self.begun.set()
        await asyncio.Event().wait()

    def look_again(self) -> None:
        self.n_looks += 1
        self.asked.set()


def test_a_campaigns_results_go_to_who_takes_them_and_into_no_table(valkey, board, results, products, tmp_path):
    own, every = Rows(), FindsByItself()

    def tell_run(run: str, seq_num: int) -> None:
        store(results, products, seq_num, run=run)
        key = BatchKey(run=run, exposure_id=DAY * 100_000 + seq_num, pipeline="quicklook")
        board.publish(EventKind.SUMMARY_READY, batch=key)

    async def scenario():
        store(results, products, 3, run="newpsf")
        more = {"sinks": (own, every), "campaign_sinks": (every,)}
        async with running(valkey.url, str(tmp_path / "bucket"), results, products, **more) as stage:
            await asyncio.wait_for(every.begun.wait(), LONG_S)
            assert (own.told, every.told) == ([], []), "what is stored it finds by itself"
            tell_run("newpsf", 4)
            tell_run("request-17-0", 5)
            tell_run("prompt", 12)
            await stage.place.wait_for(lambda: "12" in stage.table())
            assert set(stage.table()) == {"12"}
            assert (own.told, every.told) == ([12], [4, 12])
            assert every.n_looks == 0
            board.publish(EventKind.CALIB_CERTIFIED, data={"calib_id": "x"})
            await asyncio.wait_for(every.asked.wait(), LONG_S)

    asyncio.run(scenario())


def test_the_witness_is_the_detector_asked_for(valkey, board, results, products, tmp_path):
    import io

    import numpy as np
    from astropy.io import fits

    image = np.random.default_rng(3).normal(100, 5, (64, 60)).astype(np.float32)
    raw = io.BytesIO()
    fits.PrimaryHDU(image).writeto(raw)
    products.put("LSSTCam/binned.fits", raw.getvalue())

    async def scenario():
        async with running(valkey.url, str(tmp_path / "bucket"), results, products) as stage:
            result = make_result(12, 94, products={"binned": "LSSTCam/binned.fits"}, timings={"total_s": 1.5})
            results.put_result(result)
            store(results, products, 12)
            tell(board, 12)
            key = "lsstcam/2026-11-20/witness_detector/000012/lsstcam_witness_detector_2026-11-20_000012.jpg"
            timeline = "lsstcam/2026-11-20/event_timeline/000012/lsstcam_event_timeline_2026-11-20_000012.png"
            await stage.place.wait_for(lambda: {key, timeline} <= stage.names())
            assert stage.bucket.get(key)[:2] == b"\xff\xd8"
            assert stage.bucket.get(timeline)[:4] == b"\x89PNG"

    asyncio.run(scenario())
