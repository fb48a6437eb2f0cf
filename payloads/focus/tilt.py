"""The tilt of the focal plane: best focus of many detectors, fitted with a plane."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from payloads.focus.sweep import MIN_POINTS
from rapid.errors import PayloadError


@dataclass(frozen=True)
class FocalPlaneTilt:
    """The plane through the detectors' best focus positions.

    Attributes
    ----------
    piston_mm, piston_error_mm
        Best focus at the centre of the focal plane.
    tilt_x_arcsec, tilt_y_arcsec, tilt_error_arcsec
        Rise of best focus along x and y of the focal plane, as angles; larger of the two errors.
    scatter_mm
        Of the detectors about the plane: their heights, field curvature and noise.
    n_detectors
        Detectors used, after leaving out those beyond 5 robust standard deviations.
    """

    piston_mm: float
    piston_error_mm: float
    tilt_x_arcsec: float
    tilt_y_arcsec: float
    tilt_error_arcsec: float
    scatter_mm: float
    n_detectors: int


def fit_focal_plane_tilt(x_mm: ArrayLike, y_mm: ArrayLike, best_focus_mm: Sequence[float]) -> FocalPlaneTilt:
    """Fit a plane to the best focus of many detectors.

    Parameters
    ----------
    x_mm, y_mm : array_like of shape (n,)
        Centres of the detectors in the focal plane.
    best_focus_mm
        Best focus of each, e.g. from `fit_focus_sweep` on its own image sizes. NaN marks a missing one.

    Raises
    ------
    PayloadError
        Raised if fewer than four detectors have a best focus, or all lie on a line.
    """
    x, y = np.asarray(x_mm, dtype=np.float64), np.asarray(y_mm, dtype=np.float64)
    z = np.asarray(best_focus_mm, dtype=np.float64)
    keep = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    terms = np.column_stack((np.ones_like(x), x, y))
    coefficients: NDArray[np.float64] = np.zeros(3)
    for _ in range(3):
        if np.count_nonzero(keep) < MIN_POINTS:
            raise PayloadError(f"a tilt needs best focus of {MIN_POINTS} detectors, not {np.count_nonzero(keep)}")
        solution, _, rank, _ = np.linalg.lstsq(terms[keep], z[keep], rcond=None)
        coefficients = np.asarray(solution, dtype=np.float64)
        if rank < 3:
            raise PayloadError("a tilt needs detectors that do not lie on a line")
        residual = z - terms @ coefficients
        scatter = 1.4826 * float(np.median(np.abs(residual[keep] - np.median(residual[keep]))))
        new = np.isfinite(residual) & (np.abs(np.nan_to_num(residual, nan=np.inf)) <= max(5.0 * scatter, 1e-4))
        if (new == keep).all() or np.count_nonzero(new) < MIN_POINTS:
            break
        keep = new
    n = int(np.count_nonzero(keep))
    residual = z[keep] - terms[keep] @ coefficients
    rms = math.sqrt(float((residual**2).sum()) / (n - 3))
    error = rms * np.sqrt(np.diag(np.linalg.inv(terms[keep].T @ terms[keep])))
    arcsec = 3600.0 * 180.0 / math.pi
    return FocalPlaneTilt(
        piston_mm=float(coefficients[0]),
        piston_error_mm=float(error[0]),
        tilt_x_arcsec=float(coefficients[1]) * arcsec,
        tilt_y_arcsec=float(coefficients[2]) * arcsec,
        tilt_error_arcsec=float(error[1:].max()) * arcsec,
        scatter_mm=rms,
        n_detectors=n,
    )
