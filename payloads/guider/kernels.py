"""Follow one star through the stamps of a guider: arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

MAD_TO_SIGMA = 1.4826
FWHM_OF_SIGMA = 2.354820045
MAX_ITERATIONS = 60
CONVERGED = 1e-4
"""Greatest change of centroid and width [px] in the step that is the last."""
APERTURE_WIDTHS = 3.0
"""Radius of the aperture that light is summed in, in widths of the star: 99 percent of a Gaussian's."""


@dataclass(frozen=True)
class StarPosition:
    """The star of one stamp.

    Attributes
    ----------
    x_px, y_px
        Centroid; origin at the centre of the first pixel.
    sigma_px
        Width of the Gaussian weight that fits the star best.
    ellipticity
        ``(a² - b²) / (a² + b²)`` of its second moments.
    flux_adu
        Light within three widths, above the background.
    snr
        Of that light, with the noise of the background alone.
    """

    x_px: float
    y_px: float
    sigma_px: float
    ellipticity: float
    flux_adu: float
    snr: float


def background_of(stamp: NDArray[np.float32]) -> tuple[float, float]:
    """Return level and scatter of a stamp's background [ADU]: median and scaled median deviation, stars left out by both."""
    level = float(np.median(stamp))
    return level, MAD_TO_SIGMA * float(np.median(np.abs(stamp - level)))


def find_star(
    stamps: NDArray[np.float32], *, threshold_sigma: float = 5.0, blur_px: float = 1.5
) -> tuple[float, float] | None:
    """Return where the brightest star of a series is, or None if nothing stands out.

    Parameters
    ----------
    stamps : ndarray of shape (n, ny, nx), float32, ADU
    threshold_sigma
        How far its blurred peak must stand out of the mean stamp, in robust standard deviations.

    Notes
    -----
    In the mean of the stamps, so that a star too faint in each of them is found, and no cosmic ray: each stamp is cut at what
    it and its neighbours in time have in common.
    """
    steady = stamps if len(stamps) < 3 else np.minimum(stamps[1:], stamps[:-1])
    mean = np.asarray(steady.mean(axis=0), dtype=np.float32)
    blurred = np.asarray(gaussian_filter(mean - float(np.median(mean)), blur_px), dtype=np.float32)
    level, scatter = background_of(blurred)
    y, x = np.unravel_index(int(np.argmax(blurred)), blurred.shape)
    peak = float(blurred[y, x]) - level
    if peak <= 0 or peak < threshold_sigma * scatter or scatter == peak == 0:
        return None
    return float(x), float(y)


def measure_star(
    stamp: NDArray[np.float32], near: tuple[float, float], *, sigma_px: float = 2.0, reach_px: float = 12.0
) -> StarPosition | None:
    """Measure the star of one stamp.

    Parameters
    ----------
    stamp : ndarray of shape (ny, nx), float32, ADU
        Not modified.
    near
        About where it is, x and y [px].
    reach_px
        How far from there it may be.

    Returns
    -------
    star
        None if the moments do not converge, or lead away: no star is there.

    Notes
    -----
    Adaptive Gaussian moments (Bernstein & Jarvis 2002, section 3), with a round weight: under the weight that fits it, a
    Gaussian star shows half its variance and half its offset, so each step doubles what it sees.
    """
    level, scatter = background_of(stamp)
    light = stamp.astype(np.float64) - level
    ys, xs = np.indices(stamp.shape, dtype=np.float64)
    x, y, variance = near[0], near[1], sigma_px**2
    largest = (min(stamp.shape) / 4.0) ** 2
    mxx = myy = mxy = 0.0
    for _ in range(MAX_ITERATIONS):
        dx, dy = xs - x, ys - y
        weighted = np.exp(-0.5 * (dx * dx + dy * dy) / variance) * light
        total = float(weighted.sum())
        if total <= 0:
            return None
        step_x, step_y = 2.0 * float((weighted * dx).sum()) / total, 2.0 * float((weighted * dy).sum()) / total
        mxx = 2.0 * float((weighted * dx * dx).sum()) / total
        myy = 2.0 * float((weighted * dy * dy).sum()) / total
        mxy = 2.0 * float((weighted * dx * dy).sum()) / total
        wanted = 0.5 * (mxx + myy)
        if not 0.25 < wanted < largest:
            return None
        x, y = x + step_x, y + step_y
        change = abs(np.sqrt(wanted) - np.sqrt(variance))
        variance = wanted
        if np.hypot(x - near[0], y - near[1]) > reach_px:
            return None
        if max(abs(step_x), abs(step_y), change) < CONVERGED:
            break
    else:
        return None
    sigma = float(np.sqrt(variance))
    inside = (xs - x) ** 2 + (ys - y) ** 2 <= (APERTURE_WIDTHS * sigma) ** 2
    flux = float(light[inside].sum())
    noise = scatter * float(np.sqrt(inside.sum()))
    if flux <= 0:
        return None
    return StarPosition(
        x, y, sigma, float(np.hypot(mxx - myy, 2.0 * mxy) / (mxx + myy)), flux, flux / noise if noise > 0 else np.inf
    )


def fit_line(time_s: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the slope of values in time, and what a straight line leaves of them.

    Parameters
    ----------
    time_s, values : ndarray of shape (n,), float64
        At least two, at different times; else the slope is 0.
    """
    centred = time_s - time_s.mean()
    spread = float((centred**2).sum())
    slope = float((centred * (values - values.mean())).sum() / spread) if spread > 0 else 0.0
    return slope, values - values.mean() - slope * centred
