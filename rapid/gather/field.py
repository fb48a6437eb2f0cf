"""How a number changes over the focal plane: a tilted, curved surface through the detectors' values.

Pure functions of detectors' metrics. A tilt of the FWHM tells of a tilted camera, its curvature of a wrong distance of
the correctors, a gradient of the zero point of cloud or of a flat that does not fit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapid.camera.geometry import focal_plane_to_field_angle
from rapid.camera.models import Camera, Purpose
from rapid.results.models import Scalar

N_CLIP = 4.0
"""Detectors farther off than this many robust standard deviations do not bend the surface."""
SPARE = 2
"""A surface needs so many more detectors than terms, or its errors mean nothing."""


@dataclass(frozen=True)
class Surface:
    """A fitted surface ``centre + tilt_x x + tilt_y y + curvature r^2``, x, y and r in degrees from the boresight.

    Attributes
    ----------
    centre, tilt_x, tilt_y, curvature
        In the fitted unit, per degree, and per square degree; ``curvature`` is None where detectors are too few for it.
    centre_error, tilt_x_error, tilt_y_error, curvature_error
        One standard deviation, from the scatter about the surface.
    scatter
        Root mean square about the surface.
    n
        Detectors used.
    """

    centre: float
    tilt_x: float
    tilt_y: float
    curvature: float | None
    centre_error: float
    tilt_x_error: float
    tilt_y_error: float
    curvature_error: float | None
    scatter: float
    n: int


def fit_surface(x_deg: ArrayLike, y_deg: ArrayLike, values: ArrayLike) -> Surface | None:
    """Fit a surface to values at places in the field.

    Parameters
    ----------
    x_deg, y_deg, values : array_like of shape (n,)
        NaN marks a value to ignore. Outliers are clipped.

    Returns
    -------
    Surface or None
        None where the places are too few, or all on a line.
    """
    x, y, v = (np.asarray(array, dtype=np.float64) for array in (x_deg, y_deg, values))
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(v)
    x, y, v = x[good], y[good], v[good]
    curved = np.column_stack((np.ones_like(x), x, y, x * x + y * y))
    for terms in (curved, curved[:, :3]):
        found = _fit(terms, v)
        if found is not None:
            c, e, scatter, n = found
            has_curvature = len(c) == 4
            return Surface(
                centre=float(c[0]),
                tilt_x=float(c[1]),
                tilt_y=float(c[2]),
                curvature=float(c[3]) if has_curvature else None,
                centre_error=float(e[0]),
                tilt_x_error=float(e[1]),
                tilt_y_error=float(e[2]),
                curvature_error=float(e[3]) if has_curvature else None,
                scatter=scatter,
                n=n,
            )
    return None


def _fit(
    terms: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, int] | None:
    n_terms = terms.shape[1]
    keep = np.ones(len(values), dtype=bool)
    # A length of one in every column: rank and inverse then do not depend on the field's size.
    norm = np.sqrt((terms**2).sum(axis=0))
    if len(values) < n_terms + SPARE or not (norm > 0).all():
        return None
    scaled = terms / norm
    for _ in range(5):
        if np.linalg.matrix_rank(scaled[keep], tol=1e-6) < n_terms:
            return None
        solution = np.linalg.lstsq(scaled[keep], values[keep], rcond=None)[0]
        residual = values - scaled @ solution
        spread = 1.4826 * float(np.median(np.abs(residual[keep] - np.median(residual[keep]))))
        inside = np.abs(residual) <= max(N_CLIP * spread, 1e-9 * float(np.abs(values).max()))
        if (inside == keep).all() or np.count_nonzero(inside) < n_terms + SPARE:
            break
        keep = inside
    n = int(np.count_nonzero(keep))
    scatter = math.sqrt(float((residual[keep] ** 2).sum()) / (n - n_terms))
    errors = scatter * np.sqrt(np.diag(np.linalg.inv(scaled[keep].T @ scaled[keep])))
    return solution / norm, errors / norm, scatter, n


def field_metrics(camera: Camera, metrics: Mapping[int, Mapping[str, Scalar]]) -> dict[str, Scalar]:
    """Return the surfaces of FWHM and zero point as metrics of a summary; nothing for what cannot be fitted.

    Parameters
    ----------
    metrics
        By detector number; science detectors alone are used, since the others stand out of the focal plane.
    """
    numbers: dict[str, Scalar] = {}
    if (fwhm := _surface_of(camera, metrics, "psf_fwhm_arcsec")) is not None:
        numbers |= _named(fwhm, "fwhm_field", "arcsec")
    if (zero_point := _surface_of(camera, metrics, "zero_point_mag")) is not None:
        numbers |= _named(zero_point, "zero_point_field", "mag")
    return numbers


def _surface_of(camera: Camera, metrics: Mapping[int, Mapping[str, Scalar]], key: str) -> Surface | None:
    places, values = [], []
    for number, found in metrics.items():
        detector = camera.by_id.get(number)
        value = found.get(key)
        if detector is None or detector.purpose is not Purpose.SCIENCE or isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            places.append((detector.x_mm, detector.y_mm))
            values.append(float(value))
    if not values:
        return None
    x_mm, y_mm = np.array(places).T
    return fit_surface(*focal_plane_to_field_angle(camera, x_mm, y_mm), values)


def _named(surface: Surface, prefix: str, unit: str) -> dict[str, Scalar]:
    numbers: dict[str, Scalar] = {
        f"{prefix}_centre_{unit}": surface.centre,
        f"{prefix}_centre_error_{unit}": surface.centre_error,
        f"{prefix}_tilt_x_{unit}_per_deg": surface.tilt_x,
        f"{prefix}_tilt_x_error_{unit}_per_deg": surface.tilt_x_error,
        f"{prefix}_tilt_y_{unit}_per_deg": surface.tilt_y,
        f"{prefix}_tilt_y_error_{unit}_per_deg": surface.tilt_y_error,
        f"{prefix}_scatter_{unit}": surface.scatter,
        f"n_detectors_{prefix}": surface.n,
    }
    if surface.curvature is not None:
        numbers[f"{prefix}_curvature_{unit}_per_deg2"] = surface.curvature
        numbers[f"{prefix}_curvature_error_{unit}_per_deg2"] = surface.curvature_error
    return numbers
