"""I1 of requests: an accepted one ends in exactly one state, whatever dies meanwhile."""

import asyncio

import pytest

from rapid.client import RequestNotDoneError
from rapid.requests.models import RequestState
from tests.requests.conftest import WAIT_S, exposure


async def test_the_next_head_goes_on_with_a_request_and_does_nothing_twice(stage):
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], reuse=False)
    await stage.state_of(request, "running")
    assert len(await stage.work(4)) == 4
    await stage.die()
    await stage.lead()
    await stage.state_of(request, "running")
    assert len(await stage.work()) == 5
    assert (await request.wait(WAIT_S)).is_complete


async def test_what_was_posted_while_no_head_led_is_taken_in_by_the_next(stage):
    await stage.take(1)
    await stage.work()
    await stage.die()
    request = await stage.client.request(exposures=[exposure(1)], accept_s=0)
    assert (await request.record()).state is RequestState.POSTED
    await stage.lead()
    assert (await request.wait(WAIT_S)).is_complete


async def test_a_flushed_redis_gives_its_requests_back(stage, client):
    await stage.take(1)
    await stage.work()
    ended = await stage.client.request(exposures=[exposure(1)])
    await ended.wait(WAIT_S)
    request = await stage.client.request(exposures=[exposure(1), exposure(2)], client_key="k", run="anew", reuse=False)
    await stage.state_of(request, "running")
    await stage.work(4)
    await stage.die()
    client.flushall()
    await stage.lead()
    assert (await ended.record()).state is RequestState.DONE
    assert (await request.record()).spec.client_key == "k"
    again = await stage.client.request(exposures=[exposure(1), exposure(2)], client_key="k", run="anew", reuse=False)
    assert (await again.record()).request_id == request.ticket
    await stage.take(1)
    await stage.take(2)
    await stage.work()
    answer = await request.wait(WAIT_S)
    assert [(one.run, one.n_finished) for one in answer.exposures] == [("anew", 9), ("anew", 9)]


async def test_a_flush_under_a_head_that_lives_on_loses_no_new_request(stage, client):
    client.delete("rapid:{SmallCam9}:requests")  # the group goes with it
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], accept_s=10)
    assert (await request.wait(WAIT_S)).is_complete


async def test_a_post_that_was_written_down_and_not_answered_is_answered_once(stage, monkeypatch):
    died = asyncio.Event()
    put = stage.desk._requests.put

    async def die_before_saying_so(record, **settings):
        if record.state is RequestState.ACCEPTED:
            died.set()
            await asyncio.Event().wait()
        return await put(record, **settings)

    monkeypatch.setattr(stage.desk._requests, "put", die_before_saying_so)
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], accept_s=0)
    async with asyncio.timeout(WAIT_S):
        await died.wait()
    await stage.die()
    await stage.lead()
    assert (await request.wait(WAIT_S)).is_complete
    assert len(await stage.client.recent()) == 1


async def test_an_old_leader_cannot_change_a_request_any_more(stage):
    from rapid.errors import RefusedError

    request = await stage.client.request(exposures=[exposure(1)])
    record = await request.record()
    old = stage.token
    await stage.board.resign("head-a", old)
    await stage.lead("head-b")
    with pytest.raises(RefusedError):
        await stage.desk._requests.put(record, lead_token=old)


async def test_a_request_whose_pipeline_has_gone_fails_with_the_reason(stage):
    request = await stage.client.request(exposures=[exposure(1)], pipeline="quicklook")
    record = await request.record()
    await stage.die()
    gone = record.model_copy(update={"spec": record.spec.model_copy(update={"pipeline": "gone"})})
    stage.desk._archive.put(gone)
    await stage.desk._requests.put(gone, lead_token=stage.token)
    await stage.lead()
    with pytest.raises(RequestNotDoneError, match="no pipeline named gone"):
        await request.wait(WAIT_S)
