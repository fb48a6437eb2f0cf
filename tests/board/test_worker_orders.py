"""A worker hears its orders, whenever they come, over one connection, and takes none for another job's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import redis
from prometheus_client import CollectorRegistry

from rapid.dispatch.board import AsyncBoard, Board
from rapid.dispatch.models import Job, Priority, WorkerMode
from rapid.dispatch.restart import order_restart
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.results.store import open_results
from rapid.worker.messages import ChildSettings
from rapid.worker.metrics import WorkerMetrics
from rapid.worker.orders import OrderWatch
from rapid.worker.role import Worker
from tests.board.conftest import key_of, spec_of, worker

WAIT_S = 60.0


@pytest.fixture
async def own_board(valkey: EmbeddedValkey) -> AsyncIterator[AsyncBoard]:
    async with AsyncBoard(valkey.url, "LSSTCam") as own:
        yield own


@pytest.fixture
async def watch(own_board: AsyncBoard) -> AsyncIterator[OrderWatch]:
    """Listen for orders to worker w0."""
    watch = OrderWatch(own_board, "w0")
    listening = asyncio.create_task(watch.run())
    yield watch
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening


def claim_backlog(board: Board) -> Job:
    """Have worker w0 run a backlog job, in mode preempting."""
    board.set_mode(WorkerMode.PREEMPTING)
    board.post(spec_of(5, []))
    board.post(spec_of(1, [0, 1]))
    job = board.claim(worker())
    assert job.priority is Priority.BACKLOG
    return job


async def heard(watch: OrderWatch, job: Job) -> None:
    async with asyncio.timeout(WAIT_S):
        await watch.wait_for_preemption(job)


async def test_who_runs_a_backlog_job_is_told_to_give_it_up(board: Board, watch: OrderWatch) -> None:
    job = claim_backlog(board)
    waiting = asyncio.create_task(heard(watch, job))
    board.post(spec_of(6, [0]))
    await waiting


async def test_an_order_heard_before_its_job_is_asked_for_is_kept(board: Board, watch: OrderWatch) -> None:
    job = claim_backlog(board)
    board.post(spec_of(6, [0]))
    board.connection.run(order_restart(board.prefix, worker_id="w0"))
    async with asyncio.timeout(WAIT_S):
        await watch.restart.wait()
    await heard(watch, job)


async def test_an_order_is_for_one_attempt_and_no_later_one(board: Board, watch: OrderWatch) -> None:
    job = claim_backlog(board)
    board.post(spec_of(6, [0]))
    await heard(watch, job)
    current = board.preempted(job)
    other = board.complete(current, {}, claim_next=True)
    again = board.complete(other, {}, claim_next=True)
    assert job.job_id in {other.job_id, again.job_id}
    waiting = [asyncio.create_task(heard(watch, one)) for one in (other, again)]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done, "the order of its first attempt does not end its second"
    board.post(spec_of(7, [0]))
    await waiting[1]
    waiting[0].cancel()


async def test_a_lost_connection_is_made_anew(board: Board, watch: OrderWatch, valkey: EmbeddedValkey) -> None:
    job = claim_backlog(board)
    with redis.Redis.from_url(valkey.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    board.post(spec_of(6, [0]))
    await heard(watch, job)


async def test_job_after_job_is_watched_over_the_same_connection(
    board: Board, own_board: AsyncBoard, watch: OrderWatch, valkey: EmbeddedValkey
) -> None:
    board.set_mode(WorkerMode.PREEMPTING)
    board.post(spec_of(5, []))
    board.post(spec_of(1, range(20)))
    job = board.claim(worker())
    waiting = asyncio.create_task(heard(watch, job))
    await own_board.ping()  # beside the wait: the second connection
    with redis.Redis.from_url(valkey.url) as client:
        before = client.info("stats")["total_connections_received"]
        while job is not None:
            job = board.complete(job, {}, claim_next=True)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            if job is not None:
                waiting = asyncio.create_task(heard(watch, job))
                await own_board.ping()
        assert client.info("stats")["total_connections_received"] == before


async def test_an_order_that_was_lost_is_told_by_the_next_heartbeat(
    make_board: Callable[..., Board], own_board: AsyncBoard, valkey: EmbeddedValkey, tmp_path: object
) -> None:
    board = make_board(lease_ms=900)
    job = claim_backlog(board)
    board.post(spec_of(6, [0]))
    assert board.wait_for_order("w0", timeout_s=WAIT_S).job_id == job.job_id  # and its answer never arrives
    results = open_results(f"{tmp_path}/results.sqlite")
    settings = ChildSettings(results_url="", products_url=str(tmp_path), calibs_path=str(tmp_path))
    one = Worker(worker(), own_board, results, settings, metrics=WorkerMetrics(CollectorRegistry()))
    beating = asyncio.create_task(one._keep_lease(job, ()))
    await heard(one._orders, job)
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating
    results.close()
    assert board.preempted(job).batch == key_of(6)
