"""Raws as a head hears of them that begins when they are in the repository, and no sooner."""

import asyncio

import pytest

from rapid.arrival.models import RawArrived
from rapid.errors import StoreError
from rapid.ingest import triggered
from rapid.ingest.triggered import ButlerSource
from tests.ingest.conftest import CAMERA, NAMES, RUN, WAIT_S, exposure_id, write_raw


async def next_of(arrivals) -> RawArrived:
    async with asyncio.timeout(WAIT_S):
        arrival = await anext(arrivals)
    assert isinstance(arrival, RawArrived), arrival
    return arrival


async def test_a_raw_that_its_server_does_not_give_holds_up_no_other_and_comes_later(
    stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.start()
    refused = str(write_raw(stage.raws, 1, NAMES[0]))
    write_raw(stage.raws, 1, NAMES[1])
    await stage.told(1, 2)
    look, refusals = triggered.look_at_raw, []

    def refuse_twice(uri, camera):
        if uri == refused and len(refusals) < 2:
            refusals.append(uri)
            raise StoreError("access refused")
        return look(uri, camera)

    monkeypatch.setattr(triggered, "look_at_raw", refuse_twice)
    monkeypatch.setattr(triggered, "RETRY_S", 0.1)
    source = ButlerSource(f"butler:{stage.repo}", CAMERA, stage.board, run=RUN, sweep_s=600.0)
    arrivals = source.arrivals()
    try:
        assert (await next_of(arrivals)).uri.endswith(f"{NAMES[1]}.fits")
        assert (await next_of(arrivals)).uri == refused
        assert len(refusals) == 2
        write_raw(stage.raws, 2, NAMES[2])
        assert (await next_of(arrivals)).exposure_id == exposure_id(2)
    finally:
        await arrivals.aclose()
