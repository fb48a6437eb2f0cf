"""What the board gives up by itself reaches the results store, through the leading head."""

import asyncio
import contextlib
import threading

import pytest

from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import EventKind
from rapid.errors import PayloadError
from rapid.head.failures import FailureKeeper
from rapid.results.store import open_results
from tests.board.conftest import key_of, spec_of, worker
from tests.support.records import make_result

JOB = key_of(1).job_id(0)


class Watched:
    """A results store, and a wait for what is written to its failures."""

    def __init__(self, store, monkeypatch):
        self.store = store
        self._changed = threading.Condition()
        for name in ("put_failure", "forget_failure"):
            monkeypatch.setattr(store, name, self._telling(getattr(store, name)))

    def _telling(self, write):
        def write_and_tell(*arguments, **facts):
            write(*arguments, **facts)
            with self._changed:
                self._changed.notify_all()

        return write_and_tell

    async def wait_for(self, wanted):
        """Wait until these jobs have failed, and no others."""

        def wait():
            with self._changed:
                assert self._changed.wait_for(lambda: self.jobs() == wanted, timeout=30)

        await asyncio.to_thread(wait)

    def jobs(self):
        return {row["job_id"] for row in self.store.failures("LSSTCam")}


@pytest.fixture
def results(tmp_path, monkeypatch):
    store = open_results(str(tmp_path / "results.sqlite"))
    yield Watched(store, monkeypatch)
    store.close()


@contextlib.asynccontextmanager
async def keeping(valkey, results):
    async with AsyncBoard(valkey.url, "LSSTCam") as board:
        keeper = asyncio.create_task(FailureKeeper(load_camera("LSSTCam"), board, results.store).run())
        try:
            yield board
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


def lose_a_job(board) -> None:
    """Let a worker fall silent with the only attempt of a job in hand."""
    board.post(spec_of(1, [0], max_attempts=1))
    assert board.claim(worker()) is not None
    board.advance_clock(60_000)
    board.tick()
    assert [letter.job_id for letter in board.dead_letters()] == [JOB]


async def test_a_job_whose_worker_fell_silent_for_good_is_a_failure(board, valkey, results):
    async with keeping(valkey, results):
        await asyncio.to_thread(lose_a_job, board)
        await results.wait_for({JOB})
    (row,) = results.store.failures("LSSTCam")
    assert (row["exposure"], row["detector"], row["pipeline"]) == (key_of(1).exposure_id, 0, "quicklook")
    assert (row["code"], row["attempts"]) == ("lease_expired", 1)
    assert row["document"]["raw_uri"] == "/raws/1/0.fits"


async def test_a_failure_from_before_the_lead_is_found_when_it_begins(board, valkey, results):
    await asyncio.to_thread(lose_a_job, board)
    async with keeping(valkey, results):
        await results.wait_for({JOB})


async def test_a_failure_is_forgotten_once_its_job_was_retried_with_success(board, valkey, results):
    async with keeping(valkey, results):
        await asyncio.to_thread(lose_a_job, board)
        await results.wait_for({JOB})
        board.retry_dead_letter(JOB)
        job = await asyncio.to_thread(board.claim, worker("w1"), timeout_s=10.0)
        board.complete(job, {})
        await results.wait_for(set())


async def test_a_job_whose_result_is_stored_is_tried_again_and_is_no_failure(board, valkey, results):
    results.store.put_result(make_result(1, 0))
    async with keeping(valkey, results):
        await asyncio.to_thread(lose_a_job, board)
        job = await asyncio.to_thread(board.claim, worker("w1"), timeout_s=30.0)
        assert job.job_id == JOB
        board.complete(job, {})
        # A failure after it is written: so the keeper has come past this one.
        board.post(spec_of(2, [0]))
        other = await asyncio.to_thread(board.claim, worker("w1"), timeout_s=10.0)
        board.fail(other, PayloadError("bad pixels").to_dict())
        await results.wait_for({key_of(2).job_id(0)})


async def test_a_job_that_ends_so_again_is_a_failure_after_all(board, valkey, results):
    results.store.put_result(make_result(1, 0))
    async with keeping(valkey, results) as listening:
        last = await listening.last_event_id()
        await asyncio.to_thread(lose_a_job, board)
        assert await asyncio.to_thread(board.claim, worker("w1"), timeout_s=30.0)
        board.advance_clock(60_000)
        board.tick()
        await results.wait_for({JOB})
        kinds = [event.kind for event in await listening.events(last, timeout_s=1.0)]
    assert kinds.count(EventKind.JOB_FAILED) == 2
