import numpy as np
import pytest

from payloads.isr.sorting import sort_columns, sorting_network


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 31, 48, 58, 64, 100])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_columns_of_any_height_are_sorted(n, dtype):
    rng = np.random.default_rng(n)
    values = rng.normal(0, 1000, (n, 17)).astype(dtype)
    values[:, 3] = 7  # ties
    values[:, 4] = np.sort(values[:, 4])[::-1]
    expected = np.sort(values, axis=0)
    sort_columns(values, sorting_network(n))
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("n", range(1, 13))
def test_network_sorts_all_zeros_and_ones(n):
    # The zero-one principle: a network that sorts these sorts everything.
    patterns = ((np.arange(2**n)[None, :] >> np.arange(n)[:, None]) & 1).astype(np.int32)
    sort_columns(patterns, sorting_network(n))
    assert (np.diff(patterns, axis=0) >= 0).all()
