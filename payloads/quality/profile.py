"""The profile of the stacked star: its width at half maximum, and how much of its light an aperture holds."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from payloads.quality.kernels import cut_stamp
from payloads.quality.sky import NO_MASK
from payloads.quality.stars import REJECT, Stars

N_STARS = 24
"""Stars in the stack: some 5000 pixels, more would not show in the result."""
REACH = 3.0
"""How far out the profile is fitted, in adaptive sigmas: to about 1.3 FWHM, core and shoulders but not the wings."""


@dataclass(frozen=True)
class StackedProfile:
    """A Moffat profile: its full width at half maximum [px], pixel included, and its index."""

    fwhm_px: float
    beta: float

    def enclosed(self, radius_px: float) -> float:
        """Return the part of a star's light within a radius; 1 for a profile without a finite total.

        Examples
        --------
        >>> round(StackedProfile(4.0, 3.5).enclosed(8.0), 4)
        0.9768
        """
        if self.beta <= 1.05:
            return 1.0
        alpha2 = (0.5 * self.fwhm_px) ** 2 / math.expm1(math.log(2.0) / self.beta)
        return 1.0 - math.pow(1.0 + radius_px**2 / alpha2, 1.0 - self.beta)


def _residuals(p: NDArray[np.float64], r2: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a Moffat profile of height p[0], squared scale exp(p[1]) and index exp(p[2]), less the values."""
    return np.asarray(p[0] * np.exp(-np.exp(p[2]) * np.log1p(r2 * np.exp(-p[1]))) - values)


def _slopes(p: NDArray[np.float64], r2: NDArray[np.float64], _: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how the residuals change with each parameter, shape (n, 3)."""
    beta, scaled = np.exp(p[2]), r2 * np.exp(-p[1])
    log = np.log1p(scaled)
    shape = np.exp(-beta * log)
    profile = p[0] * shape
    return np.stack([shape, profile * beta * scaled / (1.0 + scaled), -profile * beta * log], axis=1)


def measure_profile(
    image: NDArray[np.float32], mask: NDArray[np.int32] | None, stars: Stars, *, half_size_px: int
) -> StackedProfile | None:
    """Return the stacked profile of the brightest stars.

    Parameters
    ----------
    stars
        Those of the star locus, brightest first.

    Returns
    -------
    profile
        Its width is the geometric mean over the position angle; None if the fit fails.

    Notes
    -----
    Pixels of the brightest stars, each at its elliptical radius from the adaptive moments and in units of its star's
    flux, are fitted with one Moffat profile; the width follows from its two shape parameters. For a Gaussian it is
    2.355 sigma; for the Moffat of a seeing disk (beta 2.5-4) it is 5-10 % below that, as the adaptive weight
    reaches into the wings.
    """
    n = min(len(stars), N_STARS)
    if n == 0:
        return None
    size = 2 * half_size_px + 1
    stamp = np.empty((size, size), dtype=np.float32)
    grid_y, grid_x = np.mgrid[:size, :size]
    radii: list[NDArray[np.float64]] = []
    values: list[NDArray[np.float64]] = []
    planes = NO_MASK if mask is None else mask
    sigma = stars.sigma_px
    height, width = image.shape
    for k in range(n):
        x0, y0 = round(float(stars.x[k])) - half_size_px, round(float(stars.y[k])) - half_size_px
        if x0 < 0 or y0 < 0 or x0 + size > width or y0 + size > height:
            continue
        _, background = cut_stamp(image, planes, REJECT, x0, y0, 0.0, 0.75 * half_size_px, stamp)
        if not math.isfinite(background):
            continue
        stamp += np.float32(background - stars.background[k])  # the sky that the moments were measured over
        dx, dy = grid_x - (stars.x[k] - x0), grid_y - (stars.y[k] - y0)
        ixx, iyy, ixy = stars.ixx[k], stars.iyy[k], stars.ixy[k]
        det = ixx * iyy - ixy**2
        r2 = (iyy * dx**2 - 2.0 * ixy * dx * dy + ixx * dy**2) / det
        near = r2 < REACH**2
        weight = np.exp(-0.5 * r2)
        norm = float((weight * stamp).sum())
        if norm <= 0.0:
            continue
        radii.append(r2[near])
        # Amplitude of the best-fitting adaptive Gaussian: every star's profile then has the same height.
        values.append(stamp[near].astype(np.float64) * (math.pi * math.sqrt(det)) / norm)
    if not radii:
        return None
    r2_all, value_all = np.concatenate(radii), np.concatenate(values)

    # Linear loss keeps the peak; the stars were already chosen for their lonely, clean stamps.
    fit = least_squares(
        _residuals, [1.0, math.log(8.0), math.log(3.5)], _slopes, method="lm", max_nfev=200, args=(r2_all, value_all)
    )
    _, log_alpha2, log_beta = fit.x
    if not fit.success or not np.isfinite(fit.x).all():
        return None
    half_radius2 = math.exp(log_alpha2) * math.expm1(math.log(2.0) * math.exp(-log_beta))
    fwhm_px = 2.0 * math.sqrt(half_radius2) * float(np.median(sigma[:n]))
    return StackedProfile(fwhm_px, math.exp(log_beta)) if 0.0 < fwhm_px < size else None
