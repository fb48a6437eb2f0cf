"""Astigmatism through focus: the image's long axis turns by 90 degrees from one side to the other."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from payloads.focus.sweep import MIN_POINTS
from rapid.errors import PayloadError


@dataclass(frozen=True)
class AstigmatismFit:
    """How the image's elongation passes through focus, for the two components.

    Attributes
    ----------
    slope_arcsec2_per_mm
        d(Ixx - Iyy)/dz and d(2 Ixy)/dz: proportional to the astigmatism terms Z6 and Z5.
    zero_mm
        Where each component vanishes; None if it does not change with focus (slope below twice its error).
    """

    slope_arcsec2_per_mm: tuple[float, float]
    slope_error_arcsec2_per_mm: tuple[float, float]
    zero_mm: tuple[float | None, float | None]


def fit_astigmatism(z_mm: ArrayLike, fwhm_arcsec: ArrayLike, e1: ArrayLike, e2: ArrayLike) -> AstigmatismFit:
    """Fit the flip of the image's axis through focus.

    Notes
    -----
    The unnormalised moments e (Ixx + Iyy) are linear in z, as defocus times astigmatism; e itself is not, because the
    image's size changes along with it.

    Raises
    ------
    PayloadError
        Raised if there are fewer than four points.
    """
    z = np.asarray(z_mm, dtype=np.float64)
    fwhm = np.asarray(fwhm_arcsec, dtype=np.float64)
    ellipticities = (np.asarray(e1, dtype=np.float64), np.asarray(e2, dtype=np.float64))
    good = np.isfinite(z) & np.isfinite(fwhm) & np.isfinite(ellipticities[0]) & np.isfinite(ellipticities[1])
    n = int(np.count_nonzero(good))
    if n < MIN_POINTS or np.ptp(z[good]) == 0.0:
        raise PayloadError(f"astigmatism through focus needs {MIN_POINTS} images at different positions, not {n}")
    origin = float(z[good].mean())
    terms = np.column_stack((z[good] - origin, np.ones(n)))
    inverse = np.linalg.inv(terms.T @ terms)
    slopes, errors, zeros = [], [], []
    for e in ellipticities:
        # sigma^2 = det(I)^(1/2) = (trace / 2) sqrt(1 - e^2)
        e_total2 = np.minimum(ellipticities[0][good] ** 2 + ellipticities[1][good] ** 2, 0.99)
        trace = 2.0 * fwhm[good] ** 2 / (8.0 * math.log(2.0)) / np.sqrt(1.0 - e_total2)
        moment = e[good] * trace
        slope, at_origin = inverse @ terms.T @ moment
        rms2 = float(((moment - terms @ (slope, at_origin)) ** 2).sum()) / (n - 2)
        error = math.sqrt(rms2 * inverse[0, 0])
        slopes.append(float(slope))
        errors.append(error)
        zeros.append(float(origin - at_origin / slope) if abs(slope) > 2.0 * error and slope != 0.0 else None)
    return AstigmatismFit((slopes[0], slopes[1]), (errors[0], errors[1]), (zeros[0], zeros[1]))
