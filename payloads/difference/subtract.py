"""From an image and the templates below it to a difference, its noise and what is in it; arrays in, arrays out."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from payloads.difference.detect import peak_near
from payloads.difference.kernels import BAD, GOOD, NOTHING, SATURATED, fill_holes
from payloads.difference.match import (
    MAX_RADIUS_PX,
    STAMP_RADIUS_FWHM,
    KernelFit,
    convolve,
    decompose,
    fit_kernel,
    gaussian,
    radius_of,
    smooth,
)
from payloads.difference.planes import FILL_REACH_PX, Planes
from payloads.quality.measure import SIGMA_TO_FWHM, robust_scatter
from payloads.quality.stars import measure_moments

BAD_WEIGHT = 0.1
"""A pixel whose smoothed value is of bad ones by more than this is not looked at."""
SATURATED_REACH_FWHM = 2.0
"""Nor is what is so near to a saturated pixel."""
MIN_SMOOTHING_PX = 0.8
"""Least width of the first smoothing: what it is sampled with."""
MIN_STAR_RESIDUAL = 0.01
"""Least part of a template's light that is taken for its error, where stars are too few or too faint to tell."""
N_FIT_STARS = 60
BRIGHT_SNR = 100.0
"""Stars above it tell how well stars are subtracted: their photon noise is below the floor."""
N_NOISE_STEP = 3


@dataclass(frozen=True)
class StarList:
    """Stars of the image that the kernel may be fitted to, arrays of shape (n,), brightest first.

    Attributes
    ----------
    x, y
        Pixels of the binned image.
    flux, snr
        All their light [unit of the image], and signal over noise.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    snr: NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """An image less its template, both as wide as ``sigma_px``.

    Attributes
    ----------
    image, noise : ndarray of shape (height, width), float32
        Unit of the image; where the noise is that of single pixels, with what stars leave over.
    unusable : ndarray of the same shape, bool
        No template, bad or saturated pixels, edges.
    peak_fraction
        Height of a star over its flux.
    noise_ratio
        Scatter of the sky over what the variances say; 1 if they are right.
    star_residual
        Part of a template's light that was taken for its error.
    """

    image: NDArray[np.float32]
    noise: NDArray[np.float32]
    unusable: NDArray[np.bool_]
    fit: KernelFit
    sigma_px: float
    peak_fraction: float
    noise_ratio: float
    sky_noise: float
    star_residual: float


def star_sigma(image: NDArray[np.float32], stars: StarList, guess_px: float) -> float | None:
    """Return the median width of stars in an image without sky [px]; None if none can be measured."""
    half = max(6, math.ceil(5.0 * guess_px))
    height, width = image.shape
    inside = (stars.x >= half) & (stars.y >= half) & (stars.x < width - half - 1) & (stars.y < height - half - 1)
    x, y = stars.x[inside], stars.y[inside]
    moments = measure_moments(
        image, None, x, y, half_size_px=half, guess_sigma_px=max(guess_px, 0.7), level=np.zeros(len(x))
    )
    return float(np.median(moments.sigma_px)) if len(moments) else None


def subtract(
    planes: Planes,
    template: NDArray[np.float32],
    template_variance: NDArray[np.float32],
    template_quality: NDArray[np.uint8],
    stars: StarList,
    *,
    guess_sigma_px: float,
    min_stars: int,
) -> Difference | str:
    """Subtract a template.

    Parameters
    ----------
    planes
        The image.
    template, template_variance, template_quality : ndarray of the shape of the image
        On its pixels. Holes of the template are filled, in place.
    guess_sigma_px
        About how wide a star is.

    Returns
    -------
    difference
        Or why there is none.

    Notes
    -----
    The image is convolved with a Gaussian ``g`` as wide as its stars (wider if the template's stars are still wider), the
    template with the fitted kernel ``K``. Variance: ``g^2 * variance + sum(K^2) * template variance``, times the
    square of ``noise_ratio`` if that is above 1; and the part ``star_residual`` of the template's light.
    """
    fill_holes(template, template_quality, FILL_REACH_PX)
    sigma, template_sigma = star_sigma(planes.image, stars, guess_sigma_px), star_sigma(template, stars, guess_sigma_px)
    if sigma is None or template_sigma is None:
        return "no star could be measured in image and template"
    # Wide enough that the kernel has a width of its own, however much worse the template's seeing was.
    first = math.sqrt(max(sigma**2, 1.2 * template_sigma**2 - sigma**2, MIN_SMOOTHING_PX**2))
    both = math.hypot(sigma, first)
    smoothed = smooth(planes.image, first)
    profile = gaussian(first, radius_of(first))
    squared = profile * profile
    variance = convolve(planes.variance, [(squared, squared)])
    half = max(4, math.ceil(STAMP_RADIUS_FWHM * SIGMA_TO_FWHM * both))
    chosen = _choose(stars, planes.quality, template_quality, half, half + MAX_RADIUS_PX)
    x, y = np.rint(stars.x[chosen]).astype(np.int64), np.rint(stars.y[chosen]).astype(np.int64)
    fit = fit_kernel(
        smoothed,
        template,
        x,
        y,
        sigma_px=math.sqrt(max(both**2 - template_sigma**2, 0.0)),
        half_px=half,
        noise_variance=float(np.median(variance)),
        min_stars=min_stars,
    )
    if fit is None:
        return f"too few stars to match the template to ({len(chosen)})"
    matched = convolve(template, decompose(fit.kernel))
    difference = smoothed - matched
    del smoothed
    variance += np.float32(fit.power) * template_variance
    unusable = _unusable(planes.quality, template_quality, fit, first, SIGMA_TO_FWHM * both)
    noise = np.sqrt(np.maximum(variance, np.float32(1e-20)))
    residual = _residual(fit, stars.snr[chosen])
    light = ndimage.maximum_filter(matched, size=2 * round(both) + 1)
    np.maximum(light, 0, out=light)
    sky = (~unusable & (light < 2.0 * noise))[::N_NOISE_STEP, ::N_NOISE_STEP]
    pulls = (difference[::N_NOISE_STEP, ::N_NOISE_STEP] / noise[::N_NOISE_STEP, ::N_NOISE_STEP])[sky]
    ratio = robust_scatter(pulls) if len(pulls) > 100 else 1.0
    sky_noise = float(np.median(noise[::N_NOISE_STEP, ::N_NOISE_STEP][sky])) if sky.any() else float(np.median(noise))
    noise *= np.float32(max(ratio, 1.0))
    noise = np.hypot(noise, np.float32(residual) * light)
    return Difference(
        difference,
        noise,
        unusable,
        fit,
        both,
        _peak_fraction(matched, stars, chosen, x, y),
        ratio,
        sky_noise * max(ratio, 1.0),
        residual,
    )


def _choose(
    stars: StarList, quality: NDArray[np.uint8], template_quality: NDArray[np.uint8], half_px: int, border_px: int
) -> NDArray[np.intp]:
    """Return the stars whose stamps are whole, and good in their cores."""
    height, width = quality.shape
    chosen = []
    core = max(half_px // 2, 2)
    for i, (x, y) in enumerate(zip(stars.x, stars.y, strict=True)):
        cx, cy = round(float(x)), round(float(y))
        if not (border_px <= cx < width - border_px and border_px <= cy < height - border_px):
            continue
        inner = np.s_[cy - core : cy + core + 1, cx - core : cx + core + 1]
        outer = np.s_[cy - half_px : cy + half_px + 1, cx - half_px : cx + half_px + 1]
        if (quality[inner] != GOOD).any() or (template_quality[inner] != GOOD).any():
            continue
        if max(np.max(quality[outer]), np.max(template_quality[outer])) >= SATURATED:
            continue
        chosen.append(i)
        if len(chosen) == N_FIT_STARS:
            break
    return np.array(chosen, dtype=np.intp)


def _unusable(
    quality: NDArray[np.uint8],
    template_quality: NDArray[np.uint8],
    fit: KernelFit,
    first_px: float,
    fwhm_px: float,
) -> NDArray[np.bool_]:
    """Return where nothing is to be looked for."""
    bad = smooth((quality != GOOD).astype(np.float32), first_px) > BAD_WEIGHT
    spread = max(math.sqrt(1.0 / (4.0 * math.pi * max(fit.power / fit.scale**2, 1e-6))), MIN_SMOOTHING_PX)
    bad |= smooth((template_quality != GOOD).astype(np.float32), spread) > BAD_WEIGHT
    bad |= template_quality == NOTHING
    worst = np.maximum(quality, np.where(template_quality == NOTHING, np.uint8(BAD), template_quality))
    saturated = worst >= SATURATED
    if saturated.any():
        bad |= ndimage.maximum_filter(saturated, size=2 * math.ceil(SATURATED_REACH_FWHM * fwhm_px) + 1)
    edge = len(fit.kernel) // 2 + 1
    bad[:edge], bad[-edge:], bad[:, :edge], bad[:, -edge:] = True, True, True, True
    return bad


def _residual(fit: KernelFit, snr: NDArray[np.float64]) -> float:
    """Return the part of a star's light that subtraction leaves over, as nine in ten bright stars show."""
    bright = fit.used & (snr >= BRIGHT_SNR)
    if np.count_nonzero(bright) < 5:
        return 2.0 * MIN_STAR_RESIDUAL
    return max(MIN_STAR_RESIDUAL, float(np.percentile(fit.residual_fraction[bright], 90.0)))


def _peak_fraction(
    matched: NDArray[np.float32], stars: StarList, chosen: NDArray[np.intp], x: NDArray[np.int64], y: NDArray[np.int64]
) -> float:
    """Return the height over the flux of the stars that the kernel was fitted to."""
    heights = np.array([peak_near(matched, int(px), int(py))[2] for px, py in zip(x, y, strict=True)])
    flux = stars.flux[chosen]
    return float(np.median(heights[flux > 0] / flux[flux > 0]))
