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


BLOCK = 256
"""Pixels worked on together: each step is a loop over them that the compiler vectorises, in the first caches."""


@njit(nogil=True, cache=True)
def _sort_columns(ranked):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Sort every column in place, by an odd-even transposition network: no branch depends on the data."""
    n, n_pixels = ranked.shape
    for turn in range(n):
        for i in range(turn % 2, n - 1, 2):
            lower, upper = ranked[i], ranked[i + 1]
            for pixel in range(n_pixels):
                a, b = lower[pixel], upper[pixel]
                lower[pixel] = a if a < b else b
                upper[pixel] = b if a < b else a


@njit(nogil=True, cache=True)
def _clip_columns(ranked, centre, sigma, kept, spread, noise):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Clip around the centre; update centre, deviation, number kept and sum of squares in place."""
    n, n_pixels = ranked.shape
    total = np.zeros(n_pixels)
    squares = np.zeros(n_pixels)
    for pixel in range(n_pixels):
        kept[pixel] = 0.0
    for i in range(n):
        row = ranked[i]
        for pixel in range(n_pixels):
            off = row[pixel] - centre[pixel]
            inside = abs(off) <= N_SIGMA * sigma[pixel]
            used = off if inside else 0.0
            kept[pixel] += 1.0 if inside else 0.0
            total[pixel] += used
            squares[pixel] += used * used
    lowest = ranked[0]
    for pixel in range(n_pixels):
        number = max(kept[pixel], 1.0)
        shift = total[pixel] / number
        spread[pixel] = max(0.0, squares[pixel] - number * shift * shift)
        none = kept[pixel] == 0.0
        centre[pixel] = lowest[pixel] if none else centre[pixel] + shift
        kept[pixel] = number
        sigma[pixel] = max(noise, np.sqrt(spread[pixel] / max(number - 1.0, 1.0)))
        if none:
            sigma[pixel] = 0.0  # the lowest stands alone, in the next turn too


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
    ranked = np.full((n_exposures, BLOCK), np.inf)
    centre, sigma, kept, spread = np.zeros(BLOCK), np.zeros(BLOCK), np.zeros(BLOCK), np.zeros(BLOCK)
    valid = np.empty(BLOCK, dtype=np.int32)
    for first in range(0, n_pixels, BLOCK):
        size = min(BLOCK, n_pixels - first)
        # Whole rows of the block, whatever its last pixels hold: a narrower view would not be contiguous.
        for pixel in range(size):
            valid[pixel] = 0
        for exposure in range(n_exposures):
            row = values[exposure, first : first + size]
            for pixel in range(size):
                finite = row[pixel] - row[pixel] == np.float32(0)
                ranked[exposure, pixel] = row[pixel] if finite else np.inf  # sorts behind all others
                valid[pixel] += np.int32(finite)
        _sort_columns(ranked)
        for pixel in range(size):
            n = valid[pixel]
            sigma[pixel] = noise
            centre[pixel] = 0.0
            if n == 0:
                continue
            centre[pixel] = 0.5 * (ranked[(n - 1) // 2, pixel] + ranked[n // 2, pixel])
            if n >= MIN_FOR_QUARTILES:
                low, high = 0.25 * (n - 1), 0.75 * (n - 1)
                i, j = int(low), int(high)
                q1 = ranked[i, pixel] + (low - i) * (ranked[i + 1, pixel] - ranked[i, pixel])
                q3 = ranked[j, pixel]
                if high > j:
                    q3 += (high - j) * (ranked[j + 1, pixel] - ranked[j, pixel])
                sigma[pixel] = max(noise, SIGMA_PER_IQR * (q3 - q1))
        for _ in range(N_ITERATIONS):
            _clip_columns(ranked, centre, sigma, kept, spread, noise)
        for pixel in range(size):
            target = first + pixel
            if valid[pixel] == 0:
                mean[target] = np.nan
                variance[target] = np.nan
                counts[target] = 0
                continue
            number = kept[pixel]
            mean[target] = centre[pixel]
            counts[target] = int(number)
            scatter = spread[pixel] / max(number - 1.0, 1.0)
            variance[target] = (scatter if number >= MIN_FOR_SCATTER else noise * noise) / number
