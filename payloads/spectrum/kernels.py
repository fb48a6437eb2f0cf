"""Find and extract the brightest spectrum of a dispersed image: arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Trace:
    """Where a spectrum lies.

    Attributes
    ----------
    centre_px : ndarray of shape (ny,), float64
        Across the dispersion, for each row.
    tilt
        Pixels across for each along.
    fwhm_px
        Across the dispersion, in the mean of all rows.
    snr
        Of the trace in the profile over all rows.
    """

    centre_px: NDArray[np.float64]
    tilt: float
    fwhm_px: float
    snr: float


@dataclass(frozen=True)
class Spectrum:
    """What is extracted along a trace, a value a row.

    Attributes
    ----------
    flux, background, noise : ndarray of shape (ny,), float64
        In the image's unit; the background is that of one pixel.
    """

    flux: NDArray[np.float64]
    background: NDArray[np.float64]
    noise: NDArray[np.float64]


def _profiles(image: NDArray[np.float32], n_blocks: int) -> NDArray[np.float64]:
    """Return the mean of each block of rows, its level taken off: what lies in few rows of a block is cut by a median."""
    ny, nx = image.shape
    profiles = np.empty((n_blocks, nx))
    for block, rows in enumerate(np.array_split(np.arange(ny), n_blocks)):
        # The median over rows: a star fills a few of them, a spectrum all.
        profile = np.median(image[rows[0] : rows[-1] + 1], axis=0)
        profiles[block] = profile - np.median(profile)
    return profiles


def find_trace(
    image: NDArray[np.float32], *, n_blocks: int = 16, half_width_px: int = 20, threshold_sigma: float = 8.0
) -> Trace | None:
    """Return where the brightest spectrum of an image lies, or None if none stands out.

    Parameters
    ----------
    image : ndarray of shape (ny, nx), float32
        Dispersed along y. Not modified.
    n_blocks
        Blocks of rows that a straight line is fitted to.
    half_width_px
        How far the trace may be from its mean place, and how wide it may be.
    """
    profiles = _profiles(image, n_blocks)
    # Where most blocks have light: the zeroth order, and stars, are in one or two.
    common = np.sort(profiles, axis=0)[n_blocks // 2 :].mean(axis=0)
    level = float(np.median(common))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(common - level)))
    peak = int(np.argmax(common))
    snr = (float(common[peak]) - level) / scatter if scatter > 0 else np.inf
    if not float(common[peak]) > level or snr < threshold_sigma:
        return None
    first, last = max(0, peak - half_width_px), min(image.shape[1], peak + half_width_px + 1)
    xs = np.arange(first, last, dtype=np.float64)
    middles, centres, weights = [], [], []
    for profile, rows in zip(profiles, np.array_split(np.arange(image.shape[0]), n_blocks), strict=True):
        light = np.clip(profile[first:last] - 3.0 * scatter, 0.0, None)
        if light.sum() > 0:
            middles.append(float(rows.mean()))
            centres.append(float((xs * light).sum() / light.sum()))
            weights.append(float(np.sqrt(light.sum())))
    if len(middles) < 3:
        return None
    tilt, offset = np.polyfit(middles, centres, 1, w=weights)
    rows_y = np.arange(image.shape[0], dtype=np.float64)
    centre = offset + tilt * rows_y
    return Trace(centre, float(tilt), _width(profiles, centre, n_blocks, image.shape[0], half_width_px), float(snr))


def _width(
    profiles: NDArray[np.float64], centre: NDArray[np.float64], n_blocks: int, n_rows: int, half_width_px: int
) -> float:
    """Return the full width at half maximum of the mean profile [px], the trace made straight."""
    offsets = np.arange(-half_width_px, half_width_px + 0.25, 0.25)
    xs = np.arange(profiles.shape[1], dtype=np.float64)
    stack = np.zeros(len(offsets))
    for profile, rows in zip(profiles, np.array_split(np.arange(n_rows), n_blocks), strict=True):
        stack += np.interp(centre[int(rows.mean())] + offsets, xs, profile)
    above = offsets[stack >= 0.5 * stack.max()]
    return float(above[-1] - above[0] + 0.25)


def extract(
    image: NDArray[np.float32], trace: Trace, *, half_width_px: int = 10, gap_px: int = 6, side_px: int = 20
) -> Spectrum:
    """Sum the light along a trace, row by row, with the background of both sides taken off.

    Parameters
    ----------
    image : ndarray of shape (ny, nx), float32
        Dispersed along y. Not modified.
    half_width_px
        Of the aperture: so many pixels on either side of the trace, and the one it is in.
    gap_px, side_px
        Between aperture and background, and width of that on each side. What lies beyond the image is left out.
    """
    nx = image.shape[1]
    middle = np.round(trace.centre_px).astype(np.int64)
    reach = half_width_px + gap_px + side_px
    offsets = np.arange(-reach, reach + 1)
    columns = middle[:, None] + offsets[None, :]
    inside = (columns >= 0) & (columns < nx)
    values = np.take_along_axis(image, np.clip(columns, 0, nx - 1), axis=1).astype(np.float64)
    values[~inside] = np.nan
    is_side = np.abs(offsets) > half_width_px + gap_px
    sides = values[:, is_side]
    with np.errstate(all="ignore"):
        enough = np.isfinite(sides).sum(axis=1) >= 5
        filled = np.where(enough[:, None], sides, 0.0)
        background = np.nanmedian(filled, axis=1)
        scatter = MAD_TO_SIGMA * np.nanmedian(np.abs(filled - background[:, None]), axis=1)
    aperture = values[:, np.abs(offsets) <= half_width_px]
    n_pixels = np.isfinite(aperture).sum(axis=1)
    flux = np.nansum(aperture, axis=1) - n_pixels * background
    flux[n_pixels == 0] = np.nan
    return Spectrum(flux, background, scatter * np.sqrt(np.maximum(n_pixels, 1)))


def find_zero_order(flux: NDArray[np.float64], *, fwhm_px: float, threshold_sigma: float = 20.0) -> float | None:
    """Return where the zeroth order lies along the dispersion [px], or None if nothing looks like it.

    Undispersed, it is a peak as narrow as a star on the line of the trace, and brighter in a pixel than the spectrum
    anywhere. An emission line of a lamp may look the same: then the position has to be given.

    Parameters
    ----------
    flux : ndarray of shape (ny,), float64
        Light along the trace's line, of all rows of the image; NaN where there is none.
    fwhm_px
        Width of a star.
    """
    light = np.where(np.isfinite(flux), flux, 0.0)
    window = 2 * int(max(6.0 * fwhm_px, 15.0)) + 1
    if len(light) < 2 * window:
        return None
    continuum = median_filter(light, size=window, mode="nearest")
    excess = light - continuum
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(excess - np.median(excess))))
    peak = int(np.argmax(excess))
    if excess[peak] <= max(threshold_sigma * scatter, float(continuum.max())):
        return None
    reach = int(np.ceil(2.0 * fwhm_px))
    rows = np.arange(max(0, peak - reach), min(len(light), peak + reach + 1))
    weight = np.clip(excess[rows], 0.0, None)
    return float((rows * weight).sum() / weight.sum())


def wavelengths_of(n_rows: int, *, zero_order_px: float, nm_per_px: float) -> NDArray[np.float64]:
    """Return the wavelength of each row [nm], NaN on the zeroth order's other side.

    Parameters
    ----------
    nm_per_px
        Of the first order, taken as constant; negative if the wavelength grows towards smaller rows.
    """
    found = (np.arange(n_rows, dtype=np.float64) - zero_order_px) * nm_per_px
    return np.where(found > 0, found, np.nan)
