"""Find what is in a difference image, and measure it."""

import math
from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray

from payloads.quality.sky import PIXEL_STACK

DIPOLE_FWHM = 1.5
"""Sources of both signs nearer than this, in widths of the difference's PSF, are halves of one badly subtracted."""
DIPOLE_FLUX = 0.25
"""The weaker half has at least this part of the stronger one's flux."""


@dataclass(frozen=True)
class DifferenceSources:
    """What was found; arrays of shape (n,), most significant first.

    Attributes
    ----------
    x, y
        Peak of a parabola through the highest pixels [px of the difference].
    height
        Of that peak above 0, with its sign [unit of the difference].
    error
        Noise there, of the same unit.
    snr
        Height over error; of either sign.
    size_ratio
        Width over that of a star; NaN where it cannot be told.
    e1, e2
        Distortion of the weighted moments, without correction for the weight.
    is_dipole
        Has a counterpart of the other sign beside it.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    height: NDArray[np.float64]
    error: NDArray[np.float64]
    snr: NDArray[np.float64]
    size_ratio: NDArray[np.float64]
    e1: NDArray[np.float64]
    e2: NDArray[np.float64]
    is_dipole: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)


def peak_near(image: NDArray[np.float32], x: int, y: int) -> tuple[float, float, float]:
    """Return place and height of the parabola through a pixel and its neighbours along both axes.

    Examples
    --------
    >>> peak_near(np.array([[0, 1, 0], [1, 2, 1], [0, 1, 0]], np.float32), 1, 1)
    (1.0, 1.0, 2.0)
    """
    height, width = image.shape
    if not (0 < x < width - 1 and 0 < y < height - 1):
        return float(x), float(y), float(image[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
    middle = float(image[y, x])
    moved, added = [], 0.0
    for low, high in (
        (float(image[y, x - 1]), float(image[y, x + 1])),
        (float(image[y - 1, x]), float(image[y + 1, x])),
    ):
        curve = low + high - 2.0 * middle
        slope = 0.5 * (high - low)
        away = -slope / curve if curve != 0 else 0.0
        away = min(max(away, -0.5), 0.5)
        moved.append(away)
        added += slope * away + 0.5 * curve * away * away
    return x + moved[0], y + moved[1], middle + added


def _weighted_moments(
    image: NDArray[np.float32], x: float, y: float, sigma_px: float, *, sign: float
) -> tuple[float, float, float]:
    """Return width over ``sigma_px``, e1 and e2, by moments under a round Gaussian of that width; NaN if there are none."""
    half = math.ceil(3.0 * sigma_px)
    cx, cy = round(x), round(y)
    if cx < half or cy < half or cx >= image.shape[1] - half or cy >= image.shape[0] - half:
        return math.nan, math.nan, math.nan
    stamp = image[cy - half : cy + half + 1, cx - half : cx + half + 1].astype(np.float64) * sign
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    dx, dy = dx - (x - cx), dy - (y - cy)
    weighted = stamp * np.exp(-0.5 * (dx * dx + dy * dy) / sigma_px**2)
    total = float(weighted.sum())
    if total <= 0:
        return math.nan, math.nan, math.nan
    ixx, iyy, ixy = (float((weighted * term).sum()) / total for term in (dx * dx, dy * dy, dx * dy))
    mean = 0.5 * (ixx + iyy)
    # Of a Gaussian the weight halves the square of the width: 1/m = 1/s^2 + 1/w^2.
    inverse = 1.0 / mean - 1.0 / sigma_px**2 if mean > 0 else 0.0
    if inverse <= 0:
        return math.nan, math.nan, math.nan
    return math.sqrt(1.0 / inverse) / sigma_px, (ixx - iyy) / (2 * mean), ixy / mean


def detect(
    difference: NDArray[np.float32],
    noise: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    *,
    threshold_sigma: float,
    sigma_px: float,
    n_max: int,
) -> tuple[DifferenceSources, bool]:
    """Find what stands out from a difference that is smoothed already.

    Parameters
    ----------
    difference, noise : ndarray of shape (height, width), float32
        The noise is that of single pixels, systematic errors included.
    unusable : ndarray of the same shape, bool
        Pixels where nothing is looked for.
    threshold_sigma
        A single pixel so many times above the noise is enough: the smoothing has done what an area would.
    sigma_px
        Width of a star in the difference.
    n_max
        Most sources returned, the most significant ones.

    Returns
    -------
    sources, is_whole
        The flag is False if there are more.
    """
    significance = np.where(unusable, np.float32(0), difference / noise)
    rows: list[tuple[float, ...]] = []
    is_whole = True
    for sign in (1.0, -1.0):
        plane = significance if sign > 0 else -significance
        found, was_whole = _extract(np.ascontiguousarray(plane), threshold_sigma)
        is_whole &= was_whole
        order = np.argsort(-found["peak"], kind="stable")
        is_whole &= len(order) <= n_max
        for one in found[order[:n_max]]:
            px, py = int(one["xpeak"]), int(one["ypeak"])
            flipped = difference[max(py - 1, 0) : py + 2, max(px - 1, 0) : px + 2] * np.float32(sign)
            at_x, at_y, peak = peak_near(flipped, px - max(px - 1, 0), py - max(py - 1, 0))
            scatter = float(noise[py, px])
            rows.append((at_x + max(px - 1, 0), at_y + max(py - 1, 0), sign * peak, scatter, peak / scatter))
    table = np.array(rows, np.float64).reshape(-1, 5)
    table = table[np.argsort(-table[:, 4], kind="stable")][:n_max]
    shapes = np.array(
        [_weighted_moments(difference, x, y, sigma_px, sign=math.copysign(1.0, h)) for x, y, h, _, _ in table]
    ).reshape(-1, 3)
    x, y, height, error, snr = table.T
    return DifferenceSources(
        x, y, height, error, snr, shapes[:, 0], shapes[:, 1], shapes[:, 2], _dipoles(x, y, height, 2.355 * sigma_px)
    ), is_whole


def _extract(plane: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.void], bool]:
    """Return sep's sources; of a plane that is nearly all source, those ten times as significant."""
    options = {"err": None, "minarea": 1, "filter_kernel": None, "deblend_nthresh": 16, "clean": False}
    try:
        return sep.extract(plane, threshold, **options), True
    except Exception as error:
        # sep raises bare Exception for its buffer overflows and nothing else distinguishes them.
        if "full" not in str(error) and "overflow" not in str(error):
            raise
        usual = sep.get_extract_pixstack()
        sep.set_extract_pixstack(PIXEL_STACK)
        try:
            return sep.extract(plane, 10 * threshold, **{**options, "deblend_cont": 1.0}), False
        finally:
            sep.set_extract_pixstack(usual)


def _dipoles(
    x: NDArray[np.float64], y: NDArray[np.float64], height: NDArray[np.float64], fwhm_px: float
) -> NDArray[np.bool_]:
    """Tell the sources that have one of the other sign beside them."""
    near = np.hypot(x[:, None] - x, y[:, None] - y) <= DIPOLE_FWHM * fwhm_px
    other = np.sign(height)[:, None] * np.sign(height) < 0
    size = np.abs(height)
    alike = np.minimum(size[:, None], size) >= DIPOLE_FLUX * np.maximum(size[:, None], size)
    return np.asarray((near & other & alike).any(axis=1))
