"""The night in memory: late, repeated and out-of-order news."""

from datetime import UTC, datetime, timedelta

import pytest

from rapid.display.live import N_DETAILED, LiveNight, day_obs_of, medians, order_of
from rapid.display.models import ExposureState
from rapid.results.models import DetectorState, DetectorStatus, GatherReason
from tests.support.records import make_summary

NAMES = {number: f"R22_S{number:02d}" for number in range(9)}
DAY = 20261120 * 100_000
AT = datetime(2026, 11, 21, 3, tzinfo=UTC)
S = DetectorState


@pytest.fixture
def night() -> LiveNight:
    return LiveNight(NAMES)


def post(night: LiveNight, seq_num: int = 1, n: int = 3, state: S = S.QUEUED, **facts):
    return night.put_exposure(
        DAY + seq_num,
        facts.pop("pipeline", "quicklook"),
        image_type="science",
        info={"physical_filter": "r_57"},
        detectors=facts.pop("detectors", {number: DetectorStatus(state=state) for number in range(n)}),
        metrics=facts.pop("metrics", {}),
        at=AT,
    )


def put(night: LiveNight, detector: int, state: S, seq_num: int = 1, **facts):
    return night.put_detector(DAY + seq_num, "quicklook", detector, state, at=AT, **facts)


def summary_of(states: dict[int, S], seq_num: int = 1, version: int = 1):
    finished = [number for number, state in states.items() if state is S.FINISHED]
    return make_summary(
        seq_num,
        version,
        detectors={number: DetectorStatus(state=state, reason="told") for number, state in states.items()},
        n_finished=len(finished),
        n_expected=len(states),
        is_complete=len(finished) == len(states),
        reason=GatherReason.TIMEOUT,
    )


def test_an_exposure_fills_up_detector_by_detector(night):
    post(night)
    seen = []
    for detector in range(3):
        put(night, detector, S.RUNNING)
        put(night, detector, S.FINISHED, metrics={"psf_fwhm_arcsec": 0.7 + 0.1 * detector})
        row = night.row(DAY + 1)
        seen.append((row.n_finished, row.state, row.metrics["psf_fwhm_arcsec_median"]))
    assert seen == [
        (1, ExposureState.RUNNING, 0.7),
        (2, ExposureState.RUNNING, pytest.approx(0.75)),
        (3, ExposureState.COMPLETE, pytest.approx(0.8)),
    ]


@pytest.mark.parametrize("late", [S.RUNNING, S.QUEUED, S.FAILED], ids=lambda state: f"late {state.value}")
def test_nothing_undoes_a_completion(night, late):
    post(night)
    put(night, 0, S.FINISHED, metrics={"psf_fwhm_arcsec": 0.8})
    assert put(night, 0, late) is None
    assert 0 not in {cell.detector for cell in post(night, state=late)}
    [cell] = [cell for cell in night.view(DAY + 1).detectors if cell.detector == 0]
    assert (cell.state, cell.metrics["psf_fwhm_arcsec"]) == (S.FINISHED, 0.8)


def test_a_retried_failure_counts_when_it_succeeds(night):
    post(night)
    put(night, 0, S.FAILED, reason="no stars")
    assert [lost.reason for lost in night.row(DAY + 1).missing] == ["no stars"]
    put(night, 0, S.FINISHED)
    assert night.row(DAY + 1).missing == []


def test_an_older_version_never_replaces_a_newer_one(night):
    assert night.put_summary(summary_of({0: S.FINISHED, 1: S.FINISHED}, version=2)) is not None
    assert night.put_summary(summary_of({0: S.FINISHED, 1: S.QUEUED}, version=1)) is None
    assert (night.row(DAY + 1).version, night.row(DAY + 1).state) == (2, ExposureState.COMPLETE)


def test_a_partial_summary_names_what_is_missing(night):
    night.put_summary(summary_of({0: S.FINISHED, 1: S.FAILED, 2: S.WAITING, 3: S.EXCLUDED}))
    row = night.row(DAY + 1)
    assert row.state is ExposureState.PARTIAL
    assert [(lost.name, lost.state, lost.reason) for lost in row.missing] == [
        ("R22_S01", S.FAILED, "told"),
        ("R22_S02", S.WAITING, "told"),
    ]


def test_what_was_left_for_later_is_not_missing_and_not_expected(night):
    summary = summary_of({0: S.FINISHED, 1: S.SUPERSEDED, 2: S.SUPERSEDED})
    night.put_summary(summary.model_copy(update={"n_expected": 1}))
    row = night.row(DAY + 1)
    assert (row.state, row.n_expected, row.n_later, row.missing) == (ExposureState.COMPLETE, 1, 2, [])


def test_nothing_is_missing_while_nobody_has_given_up(night):
    post(night)
    put(night, 0, S.RUNNING)
    assert night.row(DAY + 1).missing == []


def test_excluded_detectors_are_not_expected(night):
    post(night, detectors={0: DetectorStatus(state=S.FINISHED), 1: DetectorStatus(state=S.EXCLUDED, reason="noisy")})
    row = night.row(DAY + 1)
    assert (row.n_expected, row.n_excluded, row.state) == (1, 1, ExposureState.COMPLETE)
    assert [(one.name, one.reason) for one in row.excluded] == [("R22_S01", "noisy")]
    assert row.missing == []


def test_an_exposure_of_which_all_failed_has_failed(night):
    post(night, state=S.FAILED)
    assert night.row(DAY + 1).state is ExposureState.FAILED


def test_a_build_does_not_stand_for_the_exposure(night):
    post(night, n=9, pipeline="build_bias")
    post(night, n=3)
    assert night.row(DAY + 1).pipeline == "quicklook"
    assert night.row(DAY + 1).pipelines == ["build_bias", "quicklook"]


def test_the_newest_is_the_highest_number_not_the_last_heard(night):
    post(night, 7)
    post(night, 3)
    assert night.newest == DAY + 7
    assert [row.seq_num for row in night.rows()] == [7, 3]


def test_a_new_night_clears_the_page_and_an_old_one_does_not_come_back(night):
    post(night, 5)
    tomorrow = 20261121 * 100_000 + 1
    night.put_detector(tomorrow, "quicklook", 0, S.RUNNING, at=AT + timedelta(days=1))
    assert list(night.tracks) == [tomorrow]
    assert post(night, 6) == []
    assert list(night.tracks) == [tomorrow]


def test_old_exposures_keep_their_counts_when_their_cells_are_let_go(night):
    n = N_DETAILED + 5
    for seq_num in range(1, n + 1):
        night.put_summary(summary_of({0: S.FINISHED, 1: S.FAILED}, seq_num))
    with_cells = [seq_num for seq_num in range(1, n + 1) if night.view(DAY + seq_num).detectors]
    assert with_cells == list(range(6, n + 1))
    assert {(row.n_finished, row.n_expected, row.n_failed) for row in night.rows()} == {(1, 2, 1)}


def test_a_late_detector_of_an_old_exposure_is_not_taken_for_all_of_it(night):
    for seq_num in range(1, N_DETAILED + 2):
        night.put_summary(summary_of({0: S.FINISHED, 1: S.FAILED}, seq_num))
    put(night, 1, S.FINISHED, seq_num=1)
    assert night.row(DAY + 1).n_expected == 2


def test_numbers_that_are_not_finite_become_none(night):
    post(night)
    put(night, 0, S.FINISHED, metrics={"psf_fwhm_arcsec": float("nan"), "n_stars": 3})
    [cell] = [cell for cell in night.view(DAY + 1).detectors if cell.detector == 0]
    assert cell.metrics == {"psf_fwhm_arcsec": None, "n_stars": 3}


def test_medians_leave_out_words_and_truths():
    assert medians([{"a": 1, "b": True, "c": "x"}, {"a": 4, "d": None}]) == {"a_median": 2.5}


def test_other_controllers_exposures_sort_by_their_number():
    ids = [7026112000002, 2026112000003, 2026112000001]
    assert [day_obs_of(exposure_id) for exposure_id in ids] == [20261120] * 3
    assert sorted(ids, key=order_of) == [2026112000001, 7026112000002, 2026112000003]


def test_the_time_between_exposures_is_that_of_the_last_ones(night):
    def come(seq_num: int, at_s: float) -> None:
        night.put_detector(DAY + seq_num, "quicklook", 0, S.QUEUED, at=AT + timedelta(seconds=at_s))

    for seq_num in range(1, 5):
        come(seq_num, 100.0 * seq_num)
    assert night.gap_s is None
    come(5, 500.0)
    assert night.gap_s == 100.0
    for seq_num in range(6, 18):
        come(seq_num, 500.0 + 34.0 * (seq_num - 5))
    assert night.gap_s == 34.0
    for seq_num in range(10, 18):  # heard of late: they had come closer together
        come(seq_num, 500.0 + 20.0 * (seq_num - 5))
    assert night.gap_s == 20.0
    night.put_detector(DAY + 100_000 + 1, "quicklook", 0, S.QUEUED, at=AT)
    assert night.gap_s is None
