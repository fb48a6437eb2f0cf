"""Levels and scatters of a calibrated image, per amp and for the detector."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from payloads.isr.steps import CLIPPED_SIGMA_BIAS, SIGMA_PER_IQR
from payloads.mask import NOT_FOR_STATISTICS

ROW_STEP = 32
"""Every 32nd row is measured: 32 thousand pixels of an LSSTCam amp give a median to 0.7 % of the scatter."""

N_SAMPLE = 512
"""Values that tell where the middle of all lies."""
N_BINS = 1024


@njit(nogil=True, cache=True)
def _pick(values, ranks):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the values that have given ranks near the middle, without sorting all: a histogram tells who to sort."""
    n = values.shape[0]
    sample = np.sort(values[:: max(1, n // N_SAMPLE)])
    tail = sample.shape[0] // 8
    low, high = np.float64(sample[tail]), np.float64(sample[sample.shape[0] - 1 - tail])
    picked = np.empty(ranks.shape[0], dtype=np.float64)
    histogram = np.zeros(N_BINS + 2, dtype=np.int64)
    per_unit = np.float64(N_BINS) / (high - low) if high > low else 0.0
    # Bin 0 has what lies below the window, the last one what lies above.
    places = np.empty(n, dtype=np.int32)
    for i in range(n):
        binned = (np.float64(values[i]) - low) * per_unit + 1.0
        # What is no number has a place, too: differences of numbers beyond 1e300 are none.
        places[i] = np.int32(min(binned, N_BINS + 1.0)) if binned > 0.0 else np.int32(0)
    for i in range(n):
        histogram[places[i]] += 1
    near = np.empty(histogram.max(), dtype=values.dtype)
    for r in range(ranks.shape[0]):
        seen = 0
        place = 0
        while seen + histogram[place] <= ranks[r]:
            seen += histogram[place]
            place += 1
        if per_unit == 0.0 or place == 0 or place == N_BINS + 1:
            # More than the sample told lies on one side.
            ordered = np.sort(values)
            for other in range(ranks.shape[0]):
                picked[other] = ordered[ranks[other]]
            return picked
        n_near = 0
        for i in range(n):
            if places[i] == place:
                near[n_near] = values[i]
                n_near += 1
        picked[r] = np.sort(near[:n_near])[ranks[r] - seen]
    return picked


@njit(nogil=True, cache=True)
def _clipped(values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return median, clipped mean and clipped standard deviation; see `clipped_statistics`."""
    n = values.shape[0]
    ranks = np.array([(n - 1) // 4, (n - 1) // 2, n // 2, (3 * (n - 1)) // 4])
    lower, below, above, upper = _pick(values, ranks)
    median = 0.5 * (below + above)
    # Begin from the central half, which no star or cosmic ray moves.
    sigma = SIGMA_PER_IQR * (upper - lower)
    mean = 0.0
    stdev = 0.0
    for _ in range(3):
        reach = 3.0 * sigma if sigma > 0.0 else np.inf
        n_kept = 0
        total = 0.0
        squares = 0.0
        for i in range(n):
            off = np.float64(values[i]) - median
            is_kept = abs(off - mean) <= reach
            n_kept += is_kept
            off = off if is_kept else 0.0
            total += off
            squares += off * off
        mean = total / n_kept
        stdev = np.sqrt(max(squares / n_kept - mean * mean, 0.0)) / (CLIPPED_SIGMA_BIAS if sigma > 0.0 else 1.0)
        if stdev == 0.0:
            break
        sigma = stdev
    return median, median + mean, stdev


def clipped_statistics(values: NDArray[Any]) -> tuple[float, float, float] | None:
    """Return median, mean and standard deviation, the latter two clipped three times at three sigma.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Those that are not finite are left out.

    Returns
    -------
    median, mean, stdev : float
        The deviation is corrected for the tails that clipping takes from a Gaussian. None without values.
    """
    is_finite = np.isfinite(values)
    if not is_finite.all():
        values = values[is_finite]
    if len(values) == 0:
        return None
    kind = np.float32 if values.dtype == np.float32 else np.float64
    median, mean, stdev = _clipped(np.ascontiguousarray(values, dtype=kind))
    return float(median), float(mean), float(stdev)


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
