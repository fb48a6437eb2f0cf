"""Exactly these exposures when they are all there, or what is missing at the time-out."""

import json

import pytest

from rapid.arrival.models import RawHeader
from rapid.client import RequestNotDoneError
from rapid.dispatch.models import BatchKey, BatchSpec
from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestState
from tests.requests.conftest import WAIT_S, exposure
from tests.requests.test_pushed import next_record, push_as_the_ocs_does

GROUP = {"group_id": "pair-1", "group_size": 3}
ANEW = {"reuse": False, "run": "together"}


async def take_some(stage, seq_num: int, names: list[str], *, is_told: bool = True, **facts) -> None:
    """Let a few raws of an exposure arrive, of all that were read out; unless it is told which were, nobody knows."""
    info = stage.info(seq_num, **facts)
    for name in names:
        place = {"detector": stage.camera.by_name[name].id, "detector_name": name}
        raw = RawHeader(uri=f"/raws/{seq_num}/{name}.fits", info=info.model_copy(update=place))
        known = stage.exposures.add(raw)
        known.read_out = frozenset(d.name for d in stage.camera.detectors) if is_told else None
    stage.desk.note(info.exposure_id)


async def pass_time(stage, seconds: float) -> None:
    await stage.board.advance_clock(round(seconds * 1000))
    stage.desk._open.wake.set()


async def lacks(stage, request, words: str):
    """Wait until a request says that it waits for something."""
    seen = ""
    async for change in request.follow(WAIT_S):
        seen = change.progress.lacks
        if words in seen:
            return await request.record()
        assert not change.state.is_final, change
    raise AssertionError(seen)


@pytest.mark.parametrize(
    "select",
    [
        {"group": "pair-1"},
        {"group": {"group_id": "pair-1", "n": 3}},
        {"sequence": exposure(2)},
        {"exposures": [exposure(1), exposure(2), exposure(3)]},
        {"next": 3},
    ],
    ids=["by GROUPID", "by GROUPID and count", "by CURINDEX and MAXINDEX", "by list", "by count"],
)
async def test_nothing_begins_before_all_are_there(stage, select):
    await stage.settle_in()
    request = await stage.client.request(**select, when_whole=True, **ANEW)
    await stage.take(2, **GROUP, group_index=2)
    await stage.take(1, **GROUP, group_index=1)
    await lacks(stage, request, "1 exposure")
    assert [job for job in await stage.work() if job.startswith("together")] == []
    await stage.take(3, **GROUP, group_index=3)
    await stage.state_of(request, "running")
    await stage.work()
    answer = await request.wait(WAIT_S)
    assert sorted(one.exposure_id for one in answer.exposures) == [exposure(1), exposure(2), exposure(3)]
    assert answer.is_complete
    assert answer.lacking is None


async def test_an_exposure_taken_again_fills_no_other_ones_place(stage):
    request = await stage.client.request(group="pair-1", when_whole=True, **ANEW)
    await stage.take(1, **GROUP, group_index=1)
    await stage.take(2, **GROUP, group_index=2)
    await stage.take(3, **GROUP, group_index=2)
    record = await lacks(stage, request, "1 exposure (CURINDEX 3)")
    assert record.state is RequestState.WAITING
    await stage.take(4, **GROUP, group_index=3)
    await stage.state_of(request, "running")
    await stage.work()
    assert len((await request.wait(WAIT_S)).exposures) == 4


async def test_a_raw_that_has_not_come_holds_its_group_back(stage):
    await stage.settle_in()
    request = await stage.client.request(exposures=[exposure(1)], when_whole=True, **ANEW)
    await take_some(stage, 1, ["R22_S00", "R22_S11"])
    record = await lacks(stage, request, "7 raws of")
    assert record.progress.of == 0
    await stage.take(1, dispatch=False)
    await stage.state_of(request, "running")
    await stage.work()
    assert (await request.wait(WAIT_S)).is_complete


async def test_what_is_missing_at_the_time_out_is_answered(stage):
    await stage.settle_in()
    request = await stage.client.request(group="pair-1", when_whole=True, arrival_s=60, **ANEW)
    await stage.take(1, **GROUP, group_index=1)
    await take_some(stage, 3, ["R22_S11"], **GROUP, group_index=3)
    await lacks(stage, request, "8 raws")
    await pass_time(stage, 61)
    with pytest.raises(RequestNotDoneError) as failed:
        await request.wait(WAIT_S)
    record = failed.value.record
    assert (record.state, record.error.code) == (RequestState.EXPIRED, "incomplete")
    assert "CURINDEX 2" in record.error.message
    assert record.answer.lacking.indices == (2,)
    assert record.answer.lacking.n_exposures == 1
    assert len(record.answer.lacking.raws[str(exposure(3))]) == 8
    assert "R22_S11" not in record.answer.lacking.raws[str(exposure(3))]
    assert record.answer.exposures == ()


@pytest.mark.parametrize(
    "dies", ["", "before", "after"], ids=["one head", "a head dies meanwhile", "and the next looks before it has seen"]
)
async def test_what_is_there_at_the_time_out_is_processed_if_that_is_asked_for(stage, dies):
    await stage.settle_in()
    wanted = [exposure(1), exposure(2), exposure(3)]
    request = await stage.client.request(exposures=wanted, when_whole=True, arrival_s=60, on_missing="process", **ANEW)
    await stage.take(1)
    await stage.take(3)
    await lacks(stage, request, "1 exposure")
    await pass_time(stage, 61)
    record = await stage.state_of(request, "running")
    assert record.closed_ms is not None
    if dies:
        await stage.die()
        await stage.lead()
        if dies == "after":
            await lacks(stage, request, "3 exposures")
        await stage.take(1)
        await stage.take(3)
    await stage.take(2)  # too late: it was decided
    await stage.work()
    answer = await request.wait(WAIT_S)
    assert [one.exposure_id for one in answer.exposures] == [exposure(1), exposure(3)]
    assert answer.missing == (exposure(2),)
    assert answer.lacking.n_exposures == 1
    assert not answer.is_complete


async def test_raws_that_nobody_said_will_not_come_keep_no_request_from_its_end(stage):
    await stage.settle_in()
    detectors = [detector.id for detector in stage.camera.detectors][:5]
    await take_some(stage, 1, [stage.camera.by_id[number].name for number in detectors], is_told=False)
    await stage.board.post(
        BatchSpec(
            key=BatchKey(exposure_id=exposure(1), pipeline="quicklook"),
            camera=stage.camera.name,
            image_type="science",
            expected=stage.camera.science_ids,
            raws={number: f"/raws/1/{stage.camera.by_id[number].name}.fits" for number in detectors},
            gather_timeout_ms=5_000,
            deadline_ms=120_000,
        ),
        lead_token=stage.token,
    )
    request = await stage.client.request(exposures=[exposure(1)])
    await stage.state_of(request, "running")
    assert len(await stage.work()) == 5
    await pass_time(stage, 130)
    await stage.gather()
    answer = await request.wait(WAIT_S)
    assert not answer.is_complete
    [one] = answer.exposures
    assert (one.n_finished, len(one.not_finished)) == (5, 4)
    assert all(why.startswith("waiting") for why in one.not_finished.values())


async def test_a_head_that_dies_while_a_group_is_waited_for_leaves_it_to_the_next(stage):
    request = await stage.client.request(group="pair-1", when_whole=True, arrival_s=600, **ANEW)
    await stage.take(1, **GROUP, group_index=1)
    await lacks(stage, request, "2 exposures")
    await stage.die()
    await stage.lead()
    for index in (1, 2, 3):  # the sweep finds what was there
        await stage.take(index, **GROUP, group_index=index)
    await stage.state_of(request, "running")
    await stage.work()
    assert len((await request.wait(WAIT_S)).exposures) == 3


async def test_a_group_that_is_cancelled_while_it_is_waited_for_never_begins(stage):
    await stage.settle_in()
    request = await stage.client.request(group="pair-1", when_whole=True, **ANEW)
    await stage.take(1, **GROUP, group_index=1)
    await lacks(stage, request, "2 exposures")
    await request.cancel()
    await stage.state_of(request, "cancelled")
    another = await stage.client.request(exposures=[exposure(2)], when_whole=True, reuse=False, run="another")
    for index in (2, 3):
        await stage.take(index, **GROUP, group_index=index)
    await stage.state_of(another, "running")  # the desk has looked at what came
    assert [job for job in await stage.work() if job.startswith("together")] == []


async def test_what_came_before_it_was_asked_for_and_twice_counts_once(stage):
    await stage.settle_in()
    for index in (1, 2, 3, 2):
        await stage.take(index, **GROUP, group_index=index)
    await stage.work()  # the night's own are done
    ids = [exposure(3), exposure(1), exposure(2), exposure(1)]
    by_list = await stage.client.request(exposures=ids, when_whole=True, **ANEW)
    by_group = await stage.client.request(group="pair-1", when_whole=True)
    assert [one.n_finished for one in (await by_group.wait(WAIT_S)).exposures] == [9, 9, 9]  # nothing is done again
    await stage.state_of(by_list, "running")
    done = [job for job in await stage.work() if job.startswith("together")]
    assert len(done) == len(set(done)) == 27
    assert sorted(one.exposure_id for one in (await by_list.wait(WAIT_S)).exposures) == sorted(set(ids))


async def test_the_deadline_says_what_it_waited_for(stage):
    await stage.settle_in()
    request = await stage.client.request(exposures=[exposure(1), exposure(2)], when_whole=True, deadline_s=30)
    await stage.take(1)
    await lacks(stage, request, "1 exposure")
    await pass_time(stage, 31)
    with pytest.raises(RequestNotDoneError, match="not there: 1 exposure"):
        await request.wait(WAIT_S)


@pytest.mark.parametrize(
    ("key", "value", "members"),
    [
        ("GROUP", "pair-1", 2),
        ("GROUP", json.dumps({"select": {"group": {"group_id": "pair-1", "n": 2}}, "arrival_s": 60}), 2),
        ("EXPOSURES", f"{exposure(1)},{exposure(2)}", 2),
    ],
    ids=["a GROUPID", "a request", "ids"],
)
async def test_a_script_pushes_a_group(stage, client, key, value, members):
    push_as_the_ocs_does(client, {f"SmallCam9-FROM-OCS_{key}": value})
    record = (await next_record(stage))[0]
    assert (record.source, record.spec.when_whole) == ("ocs", True)
    for index in (1, 2):
        await stage.take(index, group_id="pair-1", group_size=2, group_index=index)
    await stage.work()
    assert len((await stage.client.find(record.request_id).wait(WAIT_S)).exposures) == members


@pytest.mark.parametrize(("key", "value"), [("GROUP", ""), ("GROUP", "{"), ("EXPOSURES", "1,x"), ("GROUP", "{}")])
async def test_a_push_that_means_nothing_is_refused_visibly(stage, client, key, value):
    push_as_the_ocs_does(client, {f"SmallCam9-FROM-OCS_{key}": value})
    record = (await next_record(stage))[0]
    assert record.state is RequestState.REFUSED
    assert record.error.field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"arrival_s": 7200}, "arrival_s"),
        ({"on_missing": "process"}, "arrival_s"),
        ({"on_missing": "shrug", "arrival_s": 5}, "on_missing"),
        ({"arrival_s": -1}, "arrival_s"),
    ],
)
async def test_time_outs_that_make_no_sense_are_refused(stage, fields, field):
    with pytest.raises(BadRequestError) as refused:
        await stage.client.request(exposures=[exposure(1)], **fields)
    assert refused.value.field == field
