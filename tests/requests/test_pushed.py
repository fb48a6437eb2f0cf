"""The bare pushes of today's observing scripts."""

import asyncio

import pytest

from rapid.requests.models import RequestState
from tests.requests.conftest import WAIT_S, exposure


async def next_record(stage, n: int = 1):
    """Wait until so many requests are known; return them, newest first."""
    last = "$" if not (found := await stage.client.recent()) else "0"
    async with asyncio.timeout(WAIT_S):
        while len(found := [*await stage.client.recent(), *await stage.client.recent(refused=True)]) < n:
            events = await stage.board.events(last, timeout_s=1.0)
            last = events[-1].event_id if events else last
    return found


def push_as_the_ocs_does(client, payload: dict[str, str]) -> None:
    """What OCPS:101 does with its config: a loop of lpush, and nothing else."""
    for key, value in payload.items():
        client.lpush(key, value)


async def test_a_pushed_focus_sweep_gives_best_focus(stage, client):
    ids = [exposure(n) for n in range(1, 6)]
    push_as_the_ocs_does(client, {"SmallCam9-FROM-OCS_FOCUSSWEEP": ",".join(map(str, ids))})
    record = (await next_record(stage))[0]
    assert record.source == "ocs"
    for seq_num in range(1, 6):
        await stage.take(seq_num, "focus", focus_z_mm=0.1 * (seq_num - 2))
    await stage.work(
        metrics=lambda job: {"psf_fwhm_arcsec": (0.5 + 0.1 * (job.batch.exposure_id % 10 - 3) ** 2) ** 0.5}
    )
    answer = await stage.client.find(record.request_id).wait(WAIT_S)
    assert answer.focus["best_focus_mm"] == pytest.approx(0.1, abs=0.01)
    assert answer.focus["best_focus_error_mm"] > 0 or answer.focus["best_focus_error_mm"] < 1e-6


async def test_pushes_made_while_no_head_led_are_taken_in_order(stage, client):
    await stage.die()
    for seq_num in (1, 3):
        push_as_the_ocs_does(client, {"SmallCam9-FROM-OCS_DONUTPAIR": f"{exposure(seq_num)},{exposure(seq_num + 1)}"})
    await stage.lead()
    records = await next_record(stage, 2)
    assert [record.spec.select.listed()[0] for record in sorted(records, key=lambda r: r.request_id)] == [
        exposure(1),
        exposure(3),
    ]
    assert client.exists("SmallCam9-FROM-OCS_DONUTPAIR") == 0


MEANINGLESS = [
    ("", "value.0"),
    ("2026112000001", "select.exposures"),
    ("2026112000001,x", "value.1"),
    ("2026112000001;2026112000002", "value.0"),
    ("-1,2", "value.0"),
    (",".join(str(n) for n in range(1, 10_001)), "value"),
    ("9" * 200 + ",1", "select.exposures.0"),
    ("\x00\udcff", "value.0"),
]


async def test_a_push_that_means_nothing_is_refused_where_it_can_be_seen(stage, client):
    for n, (value, field) in enumerate(MEANINGLESS, start=1):
        client.lpush("SmallCam9-FROM-OCS_DONUTPAIR", value.encode("utf-8", "surrogateescape"))
        record = (await next_record(stage, n))[0]
        assert record.state is RequestState.REFUSED, value[:60]
        assert record.error.field == field, value[:60]
    assert (await stage.board.status()).counters["requests_refused"] == len(MEANINGLESS)
