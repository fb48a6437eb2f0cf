"""What a summary says, from what the board and the results say."""

import math

import pytest

from rapid.dispatch.models import BatchKey, GatherJob
from rapid.gather.decide import focal_plane_metrics, summarise
from rapid.results.models import DetectorState, DetectorStatus, GatherReason


def make_gather(**states: DetectorState) -> GatherJob:
    detectors = {int(name[1:]): DetectorStatus(state=state, reason="why") for name, state in states.items()}
    finished = frozenset(d for d, status in detectors.items() if status.state is DetectorState.FINISHED)
    return GatherJob(
        batch=BatchKey(exposure_id=2026112000012, pipeline="quicklook"),
        camera="LSSTCam",
        image_type="science",
        reason=GatherReason.TIMEOUT,
        version=1,
        token=1,
        lease_ms=1000,
        expected=frozenset(detectors),
        finished=finished,
        detectors=detectors,
        results={d: {"psf_fwhm_arcsec": 0.8 + d / 10} for d in finished},
        posted_ms=0,
        due_ms=0,
    )


F, X, W, E, S = (
    DetectorState.FINISHED,
    DetectorState.FAILED,
    DetectorState.WAITING,
    DetectorState.EXCLUDED,
    DetectorState.SUPERSEDED,
)


@pytest.mark.parametrize(
    ("states", "n", "m", "is_complete"),
    [
        pytest.param({"d1": F, "d2": F}, 2, 2, True, id="all finished"),
        pytest.param({"d1": F, "d2": X}, 1, 2, False, id="a failed one is missing"),
        pytest.param({"d1": F, "d2": W}, 1, 2, False, id="a raw that did not come is missing"),
        pytest.param({"d1": F, "d2": E}, 1, 1, True, id="an excluded one is not missing"),
        pytest.param({"d1": F, "d2": S}, 1, 1, True, id="a superseded one was not to be done now"),
        pytest.param({"d1": X}, 0, 1, False, id="all failed"),
        pytest.param({}, 0, 0, True, id="nothing expected"),
    ],
)
def test_a_summary_counts_and_names(states, n, m, is_complete):
    summary = summarise(make_gather(**states), run="prompt")
    assert (summary.n_finished, summary.n_expected, summary.is_complete) == (n, m, is_complete)
    assert {d: s.state for d, s in summary.detectors.items()} == {int(k[1:]): v for k, v in states.items()}
    assert (summary.day_obs, summary.seq_num) == (20261120, 12)


def test_focal_plane_metrics_are_medians_of_what_was_measured():
    metrics = focal_plane_metrics(
        {1: {"a": 1.0, "b": None, "t": True}, 2: {"a": 3.0, "b": 5}, 3: {"a": 100.0, "b": math.nan}}
    )
    assert metrics["a_median"] == 3.0
    assert metrics["a_scatter"] == pytest.approx(1.4826 * 2.0)
    assert (metrics["b_median"], metrics["n_detectors_b"]) == (5.0, 1)
    assert "t_median" not in metrics
    assert "n_detectors_a" not in metrics
