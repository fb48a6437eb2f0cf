"""When fewer detectors are processed, and when all again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.control.models import SheddingPolicy
from rapid.dispatch.models import Load
from rapid.head.shedding import Cadence, Shedder, predict_finish_s

SIZES = (189, 95, 45, 9)
POLICY = SheddingPolicy(ladder=("ccd_checkerboard", "raft_checkerboard", "minimal"), calm_exposures=2)


def load(workers: int = 10, queued: int = 0, running: int = 0, backlog: int = 0, job_s: float | None = 1.0) -> Load:
    return Load(workers=workers, queued_current=queued, running_current=running, running_backlog=backlog, job_s=job_s)


@pytest.mark.parametrize(
    ("state", "n_detectors", "expected"),
    [
        pytest.param(load(), 189, 18.9, id="jobs over workers"),
        pytest.param(load(queued=11), 189, 20.0, id="what waits goes first"),
        pytest.param(load(running=10, backlog=10), 180, 19.0, id="running jobs are half done"),
        pytest.param(load(workers=500), 189, 1.0, id="never less than one job"),
        pytest.param(load(workers=0), 189, None, id="without workers nothing is known"),
        pytest.param(load(job_s=None), 189, None, id="nor before the first job"),
        pytest.param(load(), 0, 0.0, id="nothing to do takes no time"),
    ],
)
def test_the_finish_is_predicted(state: Load, n_detectors: int, expected: float | None):
    assert predict_finish_s(state, n_detectors) == expected


def levels(policy: SheddingPolicy, job_times: list[float], cadence_s: float = 20.0, start: int = 0) -> list[int]:
    shedder = Shedder(start)
    return [shedder.decide(policy, SIZES, load(job_s=job_s), cadence_s).level for job_s in job_times]


def test_a_light_load_sheds_nothing():
    assert levels(POLICY, [0.5, 1.0, 1.05]) == [0, 0, 0]


def test_an_exposure_that_would_not_be_done_in_time_gets_the_first_pattern_that_fits():
    assert levels(POLICY, [1.1]) == [1]
    assert levels(POLICY, [3.0]) == [2], "two steps at once"
    assert levels(POLICY, [1000.0]) == [3], "the deepest there is, if none fits"


def test_it_goes_back_one_step_after_enough_calm_exposures():
    assert levels(POLICY, [3.0, 0.1, 0.1, 0.1, 0.1, 0.1]) == [2, 2, 1, 1, 0, 0]


def test_calm_has_to_be_in_a_row():
    # 0.6 of 20 s is calm; the step above level 1 is the whole pattern: 189 / 10 * 0.7 = 13.2 s is not.
    assert levels(POLICY, [1.5, 0.5, 0.7, 0.5, 0.7]) == [1, 1, 1, 1, 1]


def test_a_load_between_the_two_thresholds_does_not_flap():
    job_s = 1.06  # the whole pattern would take just more than the cadence
    assert levels(POLICY, [job_s] * 50) == [1] * 50


def test_without_numbers_it_stays_where_it_is():
    shedder = Shedder(2)
    assert shedder.decide(POLICY, SIZES, load(job_s=None), 20.0).level == 2
    assert shedder.decide(POLICY, SIZES, load(job_s=100.0), None).level == 2


def test_switched_off_it_processes_everything():
    policy = POLICY.model_copy(update={"enabled": False})
    assert levels(policy, [1000.0], start=3) == [0]


def test_a_cadence_set_by_hand_goes_before_the_measured_one():
    policy = POLICY.model_copy(update={"cadence_s": 5.0})
    assert levels(policy, [0.5], cadence_s=100.0) == [1]


def test_a_camera_with_fewer_rungs_is_at_its_own_deepest():
    shedder = Shedder(3)
    assert shedder.decide(POLICY, (1,), load(), 20.0).level == 0


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=40), st.floats(1.0, 100.0))
def test_what_is_chosen_fits_or_is_the_deepest(job_times: list[float], cadence_s: float):
    shedder = Shedder()
    for job_s in job_times:
        state = load(job_s=job_s)
        level = shedder.decide(POLICY, SIZES, state, cadence_s).level
        finish_s = predict_finish_s(state, SIZES[level])
        assert finish_s is not None
        assert level == len(SIZES) - 1 or finish_s <= POLICY.step_down_at * cadence_s


def test_the_cadence_is_the_median_of_intervals_and_pauses_do_not_count():
    cadence = Cadence()
    assert cadence.seconds is None
    for at_s in (0.0, 34.0, 68.0, 70.0, 104.0, 5000.0, 5034.0):
        cadence.note(at_s)
    assert cadence.seconds == 34.0
    cadence.note(100.0)  # an older exposure comes late
    assert cadence.seconds == 34.0
