"""Months of a camera with known truth: what changed is found, dated, and laid at the right door, once."""

from datetime import UTC, date, datetime

import numpy as np
import pytest

from payloads.trend.search import Kind
from rapid.camera.store import load_camera
from rapid.results.store import open_results
from rapid.trends.alarms import AcknowledgedAlreadyError, AlarmError
from rapid.trends.models import AlarmState, Scope, date_of, day_obs_of
from rapid.trends.simulate import METRICS, channels_of, load_arrays, simulate
from rapid.trends.watch import TrendWatch

FIRST = date(2026, 7, 20)
N_DAYS = 120
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
METRIC = {metric.name: metric for metric in METRICS}
T = np.arange(N_DAYS)


@pytest.fixture(scope="module")
def channels():
    return channels_of(load_camera("LSSTCam"), rafts=["R22"])


class Months:
    def __init__(self, path, channels):
        self.results = open_results(str(path))
        self.channels = channels
        self.watch = TrendWatch(self.results.engine)

    def bring(self, name, truth, seed=1, **facts):
        rng = np.random.default_rng(seed)
        values = simulate(METRIC[name], N_DAYS, len(self.channels), rng)
        # Lone bad numbers have tests of their own.
        quiet = simulate(
            METRIC[name].__class__(**{**METRIC[name].__dict__, "bad": 0.0}), N_DAYS, len(self.channels), rng
        )
        del values
        truth(quiet)
        load_arrays(self.results.engine, "LSSTCam", self.channels, [METRIC[name]], lambda _: quiet, FIRST, **facts)
        return quiet

    def alarms(self, **facts):
        return self.watch.alarms.alarms("LSSTCam", **facts)

    def search(self):
        return self.watch.run("LSSTCam", now=NOW)


@pytest.fixture
def months(tmp_path, channels):
    months = Months(tmp_path / "results.sqlite", channels)
    yield months
    months.results.close()


def days_off(alarm, day):
    return abs(date_of(alarm.onset_day).toordinal() - FIRST.toordinal() - day)


def only(months):
    (alarm,) = months.alarms()
    assert alarm.state is AlarmState.OPEN
    return alarm


def is_of(alarm, channels, place):
    row = channels.rows[place]
    return alarm.scope is Scope.AMP and (alarm.detector, alarm.amp) == (row.detector, row.amp)


def test_months_in_which_nothing_happens_raise_no_alarm(months):
    for name in ("mean_e", "stdev_e", "n_hot_px", "gain_electron_per_adu", "flat_level_e", "dark_current_e_per_s"):
        months.bring(name, lambda _: None)
    assert months.search() == []
    assert months.alarms() == []


def test_a_slow_gain_drift_is_dated_and_laid_at_its_amp(months, channels):
    def truth(values):
        values[:, 40] *= 1.0 - 4e-4 * np.maximum(T - 60, 0)

    months.bring("gain_electron_per_adu", truth)
    months.search()
    alarm = only(months)
    assert alarm.kind is Kind.DRIFT
    assert is_of(alarm, channels, 40)
    assert days_off(alarm, 60) <= 2
    assert alarm.relative == pytest.approx(-4e-4 * 59, rel=0.1)
    assert alarm.unit == "electron/adu"
    assert "drifting" in alarm.text


def test_a_bias_jump_is_dated_and_sized(months, channels):
    def truth(values):
        values[80:, 100] += 1.0

    months.bring("mean_e", truth)
    months.search()
    alarm = only(months)
    assert alarm.kind is Kind.STEP
    assert is_of(alarm, channels, 100)
    assert days_off(alarm, 80) <= 1
    assert alarm.size == pytest.approx(1.0, abs=5 * alarm.size_error)
    assert alarm.exposure == day_obs_of(FIRST.toordinal() + 80) * 100_000 + 1


def test_a_growing_count_of_hot_pixels_is_found(months, channels):
    def truth(values):
        values[:, 7] += np.round(1.5 * np.maximum(T - 50, 0))

    months.bring("n_hot_px", truth)
    months.search()
    alarm = only(months)
    assert alarm.kind is Kind.GROWTH
    assert is_of(alarm, channels, 7)
    assert days_off(alarm, 50) <= 2
    assert alarm.size == pytest.approx(1.5 * 69, rel=0.15)


def test_a_fading_lamp_is_one_alarm_of_the_camera(months):
    def truth(values):
        values *= np.exp(-0.002 * np.maximum(T - 70, 0))[:, None]

    months.bring("flat_level_e", truth)
    months.search()
    alarm = only(months)
    assert (alarm.scope, alarm.kind, alarm.n_channels) == (Scope.CAMERA, Kind.DRIFT, 144)
    assert days_off(alarm, 70) <= 2
    assert alarm.relative == pytest.approx(np.expm1(-0.002 * 49), rel=0.05)


def test_a_dead_amp_is_told_from_a_low_one_also_under_a_fading_lamp(months, channels):
    def truth(values):
        values *= np.exp(-0.002 * np.maximum(T - 70, 0))[:, None]
        values[90:, 33] = 0.0

    months.bring("flat_level_e", truth)
    months.search()
    lamp = [one for one in months.alarms() if one.scope is Scope.CAMERA]
    (dead,) = (one for one in months.alarms() if one.scope is not Scope.CAMERA)
    assert len(lamp) == 1
    assert dead.kind is Kind.DEAD
    assert is_of(dead, channels, 33)
    assert days_off(dead, 90) <= 1
    assert "fell to nothing" in dead.text


def test_an_amp_that_cannot_be_measured_any_more_is_missing(months, channels):
    def truth(values):
        values[90:, 33] = np.nan

    months.bring("stdev_e", truth)
    months.search()
    alarm = only(months)
    assert alarm.kind is Kind.MISSING
    assert is_of(alarm, channels, 33)
    assert days_off(alarm, 90) == 0


def test_a_bad_flat_is_the_exposures_and_the_detectors(months, channels):
    own = channels.detectors == channels.rows[32].detector

    def truth(values):
        values[75, own] *= 1.5

    months.bring("flat_scatter", truth)
    months.search()
    alarm = only(months)
    assert (alarm.scope, alarm.kind, alarm.detector) == (Scope.DETECTOR, Kind.OUTLIER, channels.rows[32].detector)
    assert alarm.exposure == day_obs_of(FIRST.toordinal() + 75) * 100_000 + 1


def test_one_bad_exposure_among_many_of_a_day_is_named(months, channels):
    own = channels.detectors == channels.rows[32].detector
    for seq_num in range(1, 9):

        def truth(values, seq_num=seq_num):
            if seq_num == 5:
                values[100, own] *= 1.5

        rng = np.random.default_rng(seq_num)
        quiet = METRIC["flat_scatter"]
        values = simulate(
            quiet.__class__(**{**quiet.__dict__, "bad": 0.0}), N_DAYS, len(channels), np.random.default_rng(1)
        )
        values *= np.exp(0.002 * rng.standard_normal(values.shape))
        truth(values)
        load_arrays(
            months.results.engine, "LSSTCam", channels, [quiet], lambda _, values=values: values, FIRST, seq_num=seq_num
        )  # fmt: skip
    months.search()
    alarm = only(months)
    assert (alarm.scope, alarm.kind) == (Scope.DETECTOR, Kind.OUTLIER)
    assert alarm.exposure == day_obs_of(FIRST.toordinal() + 100) * 100_000 + 5


def test_a_whole_raft_is_one_alarm(tmp_path):
    channels = channels_of(load_camera("LSSTCam"), rafts=["R22", "R21", "R20", "R12", "R11"])
    months = Months(tmp_path / "results.sqlite", channels)
    raft = np.array([row.detector_name.startswith("R12") for row in channels.rows])

    def truth(values):
        values[60:, raft] += 0.8

    months.bring("mean_e", truth)
    months.search()
    alarm = only(months)
    assert (alarm.scope, alarm.raft, alarm.kind, alarm.n_channels) == (Scope.RAFT, "R12", Kind.STEP, 144)
    assert days_off(alarm, 60) <= 1
    months.results.close()


def test_searching_again_makes_no_second_alarm_and_keeps_what_was_acknowledged(months):
    def truth(values):
        values[80:, 100] += 1.0

    months.bring("mean_e", truth)
    assert len(months.search()) >= 1
    alarm = only(months)
    store = months.watch.alarms
    with pytest.raises(AlarmError, match="reason"):
        store.acknowledge("LSSTCam", alarm.id, by="ann", reason="  ", now=NOW)
    known = store.acknowledge("LSSTCam", alarm.id, by="ann", reason="board replaced", now=NOW)
    assert (known.state, known.acknowledge_reason) == (AlarmState.ACKNOWLEDGED, "board replaced")
    with pytest.raises(AcknowledgedAlreadyError, match="ann"):
        store.acknowledge("LSSTCam", alarm.id, by="bob", reason="me too", now=NOW)
    assert months.search() == []  # nothing new
    load_arrays(months.results.engine, "LSSTCam", months.channels, [METRIC["mean_e"]],
                lambda _: np.zeros((1, 144)) + np.where(np.arange(144) == 100, 1.0, 0.0), date(2026, 11, 17))  # fmt: skip
    months.search()
    (again,) = months.alarms(metric="mean_e", last_day=alarm.onset_day)
    assert (again.id, again.state, again.acknowledged_by) == (alarm.id, AlarmState.ACKNOWLEDGED, "ann")
    assert store.n_open("LSSTCam") == len(months.alarms(state=AlarmState.OPEN))


def test_each_day_the_same_change_moves_its_alarm(months, channels):
    rng = np.random.default_rng(2)
    metric = METRIC["mean_e"]
    quiet = metric.__class__(**{**metric.__dict__, "bad": 0.0})
    values = simulate(quiet, 60, len(channels), rng)
    values[50:, 20] += 1.0
    load_arrays(months.results.engine, "LSSTCam", channels, [metric], lambda _: values[:50], FIRST)
    assert months.search() == []
    kinds = []
    for day in range(50, 60):
        load_arrays(
            months.results.engine, "LSSTCam", channels, [metric], lambda _, day=day: values[day : day + 1],
            date.fromordinal(FIRST.toordinal() + day),
        )  # fmt: skip
        months.search()
        (alarm,) = months.alarms()
        kinds.append(alarm.kind)
        assert days_off(alarm, 50) <= 1
    assert kinds[0] is Kind.OUTLIER  # one number: it may be a bad day
    assert set(kinds[3:]) == {Kind.STEP}
    assert alarm.raised_day == day_obs_of(FIRST.toordinal() + 50)


def test_a_slow_drift_that_first_looks_like_a_step_stays_one_alarm(months, channels):
    metric = METRIC["mean_e"]
    quiet = metric.__class__(**{**metric.__dict__, "bad": 0.0})
    values = simulate(quiet, 150, len(channels), np.random.default_rng(4))
    values[:, 20] += 0.006 * np.maximum(np.arange(150) - 40, 0)
    load_arrays(months.results.engine, "LSSTCam", channels, [metric], lambda _: values[:60], FIRST)
    months.search()
    for begin in range(60, 150, 6):
        load_arrays(
            months.results.engine, "LSSTCam", channels, [metric], lambda _, begin=begin: values[begin : begin + 6],
            date.fromordinal(FIRST.toordinal() + begin),
        )  # fmt: skip
        months.search()
    alarm = only(months)
    assert alarm.kind is Kind.DRIFT
    assert is_of(alarm, channels, 20)
    assert days_off(alarm, 40) <= 5
