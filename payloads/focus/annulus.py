"""The edges of a ring of light, sector by sector."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_SECTORS = 36
"""Sectors of 10 degrees: fine enough for the 2-theta term, wide enough for signal."""
N_ITERATIONS = 4
"""Recentrings; the first moves by pixels, the last by hundredths."""
MIN_SECTORS = 18
"""Fewer good sectors than half of them do not hold centre, radius and ellipticity apart."""


@dataclass(frozen=True)
class Annulus:
    """A measured ring.

    Attributes
    ----------
    x, y
        Centre of the outer edge in the stamp [px].
    outer_radius_px, outer_radius_error_px
        Mean over position angle of where the light falls to half the ring's brightness; and its standard error.
    inner_radius_px
        The same for the hole; None where there is none to be seen.
    e1, e2
        Distortion (a^2-b^2)/(a^2+b^2) of the outer edge, along the pixel axes and at 45 degrees.
    n_sectors
        Sectors that were good, of 36.
    """

    x: float
    y: float
    outer_radius_px: float
    outer_radius_error_px: float
    inner_radius_px: float | None
    e1: float
    e2: float
    n_sectors: int


def _sector_profiles(
    stamp: NDArray[np.float64], x: float, y: float, n_radii: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean value and pixel count, of shape (N_SECTORS, n_radii), radii in steps of 1 px."""
    grid_y, grid_x = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    radius = np.hypot(grid_x - x, grid_y - y)
    angle = np.arctan2(grid_y - y, grid_x - x)
    sector = np.floor((angle + math.pi) / (2.0 * math.pi) * N_SECTORS).astype(np.int64) % N_SECTORS
    ring = np.floor(radius).astype(np.int64)
    use = np.isfinite(stamp) & (ring < n_radii)
    cell = sector[use] * n_radii + ring[use]
    count = np.bincount(cell, minlength=N_SECTORS * n_radii).astype(np.float64)
    total = np.bincount(cell, weights=stamp[use], minlength=N_SECTORS * n_radii)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean.reshape(N_SECTORS, n_radii), count.reshape(N_SECTORS, n_radii)


def _crossing(profile: NDArray[np.float64], level: float, start: int, step: int) -> float | None:
    """Return the radius at which a profile falls below a level, going from ``start`` in or out [px]."""
    k = start
    while 0 <= k + step < len(profile):
        here, there = profile[k], profile[k + step]
        if there < level <= here:
            # Bin k holds radii k to k+1: its value stands at its middle.
            return float(k + 0.5 + step * (here - level) / (here - there))
        k += step
    return None


def _fill_gaps(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(profile)
    if known.all() or not known.any():
        return profile
    at = np.arange(len(profile))
    return np.interp(at, at[known], profile[known])


def _fit_edge(
    angle: NDArray[np.float64], radius: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, NDArray[np.bool_]] | None:
    """Fit R + dx cos + dy sin + c cos 2 + s sin 2 to an edge, leaving out sectors beyond 4 robust sigmas."""
    terms = np.column_stack(
        (
            np.ones_like(angle),
            np.cos(angle),
            np.sin(angle),
            np.cos(2.0 * angle),
            np.sin(2.0 * angle),
        )
    )
    keep = np.isfinite(radius)
    if np.count_nonzero(keep) < MIN_SECTORS:
        return None
    # Start from the median, so that a neighbour's ring in some sectors cannot pull the first fit.
    middle = np.median(radius[keep])
    keep &= np.abs(np.where(keep, radius, middle) - middle) < 0.3 * middle
    coefficients = np.zeros(5)
    rms = 0.0
    for _ in range(4):
        if np.count_nonzero(keep) < MIN_SECTORS:
            return None
        coefficients, *_ = np.linalg.lstsq(terms[keep], radius[keep], rcond=None)
        residual = radius - terms @ coefficients
        rms = max(1.4826 * float(np.median(np.abs(residual[keep]))), 0.02)
        new = np.isfinite(residual) & (np.abs(np.nan_to_num(residual, nan=np.inf)) < 4.0 * rms)
        if (new == keep).all():
            break
        keep = new
    return coefficients, rms, keep


def measure_annulus(
    stamp: NDArray[np.float64],
    x: float,
    y: float,
    radius_px: float,
    *,
    noise: float,
    min_edge_snr: float = 3.0,
) -> Annulus | None:
    """Measure the edges of a ring.

    Parameters
    ----------
    stamp : ndarray of shape (height, width), float64
        Background subtracted; NaN marks a pixel to ignore. Reaches beyond the ring.
    x, y, radius_px
        First guess of centre and outer radius, good to a quarter of the radius [px].
    noise
        Noise of a pixel of empty sky, unit of the stamp.
    min_edge_snr
        Sectors whose ring stands out less than this are left out.

    Returns
    -------
    annulus
        None if too few sectors have an edge.

    Notes
    -----
    In each sector the edge is where the mean profile falls through half of the ring's own brightness: blurring by
    the atmosphere (1.2 arcsec) moves that point by 0.1 px in a ring 1.5 mm out of focus and 0.3 px at 0.5 mm, and neither vignetting nor uneven illumination of the pupil
    moves it at all. Centre, radius and ellipticity follow from a linear fit to the 36 radii, recentred until it rests.
    """
    n_radii = math.ceil(1.5 * radius_px) + 2
    middle_angles = (np.arange(N_SECTORS) + 0.5) / N_SECTORS * 2.0 * math.pi - math.pi
    fit = None
    outer = np.full(N_SECTORS, np.nan)
    inner = np.full(N_SECTORS, np.nan)
    for _ in range(N_ITERATIONS):
        mean, count = _sector_profiles(stamp, x, y, n_radii)
        outer[:] = np.nan
        inner[:] = np.nan
        for k in range(N_SECTORS):
            profile = _fill_gaps(mean[k])
            if not np.isfinite(profile).all():
                continue
            low, high = int(0.68 * radius_px), max(int(0.92 * radius_px), int(0.68 * radius_px) + 1)
            bright = float(np.median(profile[low:high]))
            pixels = float(count[k, low:high].sum())
            if bright <= 0.0 or (pixels > 0 and bright * math.sqrt(pixels) < min_edge_snr * noise):
                continue
            start = low + int(np.argmax(profile[low:high]))
            smooth = np.convolve(profile, (0.25, 0.5, 0.25), mode="same")
            edge_out = _crossing(smooth, 0.5 * bright, start, +1)
            edge_in = _crossing(smooth, 0.5 * bright, start, -1)
            outer[k] = np.nan if edge_out is None else edge_out
            inner[k] = np.nan if edge_in is None else edge_in
        fit = _fit_edge(middle_angles, outer)
        if fit is None:
            return None
        coefficients, _, _ = fit
        x, y, radius_px = x + coefficients[1], y + coefficients[2], float(coefficients[0])
        if not 2.0 < radius_px < n_radii or not (0 <= x < stamp.shape[1] and 0 <= y < stamp.shape[0]):
            return None
    assert fit is not None  # noqa: S101 - the loop runs at least once
    coefficients, rms, keep = fit
    n_good = int(np.count_nonzero(keep))
    holes = inner[np.isfinite(inner) & (inner > 1.5)]
    return Annulus(
        x=float(x),
        y=float(y),
        outer_radius_px=radius_px,
        outer_radius_error_px=rms / math.sqrt(n_good),
        inner_radius_px=float(np.median(holes)) if len(holes) >= MIN_SECTORS else None,
        e1=2.0 * float(coefficients[3]) / radius_px,
        e2=2.0 * float(coefficients[4]) / radius_px,
        n_sectors=n_good,
    )
