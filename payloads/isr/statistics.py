"""Levels and scatters of a calibrated image, per amp and for the detector."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payloads.isr.steps import CLIPPED_SIGMA_BIAS, SIGMA_PER_IQR
from payloads.mask import NOT_FOR_STATISTICS

ROW_STEP = 32
"""Every 32nd row is measured: 32 thousand pixels of an LSSTCam amp give a median to 0.7 % of the scatter."""


def clipped_statistics(values: NDArray[Any]) -> tuple[float, float, float] | None:
    """Return median, mean and standard deviation, the latter two clipped three times at three sigma.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Finite numbers.

    Returns
    -------
    median, mean, stdev : float
        The deviation is corrected for the tails that clipping takes from a Gaussian. None without values.
    """
    n = len(values)
    if n == 0:
        return None
    # Sorted, every clip is a slice, and its sums are differences of running ones.
    ranked = np.sort(values)
    median = 0.5 * (float(ranked[(n - 1) // 2]) + float(ranked[n // 2]))
    # Begin from the central half, which no star or cosmic ray moves.
    sigma = SIGMA_PER_IQR * float(ranked[(3 * (n - 1)) // 4] - ranked[(n - 1) // 4])
    off = (ranked - ranked.dtype.type(median)).astype(np.float64)
    sums = np.concatenate(([0.0], np.cumsum(off)))
    squares = np.concatenate(([0.0], np.cumsum(off * off)))
    mean = stdev = 0.0
    for _ in range(3):
        first, last = 0, n
        if sigma > 0:
            first = int(np.searchsorted(off, mean - 3.0 * sigma, side="left"))
            last = int(np.searchsorted(off, mean + 3.0 * sigma, side="right"))
        n_kept = last - first
        mean = (sums[last] - sums[first]) / n_kept
        variance = (squares[last] - squares[first]) / n_kept - mean * mean
        stdev = math.sqrt(max(variance, 0.0)) / (CLIPPED_SIGMA_BIAS if sigma > 0 else 1.0)
        if stdev == 0.0:
            break
        sigma = stdev
    return median, float(median + mean), stdev


def measure_region(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    region: tuple[slice, slice],
    *,
    row_step: int = ROW_STEP,
    ignored: int = NOT_FOR_STATISTICS,
) -> tuple[float, float, float] | None:
    """Return median, clipped mean and clipped standard deviation of every ``row_step``-th row of a region.

    Pixels with any of the ``ignored`` bits are left out; None where no pixel is left.
    """
    rows, columns = region
    sampled = slice(rows.start, rows.stop, row_step)
    values = image[sampled, columns]
    return clipped_statistics(values[(mask[sampled, columns] & ignored) == 0])
