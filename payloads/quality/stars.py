"""Adaptive moments of stars, and which of the sources are stars.

Moments are those of Hirata & Seljak (2003), measured on full-resolution stamps with a local background
(`payloads.quality.adaptive`), so that nothing full-size is allocated or subtracted.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from payloads.mask import CR, EDGE, NOT_FOR_STATISTICS, SUSPECT
from payloads.quality.adaptive import measure_stamps
from payloads.quality.kernels import MAD_TO_SIGMA
from payloads.quality.sky import NO_MASK, Sources

REJECT = NOT_FOR_STATISTICS | CR | EDGE | SUSPECT
"""Pixels that may not lie in a star's core; near saturation a star is flattened before it is flagged."""
SNR_OF_WIDTHS = 50.0
"""Signal to noise ratio that the widths below are for; moments scatter by about 2 over it."""
LOCUS_SIZE = 0.12
"""Half-width of the star locus in ln(size) when it is searched for: the PSF varies less than that over one CCD."""
LOCUS_E = 0.12
"""The same in e1 and e2: three times their noise at S/N 50."""
MIN_SCATTER = 0.02
"""Floor of the locus' scatter when outliers are clipped, so that a noiseless image keeps its stars."""
N_CLIP = 5.0
"""Sources farther from the locus than this many standard deviations are no stars."""
OWN_WINGS = 0.02
"""A ring may lie above the sky by this part of a star's peak for its own wings: a Moffat of index 2.5 two widths out."""
NEIGHBOUR_FLUX = 0.02
"""A neighbour in the stamp brighter than this part of a star disturbs its moments by more than 1 %."""


@dataclass(frozen=True)
class Stars:
    """Measured sources, arrays of shape (n,), float64, brightest first.

    Attributes
    ----------
    x, y
        Adaptive centroid [px], (0, 0) the centre of the lower left pixel.
    flux, flux_error, snr
        In the aperture, unit of the image; with its noise; and the optimal signal to noise ratio of a Gaussian
        of that size. Filled by `payloads.quality.photometry`, NaN before.
    background
        Local level that was subtracted [unit of the image].
    peak
        Highest pixel above it.
    ixx, iyy, ixy
        Adaptive second moments [px^2].
    higher : ndarray of shape (n, 9)
        As from `payloads.quality.kernels.weighted_moments`.
    is_psf
        Consistent with the image's star locus.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    background: NDArray[np.float64]
    peak: NDArray[np.float64]
    ixx: NDArray[np.float64]
    iyy: NDArray[np.float64]
    ixy: NDArray[np.float64]
    higher: NDArray[np.float64]
    is_psf: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sigma_px(self) -> NDArray[np.float64]:
        """Size det(I)^(1/4) [px]: the width of a round Gaussian of the same area."""
        return np.maximum(self.ixx * self.iyy - self.ixy**2, 0.0) ** 0.25

    @property
    def e1(self) -> NDArray[np.float64]:
        """Distortion (Ixx - Iyy) / (Ixx + Iyy)."""
        return (self.ixx - self.iyy) / (self.ixx + self.iyy)

    @property
    def e2(self) -> NDArray[np.float64]:
        """Distortion 2 Ixy / (Ixx + Iyy)."""
        return 2.0 * self.ixy / (self.ixx + self.iyy)

    def named_higher(self) -> dict[str, NDArray[np.float64]]:
        """Return the higher moments as coma, trefoil, kurtosis and fourth-order ellipticity; arrays of shape (n,)."""
        m30, m21, m12, m03, m40, m31, m22, m13, m04 = self.higher.T
        return {
            "coma1": m30 + m12,
            "coma2": m21 + m03,
            "trefoil1": m30 - 3.0 * m12,
            "trefoil2": 3.0 * m21 - m03,
            "kurtosis": m40 + 2.0 * m22 + m04,
            "e4_1": m40 - m04,
            "e4_2": 2.0 * (m31 + m13),
        }


def choose_candidates(
    sources: Sources, *, min_snr: float, pixel_noise: float, n_max: int, half_size_px: int, shape: tuple[int, int]
) -> NDArray[np.intp]:
    """Return the indices of bright, lonely sources whose stamps lie inside the image.

    Parameters
    ----------
    min_snr
        Least signal to noise ratio, estimated from the isophotal flux and size.
    pixel_noise
        Noise of a full-resolution pixel, unit of the flux.
    half_size_px
        Stamps reach this far from their central pixel.
    shape
        Height and width of the image [px].

    Returns
    -------
    indices : ndarray of shape (<= n_max,), intp
        Brightest first.
    """
    if len(sources) == 0:
        return np.zeros(0, dtype=np.intp)
    height, width = shape
    effective_px = 4.0 * math.pi * np.maximum(sources.sigma_px, 1.0) ** 2
    variance = np.maximum(sources.flux, 0.0) + effective_px * pixel_noise**2
    snr = np.where(variance > 0.0, sources.flux / np.sqrt(np.maximum(variance, 1e-30)), 0.0)
    inside = (
        (np.rint(sources.x) >= half_size_px)
        & (np.rint(sources.y) >= half_size_px)
        & (np.rint(sources.x) < width - half_size_px)
        & (np.rint(sources.y) < height - half_size_px)
    )
    keep = inside & ~sources.is_blended & (snr >= min_snr)
    # Sources are in order of flux: of a pair the first is the brighter, which only a comparable neighbour disturbs.
    pairs = cKDTree(np.column_stack((sources.x, sources.y))).query_pairs(half_size_px, output_type="ndarray")
    if len(pairs):
        brighter, fainter = pairs.min(axis=1), pairs.max(axis=1)
        keep[fainter] = False
        keep[brighter[sources.flux[fainter] > NEIGHBOUR_FLUX * sources.flux[brighter]]] = False
    return np.flatnonzero(keep)[:n_max]


def measure_moments(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    half_size_px: int,
    guess_sigma_px: float,
    level: NDArray[np.float64] | None = None,
    pixel_noise: float = 0.0,
) -> Stars:
    """Measure adaptive moments of sources at given places.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
        With its sky; not modified.
    x, y : ndarray of shape (n,)
        Places whose stamps lie inside the image [px].
    guess_sigma_px
        Where the iteration starts.
    level : ndarray of shape (n,)
        The sky there, from a map of the background; None or NaN if there is none.
    pixel_noise
        Noise of a pixel of sky.

    Returns
    -------
    stars
        Those whose moments converged near the place given and whose core is free of bad pixels. ``is_psf`` is
        True for all: `mark_star_locus` decides.

    Notes
    -----
    The ring around a star holds its wings: subtracted as sky they would make stars in bad seeing 2 % too narrow. So
    the map's level is taken, unless the ring lies farther from it than noise and wings can explain: then the star
    sits on something (a galaxy, a step between uncalibrated amps), and the ring is the better sky.
    """
    size = 2 * half_size_px + 1
    core_px = min(3.0 * guess_sigma_px + 1.0, float(half_size_px))
    ring_px = 0.75 * half_size_px
    ring_noise = 5.0 * 1.25 * pixel_noise / math.sqrt(size * size - math.pi * ring_px**2)
    table = np.empty((len(x), 16))
    n = measure_stamps(
        image,
        NO_MASK if mask is None else mask,
        REJECT,
        x,
        y,
        np.full(len(x), np.nan) if level is None else level,
        half_size_px,
        float(guess_sigma_px),
        np.array([core_px, ring_px, ring_noise, OWN_WINGS]),
        table,
    )
    table = table[:n]
    return Stars(
        x=table[:, 0],
        y=table[:, 1],
        background=table[:, 2],
        peak=table[:, 3],
        ixx=table[:, 4],
        iyy=table[:, 5],
        ixy=table[:, 6],
        higher=table[:, 7:],
        is_psf=np.ones(len(table), dtype=bool),
    )


def mark_star_locus(stars: Stars, *, min_snr: float = SNR_OF_WIDTHS) -> NDArray[np.bool_]:
    """Tell stars from cosmic rays, galaxies and blends: they all have the same size and shape.

    Parameters
    ----------
    min_snr
        Least signal to noise ratio among them: below 50 the locus is wider in proportion.

    Returns
    -------
    is_psf : ndarray of shape (n,), bool

    Notes
    -----
    The locus is the densest place in (ln size, e1, e2), whatever its ellipticity, so that a trailed image keeps its
    stars; then outliers from its median are clipped at 5 robust standard deviations.
    """
    n = len(stars)
    if n < 3:
        return np.ones(n, dtype=bool)
    scale = max(1.0, SNR_OF_WIDTHS / min_snr)
    widths = scale * np.array([LOCUS_SIZE, LOCUS_E, LOCUS_E])
    points = np.column_stack((np.log(np.maximum(stars.sigma_px, 1e-3)), stars.e1, stars.e2)) / widths
    tree = cKDTree(points)
    n_near = tree.query_ball_point(points, 1.0, return_length=True)
    # Ties go to the brightest: sources come brightest first and argmax takes the first.
    keep = np.zeros(n, dtype=bool)
    keep[tree.query_ball_point(points[int(np.argmax(n_near))], 1.5)] = True
    floor = scale * MIN_SCATTER / widths
    for _ in range(3):
        centre = np.median(points[keep], axis=0)
        scatter = MAD_TO_SIGMA * np.median(np.abs(points[keep] - centre), axis=0)
        near = np.abs(points - centre) <= N_CLIP * np.maximum(scatter, floor)
        new = np.asarray(near.all(axis=1), dtype=bool)
        if not new.any() or (new == keep).all():
            break
        keep = new
    return keep
