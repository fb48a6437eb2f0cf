"""Find cosmic rays: light that falls off faster than any star can.

A charged particle leaves its charge in a pixel or along a track one or two pixels wide; a star, however bright, is
spread by telescope and air. So a pixel is a hit if, in at least one of the four directions through it, the mean of
its two neighbours is too small a part of it for the sharpest star there could be. That is the idea of the finder of
the SDSS and LSST pipelines (conditions of Photo's ``find_cr``), written here as one significance per direction.

One compiled pass over image and variance selects what has any contrast at all, the rest looks at that alone. The
tests hold a plain numpy twin to the same pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from payloads.mask import BAD, CR, INTRP, NO_DATA, SAT, UNMASKEDNAN
from payloads.plugin import PayloadConfig

UNUSABLE = BAD | SAT | NO_DATA | UNMASKEDNAN
"""Pixels that are no witness: their value is not what fell on them."""
OF_GROUP = 1 << 30
"""A bit that no plane has, used within `_finish`."""
RING_PX = 3
"""The local background is the lower quartile of the square ring this far out: 24 pixels, outside the core of a sharp
star. Not the median: between two stars half of the ring is bright, and the pass between them would look like a hit."""
QUARTILE = 0.6745
"""How far below its mean the lower quartile of a Gaussian lies, in its standard deviation."""
MIN_RING = 8
"""Fewer usable ring pixels make no background, and their pixel is not judged."""
ROUNDING = 1e-5
"""Of a level that is computed another way than the condition it stands for."""
MIN_FWHM_PX = 1.2
"""Below this a star cannot be told from a hit, and nothing but single hot pixels would be found."""
PRESELECT = 1.1
"""The first pass asks for this much of ``contrast_sigma`` between a pixel and a pair, in the pixel's own noise: a hit at
the limits has a quarter more, and of plain noise one pixel in two thousand passes."""


class CosmicRayConfig(PayloadConfig):
    """When a pixel is a cosmic ray's."""

    sharpest_fwhm_arcsec: float = Field(
        default=0.5, gt=0, description="No star is sharper than this; the wider, the more tracks are found."
    )
    min_sigma: float = Field(default=6.0, ge=3, description="Least height above the local background, in its noise.")
    contrast_sigma: float = Field(
        default=4.0, ge=1, description="Least significance with which a pixel is sharper than the sharpest star."
    )
    grow_sigma: float = Field(default=3.0, ge=1, description="Both of them for the neighbours of a found pixel.")
    n_grow: int = Field(default=3, ge=0, le=20, description="How often neighbours are looked at.")
    max_fraction: float = Field(
        default=0.01, gt=0, le=1, description="With more of the pixels than this found, something else is wrong: none is flagged."
    )  # fmt: skip
    repair: bool = Field(default=False, description="Give the pixels found a value from their neighbours.")


@dataclass(frozen=True)
class CosmicRays:
    """What was found.

    Attributes
    ----------
    n_pixels, n_rays
        Pixels with plane CR, and how many groups of touching ones they make.
    too_many
        More than the configured fraction: then nothing is flagged and the numbers are what would have been.
    """

    n_pixels: int
    n_rays: int
    too_many: bool


@njit(nogil=True, cache=True)
def _select_row(above, row, below, variance, reach2, hot):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Mark pixels that stand out in some direction; vectorised, so without a branch."""
    half = np.float32(0.5)
    for x in range(1, row.shape[0] - 1):
        lowest = min(
            min(row[x - 1] + row[x + 1], above[x] + below[x]),
            min(above[x - 1] + below[x + 1], above[x + 1] + below[x - 1]),
        )
        excess = row[x] - half * lowest
        hot[x] = np.uint8((excess > np.float32(0)) & (excess * excess > reach2 * variance[x]))


@njit(nogil=True, cache=True)
def _ring_level(image, mask, y, x, values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the lower quartile of the usable ring pixels, NaN with too few."""
    height, width = image.shape
    n = 0
    for dy in range(-RING_PX, RING_PX + 1):
        yy = y + dy
        if yy < 0 or yy >= height:
            continue
        step = 1 if abs(dy) == RING_PX else 2 * RING_PX
        for dx in range(-RING_PX, RING_PX + 1, step):
            xx = x + dx
            if xx < 0 or xx >= width or (mask[yy, xx] & (UNUSABLE | CR)) != 0:
                continue
            value = image[yy, xx]
            place = n
            while place > 0 and values[place - 1] > value:
                values[place] = values[place - 1]
                place -= 1
            values[place] = value
            n += 1
    if n < MIN_RING:
        return np.nan
    return np.float64(values[n // 4])


@njit(nogil=True, cache=True)
def _is_ring_above(image, y, x, level):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Tell whether so few ring pixels are below a level that `_ring_level` is not, whichever of them are usable."""
    height, width = image.shape
    if not (RING_PX <= y < height - RING_PX and RING_PX <= x < width - RING_PX):
        return False
    level = np.float32(level)
    n_below = np.int32(0)
    low, high = image[y - RING_PX, x - RING_PX :], image[y + RING_PX, x - RING_PX :]
    for i in range(2 * RING_PX + 1):
        n_below += np.int32(low[i] <= level) + np.int32(high[i] <= level)
    for dy in range(1 - RING_PX, RING_PX):
        n_below += np.int32(image[y + dy, x - RING_PX] <= level) + np.int32(image[y + dy, x + RING_PX] <= level)
    # The quartile of at least MIN_RING of them has as many below it at least.
    return n_below <= MIN_RING // 4


@njit(nogil=True, cache=True)
def _is_ring_between(image, mask, y, x, low, high):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Tell whether `_ring_level` can lie between two levels; by counting, which is faster than sorting."""
    height, width = image.shape
    n = n_low = n_high = 0
    for dy in range(-RING_PX, RING_PX + 1):
        yy = y + dy
        if yy < 0 or yy >= height:
            continue
        step = 1 if abs(dy) == RING_PX else 2 * RING_PX
        for xx in range(x - RING_PX, x + RING_PX + 1, step):
            if 0 <= xx < width:
                is_usable = (mask[yy, xx] & (UNUSABLE | CR)) == 0
                n += is_usable
                n_low += is_usable & (image[yy, xx] < low)
                n_high += is_usable & (image[yy, xx] < high)
    return n_low <= n // 4 < n_high


@njit(nogil=True, cache=True)
def _least_background(image, y, x, side, diagonal, reach):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return a background below which no pair of neighbours can make a pixel a hit.

    From the condition in `find_cosmic_rays` with the least noise that there can be: on a higher background the
    neighbours of a star are a smaller part of it.
    """
    value = np.float64(image[y, x])
    left, right = np.float64(image[y, x - 1]), np.float64(image[y, x + 1])
    straight = 0.5 * min(left + right, np.float64(image[y - 1, x]) + np.float64(image[y + 1, x]))
    across = 0.5 * min(
        np.float64(image[y - 1, x - 1]) + np.float64(image[y + 1, x + 1]),
        np.float64(image[y - 1, x + 1]) + np.float64(image[y + 1, x - 1]),
    )
    least = min(
        (straight + (reach - value) * side) / max(1.0 - side, 1e-9),
        (across + (reach - value) * diagonal) / max(1.0 - diagonal, 1e-9),
    )
    return least - ROUNDING * abs(least)


@njit(nogil=True, cache=True)
def _most_background(value, own_variance, per_photon, height_sigma):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return a background above which the pixel is not high enough to be a hit: `_is_hit`'s condition, solved."""
    square = (height_sigma + QUARTILE) ** 2
    along = 0.5 * square * per_photon
    peak = max(np.sqrt(along * along + square * own_variance) - along, np.sqrt(0.05 * square * own_variance))
    return value - peak + ROUNDING * (abs(value) + peak)


@njit(nogil=True, cache=True)
def _is_near_saturation(mask, y, x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Tell whether a saturated star is near: neither its rim nor what was put into it is its profile."""
    height, width = mask.shape
    for yy in range(max(0, y - 2), min(height, y + 3)):
        for xx in range(max(0, x - 2), min(width, x + 3)):
            if (mask[yy, xx] & (SAT | NO_DATA)) != 0:
                return True
    return False


@njit(nogil=True, cache=True)
def _is_hit(  # type: ignore[no-untyped-def] # noqa: ANN202
    image, variance, mask, y, x, side, diagonal, per_photon, height_sigma, contrast_sigma, values,  # noqa: ANN001
):  # fmt: skip
    """Judge one pixel; see `find_cosmic_rays`."""
    value = np.float64(image[y, x])
    own_variance = np.float64(variance[y, x])
    # Most of those asked about are noise, most of the others lie in stars: that is told soonest.
    most = _most_background(value, max(own_variance, 0.0), per_photon, height_sigma)
    if _is_ring_above(image, y, x, most):
        return False
    reach = contrast_sigma * np.sqrt(max(own_variance, 0.0))
    least = _least_background(image, y, x, side, diagonal, reach)
    if least >= value or (mask[y, x] & (UNUSABLE | CR)) != 0:
        return False
    if not _is_ring_between(image, mask, y, x, least, most):
        return False
    background = _ring_level(image, mask, y, x, values)
    if not np.isfinite(background):
        return False
    peak = value - background
    # The noise without the hit: what it adds to the photon noise is taken off again.
    floor = max(own_variance - per_photon * peak, 0.05 * own_variance)
    # A quartile of plain noise lies below its level.
    if not peak > (height_sigma + QUARTILE) * np.sqrt(floor):
        return False
    for direction in range(4):
        dy = 0 if direction == 0 else 1
        dx = 1 if direction == 0 else (0 if direction == 1 else (1 if direction == 2 else -1))
        if ((mask[y + dy, x + dx] | mask[y - dy, x - dx]) & UNUSABLE) != 0:
            continue
        fraction = side if direction < 2 else diagonal
        mean = 0.5 * (np.float64(image[y + dy, x + dx]) + np.float64(image[y - dy, x - dx])) - background
        excess = fraction * peak - mean
        noise2 = fraction * fraction * own_variance + 0.5 * (floor + per_photon * max(mean, 0.0))
        if excess > 0.0 and excess * excess > contrast_sigma * contrast_sigma * noise2:
            return not _is_near_saturation(mask, y, x)
    return False


@njit(nogil=True, cache=True)
def _neighbour_value(image, mask, y, x, values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the smallest mean of an opposite pair that is no hit; the ring's level where there is none."""
    best = np.inf
    for direction in range(4):
        dy = 0 if direction == 0 else 1
        dx = 1 if direction == 0 else (0 if direction == 1 else (1 if direction == 2 else -1))
        if ((mask[y + dy, x + dx] | mask[y - dy, x - dx]) & (UNUSABLE | CR)) == 0:
            best = min(best, 0.5 * (np.float64(image[y + dy, x + dx]) + np.float64(image[y - dy, x - dx])))
    if not np.isfinite(best):
        best = _ring_level(image, mask, y, x, values)
    return np.float32(best if np.isfinite(best) else image[y, x])


@njit(nogil=True, cache=True)
def _search(  # type: ignore[no-untyped-def] # noqa: ANN202
    image, variance, mask, side, diagonal, per_photon, min_sigma, contrast_sigma, grow_sigma, n_grow, found, kept,  # noqa: ANN001
):  # fmt: skip
    """Fill ``found`` with y, x and ``kept`` with the values of the pixels found; return how many, or -1 if too many.

    The pixels found are left with plane CR set, and with their neighbours' value.
    """
    height, width = image.shape
    n_max = found.shape[0]
    values = np.empty(8 * RING_PX, dtype=np.float32)
    # Pixels are judged some rows later: then all of their ring is in the cache.
    hot_rows = np.zeros((RING_PX + 1, -(-width // 8) * 8), dtype=np.uint8)
    reach = np.float32(PRESELECT * contrast_sigma)
    n = 0
    for newest in range(1, height - 1 + RING_PX):
        if newest < height - 1:
            row = hot_rows[newest % (RING_PX + 1)]
            _select_row(image[newest + 1], image[newest], image[newest - 1], variance[newest], reach * reach, row)
        y = newest - RING_PX
        if y < 1:
            continue
        hot = hot_rows[y % (RING_PX + 1)]
        words = hot.view(np.uint64)
        for word in range(words.shape[0]):
            if words[word] == 0:
                continue
            for x in range(8 * word, 8 * word + 8):
                if hot[x] != 0 and _is_hit(
                    image, variance, mask, y, x, side, diagonal, per_photon, min_sigma, contrast_sigma, values
                ):
                    if n == n_max:
                        return -1
                    found[n, 0] = y
                    found[n, 1] = x
                    n += 1
    for i in range(n):
        mask[found[i, 0], found[i, 1]] |= CR
    first = 0
    for _ in range(n_grow):
        last = n
        for i in range(first, last):
            kept[i] = image[found[i, 0], found[i, 1]]
        for i in range(first, last):
            image[found[i, 0], found[i, 1]] = _neighbour_value(image, mask, found[i, 0], found[i, 1], values)
        for i in range(first, last):
            for yy in range(max(1, found[i, 0] - 1), min(height - 1, found[i, 0] + 2)):
                for xx in range(max(1, found[i, 1] - 1), min(width - 1, found[i, 1] + 2)):
                    if _is_hit(
                        image, variance, mask, yy, xx, side, diagonal, per_photon, grow_sigma, grow_sigma, values
                    ):
                        if n == n_max:
                            for j in range(n):
                                mask[found[j, 0], found[j, 1]] &= ~CR
                            for j in range(last):
                                image[found[j, 0], found[j, 1]] = kept[j]
                            return -1
                        mask[yy, xx] |= CR
                        found[n, 0] = yy
                        found[n, 1] = xx
                        n += 1
        first = last
        if n == last:
            break
    for i in range(first, n):
        kept[i] = image[found[i, 0], found[i, 1]]
    for i in range(first, n):
        image[found[i, 0], found[i, 1]] = _neighbour_value(image, mask, found[i, 0], found[i, 1], values)
    return n


@njit(nogil=True, cache=True)
def _finish(image, variance, mask, found, kept, repair):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Put the values back, or keep the repaired ones; return how many groups the pixels make."""
    n = found.shape[0]
    values = np.empty(8 * RING_PX, dtype=np.float32)
    for i in range(n):
        y, x = found[i, 0], found[i, 1]
        if repair:
            mask[y, x] |= INTRP
            background = _ring_level(variance, mask, y, x, values)
            if np.isfinite(background):
                variance[y, x] = background
        else:
            image[y, x] = kept[i]
    # Groups: a flag of their own is taken off along each group. CR itself may have been there before, on more pixels.
    for i in range(n):
        mask[found[i, 0], found[i, 1]] |= OF_GROUP
    stack = np.empty((n + 1, 2), dtype=np.int64)
    n_groups = 0
    height, width = image.shape
    for i in range(n):
        if (mask[found[i, 0], found[i, 1]] & OF_GROUP) == 0:
            continue
        n_groups += 1
        depth = 1
        stack[0, 0], stack[0, 1] = found[i, 0], found[i, 1]
        mask[found[i, 0], found[i, 1]] &= ~OF_GROUP
        while depth > 0:
            depth -= 1
            y, x = stack[depth, 0], stack[depth, 1]
            for yy in range(max(0, y - 1), min(height, y + 2)):
                for xx in range(max(0, x - 1), min(width, x + 2)):
                    if (mask[yy, xx] & OF_GROUP) != 0:
                        mask[yy, xx] &= ~OF_GROUP
                        stack[depth, 0], stack[depth, 1] = yy, xx
                        depth += 1
    return n_groups


def star_contrast(fwhm_px: float) -> tuple[float, float]:
    """Return how bright, beside its peak, the neighbours of a star's brightest pixel are at least.

    Parameters
    ----------
    fwhm_px
        Of the sharpest star.

    Returns
    -------
    side, diagonal
        For the neighbours along rows and columns, and for those across the corner. Of a Gaussian centred on a
        pixel; anywhere else on it, or with the pixel's own width, the pair's mean is a larger part.

    Examples
    --------
    >>> tuple(round(value, 3) for value in star_contrast(3.0))
    (0.735, 0.54)
    """
    side = math.exp(-4.0 * math.log(2.0) / max(fwhm_px, MIN_FWHM_PX) ** 2)
    return side, side * side


def find_cosmic_rays(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.int32],
    *,
    pixel_scale_arcsec: float,
    per_photon: float = 1.0,
    config: CosmicRayConfig | None = None,
) -> CosmicRays:
    """Set plane CR where cosmic rays hit.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
        Calibrated, with its sky. As it was when this returns, unless ``repair`` is set.
    variance : ndarray of the same shape, float32, unit squared
        Photon noise included. Changed at repaired pixels only.
    mask : ndarray of the same shape, int32
        CR is added, with INTRP where a pixel was repaired.
    pixel_scale_arcsec
        Side of a pixel on the sky.
    per_photon
        Variance that one unit of light adds: 1 in electron, 1 / gain in ADU.

    Returns
    -------
    CosmicRays

    Raises
    ------
    ValueError
        Raised if the planes differ in shape.

    Notes
    -----
    A pixel is a hit if it is ``min_sigma`` above the sky around it (the lower quartile of a ring) and, for one of the four pairs of
    opposite neighbours with mean m, ``f p - m`` exceeds ``contrast_sigma`` of its noise: p is the height of the
    pixel, f the part a star of ``sharpest_fwhm_arcsec`` leaves at least (`star_contrast`). Then, up to ``n_grow``
    times, the pixels found are given their neighbours' value and those around them judged at ``grow_sigma``. A hot
    pixel that no defect map knows is sharp, too, and is flagged: one image cannot tell. The outermost rows and
    columns are not judged.
    """
    if not image.shape == variance.shape == mask.shape:
        raise ValueError(f"image {image.shape}, variance {variance.shape} and mask {mask.shape} differ in shape")
    told = config or CosmicRayConfig()
    side, diagonal = star_contrast(told.sharpest_fwhm_arcsec / pixel_scale_arcsec)
    n_max = max(int(told.max_fraction * image.size), 1)
    found = np.empty((n_max, 2), dtype=np.int32)
    kept = np.empty(n_max, dtype=np.float32)
    n = _search(
        image, variance, mask, side, diagonal, per_photon, told.min_sigma, told.contrast_sigma, told.grow_sigma,
        told.n_grow, found, kept,
    )  # fmt: skip
    if n < 0:
        return CosmicRays(n_max, 0, too_many=True)
    n_rays = _finish(image, variance, mask, found[:n], kept[:n], told.repair)
    return CosmicRays(int(n), int(n_rays), too_many=False)
