"""A night goes to a bucket, whose head is told of every object, and straight to the arrival door."""

import asyncio
import math

import pytest
from fastapi import FastAPI

from rapid.arrival.models import ExpectedSensors, RawArrived, RawQuarantined
from rapid.arrival.source import open_source
from rapid.arrival.webhook import notify_router
from rapid.errors import ConfigurationError, StoreError
from rapid.products.store import open_products
from replay.clock import NightClock
from replay.door import DoorSource, HeadThread
from replay.play import Player
from replay.s3_gate import S3Gate, gate_before
from replay.targets import BucketTarget
from tests.replay.conftest import make_night
from tests.support.s3 import serve_s3

BIAS = [{"kind": "bias", "n": 2}]


@pytest.fixture(scope="module")
def s3():
    with serve_s3() as server:
        yield server


def play(night, target) -> Player:
    player = Player(night, target, NightClock(math.inf))
    player.run()
    return player


async def test_a_bucket_takes_the_night_and_its_head_is_told_of_every_object(s3, mini_camera):
    import uvicorn

    url = s3.make_bucket("night")
    # A listing would find nothing for an hour: what arrives was told.
    source = open_source(url, camera=mini_camera, sweep_s=3600.0)
    arrivals = source.arrivals()
    first = asyncio.ensure_future(anext(arrivals))
    app = FastAPI()
    app.include_router(notify_router(source))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(60):
            while not server.started:
                await asyncio.wait({serving}, timeout=0.05)
        (port,) = (one.getsockname()[1] for one in server.servers[0].sockets)
        target = BucketTarget(url, notify_url=f"http://127.0.0.1:{port}/notify")
        player = await asyncio.to_thread(play, make_night(BIAS), target)
        found = [await asyncio.wait_for(first, 120)]
        while len(found) < 2 * (9 + 1):
            found.append(await asyncio.wait_for(anext(arrivals), 120))
    finally:
        await arrivals.aclose()
        server.should_exit = True
        await serving
    assert sum(isinstance(one, ExpectedSensors) for one in found) == 2
    raws = {(one.exposure_id, one.detector) for one in found if isinstance(one, RawArrived)}
    assert raws == {(exposure, d) for exposure, raws in player.delivered.raws.items() for d in raws}
    assert source.is_told


def test_a_head_that_takes_no_notification_is_told_of(s3):
    target = BucketTarget(s3.make_bucket("deaf"), notify_url="http://127.0.0.1:9/notify")
    with pytest.raises(StoreError, match="takes no notification"):
        target.put("MiniCam9/a/b.fits", b"x")
    with pytest.raises(ConfigurationError, match="'head' is no URL"):
        BucketTarget("s3://raws", notify_url="head")


async def test_the_door_admits_what_it_is_handed_once_and_sets_aside_what_is_spoilt(tmp_path, mini_camera):
    source = DoorSource(tmp_path, mini_camera)
    night = make_night(BIAS)
    await asyncio.to_thread(play, night, source)
    arrivals = source.arrivals()
    key = "MiniCam9/20261120/MN_O_20261120_000009/MN_O_20261120_000009_R22_S11.fits"
    try:
        found = [await asyncio.wait_for(anext(arrivals), 60) for _ in range(20)]
        await asyncio.to_thread(source.put, key, b"no FITS file" * 500)
        spoilt = await asyncio.wait_for(anext(arrivals), 60)
    finally:
        await arrivals.aclose()
    assert {one.exposure_id for one in found if isinstance(one, ExpectedSensors)} == set(night.exposures)
    raws = [one for one in found if isinstance(one, RawArrived)]
    assert len({(one.exposure_id, one.detector) for one in raws}) == len(raws) == 18
    assert source.read_header(raws[0].uri).info.exposure_id == raws[0].exposure_id
    assert isinstance(spoilt, RawQuarantined)
    assert spoilt.exposure_id == 2026112000009
    again = source.arrivals()  # for a head that takes over the lead
    try:
        assert await asyncio.wait_for(anext(again), 60)
    finally:
        await again.aclose()


def test_a_head_that_cannot_start_says_why():
    async def fail(_stop):
        raise StoreError("no board")

    head = HeadThread(fail)
    head.__enter__()
    head.__exit__()
    assert str(head.error) == "no board"


def test_a_gate_before_a_bucket_lets_pass_and_is_shut_and_opens_again(s3):
    url = s3.make_bucket("gated")
    with S3Gate(url) as gate:
        store = open_products(gate.url)
        store.put("a", b"before")
        gate.cut(0.1)
        assert gate.wait_until_open(60)
        assert store.get("a") == b"before"
        gate.cut(3600.0)
        with pytest.raises(StoreError):
            store.get("a")
        assert gate.n_refused > 0
        # The camera's side writes past it.
        open_products(url).put("b", b"meanwhile")
        assert not gate.wait_until_open(0.01)
    assert open_products(url).get("b") == b"meanwhile"


def test_raws_of_a_system_of_its_own_go_to_an_empty_place_in_a_bucket(s3):
    url = s3.make_bucket("used")
    open_products(url).put("old.fits", b"x")
    with pytest.raises(ConfigurationError, match=r"not empty: old\.fits"):
        gate_before(url)
    with pytest.raises(ConfigurationError, match="is no bucket"):
        gate_before("raws")
    with pytest.raises(ConfigurationError, match="only a bucket behind"):
        S3Gate("s3://raws?endpoint_url=https://there")
    assert gate_before("") is None
    with gate_before(s3.make_bucket("fresh")) as gate:
        assert list(open_products(gate.url).list()) == []
