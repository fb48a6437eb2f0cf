"""Steps and drifts of one series, and what is no change."""

import numpy as np
import pytest

from payloads.trend.change_points import Shape, find_changes, model_of
from payloads.trend.kernels import clean_columns, column_medians, group_medians, scan_columns

days = np.arange(120.0)


def series(seed=1, noise=1.0):
    return noise * np.random.default_rng(seed).standard_normal(len(days))


def changes(values, *, noise=1.0, min_size=0.5, threshold=8.0):
    return find_changes(days, values, noise=noise, threshold=threshold, min_size=min_size)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_change(seed):
    assert changes(series(seed)) == []


@pytest.mark.parametrize("day", [10, 60, 110])
def test_a_step_is_dated_and_sized(day):
    values = series() + np.where(days >= day, -6.0, 0.0)
    (found,) = changes(values)
    assert (found.shape, found.onset) == (Shape.STEP, day)
    assert found.size == pytest.approx(-6.0, abs=4 * found.size_error)
    assert found.before == pytest.approx(0.0, abs=1.5)


def test_a_step_waits_for_three_numbers():
    for n_after, n_found in ((1, 0), (2, 0), (3, 1)):
        values = series() + np.where(days >= 120 - n_after, 12.0, 0.0)
        assert len(changes(values)) == n_found


def test_a_very_large_step_waits_for_two():
    assert changes(series() + np.where(days >= 119, 100.0, 0.0)) == []
    (found,) = changes(series() + np.where(days >= 118, 100.0, 0.0))
    assert found.onset == 118


@pytest.mark.parametrize(("slope", "within"), [(0.1, 6), (0.3, 2), (1.0, 1)])
def test_a_drift_is_dated_by_where_it_began(slope, within):
    (found,) = changes(series() + slope * np.maximum(days - 60, 0.0))
    assert found.shape is Shape.DRIFT
    assert abs(found.onset - 60) <= within
    assert found.slope == pytest.approx(slope, rel=0.25)
    assert found.size == pytest.approx(found.slope * (119 - found.onset))


def test_a_step_and_a_later_drift_are_told_apart():
    values = series() + np.where(days >= 30, 8.0, 0.0) + 0.5 * np.maximum(days - 80, 0.0)
    first, second = changes(values)
    assert (first.shape, second.shape) == (Shape.STEP, Shape.DRIFT)
    assert abs(first.onset - 30) <= 1
    assert abs(second.onset - 80) <= 2
    left = values - model_of([first, second], days)
    assert np.std(left) < 1.3


def test_what_does_not_matter_is_no_change():
    assert changes(series(noise=0.01) + np.where(days >= 60, 0.1, 0.0), noise=0.01, min_size=0.2) == []


def test_few_or_no_numbers_are_no_change():
    assert changes(np.full(120, np.nan)) == []
    assert find_changes(days[:9], np.r_[np.zeros(7), 50.0, 50.0], noise=1.0, threshold=8.0, min_size=0.0) == []


def test_lone_bad_numbers_are_taken_out_and_the_rest_kept():
    values = np.stack([series(1), series(2)], axis=1)
    values[40, 0] = 50.0
    values[70:72, 1] = -40.0
    cleaned, sigma, _ = clean_columns(values)
    assert np.isnan(cleaned[40, 0])
    assert np.isnan(cleaned[70:72, 1]).all()
    assert np.isfinite(cleaned).sum() >= 234
    assert sigma == pytest.approx([1.0, 1.0], abs=0.3)


def test_a_step_is_not_taken_for_bad_numbers_and_does_not_widen_the_noise():
    values = (series() + np.where(days >= 60, 30.0, 0.0))[:, None]
    cleaned, sigma, _ = clean_columns(values)
    assert np.isfinite(cleaned[57:63, 0]).all()
    assert sigma[0] == pytest.approx(1.0, abs=0.3)


def test_slow_wander_shows_as_such():
    rng = np.random.default_rng(3)
    slow = np.repeat(rng.standard_normal((24, 1)), 5, axis=0)
    _, _, wander = clean_columns(slow + 0.3 * rng.standard_normal((120, 1)))
    _, _, white = clean_columns(rng.standard_normal((120, 1)))
    assert wander[0] > 2.0 > white[0]


def test_medians_leave_out_what_was_not_measured():
    rng = np.random.default_rng(4)
    values = rng.standard_normal((30, 40))
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 5] = np.nan
    medians = column_medians(values)
    assert np.isnan(medians[5])
    kept = np.delete(np.arange(40), 5)
    assert medians[kept] == pytest.approx(np.nanmedian(values[:, kept], axis=0))
    groups = np.arange(40) % 3
    groups[39] = -1
    expected = [[np.nanmedian(row[(groups == g) & np.isfinite(row)]) for g in range(3)] for row in values]
    assert group_medians(values, groups, 3) == pytest.approx(np.array(expected))


def test_a_scan_measures_what_a_step_explains():
    values = series()
    step, slope = scan_columns(np.stack([values, values + np.where(days >= 60, 5.0, 0.0)], axis=1), days, 8, 3)
    assert step[0] < 5.0 < 15.0 < step[1]
    best = max((values[:i].sum() - i * values.mean()) ** 2 * 120 / (i * (120 - i)) for i in range(8, 118))
    assert step[0] == pytest.approx(best**0.5)
    assert slope[1] > slope[0]
