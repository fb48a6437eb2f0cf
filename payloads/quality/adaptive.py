"""Adaptive moments of a star, compiled: the Gaussian weight that fits its image best.

Measured on the stamp in place, as `galsim.hsm` measures them on an image of its own; the tests hold the two together.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from payloads.quality.kernels import cut_stamp, weighted_moments

CONVERGED = 1e-6
"""Greatest change of centroid (in widths) and moments (in widths squared) in the step that is the last."""
MAX_ITERATIONS = 200
REACH2 = 25.0
"""The weight ends at five of its widths."""
MAX_MOMENT_PX2 = 8000.0
"""Moments beyond this are no star's."""
MAX_STEP = 0.25
"""Most that one step may change, in widths (squared): so the iteration does not run away."""


@njit(cache=True, nogil=True)
def _sum_weighted(stamp, x0, y0, ixx, iyy, ixy, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Fill ``sums`` with those of the weighted image times 1, x, y, xx, yy, xy, about the centre.

    Along a row the weight's logarithm is a parabola: each weight is the last one times a factor, and each factor the
    last one times a constant. So there are two exponentials per row instead of one per pixel.
    """
    det = ixx * iyy - ixy * ixy
    pxx, pyy, pxy = iyy / det, ixx / det, -ixy / det
    height, width = stamp.shape
    sums[:] = 0.0
    ratio = math.exp(-pxx)
    y_reach = math.sqrt(REACH2 * iyy)
    for y in range(max(0, math.ceil(y0 - y_reach)), min(height - 1, math.floor(y0 + y_reach)) + 1):
        dy = y - y0
        middle = x0 - pxy * dy / pxx
        room = (REACH2 - (pyy - pxy * pxy / pxx) * dy * dy) / pxx
        if room <= 0.0:
            continue
        first = max(0, math.ceil(middle - math.sqrt(room)))
        last = min(width - 1, math.floor(middle + math.sqrt(room)))
        dx = first - x0
        weight = math.exp(-0.5 * ((pxx * dx + 2.0 * pxy * dy) * dx + pyy * dy * dy))
        factor = math.exp(-0.5 * (pxx * (2.0 * dx + 1.0) + 2.0 * pxy * dy))
        s0 = s1 = s2 = 0.0
        for x in range(first, last + 1):
            dx = x - x0
            light = weight * stamp[y, x]
            s0 += light
            s1 += light * dx
            s2 += light * dx * dx
            weight *= factor
            factor *= ratio
        sums[0] += s0
        sums[1] += s1
        sums[2] += s0 * dy
        sums[3] += s2
        sums[4] += s0 * dy * dy
        sums[5] += s1 * dy


@njit(cache=True, nogil=True)
def _bounded(value, most):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    return min(max(value, -most), most)


@njit(cache=True, nogil=True)
def fit_weight(
    stamp: NDArray[np.float32], x: float, y: float, sigma: float
) -> tuple[bool, float, float, float, float, float]:
    """Find the Gaussian whose centroid and moments are those of the image weighted with it.

    Parameters
    ----------
    stamp : ndarray of shape (height, width), float32
        Background subtracted.
    x, y, sigma
        Where to begin: centre in the stamp, and width [px].

    Returns
    -------
    has_converged
        Whether it did, on something with positive light and a positive definite size.
    x, y
        Centroid in the stamp [px].
    ixx, iyy, ixy
        Second moments [px^2].

    Notes
    -----
    C. Hirata & U. Seljak 2003, MNRAS 343, 459, section 2.1; G. Bernstein & M. Jarvis 2002, AJ 123, 583. Of a Gaussian,
    half of its moments is left by a weight that has its shape; what there is less or more is added, twice over.
    """
    ixx, iyy, ixy = sigma * sigma, sigma * sigma, 0.0
    sums = np.empty(6)
    for _ in range(MAX_ITERATIONS):
        _sum_weighted(stamp, x, y, ixx, iyy, ixy, sums)
        light = sums[0]
        if not light > 0.0:
            break
        # The shorter axis, squared: it limits the steps.
        least2 = 0.5 * (ixx + iyy - math.sqrt((ixx - iyy) ** 2 + 4.0 * ixy * ixy))
        least = math.sqrt(least2)
        dx = _bounded(2.0 * sums[1] / light, MAX_STEP * least)
        dy = _bounded(2.0 * sums[2] / light, MAX_STEP * least)
        dxx = _bounded(4.0 * (sums[3] / light - 0.5 * ixx), MAX_STEP * least2)
        dyy = _bounded(4.0 * (sums[4] / light - 0.5 * iyy), MAX_STEP * least2)
        dxy = _bounded(4.0 * (sums[5] / light - 0.5 * ixy), MAX_STEP * least2)
        x += dx
        y += dy
        ixx += dxx
        iyy += dyy
        ixy += dxy
        if not (ixx > 0.0 and iyy > 0.0 and ixx * iyy > ixy * ixy) or max(ixx, iyy) > MAX_MOMENT_PX2:
            break
        if max(abs(dx), abs(dy)) < CONVERGED * least and max(abs(dxx), abs(dyy), abs(dxy)) < CONVERGED * least2:
            return True, x, y, ixx, iyy, ixy
    return False, x, y, ixx, iyy, ixy


@njit(cache=True, nogil=True)
def measure_stamps(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject_bits: int,
    x_px: NDArray[np.float64],
    y_px: NDArray[np.float64],
    levels: NDArray[np.float64],
    half_size_px: int,
    guess_sigma_px: float,
    limits: NDArray[np.float64],
    rows: NDArray[np.float64],
) -> int:
    """Measure stars one after the other; see `payloads.quality.stars.measure_moments`.

    Parameters
    ----------
    limits : ndarray of shape (4,), float64
        Radius of the core and inner radius of the ring [px]; how far a ring may lie from the level for noise, and for
        wings as a part of the peak.
    rows : ndarray of shape (n, 16), float64
        Filled from its start: x, y, background, peak, ixx, iyy, ixy, higher moments.

    Returns
    -------
    n
        Stars measured.
    """
    core_px, ring_px, ring_noise, own_wings = limits
    size = 2 * half_size_px + 1
    stamp = np.empty((size, size), dtype=np.float32)
    n = 0
    for star in range(x_px.shape[0]):
        x0, y0 = int(np.rint(x_px[star])) - half_size_px, int(np.rint(y_px[star])) - half_size_px
        n_bad, background = cut_stamp(image, mask, reject_bits, x0, y0, core_px, ring_px, stamp)
        if n_bad > 0 or not math.isfinite(background):
            continue
        peak = stamp.max()
        excess = background - levels[star]
        if abs(excess) <= ring_noise + own_wings * peak:
            for j in range(size):
                for i in range(size):
                    stamp[j, i] += np.float32(excess)
            background = levels[star]
            peak += np.float32(excess)
        found, x, y, ixx, iyy, ixy = fit_weight(stamp, half_size_px, half_size_px, guess_sigma_px)
        if not found or math.hypot(x - half_size_px, y - half_size_px) > core_px:
            continue
        if (ixx * iyy - ixy * ixy) ** 0.25 > half_size_px / 2.0:
            continue
        higher = weighted_moments(stamp, x, y, ixx, iyy, ixy)
        if not np.isfinite(higher).all():
            continue
        row = rows[n]
        row[0], row[1], row[2], row[3] = x0 + x, y0 + y, background, peak
        row[4], row[5], row[6] = ixx, iyy, ixy
        row[7:] = higher
        n += 1
    return n
