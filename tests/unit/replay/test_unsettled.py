"""What a batch still waits for, when a raw never comes."""

import pytest

from rapid.dispatch.models import BatchKey, BatchState, DetectorStatus, Priority
from rapid.results.models import DetectorState
from replay.invariants import unsettled_batch

WAITING, QUEUED, FINISHED = DetectorState.WAITING, DetectorState.QUEUED, DetectorState.FINISHED


def state_of(*, version: int = 1, gathering: bool = False, **detectors: DetectorState) -> BatchState:
    numbers = {int(name.removeprefix("d")): DetectorStatus(state=state) for name, state in detectors.items()}
    return BatchState(
        key=BatchKey.parse("prompt.2026112000001.quicklook"),
        camera="LSSTComCam",
        image_type="science",
        priority=next(iter(Priority)),
        pool="science",
        version=version,
        gathering=gathering,
        changed=False,
        expected=frozenset(numbers),
        finished=frozenset(number for number, one in numbers.items() if one.state is FINISHED),
        detectors=numbers,
        posted_ms=0,
    )


@pytest.mark.parametrize(
    ("state", "came", "waits"),
    [
        pytest.param(state_of(d1=FINISHED, d2=WAITING), {1}, False, id="gathered without what never came"),
        pytest.param(state_of(d1=FINISHED, d2=WAITING), {1, 2}, True, id="a raw that came and is not seen"),
        pytest.param(state_of(d1=FINISHED, d2=WAITING, version=0), {1}, True, id="not gathered yet"),
        pytest.param(state_of(d1=FINISHED, d2=WAITING, gathering=True), {1}, True, id="being gathered"),
        pytest.param(state_of(d1=FINISHED, d2=QUEUED), {1}, True, id="a job of a raw that nobody delivered"),
        pytest.param(state_of(d1=FINISHED, d2=FINISHED), {1, 2}, False, id="all finished"),
    ],
)
def test_a_batch_waits_for_raws_that_came_and_for_its_first_summary(state, came, waits):
    assert bool([text for text in unsettled_batch(state, came) if "waits for detectors" in text]) is waits
