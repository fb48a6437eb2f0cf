"""The image quality of one detector: from pixels to numbers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payloads.quality.kernels import MAD_TO_SIGMA
from payloads.quality.photometry import Fluxes, measure_fluxes
from payloads.quality.profile import StackedProfile, measure_profile
from payloads.quality.sky import Sky, Sources, Workspace, choose_bin_factor, detect_sources, level_at, measure_sky
from payloads.quality.stars import Stars, choose_candidates, mark_star_locus, measure_moments

SIGMA_TO_FWHM = math.sqrt(8.0 * math.log(2.0))
"""2.3548: full width at half maximum of a Gaussian over its sigma."""
N_GUESS = 100
"""Brightest sources whose median size starts the adaptive moments."""


@dataclass(frozen=True)
class Settings:
    """What `measure_quality` may be told; the payload's configuration describes each."""

    n_max_stars: int = 200
    snr_steps: tuple[float, ...] = (50.0, 20.0, 10.0)
    min_psf_stars: int = 5
    detection_sigma: float = 5.0
    bin_factor: int | None = None
    aperture_fwhm: float = 2.0


@dataclass(frozen=True)
class Quality:
    """What was found on one image, in its own units.

    Attributes
    ----------
    profile
        Of the stacked PSF stars; None if there are too few.
    aperture_px
        Radius within which the fluxes were summed.
    n_star_like
        Detected sources as large as the PSF stars, bright or faint.
    note
        Why there is no PSF, for a person; empty if there is one.
    """

    sky: Sky
    sources: Sources
    stars: Stars
    fluxes: Fluxes
    profile: StackedProfile | None
    aperture_px: float
    n_star_like: int
    note: str

    @property
    def has_psf(self) -> bool:
        """Whether there were stars enough for numbers."""
        return not self.note


def _select(stars: Stars, keep: NDArray[np.bool_]) -> Stars:
    return Stars(
        *(
            getattr(stars, name)[keep]
            for name in ("x", "y", "background", "peak", "ixx", "iyy", "ixy", "higher", "is_psf")
        )
    )


def _count_star_like(sources: Sources, stars: Stars) -> int:
    """Count the sources as wide as the sources nearest to the PSF stars."""
    widths = [
        sources.sigma_px[int(np.argmin((sources.x - x) ** 2 + (sources.y - y) ** 2))]
        for x, y in zip(stars.x[stars.is_psf][:50], stars.y[stars.is_psf][:50], strict=True)
    ]
    middle = float(np.median(widths))
    # Faint sources show only their cores above the threshold: narrower is still a star, wider is not.
    return int(np.count_nonzero((sources.sigma_px < 1.6 * middle) & (sources.sigma_px > 0.3 * middle)))


def measure_quality(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    *,
    pixel_scale_arcsec: float,
    gain: float = 1.0,
    settings: Settings | None = None,
    workspace: Workspace | None = None,
) -> Quality:
    """Measure sky, stars and PSF of one image.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
        Not modified. What is not C-contiguous, or of another type or byte order (as read from a file), is copied.
    mask : ndarray of the same shape, int32, or None
        Planes of `payloads.mask`.
    pixel_scale_arcsec
        Side of a pixel on the sky.
    gain
        Electron per unit of the image.

    Returns
    -------
    quality
        Stars are those measured, brightest first; with fewer than three consistent ones there is no PSF and
        ``note`` says why.

    Notes
    -----
    Bright stars (S/N 50) alone if there are enough of them, else down to 20 and 10.
    """
    told = settings or Settings()
    image = np.ascontiguousarray(image, dtype=np.float32)
    mask = None if mask is None else np.ascontiguousarray(mask, dtype=np.int32)
    factor = told.bin_factor or choose_bin_factor(pixel_scale_arcsec, *image.shape)
    sky = measure_sky(image, mask, factor=factor, workspace=workspace)
    sources = detect_sources(sky, threshold_sigma=told.detection_sigma)
    none = np.zeros(0)
    nothing = measure_moments(image, mask, none, none, half_size_px=8, guess_sigma_px=1.0)
    no_flux = Fluxes(none, none, none)
    if sky.level is None:
        return Quality(sky, sources, nothing, no_flux, None, 0.0, 0, "no usable pixels")
    if len(sources) == 0:
        return Quality(sky, sources, nothing, no_flux, None, 0.0, 0, "no sources detected")
    lonely = np.flatnonzero(~sources.is_blended)[:N_GUESS]
    guess = max(1.0, float(np.median(sources.sigma_px[lonely]))) if len(lonely) else 2.0
    reach = float(np.median(sources.major_px[lonely])) if len(lonely) else 2.0
    least = int(np.clip(round(3.2 / pixel_scale_arcsec), 8, 16))
    half = int(np.clip(math.ceil(7.0 * reach), least, 48))
    stars = nothing
    for min_snr in told.snr_steps:
        chosen = choose_candidates(
            sources,
            min_snr=min_snr,
            pixel_noise=sky.noise or 0.0,
            n_max=told.n_max_stars,
            half_size_px=half,
            shape=(image.shape[0], image.shape[1]),
        )
        stars = measure_moments(
            image,
            mask,
            sources.x[chosen],
            sources.y[chosen],
            half_size_px=half,
            guess_sigma_px=guess,
            level=level_at(sky, sources.x[chosen], sources.y[chosen]),
            pixel_noise=sky.noise or 0.0,
        )
        stars.is_psf[:] = mark_star_locus(stars, min_snr=min_snr)
        if np.count_nonzero(stars.is_psf) >= told.min_psf_stars:
            break
    n_psf = int(np.count_nonzero(stars.is_psf))
    psf_stars = _select(stars, stars.is_psf)
    sigma = float(np.median(psf_stars.sigma_px)) if n_psf else guess
    radius = min(told.aperture_fwhm * SIGMA_TO_FWHM * sigma, half - 1.0)
    fluxes = measure_fluxes(image, stars, radius_px=radius, pixel_noise=sky.noise or 0.0, gain=gain)
    if n_psf < 3:
        return Quality(sky, sources, stars, fluxes, None, radius, 0, f"too few stars ({n_psf})")
    profile = measure_profile(image, mask, psf_stars, half_size_px=half)
    return Quality(sky, sources, stars, fluxes, profile, radius, _count_star_like(sources, stars), "")


def robust_scatter(values: NDArray[np.float64]) -> float:
    """Return 1.4826 times the median absolute deviation."""
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))
