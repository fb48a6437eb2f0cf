"""The first afternoons of an installation: too few numbers to say what is usual, and nothing is called unusual."""

import numpy as np
import pytest

from payloads.trend.decompose import Scale
from payloads.trend.search import Kind, Numbers, SearchConfig, search

N_DETECTORS, N_AMPS = 9, 16
DETECTORS = np.repeat(np.arange(N_DETECTORS), N_AMPS)


def numbers_of(values: np.ndarray, per_day: int) -> Numbers:
    return Numbers(values, np.repeat(np.arange(len(values) // per_day), per_day), DETECTORS)


@pytest.mark.parametrize("n_days", [1, 2])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rounded", [False, True])
def test_a_few_biases_of_the_first_days_raise_nothing(n_days, seed, rounded):
    rng = np.random.default_rng(seed)
    values = rng.normal(5.0, 0.3, (5 * n_days, len(DETECTORS)))
    if rounded:
        values = np.round(values * 4) / 4
    assert search(numbers_of(values, 5), Scale.DIFFERENCE, SearchConfig()) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_count_that_is_nearly_always_the_same_raises_nothing(seed):
    rng = np.random.default_rng(seed)
    values = 4000.0 - (rng.random((60, len(DETECTORS))) < 0.2)
    found = search(numbers_of(values, 10), Scale.DIFFERENCE, SearchConfig())
    assert [one for one in found if one.kind is Kind.OUTLIER] == []


def test_a_bad_exposure_of_an_amp_is_found_once_there_are_enough():
    rng = np.random.default_rng(7)
    values = rng.normal(5.0, 0.3, (40, len(DETECTORS)))
    values[27, 20] += 30.0
    (found,) = search(numbers_of(values, 10), Scale.DIFFERENCE, SearchConfig())
    assert (found.kind, found.row, found.channel) == (Kind.OUTLIER, 27, 20)
    assert found.size == pytest.approx(30.0, abs=1.5)
