"""What is switched off is left out of requests, and its answers say so instead of calling it missing."""

from datetime import UTC, datetime

import pytest

from rapid.client import RequestNotDoneError
from rapid.exclusions.decide import parse_targets
from rapid.exclusions.store import ExclusionStore
from tests.requests.conftest import WAIT_S, exposure

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def switch_off(stage, *names: str):
    targets = parse_targets(names, stage.camera)
    store = ExclusionStore(stage.results.engine)
    return store.exclude(stage.camera.name, targets, reason="noisy", author="ann", valid_from=LONG_AGO, now=LONG_AGO)


async def test_an_excluded_detector_leaves_the_answer_complete_and_is_named(stage):
    off, amp = switch_off(stage, "R22_S11", "R22_S00/C10")
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], pipeline="quicklook", reuse=False)
    await stage.state_of(request, "running")
    done = await stage.work()
    assert sorted(int(job.rpartition(".")[2]) for job in done) == [90, 91, 92, 93, 95, 96, 97, 98]
    answer = await request.wait(WAIT_S)
    (one,) = answer.exposures
    assert (one.n_finished, one.n_expected, one.is_complete, answer.is_complete) == (8, 8, True, True)
    assert (one.excluded, one.not_finished) == ({"R22_S11": off.why}, {})
    summary = stage.results.latest_summary(stage.camera.name, exposure(1), run=one.run)
    assert summary.info["excluded_amps"] == {"R22_S00": {"C10": amp.why}}


async def test_a_request_for_excluded_detectors_alone_fails_with_the_reason(stage):
    (off,) = switch_off(stage, "R22_S11")
    await stage.take(1)
    await stage.work()
    request = await stage.client.request(exposures=[exposure(1)], detectors="R22_S11", reuse=False)
    await stage.state_of(request, "running")
    await stage.work()
    with pytest.raises(RequestNotDoneError) as caught:
        await request.wait(WAIT_S)
    assert off.why in caught.value.record.error.message
