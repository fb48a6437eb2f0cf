"""What becomes of a request, from its post to its answer."""

import asyncio
import json

import pytest

from rapid.client import NoAnswerError, RequestNotDoneError
from rapid.requests.models import RequestState
from tests.requests.conftest import WAIT_S, exposure
from tests.support.valkey import calls_between

PREFIX = "rapid:{SmallCam9}:"


def focus_metrics(job):
    """A parabola with its best focus at seq_num 3."""
    away = job.batch.exposure_id % 100_000 - 3
    return {"psf_fwhm_arcsec": (0.64 + 0.09 * away**2) ** 0.5 * (1 + 0.001 * job.detector % 3)}


async def test_what_the_night_has_processed_is_answered_at_once_and_not_done_again(stage):
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], pipeline="quicklook")
    answer = await request.wait(WAIT_S)
    assert answer.is_complete
    assert [(one.exposure_id, one.run, one.n_finished) for one in answer.exposures] == [(exposure(1), "prompt", 9)]
    assert answer.exposures[0].metrics["psf_fwhm_arcsec_median"] == 0.8
    assert await stage.work() == []


async def test_a_request_for_other_settings_is_processed_under_its_own_name(stage):
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(
        exposures=[exposure(1)], pipeline="quicklook", config={"isr": {"flat": False}}, run="noflat"
    )
    await stage.state_of(request, "running")
    done = await stage.work()
    answer = await request.wait(WAIT_S)
    assert sorted(done) == [f"noflat.{exposure(1)}.quicklook.{d:03d}" for d in sorted(stage.camera.science_ids)]
    assert [one.run for one in answer.exposures] == ["noflat"]
    assert len(stage.results.results(exposure(1), run="noflat")) == 9


@pytest.mark.parametrize(
    ("detectors", "expected"),
    [("R22_S11 | R22_S00", {94, 90}), ([91, "R22_S12"], {91, 95}), ("R22 - R22_S11", {90, 91, 92, 93, 95, 96, 97, 98})],
    ids=["a pattern", "numbers and names", "an expression"],
)
async def test_only_the_detectors_that_were_asked_for_are_processed(stage, detectors, expected):
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], detectors=detectors)
    await stage.state_of(request, "running")
    done = {int(job.rpartition(".")[2]) for job in await stage.work()}
    answer = await request.wait(WAIT_S)
    assert done == expected
    assert answer.exposures[0].n_expected == len(done)


async def test_a_request_waits_for_an_exposure_that_is_still_to_come(stage):
    request = await stage.client.request(exposures=[exposure(1), exposure(2)])
    record = await stage.state_of(request, "waiting")
    assert record.progress.exposures_of == 2
    await stage.take(1)
    await stage.work()
    with pytest.raises(NoAnswerError):
        await request.wait(0.2)
    await stage.take(2)
    await stage.work()
    answer = await request.wait(WAIT_S)
    assert [one.exposure_id for one in answer.exposures] == [exposure(1), exposure(2)]


async def test_progress_is_told_as_it_changes(stage):
    request = await stage.client.request(exposures=[exposure(1)])
    await stage.state_of(request, "waiting")
    await stage.take(1)
    await stage.state_of(request, "running")
    for _ in range(9):
        await stage.work(1)
    await request.wait(WAIT_S)
    seen = [(change.state, change.progress.done) async for change in request.follow(1.0)]
    assert seen[0] == (RequestState.ACCEPTED, 0)
    assert seen[-1] == (RequestState.DONE, 9)
    done = [n for _, n in seen]
    assert done == sorted(done)
    assert len(set(done)) > 4  # some changes may be told together


async def test_a_group_that_is_still_being_taken_is_waited_for(stage):
    group = {"group_id": "sweep-7", "group_size": 5}
    await stage.take(1, "focus", **group, group_index=1, focus_z_mm=-0.2)
    request = await stage.client.request(group="sweep-7", combine="focus_sweep")
    for seq_num in range(2, 6):
        await stage.take(seq_num, "focus", **group, group_index=seq_num, focus_z_mm=-0.3 + 0.1 * seq_num)
    await stage.take(6, "focus", group_id="another", group_size=1, group_index=1, focus_z_mm=0.0)
    await stage.work(metrics=focus_metrics)
    answer = await request.wait(WAIT_S)
    assert [one.exposure_id for one in answer.exposures] == [exposure(n) for n in range(1, 6)]
    assert answer.focus["best_focus_mm"] == pytest.approx(0.0, abs=0.01)
    assert 0 < answer.focus["best_focus_error_mm"] < 0.05
    assert answer.focus["n_points"] == 5


async def test_a_group_that_does_not_say_how_many_it_has_ends_when_it_is_quiet(stage):
    await stage.take(1, group_id="g")
    await stage.take(2, group_id="g")
    request = await stage.client.request(group="g")
    await stage.work()
    await stage.state_of(request, "waiting")
    await stage.board.advance_clock(61_000)
    stage.desk._open.wake.set()
    answer = await request.wait(WAIT_S)
    assert len(answer.exposures) == 2


async def test_the_next_exposures_of_a_kind_are_those_taken_afterwards(stage):
    await stage.take(1, "bias")
    await stage.work()
    request = await stage.client.request(next={"n": 2, "image_type": "bias"})
    await stage.take(2)
    await stage.take(3, "bias")
    await stage.take(4, "bias")
    await stage.take(5, "bias")
    await stage.work()
    answer = await request.wait(WAIT_S)
    assert [one.exposure_id for one in answer.exposures] == [exposure(3), exposure(4)]


async def test_a_sequence_is_found_from_one_of_its_exposures(stage):
    for seq_num in (4, 5, 6):
        await stage.take(seq_num, group_index=seq_num - 3, group_size=3)
    await stage.work()
    request = await stage.client.request(sequence=exposure(5))
    answer = await request.wait(WAIT_S)
    assert [one.exposure_id for one in answer.exposures] == [exposure(4), exposure(5), exposure(6)]


async def test_a_donut_pair_is_compared(stage):
    await stage.take(1, "cwfs", reason="intra_pair", focus_z_mm=-1.5)
    await stage.take(2, "cwfs", reason="extra_pair", focus_z_mm=1.5)
    request = await stage.client.request(exposures=[exposure(1), exposure(2)], combine="donut_pair")
    await stage.work(metrics=lambda job: {"donut_diameter_px": 131.0 if job.batch.exposure_id % 2 else 135.0})
    answer = await request.wait(WAIT_S)
    assert answer.donut_pair["focus_offset_um"] > 0
    assert answer.donut_pair["intra_exposure"] == exposure(1)


async def test_what_cannot_be_combined_is_failed_with_the_reason_and_what_there_is(stage):
    for seq_num in range(1, 5):
        await stage.take(seq_num, "focus", focus_z_mm=0.1 * seq_num)
    request = await stage.client.request(exposures=f"{exposure(1)}-{exposure(4)}", combine="focus_sweep")
    await stage.work(metrics=lambda job: {"psf_fwhm_arcsec": (1.0, 1.5, 1.5, 1.0)[job.batch.exposure_id % 10 - 1]})
    with pytest.raises(RequestNotDoneError, match="no best focus") as caught:
        await request.wait(WAIT_S)
    record = caught.value.record
    assert (record.state, record.error.code) == (RequestState.FAILED, "combine_failed")
    assert len(record.answer.exposures) == 4


async def test_a_detector_that_failed_is_named_in_the_answer(stage):
    await stage.take(1)
    request = await stage.client.request(exposures=[exposure(1)])
    await stage.work(fail={94: "no stars"})
    answer = await request.wait(WAIT_S)
    assert not answer.is_complete
    assert answer.exposures[0].not_finished == {"R22_S11": "failed: no stars"}


async def test_a_request_fails_if_nothing_of_it_could_be_processed(stage):
    await stage.take(1)
    request = await stage.client.request(exposures=[exposure(1)])
    await stage.work(fail=dict.fromkeys(range(205), "no stars"))
    with pytest.raises(RequestNotDoneError, match="no stars") as caught:
        await request.wait(WAIT_S)
    assert caught.value.record.error.code == "nothing_finished"


async def test_a_guaranteed_exposure_is_asked_for_on_every_detector_as_it_arrives(stage):
    request = await stage.client.request(next={"n": 1, "image_type": "science"}, guaranteed=True)
    assert stage.desk.guarantees(stage.info(1))
    assert not stage.desk.guarantees(stage.info(1, "bias"))
    await stage.take(1)
    await stage.work()
    assert (await request.wait(WAIT_S)).exposures[0].n_finished == 9
    assert not stage.desk.guarantees(stage.info(2))


async def test_a_guaranteed_exposure_that_was_shed_before_is_processed_whole(stage):
    await stage.take(1, later=[90, 91])
    await stage.board.status()
    request = await stage.client.request(exposures=[exposure(1)], guaranteed=True)
    await stage.state_of(request, "running")
    await stage.work()
    answer = await request.wait(WAIT_S)
    assert answer.exposures[0].run.startswith("request-")
    assert answer.exposures[0].n_finished == 9


async def test_a_cancelled_request_takes_its_waiting_jobs_off_the_board(stage):
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], reuse=False)
    await stage.state_of(request, "running")
    ran = await stage.work(2)
    await request.cancel()
    record = await stage.state_of(request, "cancelled")
    assert record.error.message == "cancelled by tester"
    assert await stage.work() == []
    assert len(ran) == 2
    assert (await stage.board.status()).queues[0].current == 0


async def test_the_nights_own_jobs_are_not_cancelled_with_a_request(stage):
    await stage.take(1)
    request = await stage.client.request(exposures=[exposure(1)])
    await stage.state_of(request, "running")
    await request.cancel()
    await stage.state_of(request, "cancelled")
    assert len(await stage.work()) == 9


async def test_a_request_expires_at_its_deadline_with_what_it_has(stage):
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1), exposure(2)], deadline_s=30)
    await stage.state_of(request, "waiting")
    await stage.board.advance_clock(31_000)
    stage.desk._open.wake.set()
    with pytest.raises(RequestNotDoneError) as caught:
        await request.wait(WAIT_S)
    record = caught.value.record
    assert (record.state, record.error.code) == (RequestState.EXPIRED, "deadline_passed")
    assert record.answer.missing == (exposure(2),)
    assert record.answer.exposures[0].n_finished == 9


async def test_an_exposure_that_newer_ones_have_overtaken_is_not_waited_for_for_ever(stage):
    await stage.take(5)
    await stage.work()
    await stage.settle_in()
    request = await stage.client.request(exposures=[exposure(4)])
    await stage.state_of(request, "waiting")
    await stage.board.advance_clock(61_000)
    stage.desk._open.wake.set()
    with pytest.raises(RequestNotDoneError, match="it did not come") as caught:
        await request.wait(WAIT_S)
    assert caught.value.record.error.field == "select.exposures.0"


async def test_asking_twice_with_one_key_is_asking_once(stage):
    await stage.take(1)
    first = await stage.client.request(exposures=[exposure(1)], client_key="night-1", reuse=False)
    second = await stage.client.request(exposures=[exposure(1)], client_key="night-1", reuse=False)
    assert (await second.record()).request_id == first.ticket
    await stage.state_of(first, "running")
    assert len(await stage.work()) == 18  # once for the night, once for the request
    assert await second.wait(WAIT_S) == await first.wait(WAIT_S)
    third = await stage.client.request(exposures=[exposure(1)], client_key="night-1", reuse=False)
    assert (await third.record()).request_id == first.ticket
    assert len(await stage.client.recent()) == 1


async def test_a_key_that_was_used_for_another_request_is_refused(stage):
    await stage.take(1)
    await stage.client.request(exposures=[exposure(1)], client_key="k")
    with pytest.raises(RequestNotDoneError, match="client_key") as caught:
        await stage.client.request(exposures=[exposure(2)], client_key="k")
    assert caught.value.facts["field"] == "client_key"


async def test_more_requests_than_are_taken_at_a_time_are_refused(stage):
    await stage.die()
    await stage.lead("head-a", max_open=2)
    await stage.client.request(exposures=[exposure(1)])
    await stage.client.request(exposures=[exposure(2)])
    with pytest.raises(RequestNotDoneError) as caught:
        await stage.client.request(exposures=[exposure(3)])
    assert caught.value.record.error.code == "queue_full"


async def test_an_urgent_request_goes_before_the_newest_exposure_of_the_backlog(stage):
    await stage.take(1)
    await stage.work()
    await stage.take(9)
    request = await stage.client.request(exposures=[exposure(1)], reuse=False, priority="urgent")
    await stage.state_of(request, "running")
    status = await stage.board.status()
    assert status.queues[0].current + status.running == 18
    request_2 = await stage.client.request(exposures=[exposure(1)], reuse=False, priority="backlog", run="later")
    await stage.state_of(request_2, "running")
    done = await stage.work()
    assert [job.partition(".")[0] for job in done[-9:]] == ["later"] * 9


async def test_nobody_polls_while_a_request_is_waited_for(stage, valkey):
    request = await stage.client.request(exposures=[exposure(1)])
    await stage.state_of(request, "waiting")
    waiting = asyncio.create_task(request.wait(WAIT_S))
    loop = asyncio.get_running_loop()
    quiet = await loop.run_in_executor(None, lambda: calls_between(valkey, lambda: _pause(1.0)))
    assert len([call for call in quiet if call.split()[0] != "ECHO"]) <= 3, quiet
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


def _pause(seconds: float) -> None:
    import threading

    threading.Event().wait(seconds)


async def test_redis_alone_is_enough_to_ask_and_to_be_answered(stage, client):
    await stage.take(1)
    await stage.work()
    loop = asyncio.get_running_loop()

    def script():
        ticket = client.xadd(PREFIX + "requests", {"request": json.dumps({"select": {"exposures": [exposure(1)]}})})
        answer = client.blmove(PREFIX + "answer:" + ticket, PREFIX + "answer:" + ticket, WAIT_S, "LEFT", "LEFT")
        again = client.lrange(PREFIX + "answer:" + ticket, 0, -1)
        return json.loads(answer), again

    document, again = await loop.run_in_executor(None, script)
    assert document["state"] == "done"
    assert document["answer"]["exposures"][0]["metrics"]["psf_fwhm_arcsec_median"] == 0.8
    assert len(again) == 1  # the next one who waits finds it too


async def test_every_key_of_requests_is_in_the_table_and_goes(stage, client):
    from rapid.dispatch import keys

    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)])
    await request.wait(WAIT_S)
    found = [key.removeprefix(PREFIX) for key in client.keys(PREFIX + "*")]
    assert [key for key in found if keys.find_key(key) is None] == []
    for name in ("request:", "request_log:", "answer:"):
        assert 0 < client.pttl(PREFIX + name + request.ticket) <= 7 * 86_400_000
    assert client.xlen(PREFIX + "requests") == 0
    assert client.scard(PREFIX + "requests_open") == 0


async def test_a_summary_that_is_told_of_while_the_last_one_is_read_is_not_missed(stage, monkeypatch):
    from rapid.head.processing import Processing

    read, told = Processing.summary_of, asyncio.Event()
    reads = []

    async def read_slowly(self, key):
        found = await read(self, key)
        reads.append(key)
        if key.run != "prompt" and len([one for one in reads if one.run != "prompt"]) == 2:
            # What was read is old now: the jobs end, and the board says so, before it is looked at.
            asyncio.get_running_loop().create_task(_work(stage, told))
            await told.wait()
        return found

    async def _work(stage, told):
        await stage.work()
        last = "0"
        async with asyncio.timeout(WAIT_S):
            while not any(t.is_stale for f in stage.desk._open for t in f._targets.values()):
                events = await stage.board.events(last, timeout_s=1.0)
                last = events[-1].event_id if events else last
        told.set()

    await stage.take(1)
    await stage.work()
    monkeypatch.setattr(Processing, "summary_of", read_slowly)
    request = await stage.client.request(exposures=[exposure(1)], reuse=False)
    assert (await request.wait(WAIT_S)).is_complete
