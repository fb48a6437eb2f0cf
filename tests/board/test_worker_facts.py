"""What people are told of workers, and the order to one of them alone."""

import redis

from rapid.dispatch.board import Board
from rapid.dispatch.models import Order
from rapid.dispatch.restart import order_restart
from rapid.dispatch.worker_facts import read_worker_facts, tell_worker
from tests.board.conftest import spec_of, worker


def facts(board: Board) -> dict:
    return board.connection.run(read_worker_facts(board.prefix))


def test_a_board_without_workers_has_none(board):
    assert facts(board) == {}


def test_memory_is_kept_of_a_worker_that_is_known(board, valkey):
    board.post(spec_of(1, [0]))
    board.claim(worker("w1"))
    assert board.connection.run(tell_worker(board.prefix, "w1", memory_mb=512.25))
    assert not board.connection.run(tell_worker(board.prefix, "nobody", memory_mb=1.0))
    assert set(facts(board)) == {"w1"}
    assert facts(board)["w1"].memory_mb == 512.2
    with redis.Redis.from_url(valkey.url) as client:
        assert not client.exists(f"{board.prefix}worker:nobody")


def test_since_when_a_worker_has_its_job_is_told(board):
    board.post(spec_of(1, [0]))
    job = board.claim(worker("w1"))
    assert facts(board)["w1"].since_ms == job.claimed_ms
    board.complete(job, {})
    assert facts(board)["w1"].since_ms is None


def test_jobs_that_wait_for_a_pinned_worker_are_counted(board):
    board.post(spec_of(1, [0, 5]))
    job = board.claim(worker("w1", pinned=frozenset({0})))
    board.post(spec_of(2, [0, 5]))
    assert facts(board)["w1"].n_own == 1
    board.complete(job, {})


def test_one_worker_alone_is_told_to_start_anew(board):
    board.post(spec_of(1, [0, 1]))
    for name in ("w1", "w2"):
        board.claim(worker(name))
    assert board.connection.run(order_restart(board.prefix, worker_id="nobody")) == 0
    assert board.connection.run(order_restart(board.prefix, worker_id="w2")) == 1
    assert {name: one.is_restarting for name, one in facts(board).items()} == {"w1": False, "w2": True}
    assert board.wait_for_order("w2", timeout_s=5.0).order is Order.RESTART
    assert not facts(board)["w2"].is_restarting
    assert board.connection.run(order_restart(board.prefix, "science")) == 2
