"""Combine exposures pixel by pixel: a robust clipped mean."""

import numpy as np
from numba import njit

from payloads.isr.steps import SIGMA_PER_IQR

N_SIGMA = 3.0
N_ITERATIONS = 3
MIN_FOR_QUARTILES = 4
"""With three values an outlier widens its own quartiles so far that nothing is ever clipped."""
MIN_FOR_SCATTER = 5
"""From this many values on, their own scatter says more of the variance than the expected noise does."""


@njit(nogil=True, cache=True)
def combine_clipped(values, noise, mean, variance, counts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Combine the exposures of every pixel.

    The first clip is around the median, with the interquartile range; the next two are around the mean of what is
    left, with its standard deviation. A deviation below the expected noise is taken as that noise: among few
    values, some agree by chance, and would throw out the others.

    Parameters
    ----------
    values : ndarray of shape (n_exposures, n_pixels), float32
        NaN is left out.
    noise : float
        Expected standard deviation of one exposure's pixel.
    mean : ndarray of shape (n_pixels,), float32
        Written; NaN where no exposure has a value.
    variance : ndarray of shape (n_pixels,), float32
        Written: variance of the mean.
    counts : ndarray of shape (n_pixels,), int32
        Written: exposures kept.

    Notes
    -----
    Source: ``MEANCLIP`` of lsst.afw.math with three iterations at three sigma, as cp_pipe combines calibs; the floor
    of the deviation is ours. If two values disagree so that the clip would leave none, the lower one stands: what
    disturbs a dark or bias (cosmic rays) adds charge.
    """
    n_exposures, n_pixels = values.shape
    ranked = np.empty(n_exposures, dtype=np.float64)
    for pixel in range(n_pixels):
        n = 0
        for exposure in range(n_exposures):
            value = np.float64(values[exposure, pixel])
            if not np.isfinite(value):
                continue
            place = n
            while place > 0 and ranked[place - 1] > value:
                ranked[place] = ranked[place - 1]
                place -= 1
            ranked[place] = value
            n += 1
        if n == 0:
            mean[pixel] = np.nan
            variance[pixel] = np.nan
            counts[pixel] = 0
            continue
        centre = 0.5 * (ranked[(n - 1) // 2] + ranked[n // 2])
        sigma = noise
        if n >= MIN_FOR_QUARTILES:
            low, high = 0.25 * (n - 1), 0.75 * (n - 1)
            first, last = int(low), int(high)
            q1 = ranked[first] + (low - first) * (ranked[first + 1] - ranked[first])
            q3 = ranked[last] + (high - last) * (ranked[min(last + 1, n - 1)] - ranked[last])
            sigma = max(noise, SIGMA_PER_IQR * (q3 - q1))
        kept = n
        spread = 0.0
        for _ in range(N_ITERATIONS):
            kept = 0
            total = 0.0
            squares = 0.0
            for i in range(n):
                off = ranked[i] - centre
                if abs(off) <= N_SIGMA * sigma:
                    kept += 1
                    total += off
                    squares += off * off
            if kept == 0:
                centre = ranked[0]
                kept = 1
                spread = 0.0
                break
            shift = total / kept
            spread = max(0.0, squares - kept * shift * shift)
            centre += shift
            sigma = max(noise, np.sqrt(spread / max(kept - 1, 1)))
        mean[pixel] = centre
        counts[pixel] = kept
        variance[pixel] = spread / (kept - 1) / kept if kept >= MIN_FOR_SCATTER else noise * noise / kept
