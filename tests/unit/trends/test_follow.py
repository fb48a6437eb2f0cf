"""Trends are searched as calibrations come in, once for all that came meanwhile, and not after the end."""

import asyncio
import threading

import pytest

from rapid.errors import StoreError
from rapid.results.store import open_results
from rapid.trends.follow import TrendFollower
from rapid.trends.watch import TrendWatch
from tests.support.records import make_result, make_summary

WAIT_S = 60.0


class Searches:
    """Stands before the search: counts, may hold it, may break it."""

    def __init__(self, monkeypatch):
        self.loop = asyncio.get_running_loop()
        self.begun = asyncio.Queue()
        self.may_go = threading.Event()
        self.may_go.set()
        self.errors = []
        search = TrendWatch.run

        def run(watch, camera, **facts):
            self.loop.call_soon_threadsafe(self.begun.put_nowait, camera)
            assert self.may_go.wait(WAIT_S)
            if self.errors:
                raise self.errors.pop()
            return search(watch, camera, **facts)

        monkeypatch.setattr(TrendWatch, "run", run)

    async def one(self):
        return await asyncio.wait_for(self.begun.get(), WAIT_S)


@pytest.fixture
def results(tmp_path):
    store = open_results(str(tmp_path / "results.sqlite"))
    yield store
    store.close()


@pytest.fixture
async def follow(results):
    stop, tasks = asyncio.Event(), []

    def start(interval_s):
        follower = TrendFollower(results.engine, "LSSTCam", interval_s=interval_s)
        tasks.append(asyncio.create_task(follower.run(stop)))
        return follower

    yield start
    stop.set()
    await asyncio.wait_for(asyncio.gather(*tasks), WAIT_S)


def bias():
    return make_summary(pipeline="bias", image_type="bias")


async def test_what_came_while_nobody_watched_is_searched_after_the_start(results, follow, monkeypatch):
    results.put_result(make_result(pipeline="bias", image_type="bias"))
    searches = Searches(monkeypatch)
    follow(0.01)
    assert await searches.one() == "LSSTCam"


async def test_a_calibration_wakes_it_and_a_sky_image_does_not(results, follow, monkeypatch):
    searches = Searches(monkeypatch)
    follower = follow(1000.0)
    await asyncio.wait_for(asyncio.to_thread(lambda: None), WAIT_S)  # its task has begun
    follower(make_summary(), results, None)
    follower(bias(), results, None)
    await searches.one()
    assert searches.begun.empty()


async def test_what_comes_during_a_search_is_one_more_search(results, follow, monkeypatch):
    searches = Searches(monkeypatch)
    searches.may_go.clear()
    follower = follow(0.01)
    await searches.one()
    for _ in range(20):
        follower(bias(), results, None)
    searches.may_go.set()
    await searches.one()
    assert searches.begun.empty()


async def test_a_failed_search_does_not_end_it(results, follow, monkeypatch):
    searches = Searches(monkeypatch)
    searches.errors = [StoreError("away"), ValueError("odd")]
    follower = follow(0.01)
    for _ in range(3):
        await searches.one()
        follower(bias(), results, None)
