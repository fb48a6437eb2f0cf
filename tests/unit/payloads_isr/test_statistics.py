import numpy as np
import pytest

from payloads.isr.statistics import clipped_statistics
from payloads.isr.steps import CLIPPED_SIGMA_BIAS, SIGMA_PER_IQR


def by_numpy(values):
    """The same in as many words."""
    n = len(values)
    ranked = np.sort(values).astype(float)
    median = 0.5 * (ranked[(n - 1) // 2] + ranked[n // 2])
    sigma = SIGMA_PER_IQR * (ranked[(3 * (n - 1)) // 4] - ranked[(n - 1) // 4])
    mean = 0.0
    stdev = 0.0
    for _ in range(3):
        off = values.astype(float) - median
        kept = off[np.abs(off - mean) <= 3 * sigma] if sigma > 0 else off
        mean, stdev = kept.mean(), kept.std() / (CLIPPED_SIGMA_BIAS if sigma > 0 else 1.0)
        if stdev == 0:
            break
        sigma = stdev
    return median, median + mean, stdev


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 100, 30_001])
def test_as_in_numpy(n, dtype):
    rng = np.random.default_rng(n)
    values = rng.normal(900, 30, n).astype(dtype)
    values[:: max(n // 7, 2)] = 50_000
    np.testing.assert_allclose(clipped_statistics(values), by_numpy(values), rtol=1e-6, atol=1e-3)


def test_hits_and_stars_move_nothing():
    values = np.random.default_rng(1).normal(900, 30, 100_000).astype(np.float32)
    values[:2000] += 1e5
    median, mean, stdev = clipped_statistics(values)
    assert abs(median - 900) < 2
    assert abs(mean - 900) < 1
    assert abs(stdev / 30 - 1) < 0.01


@pytest.mark.parametrize("values", [np.full(10, 7.0), np.array([7.0] * 30 + [8.0])])
def test_pixels_that_are_alike(values):
    np.testing.assert_allclose(clipped_statistics(values), by_numpy(values), atol=1e-12)


def test_nothing_has_no_statistics():
    assert clipped_statistics(np.empty(0, np.float32)) is None


@pytest.mark.parametrize(
    "values",
    [
        np.repeat([0.0, 1e6], [9000, 1000]),
        np.tile(np.arange(20.0), 500),
        np.concatenate([np.zeros(5000), np.random.default_rng(2).normal(1e6, 1, 5001)]),
        np.sort(np.random.default_rng(3).standard_cauchy(20_000)),
        np.where(np.arange(10_240) % 20 == 0, 5.0, np.random.default_rng(4).normal(1e4, 9.0, 10_240)),
    ],
    ids=["two values", "whole numbers", "half alike", "wild tails", "sample that misleads"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_distribution_gives_exact_medians(values, dtype):
    values = values.astype(dtype)
    assert clipped_statistics(values)[0] == pytest.approx(float(np.median(values.astype(float))), rel=1e-7)
    np.testing.assert_allclose(clipped_statistics(values), by_numpy(values), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e38, -3e38], ids=str)
def test_what_is_no_number_or_hardly_one_is_no_reason_to_crash(odd, dtype):
    values = np.random.default_rng(4).normal(900, 30, 20_000).astype(dtype)
    values[::3] = odd
    found = clipped_statistics(values)
    expected = by_numpy(values[np.isfinite(values)])
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    values[1::3] = -values[1::3] if np.isfinite(odd) else odd
    values[2::3] = odd
    found = clipped_statistics(values)
    assert found is None if not np.isfinite(odd) else np.isfinite(found[0])
