"""Clipped statistics of a box of pixels, compiled: what the numbers of calibration exposures are made of."""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from payloads.mask import NOT_FOR_STATISTICS
from payloads.quality.sky import NO_MASK

__all__ = ["MIN_PIXELS", "NO_MASK", "RegionStatistics", "count_above", "measure_region", "sums"]

MIN_PIXELS = 100
"""Fewer good pixels than this make no statistics."""


@dataclass(frozen=True)
class RegionStatistics:
    """Clipped statistics of one region, in the unit of the image; see `measure_region`."""

    mean: float
    stdev: float
    minimum: float
    maximum: float
    n_used: int
    n_good: int

    @property
    def standard_error(self) -> float:
        """Of the mean, were all pixels independent."""
        return self.stdev / math.sqrt(self.n_used)


@njit(cache=True, nogil=True)
def sums(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject_bits: int,
    box: tuple[int, int, int, int],
    low: float,
    high: float,
    centre: float,
) -> tuple[int, float, float, float, float]:
    """Add up the good pixels of a box.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
    mask : ndarray of the same shape, int32
        Mask planes; may be of shape (0, 0) when there is none.
    reject_bits
        Bits of pixels that are not good.
    box
        ``(x0, y0, x1, y1)`` [px], its ends left out.
    low, high
        Pixels from ``low`` to ``high`` are taken, in the unit of the image.
    centre
        What is taken off each before it is added.

    Returns
    -------
    n, total, squares, least, most
        How many there are; their sum and sum of squares, both about ``centre``; the least and the greatest of them.
    """
    x0, y0, x1, y1 = box
    has_mask = mask.shape[0] > 0
    n = 0
    total = 0.0
    squares = 0.0
    minimum = np.inf
    maximum = -np.inf
    for y in range(y0, y1):
        # Per row in single precision would lose the fourth digit of a flat's variance.
        for x in range(x0, x1):
            value = float(image[y, x])
            if not (value >= low and value <= high):
                continue
            if has_mask and (mask[y, x] & reject_bits) != 0:
                continue
            away = value - centre
            n += 1
            total += away
            squares += away * away
            minimum = min(minimum, value)
            maximum = max(maximum, value)
    return n, total, squares, minimum, maximum


@njit(cache=True, nogil=True)
def count_above(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject_bits: int,
    box: tuple[int, int, int, int],
    threshold: float,
) -> int:
    """Count the good pixels of a box above a threshold.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
    mask : ndarray of the same shape, int32
        Mask planes; may be of shape (0, 0) when there is none.
    reject_bits
        Bits of pixels that are not good.
    box
        ``(x0, y0, x1, y1)`` [px], its ends left out.
    threshold
        In the unit of the image.
    """
    x0, y0, x1, y1 = box
    has_mask = mask.shape[0] > 0
    n = 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            if image[y, x] > threshold and not (has_mask and (mask[y, x] & reject_bits) != 0):
                n += 1
    return n


def measure_region(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    box: tuple[int, int, int, int],
    *,
    clip_sigma: float = 5.0,
    n_iterations: int = 3,
) -> RegionStatistics | None:
    """Measure the clipped mean and scatter of a box of pixels.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
    mask : ndarray of the same shape, int32, or None
        Pixels BAD, SAT, NO_DATA or UNMASKEDNAN are left out; so are those not finite.
    box
        ``(x0, y0, x1, y1)``, the last two one past the end [px].

    Returns
    -------
    statistics
        Minimum and maximum before clipping; None with fewer than 100 good pixels.

    Notes
    -----
    Starts from median and MAD of every 64th pixel, so that one hot column cannot widen the first clip.
    """
    planes = NO_MASK if mask is None else mask
    x0, y0, x1, y1 = box
    big = float(np.finfo(np.float32).max)
    n_good, _, _, minimum, maximum = sums(image, planes, NOT_FOR_STATISTICS, box, -big, big, 0.0)
    if n_good < MIN_PIXELS:
        return None
    sample = image[y0:y1:8, x0:x1:8]
    if mask is not None:
        sample = sample[(mask[y0:y1:8, x0:x1:8] & NOT_FOR_STATISTICS) == 0]
    sample = sample[np.isfinite(sample)]
    centre = float(np.median(sample)) if sample.size else 0.5 * (minimum + maximum)
    spread = 1.4826 * float(np.median(np.abs(sample - centre))) if sample.size else 0.0
    if spread == 0.0:
        # More than half of the pixels are alike (an ADU image of a quiet amp): the median says nothing of the scatter.
        spread = float(sample.std(dtype=np.float64)) if sample.size else maximum - minimum
    mean, stdev, n_used = centre, spread, n_good
    for _ in range(n_iterations):
        reach = clip_sigma * stdev
        n, total, squares, _, _ = sums(image, planes, NOT_FOR_STATISTICS, box, mean - reach, mean + reach, mean)
        if n < 2:
            break
        shift = total / n
        variance = max((squares - n * shift * shift) / (n - 1), 0.0)
        settled = n == n_used and abs(shift) < 1e-12
        mean, stdev, n_used = mean + shift, math.sqrt(variance), n
        if settled:
            break
    return RegionStatistics(mean, stdev, minimum, maximum, n_used, n_good)
