"""Sort many short columns at once, compiled: each compare-and-swap works on a whole row of them.

A network of compare-and-swaps does not look at the data, so sixteen columns go through one instruction; sorting the
overscan of a row this way costs a fortieth of sorting it alone.
"""

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray


@lru_cache(maxsize=64)
def sorting_network(n: int) -> NDArray[np.int64]:
    """Return the pairs of Batcher's odd-even merge sort of n items.

    Returns
    -------
    pairs : ndarray of shape (n_pairs, 2), int64
        To be compared, and swapped if the first is the greater, in this order. Read-only.

    Notes
    -----
    D. Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M, for n that is no power of two, too.

    Examples
    --------
    >>> sorting_network(4).tolist()
    [[0, 1], [2, 3], [0, 2], [1, 3], [1, 2]]
    """
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                pairs.extend(
                    (i + j, i + j + k) for i in range(min(k, n - j - k)) if (i + j) // (2 * p) == (i + j + k) // (2 * p)
                )
            k //= 2
        p *= 2
    network = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    network.flags.writeable = False
    return network


@njit(nogil=True, cache=True, inline="never")
def _order(upper, lower):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for x in range(upper.shape[0]):
        a, b = upper[x], lower[x]
        upper[x] = min(a, b)
        lower[x] = max(a, b)


@njit(nogil=True, cache=True, inline="never")
def sort_columns(values, network):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Sort every column in place, the least value in row 0.

    Parameters
    ----------
    values : ndarray of shape (n, n_columns), int32 or float32
        Where NaN ends up is not defined, and it may take the place of other values.
    network : ndarray of shape (n_pairs, 2), int64
        `sorting_network` of n.
    """
    for pair in range(network.shape[0]):
        _order(values[network[pair, 0]], values[network[pair, 1]])
