"""RubinTV's admin page, as it is: what it sets is obeyed, what it waits for comes."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
import redis
import redis.asyncio

from rapid.camera.models import Camera
from rapid.control.rubintv import RubinTVDoor
from rapid.control.spelling import CONTROLS, KNOWN_KEYS, PREFIX, RESET_HEAD
from rapid.control.store import AsyncControlStore
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec, Order, WorkerOrder, WorkerSpec
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.pipeline.store import default_book
from tests.support.users import add_users, remove_users, url_of
from tests.support.valkey import serve_valkey

WAIT_S = 30.0
BARRIER = "page-barrier"


class AdminPage:
    """What the page's server does: sets keys, and listens to the readbacks' keyspace events."""

    def __init__(self, url: str) -> None:
        self.client = redis.asyncio.Redis.from_url(url, decode_responses=True)
        self._listener = self.client.pubsub()

    async def __aenter__(self) -> "AdminPage":
        await self._listener.subscribe(BARRIER, *(f"__keyspace@0__:{key}_READBACK" for key in CONTROLS))
        await self.drain()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.aclose()
        await self.client.aclose()

    async def heard(self, name: str, *, other_than: str | None = None) -> str:
        """Return what a control's readback says once it is set again."""
        key = f"{PREFIX}{name}_READBACK"
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self._listener.get_message(ignore_subscribe_messages=True, timeout=WAIT_S)
                if message and message["channel"].endswith(f":{key}") and message["data"] == "set":
                    value = await self.client.get(key)
                    if value != other_than:
                        return value

    async def send(self, name: str, value: str) -> str:
        """Choose a value, and return the readback."""
        await self.drain()
        await self.client.set(f"{PREFIX}{name}", value)
        return await self.heard(name)

    async def drain(self) -> None:
        """Take in whatever has happened up to now: a message of our own comes behind it."""
        mark = uuid.uuid4().hex
        async with asyncio.timeout(WAIT_S):
            while not await self.client.publish(BARRIER, mark):
                pass  # it has not subscribed yet
            while True:
                message = await self._listener.get_message(ignore_subscribe_messages=True, timeout=WAIT_S)
                if message and message["data"] == mark:
                    return

    async def readback(self, name: str) -> str | None:
        return await self.client.get(f"{PREFIX}{name}_READBACK")

    async def choose(self, name: str, value: str, readback: str) -> None:
        """Choose a value, and wait until it was taken and answered so; what was answered before is gone first."""
        await self.client.delete(f"{PREFIX}{name}_READBACK")
        await self.client.set(f"{PREFIX}{name}", value)
        await self.until_taken(name)
        await self.until_readback(name, lambda shown: shown == readback)

    async def until_taken(self, name: str) -> None:
        """Wait until the door has taken a command away."""
        async with asyncio.timeout(WAIT_S):
            while await self.client.exists(f"{PREFIX}{name}"):
                pass

    async def until_readback(self, name: str, wanted: Callable[[str | None], bool]) -> str | None:
        async with asyncio.timeout(WAIT_S):
            while not wanted(value := await self.readback(name)):
                pass
        return value


@pytest.fixture
async def board(valkey: EmbeddedValkey, client: redis.Redis) -> AsyncIterator[AsyncBoard]:
    client.config_set("notify-keyspace-events", "")
    async with AsyncBoard(valkey.url, "LSSTCam") as board:
        await board.load()
        yield board


@pytest.fixture
def store(board: AsyncBoard, camera: Camera) -> AsyncControlStore:
    return AsyncControlStore(board.connection, camera, default_book())


@pytest.fixture
async def page(valkey: EmbeddedValkey, board: AsyncBoard) -> AsyncIterator[AdminPage]:
    async with AdminPage(valkey.url) as page:
        yield page


@contextlib.asynccontextmanager
async def serving(door: RubinTVDoor, page: AdminPage) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(door.run())
    # Twice: the first may be found as what was set before the door came, before all of that is dealt with. Words that are
    # refused: a change is told to the page twice, and the second time could be taken for the answer to what follows.
    for word in ("NOBODY_1", "NOBODY_2"):
        await page.client.set(f"{PREFIX}WITNESS_DETECTOR", word)
        await page.until_readback("WITNESS_DETECTOR", lambda value, word=word: value is not None and word in value)
    yield running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def door(valkey, board, store, page) -> AsyncIterator[asyncio.Task[None]]:
    async with serving(RubinTVDoor(board, valkey.url, store), page) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "value", "readback", "field", "result"),
    [
        ("CHIP_SELECTION", "5_ON_A_DIE", "5_ON_A_DIE", "pattern", None),
        ("CHIP_SELECTION", "ULTRA_MINIMAL", "ULTRA_MINIMAL", "pattern", None),
        ("CHIP_SELECTION", "ALL_UNVIGNETTED", "ALL_UNVIGNETTED", "pattern", None),
        ("VISIT_PROCESSING_MODE", "ALTERNATING_IN_TWOS", "ALTERNATING_IN_TWOS", "visit_mode", "alternating_by_twos"),
        ("AOS_PIPELINE", "DANISH", "AOS_DANISH", "wavefront_pipeline", "wavefront"),
        ("AOS_FAM_PIPELINE", "QUICKLOOK", "AOS_FAM_QUICKLOOK", "pipelines", {"cwfs": "quicklook"}),
        ("WITNESS_DETECTOR", "R22_S11", "R22_S11", "witness_detector", 94),
        ("WORKER_PROCESSING_MODE", "MURDEROUS", "MURDEROUS", "worker_mode", "preempting"),
    ],
)
async def test_a_choice_is_obeyed_and_read_back(door, page, store, client, name, value, readback, field, result):
    await page.choose(name, value, readback)
    state = (await store.read()).state.model_dump(mode="json")
    assert state[field] == (result if result is not None else state[field])
    assert state[field] not in {"all", "constant"} if isinstance(state[field], str) else True
    assert await page.send(name, value) == readback  # once more: the page waits for the answer all the same
    (newest, *_) = await store.history()
    assert (newest.changed_by, newest.door) == ("RubinTV", "rubintv")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CHIP_SELECTION", "NO_SUCH_PATTERN", "NO_SUCH_PATTERN"),
        ("CHIP_SELECTION", "all &", "column"),
        ("VISIT_PROCESSING_MODE", "SOMETIMES", "ALTERNATING_IN_TWOS"),
        ("AOS_PIPELINE", "TIE", "known:"),
        ("WITNESS_DETECTOR", "999", "0 to 204"),
        ("WITNESS_DETECTOR", "", "no detector"),
        ("WORKER_PROCESSING_MODE", "LAZY", "MURDEROUS"),
        ("CHIP_SELECTION", "x" * 5000, "longer than"),
    ],
)
async def test_a_bad_choice_is_rejected_readably_and_changes_nothing(door, page, store, client, name, value, says):
    before = await store.read()
    readback = await page.send(name, value)
    assert readback.startswith("REJECTED: ")
    assert says in readback
    assert (await store.read()) == before
    assert not client.exists(f"{PREFIX}{name}")


async def test_between_a_pair_the_pipeline_stays(door, page, store, board):
    async def post(seq_num: int, reason: str) -> None:
        key = BatchKey(exposure_id=2026112000000 + seq_num, pipeline="donut")
        info = {"reason": reason}
        await board.post(BatchSpec(key=key, camera="LSSTCam", image_type="cwfs", expected=frozenset({1}), info=info))

    async def choose(value: str, readback: str) -> None:
        await page.choose("AOS_FAM_PIPELINE", value, readback)

    await choose("DONUT", "AOS_FAM_DONUT")
    await post(1, "INTRA")
    await choose("QUICKLOOK", "REJECTED_BETWEEN_PAIR!")
    await choose("DONUT", "AOS_FAM_DONUT")  # as it is: nothing would change
    assert (await store.read()).state.pipelines["cwfs"] == "donut"
    await post(2, "EXTRA")
    await choose("QUICKLOOK", "AOS_FAM_QUICKLOOK")


async def test_what_other_doors_change_is_shown_on_the_page(door, page, store):
    await page.send("CHIP_SELECTION", "NONSENSE")
    await page.drain()
    await store.change({"pattern": "ccd_checkerboard & e2v", "visit_mode": "alternating"}, by="ann", door="cli")
    assert await page.heard("CHIP_SELECTION") == "CCD_CHECKERBOARD & E2V"
    assert await page.until_readback("VISIT_PROCESSING_MODE", lambda value: value == "ALTERNATING")


async def test_what_was_set_while_no_head_led_is_obeyed_at_the_start(valkey, board, store, page, client):
    client.set(f"{PREFIX}CHIP_SELECTION", "MINIMAL")
    client.set(f"{PREFIX}CHIP_SELECTION_READBACK", "REJECTED_BETWEEN_PAIR!")
    client.set(f"{PREFIX}RESET_HEAD_NODE", "1")
    client.set(f"{PREFIX}VISIT_PROCESSING_MODE_READBACK", "REJECTED: long ago")
    async with serving(RubinTVDoor(board, valkey.url, store), page) as running:
        assert await page.readback("CHIP_SELECTION") == "MINIMAL"
        assert await page.readback("VISIT_PROCESSING_MODE") == "CONSTANT"
        assert (await store.read()).state.pattern == "minimal"
        assert not running.done()  # it has just started: no need to do it again
        assert not client.exists(f"{PREFIX}RESET_HEAD_NODE")


async def test_reset_head_node_ends_the_door(door, page, client):
    await page.client.set(f"{PREFIX}RESET_HEAD_NODE", "1")
    await asyncio.wait_for(asyncio.shield(door), WAIT_S)
    assert not client.exists(f"{PREFIX}RESET_HEAD_NODE")


async def test_a_worker_group_is_told_to_restart(door, page, board):
    await board.claim(WorkerSpec(worker_id="w1", pools=("science", "wavefront")), timeout_s=0)
    await board.claim(WorkerSpec(worker_id="w2", pools=("wavefront",)), timeout_s=0)
    await page.client.set(f"{PREFIX}RESET_SFM_SET_0", "1")
    assert await board.wait_for_order("w1", timeout_s=WAIT_S) == WorkerOrder(order=Order.RESTART)
    assert await page.until_readback("RESET_SFM_SET_0", bool) == "RESTARTING 1 workers"
    await page.client.set(f"{PREFIX}RESET_AOS_SET_3", "1")
    for name in ("w1", "w2"):
        assert await board.wait_for_order(name, timeout_s=WAIT_S) == WorkerOrder(order=Order.RESTART)


async def test_an_unknown_control_is_left_alone_and_answered(door, page, client):
    await page.client.set(f"{PREFIX}MAKE_TEA", "NOW")
    assert await page.until_readback("MAKE_TEA", bool) == "REJECTED: unknown control"
    assert client.get(f"{PREFIX}MAKE_TEA") == "NOW"


async def test_a_value_that_is_no_string_is_rejected(door, page, client):
    client.lpush(f"{PREFIX}CHIP_SELECTION", "ALL")
    await page.client.set(f"{PREFIX}WITNESS_DETECTOR", "93")  # keys are obeyed in order
    await page.until_readback("WITNESS_DETECTOR", lambda value: value == "93")
    assert (await page.readback("CHIP_SELECTION")) is not None


async def test_the_door_survives_the_loss_of_its_connections(door, page, client, store):
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    client.set(f"{PREFIX}CHIP_SELECTION", "MINIMAL")
    await page.until_readback("CHIP_SELECTION", lambda value: value == "MINIMAL")
    assert (await store.read()).state.pattern == "minimal"


async def test_keyspace_events_are_switched_on_and_what_was_on_stays(valkey, board, store, page, client):
    client.config_set("notify-keyspace-events", "Ex")
    async with serving(RubinTVDoor(board, valkey.url, store), page):
        flags = client.config_get("notify-keyspace-events")["notify-keyspace-events"]
    assert set("Ex$K") <= set(flags)


async def test_where_events_are_off_and_may_not_be_switched_on_the_log_says_how_to(
    tmp_path, camera, capsys, monkeypatch
):
    import rapid.control.rubintv as module

    monkeypatch.setattr(module, "PROBE_S", 0.2)
    with serve_valkey(tmp_path / "valkey") as server:
        with redis.Redis.from_url(server.url) as other:
            other.config_set("notify-keyspace-events", "")
        add_users(server.url, "LSSTCam")
        url = url_of("head", server.url)
        async with AsyncBoard(url, "LSSTCam") as board:
            await board.load()
            store = AsyncControlStore(board.connection, camera, default_book())
            running = asyncio.create_task(RubinTVDoor(board, url, store).run())
            said = ""
            async with asyncio.timeout(WAIT_S):
                while "will not be heard" not in said:
                    await board.ping()
                    said += capsys.readouterr().out
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        remove_users(server.url)
    assert "notify-keyspace-events K$" in said


async def test_whatever_is_set_is_obeyed_or_rejected_and_taken_away(door, page, client, store):
    draw = random.Random(7)
    keys = [key.removeprefix(PREFIX) for key in KNOWN_KEYS if key != RESET_HEAD]
    for _ in range(150):
        name = draw.choice(keys)
        value = bytes(draw.choice(b"ALL &|~()[]@,.-_0123456789R\x00\xff\n\xc3") for _ in range(draw.randrange(40)))
        client.delete(f"{PREFIX}{name}_READBACK")
        await page.client.set(f"{PREFIX}{name}", value)
        assert await page.until_readback(name, bool)
        await page.until_taken(name)
    await store.read()
    assert not door.done()
