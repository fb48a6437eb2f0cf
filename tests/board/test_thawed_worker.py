"""A worker that was frozen while its job was given away stores nothing of it."""

import pytest
from prometheus_client import CollectorRegistry

from rapid.dispatch.board import AsyncBoard
from rapid.errors import LeaseLostError
from rapid.results.store import open_results
from rapid.worker.messages import ChildAnswer, ChildSettings
from rapid.worker.metrics import WorkerMetrics
from rapid.worker.role import Worker, _Outcome
from tests.board.conftest import spec_of, worker
from tests.support.records import make_result


@pytest.fixture
def results(tmp_path):
    store = open_results(str(tmp_path / "results.sqlite"))
    yield store
    store.close()


@pytest.fixture
async def thawed(board, valkey, results, tmp_path):
    """Make a worker that gave its last sign of life before this machine was started."""
    async with AsyncBoard(valkey.url, "LSSTCam") as own:
        settings = ChildSettings(results_url="", products_url=str(tmp_path), calibs_path=tmp_path)
        yield Worker(worker(), own, results, settings, metrics=WorkerMetrics(CollectorRegistry()))


@pytest.mark.parametrize("is_lost", [True, False], ids=["the job is lost", "the job is still its own"])
async def test_a_thawed_worker_asks_before_it_stores(board, thawed, results, is_lost):
    board.post(spec_of(1, [0], max_attempts=1))
    job = board.claim(worker())
    found = _Outcome(ChildAnswer(result=make_result(1, 0)))
    if is_lost:
        board.advance_clock(60_000)
        board.tick()
        with pytest.raises(LeaseLostError):
            await thawed._keep(job, found, ())
    else:
        await thawed._keep(job, found, ())
    assert bool(results.results(job.batch.exposure_id)) is not is_lost
