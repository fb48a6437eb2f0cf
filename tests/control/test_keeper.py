"""The control state outlives Redis: it is kept in the results store and brought back."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from rapid.camera.models import Camera
from rapid.control.keeper import ControlKeeper
from rapid.control.models import ControlState
from rapid.control.store import AsyncControlStore
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import WorkerMode
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.pipeline.models import PipelineBook
from rapid.pipeline.store import default_book
from rapid.results.control_log import ControlLog
from rapid.results.store import ResultsStore

WAIT_S = 30.0
STATE = "rapid:{LSSTCam}:control_state"


@pytest.fixture
async def board(valkey: EmbeddedValkey, client: redis.Redis) -> AsyncIterator[AsyncBoard]:
    async with AsyncBoard(valkey.url, "LSSTCam") as board:
        await board.load()
        yield board


@pytest.fixture
def store(board: AsyncBoard, camera: Camera) -> AsyncControlStore:
    return AsyncControlStore(board.connection, camera, default_book())


@pytest.fixture
def log(results: ResultsStore) -> ControlLog:
    return ControlLog(results.engine)


@pytest.fixture
def keeper(store: AsyncControlStore, log: ControlLog) -> ControlKeeper:
    return ControlKeeper(store, log)


async def until(condition: Callable[[], bool], changed: Callable[[], object]) -> None:
    """Wait until something holds, looking again after each change."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await changed()


async def test_every_change_is_in_the_results_store_with_the_state_it_led_to(store, keeper, log):
    await keeper.restore()
    running = asyncio.create_task(keeper.run())
    await store.change({"pattern": "minimal"}, by="ann", door="cli", reason="clouds")
    await store.change({"patterns": {"mine": "R22"}}, by="bob", door="http")
    await store.change({"visit_mode": "alternating"}, by="ann", door="cli")
    await until(lambda: len(log.changes("LSSTCam")) == 3, lambda: asyncio.to_thread(log.ping))
    running.cancel()
    newest, middle, first = log.changes("LSSTCam")
    assert (first.version, first.changed_by, first.door, first.reason) == (1, "ann", "cli", "clouds")
    assert first.change == {"before": {"pattern": "all"}, "after": {"pattern": "minimal"}}
    assert ControlState.model_validate(middle.state) == ControlState(pattern="minimal", patterns={"mine": "R22"})
    assert ControlState.model_validate(newest.state) == (await store.read()).state


async def test_after_a_flush_state_log_and_worker_mode_are_back(store, keeper, board, client):
    before = await store.change({"pattern": "minimal", "worker_mode": "waiting"}, by="ann", door="cli", reason="wind")
    await keeper.restore()
    client.flushdb()
    assert (await store.read()).version == 0
    assert (await keeper.restore()) == (await store.read())
    after = await store.read()
    assert (after.version, after.state, after.changed_by, after.reason) == (1, before.state, "ann", "wind")
    assert [entry.changed_by for entry in await store.history()] == ["ann"]
    assert (await board.status()).mode is WorkerMode.WAITING


async def test_what_was_changed_between_flush_and_restoration_counts_too(store, keeper, log, client):
    await store.change({"pattern": "minimal"}, by="ann", door="cli")
    await store.change({"visit_mode": "alternating"}, by="ann", door="cli")
    await keeper.restore()
    client.flushdb()
    await store.change({"worker_mode": "waiting"}, by="bob", door="http")
    document = await keeper.restore()
    assert document.version == 3
    assert document.state == ControlState(pattern="minimal", visit_mode="alternating", worker_mode="waiting")
    assert [record.changed_by for record in log.changes("LSSTCam")] == ["bob", "ann", "ann"]
    assert [entry.version for entry in await store.history()] == [3, 2, 1]


async def test_changes_made_while_no_head_led_are_kept_by_the_next_one(store, log):
    for n in range(3):
        await store.change({"witness_detector": n}, by="ann", door="cli")
    await ControlKeeper(store, log).restore()
    assert [record.version for record in log.changes("LSSTCam")] == [3, 2, 1]
    assert (await store.read()).version == 3


async def test_garbage_on_the_board_is_replaced_by_what_was_stored(store, keeper, client):
    await store.change({"pattern": "minimal"}, by="ann", door="cli")
    await keeper.restore()
    client.hset(STATE, mapping={"version": "many", "state": "{"})
    assert (await keeper.restore()).state.pattern == "minimal"
    running = asyncio.create_task(keeper.run())
    client.hset(STATE, "state", "nonsense")  # while the head leads
    await store_change_elsewhere(client)

    def is_back() -> bool:
        return client.hget(STATE, "state") != "nonsense"

    await until(is_back, lambda: asyncio.to_thread(client.ping))
    running.cancel()
    assert (await store.read()).state.pattern == "minimal"


async def store_change_elsewhere(client: redis.Redis) -> None:
    client.xadd(
        "rapid:{LSSTCam}:events",
        {"kind": "control_changed", "at_ms": 1, "batch": "", "detector": "", "data": '{"version": 9}'},
    )


async def test_a_pipeline_that_has_gone_is_taken_back_with_a_reason(board, camera, log, store):
    await store.change({"pattern": "minimal", "pipelines": {"science": "quicklook"}}, by="ann", door="cli")
    book = default_book()
    left = PipelineBook(pipelines=tuple(p for p in book.pipelines if p.name != "quicklook"), rules=())
    document = await ControlKeeper(AsyncControlStore(board.connection, camera, left), log).restore()
    assert document.state == ControlState(pattern="minimal")
    assert "pipelines.science" in document.reason
    assert document.changed_by == "head"


async def test_two_cameras_share_a_results_store(valkey, client, log, camera, store, keeper):
    from rapid.camera.store import load_camera

    async with AsyncBoard(valkey.url, "LATISS") as board:
        other = AsyncControlStore(board.connection, load_camera("LATISS"), default_book())
        await other.change({"visit_mode": "alternating"}, by="bob", door="cli")
        await store.change({"pattern": "minimal"}, by="ann", door="cli")
        for one in (keeper, ControlKeeper(other, log)):
            await one.restore()
    assert [record.changed_by for record in log.changes("LATISS")] == ["bob"]
    assert [record.changed_by for record in log.changes("LSSTCam")] == ["ann"]
