"""Topics of notifications and announcements: on the board before they are committed, once each in effect."""

import asyncio
import contextlib
import io
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastavro
import pytest

from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard
from rapid.errors import StoreError
from rapid.ingest import store
from rapid.ingest.door import DoorSettings, IngestDoor
from rapid.ingest.topics import NotificationTopics
from rapid.kafka.models import Record, Taken
from rapid.kafka.relay import Relay, Take
from rapid.kafka.subscription import Subscription
from rapid.next_visit.desk import VisitDesk
from rapid.next_visit.models import NextVisit
from rapid.next_visit.topics import VisitTopics
from tests.support.valkey import serve_valkey

CAMERA = load_camera("LSSTCam")
WAIT_S = 100.0
VISIT = {"groupId": "g", "instrument": "LSSTCam", "filters": "r_57", "position": [1.5, -2.5], "coordinateSystem": 2}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
async def board(valkey, request):
    async with AsyncBoard(valkey.url, f"LSSTCam_{abs(hash(request.node.name))}") as found:
        await found.load()
        yield found


@contextlib.asynccontextmanager
async def relaying(broker, topics: list[str], take: Take, *, group: str):
    """Run a relay; it is told to stop at the end."""
    stop = asyncio.Event()
    relay = Relay(
        lambda: Subscription(broker.config(), topics, group=group, from_the_beginning=True), take, role="test"
    )
    task = asyncio.create_task(relay.run(stop))
    try:
        yield task
    finally:
        stop.set()
        async with asyncio.timeout(WAIT_S):
            await task


class Taker:
    """Takes records by another's way, and tells when so many have come to an end."""

    def __init__(self, take: Take, n: int) -> None:
        self._take = take
        self._n = n
        self.outcomes: list[str] = []
        self.is_done = asyncio.Event()

    async def take(self, record: Record) -> Taken:
        try:
            outcome = await self._take(record)
        except StoreError:
            raise
        except Exception as error:
            self._note(type(error).__name__)
            raise
        self._note(outcome.value)
        return outcome

    def _note(self, outcome: str) -> None:
        self.outcomes.append(outcome)
        if len(self.outcomes) >= self._n:
            self.is_done.set()

    async def wait(self) -> list[str]:
        async with asyncio.timeout(WAIT_S):
            await self.is_done.wait()
        return self.outcomes


def notification(bucket: str, key: str) -> dict:
    return {
        "Records": [
            {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}}}
        ]
    }


async def queued(board: AsyncBoard) -> list[str]:
    """Return what is on the ingest role's list, the first that was told of first."""

    def ask():
        found = yield store.Command(("LRANGE", f"{board.prefix}{store.QUEUE}", 0, -1))
        return [bytes(one).decode() for one in reversed(found)]

    return await board.connection.run(ask())


async def test_notifications_are_on_the_list_and_what_is_bad_or_foreign_stops_none(broker, board) -> None:
    key = "LSSTCam/20261120/MC_O_20261120_000001/MC_O_20261120_000001_R22_S11.fits"
    door = IngestDoor(CAMERA, board, DoorSettings(frozenset({"raws"})))
    taker = Taker(NotificationTopics(door).take, 6)
    broker.put(
        "notifications",
        {"Event": "s3:TestEvent"},
        b"no JSON",
        None,
        notification("elsewhere", key),
        {"Records": 5},
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": None}]},
        notification("raws", key),
    )
    async with relaying(broker, ["notifications"], taker.take, group="n"):
        assert (await taker.wait())[-1] == "taken"
    assert "PayloadError" in taker.outcomes
    assert taker.outcomes.count("taken") == 1
    assert await queued(board) == [f"s3://raws/{key}"]


async def test_while_redis_is_away_nothing_is_committed_and_nothing_is_lost(broker, board) -> None:
    keys = [f"LSSTCam/20261120/x/MC_O_20261120_00000{n}_R22_S11.fits" for n in range(1, 6)]
    take = NotificationTopics(IngestDoor(CAMERA, board, DoorSettings(frozenset({"raws"})))).take
    failures = iter([False, False, True, True])

    async def away_for_a_while(record: Record) -> Taken:
        if next(failures, False):
            raise StoreError("Redis is away")
        return await take(record)

    broker.put("away", *(notification("raws", key) for key in keys))
    taker = Taker(away_for_a_while, 5)
    async with relaying(broker, ["away"], taker.take, group="a"):
        await taker.wait()
    assert await queued(board) == [f"s3://raws/{key}" for key in keys]
    # A successor begins after them: they were committed.
    broker.put("away", notification("raws", keys[0]))
    taker = Taker(take, 1)
    async with relaying(broker, ["away"], taker.take, group="a"):
        await taker.wait()
    assert len(await queued(board)) == 6


async def test_what_was_taken_by_a_process_that_died_before_the_commit_comes_again(broker, board) -> None:
    key = "LSSTCam/20261120/x/MC_O_20261120_000009_R22_S11.fits"
    take = NotificationTopics(IngestDoor(CAMERA, board, DoorSettings(frozenset({"raws"})))).take
    broker.put("killed", notification("raws", key))
    died = Subscription(broker.config(), ["killed"], group="k", from_the_beginning=True)

    def take_one() -> list[Record]:
        for _ in range(120):
            with contextlib.suppress(StoreError):
                if records := died.take(10, timeout_s=1.0):
                    return records
        pytest.fail("no record came")

    [record] = await asyncio.to_thread(take_one)
    assert await take(record) is Taken.TAKEN
    await asyncio.to_thread(died.close)  # and nothing was committed
    taker = Taker(take, 1)
    async with relaying(broker, ["killed"], taker.take, group="k"):
        await taker.wait()
    assert await queued(board) == [f"s3://raws/{key}"] * 2, "told twice rather than never: once in the repository"


SCHEMA = {
    "type": "record",
    "name": "logevent_nextVisit",
    "namespace": "lsst.sal.ScriptQueue",
    "fields": [
        {"name": "groupId", "type": "string"},
        {"name": "instrument", "type": "string"},
        {"name": "filters", "type": "string"},
        {"name": "position", "type": {"type": "array", "items": "double"}},
        {"name": "coordinateSystem", "type": "long"},
        {"name": "private_sndStamp", "type": "double", "default": 0.0},
    ],
}


def avro(document: dict, number: int) -> bytes:
    data = io.BytesIO()
    fastavro.schemaless_writer(data, fastavro.parse_schema(SCHEMA), document)
    return b"\x00" + struct.pack(">I", number) + data.getvalue()


@pytest.fixture
def registry() -> Iterator[str]:
    """A schema registry that knows one schema, 7; the first question it does not answer."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status = 500 if len(asked) == 1 else 200 if self.path == "/schemas/ids/7" else 404
            body = json.dumps({"schema": json.dumps(SCHEMA)} if status == 200 else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(30)
    server.server_close()


async def test_visits_are_announced_from_avro_and_json_and_canceled(broker, board, registry) -> None:
    config = broker.config(visits=("visits",), canceled=("canceled",), schemas=registry)
    desk = VisitDesk("LSSTCam", board)
    topics = VisitTopics(desk, config)
    broker.put(
        "visits",
        avro({**VISIT, "groupId": "avro"}, 7),
        avro({**VISIT, "groupId": "unknown schema"}, 8),
        b"\x00\x00\x00\x00\x07\xff",
        {"message": {**VISIT, "groupId": "wrapped"}},
        {**VISIT, "instrument": "LATISS"},
        {**VISIT, "groupId": "over", "startTime": 1577923200.0, "duration": 30},
        {**VISIT, "groupId": ""},
        {**VISIT, "groupId": "plain"},
    )
    taker = Taker(topics.take, 8)
    async with relaying(broker, ["visits"], taker.take, group="v"):
        outcomes = await taker.wait()
    bad = "PayloadError"
    assert outcomes == ["taken", bad, bad, "taken", "ignored", "ignored", bad, "taken"]
    known = {state.visit.group_id: state.visit for state in await desk.states()}
    assert known.keys() == {"avro", "wrapped", "plain"}
    assert known["avro"].sky == (1.5, -2.5)
    broker.put("canceled", {"groupId": "avro", "scriptSalIndex": 1}, {"groupId": "nobody"}, {})
    taker = Taker(topics.take, 3)
    async with relaying(broker, ["canceled"], taker.take, group="v"):
        assert await taker.wait() == ["taken", "ignored", bad]
    assert {state.visit.group_id for state in await desk.states()} == {"wrapped", "plain"}


def test_a_visit_is_over_a_while_after_its_announced_end() -> None:
    visit = NextVisit.model_validate({**VISIT, "startTime": 10_037.0, "duration": 30.0})
    assert not visit.is_over(now_s=10_000.0 + 30.0 + 299.0)
    assert visit.is_over(now_s=10_000.0 + 30.0 + 301.0)
    assert not NextVisit.model_validate(VISIT).is_over(now_s=1e9)
