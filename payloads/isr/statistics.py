"""Levels and scatters of a calibrated image, per amp and for the detector."""

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
    q1, q2, q3 = (n - 1) // 4, (n - 1) // 2, (3 * (n - 1)) // 4
    ranked = np.partition(values, (q1, q2, q3))
    median = float(ranked[q2]) if n % 2 else 0.5 * (float(ranked[q2]) + float(ranked[q2 + 1 :].min()))
    # Begin from the central half, which no star or cosmic ray moves.
    sigma = SIGMA_PER_IQR * float(ranked[q3] - ranked[q1])
    off = values - values.dtype.type(median)
    mean = stdev = 0.0
    for _ in range(3):
        kept = off[np.abs(off - mean) <= 3.0 * sigma] if sigma > 0 else off
        mean = float(kept.mean(dtype=np.float64))
        stdev = float(kept.std(dtype=np.float64)) / (CLIPPED_SIGMA_BIAS if sigma > 0 else 1.0)
        if stdev == 0.0:
            break
        sigma = stdev
    return median, median + mean, stdev


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
