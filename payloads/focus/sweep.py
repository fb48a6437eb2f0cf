"""Best focus from a sweep: image size against focus position.

Defocus adds to the seeing in quadrature, FWHM^2(z) = F0^2 + k^2 (z - z0)^2, which is a polynomial in z: a linear fit
gives best focus with its error. A parabola through FWHM itself is the wrong curve: off the centre of the sweep its
minimum is several micrometres from focus.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapid.errors import PayloadError

MIN_POINTS = 4
"""Three parameters and one point more: with three the fit is exact and says nothing of its error."""
MIN_POINTS_FOR_REJECTION = 6
"""With fewer, an outlier cannot be told from the curve's own shape."""
N_REWEIGHTS = 4
"""Rounds in which the weights follow the fitted curve; they rest after two or three."""
REJECT_SIGMA = 5.0
"""Points farther than this from the curve through the others are outliers."""
MAX_REJECTED_FRACTION = 0.25
MIN_CURVATURE_SIGMA = 2.0
"""The curve must bend upwards by this many standard errors: otherwise there is no minimum to speak of."""
MIN_CURVATURE = 1e-6
"""And by more than rounding: part of FWHM^2 between the middle and the end of the sweep."""
MIN_AXIS_RATIO = 3.0
"""Least ratio of an axis' scatter to its scatter about a straight line, to be the swept one; chance gives 1."""
MAX_AXIS_RATIO = 1e4


@dataclass(frozen=True)
class FocusFit:
    """The curve through a focus sweep.

    Attributes
    ----------
    best_focus_mm, best_focus_error_mm
        Position of the smallest image, and its standard error.
    best_fwhm_arcsec, best_fwhm_error_arcsec
        Image size there; None if the fitted curve dips below zero (a sweep too wide or too noisy for it).
    slope_arcsec_per_mm
        Growth of the image far from focus, k.
    chi2, n_dof
        Of the points used. Without given errors they were scaled so that chi2 equals ``n_dof``.
    fractional_scatter
        Scatter of the points used about the curve, part of the FWHM.
    coefficients : (float, float, float)
        Of FWHM^2 = a z^2 + b z + c, with z in mm from ``origin_mm`` [arcsec^2 mm^-2, arcsec^2 mm^-1, arcsec^2].
    used : ndarray of shape (n,), bool
        Points that were used; the others are outliers or not finite.
    is_outside_sweep
        Best focus lies beyond the positions that were tried: believe its direction, not its value.
    """

    best_focus_mm: float
    best_focus_error_mm: float
    best_fwhm_arcsec: float | None
    best_fwhm_error_arcsec: float | None
    slope_arcsec_per_mm: float
    chi2: float
    n_dof: int
    fractional_scatter: float
    origin_mm: float
    coefficients: tuple[float, float, float]
    used: NDArray[np.bool_]
    is_outside_sweep: bool

    def fwhm_at(self, z_mm: ArrayLike) -> NDArray[np.float64]:
        """Return the curve [arcsec]; 0 where it dips below zero."""
        z = np.asarray(z_mm, dtype=np.float64) - self.origin_mm
        a, b, c = self.coefficients
        return np.sqrt(np.maximum(a * z**2 + b * z + c, 0.0))


@dataclass(frozen=True)
class _Solution:
    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    sigma: NDArray[np.float64]
    chi2: float


def _solve(z: NDArray[np.float64], fwhm: NDArray[np.float64], error: NDArray[np.float64] | None) -> _Solution:
    """Fit FWHM^2 = a z^2 + b z + c, z scaled to about 1.

    The error of FWHM^2 is 2 FWHM sigma with the *curve's* FWHM: taken from the points themselves, those that scattered
    low would weigh more and pull the curve down. Without given errors, sigma is the same part of every FWHM.
    """
    terms = np.column_stack((z**2, z, np.ones_like(z)))
    curve: NDArray[np.float64] = fwhm
    coefficients: NDArray[np.float64] = np.zeros(3)
    sigma = np.ones_like(fwhm)
    for _ in range(N_REWEIGHTS):
        sigma = np.asarray(2.0 * curve * (curve if error is None else error), dtype=np.float64)
        coefficients = np.asarray(
            np.linalg.lstsq(terms / sigma[:, None], fwhm**2 / sigma, rcond=None)[0], dtype=np.float64
        )
        # The floor keeps a point whose curve dips towards zero from taking all the weight.
        curve = np.sqrt(np.maximum(terms @ coefficients, (0.5 * fwhm.min()) ** 2))
    weighted = terms / sigma[:, None]
    try:
        covariance = np.asarray(np.linalg.inv(weighted.T @ weighted), dtype=np.float64)
    except np.linalg.LinAlgError as singular:
        raise PayloadError("the sweep's positions do not determine a curve") from singular
    chi2 = float((((fwhm**2 - terms @ coefficients) / sigma) ** 2).sum())
    return _Solution(coefficients, covariance, sigma, chi2)


def _worst_outlier(
    z: NDArray[np.float64], fwhm: NDArray[np.float64], error: NDArray[np.float64] | None, used: NDArray[np.bool_]
) -> int | None:
    """Return the point farthest from the curve through the others, if it is beyond 5 of their standard deviations."""
    worst, worst_pull = None, REJECT_SIGMA
    for k in np.flatnonzero(used):
        others = used.copy()
        others[k] = False
        fit = _solve(z[others], fwhm[others], None if error is None else error[others])
        n_dof = int(np.count_nonzero(others)) - 3
        scale = fit.chi2 / n_dof
        at = np.array([z[k] ** 2, z[k], 1.0])
        expected = float(at @ fit.coefficients)
        size = math.sqrt(max(expected, (0.5 * float(fwhm[others].min())) ** 2))
        own = 2.0 * size * (size if error is None else float(error[k]))
        variance = (own**2 + float(at @ fit.covariance @ at)) * (scale if error is None else max(scale, 1.0))
        # Noise cannot be known better than to 1 % of the FWHM: a perfect curve may still have a point beside it.
        pull = abs(fwhm[k] ** 2 - expected) / math.sqrt(variance + (0.02 * size**2) ** 2)
        if pull > worst_pull:
            worst, worst_pull = int(k), pull
    return worst


def fit_focus_sweep(z_mm: ArrayLike, fwhm_arcsec: ArrayLike, error_arcsec: ArrayLike | None = None) -> FocusFit:
    """Fit best focus.

    Parameters
    ----------
    z_mm : array_like of shape (n,)
        Focus positions.
    fwhm_arcsec : array_like of shape (n,)
        Image sizes, 2.355 sigma or any other width that grows in quadrature. NaN marks a missing one.
    error_arcsec : array_like of shape (n,), optional
        Their standard errors. Without them every size is taken to be equally good in proportion, and the
        errors of the result follow from the scatter about the curve.

    Returns
    -------
    fit

    Raises
    ------
    PayloadError
        Raised if there are fewer than four good points or three positions, or the curve does not bend upwards.
    ValueError
        Raised if the lengths differ, or an error is not positive.
    """
    z_all = np.atleast_1d(np.asarray(z_mm, dtype=np.float64))
    fwhm_all = np.atleast_1d(np.asarray(fwhm_arcsec, dtype=np.float64))
    error_all = None if error_arcsec is None else np.atleast_1d(np.asarray(error_arcsec, dtype=np.float64))
    if z_all.shape != fwhm_all.shape or (error_all is not None and error_all.shape != z_all.shape):
        raise ValueError("positions, sizes and errors of a sweep must be as many")
    used = np.isfinite(z_all) & np.isfinite(fwhm_all) & (np.nan_to_num(fwhm_all) > 0.0)
    if error_all is not None:
        if (error_all[used] <= 0.0).any() or not np.isfinite(error_all[used]).all():
            raise ValueError("errors of image sizes must be positive")
        error_all = np.where(used, error_all, 1.0)
    n = int(np.count_nonzero(used))
    if n < MIN_POINTS:
        raise PayloadError(f"a focus sweep needs {MIN_POINTS} measured images, not {n}", n_points=n)
    if len(np.unique(z_all[used])) < 3:
        raise PayloadError("a focus sweep needs three different positions", n_points=n)
    origin = float(z_all[used].mean())
    unit = float(np.ptp(z_all[used])) / 2.0
    z = np.where(used, (z_all - origin) / unit, 0.0)
    fwhm = np.where(used, fwhm_all, 1.0)
    n_rejectable = int(MAX_REJECTED_FRACTION * n) if n >= MIN_POINTS_FOR_REJECTION else 0
    for _ in range(n_rejectable):
        worst = _worst_outlier(z, fwhm, error_all, used)
        if worst is None:
            break
        used[worst] = False
    solution = _solve(z[used], fwhm[used], None if error_all is None else error_all[used])
    n_dof = int(np.count_nonzero(used)) - 3
    covariance = solution.covariance
    chi2 = solution.chi2
    if error_all is None:
        covariance = covariance * chi2 / n_dof
        chi2 = float(n_dof)
    a, b, c = (float(value) for value in solution.coefficients)
    if a <= MIN_CURVATURE * abs(c) or a < MIN_CURVATURE_SIGMA * math.sqrt(covariance[0, 0]):
        raise PayloadError("the image size does not pass through a minimum: no best focus", curvature=a)
    z0 = -b / (2.0 * a)
    to_z0 = np.array([b / (2.0 * a**2), -1.0 / (2.0 * a), 0.0])
    f0_squared = c - b**2 / (4.0 * a)
    to_f0 = np.array([(b / (2.0 * a)) ** 2, -b / (2.0 * a), 1.0])
    best_fwhm = math.sqrt(f0_squared) if f0_squared > 0.0 else None
    terms = np.column_stack((z[used] ** 2, z[used], np.ones(n_dof + 3)))
    curve = np.sqrt(np.maximum(terms @ solution.coefficients, (0.5 * float(fwhm[used].min())) ** 2))
    scatter = math.sqrt(float(((fwhm[used] / curve - 1.0) ** 2).sum()) / n_dof)
    tried = z_all[used]
    best = origin + z0 * unit
    return FocusFit(
        best_focus_mm=best,
        best_focus_error_mm=math.sqrt(float(to_z0 @ covariance @ to_z0)) * unit,
        best_fwhm_arcsec=best_fwhm,
        best_fwhm_error_arcsec=None
        if best_fwhm is None
        else math.sqrt(float(to_f0 @ covariance @ to_f0)) / (2.0 * best_fwhm),
        slope_arcsec_per_mm=math.sqrt(a) / unit,
        chi2=chi2,
        n_dof=n_dof,
        fractional_scatter=scatter,
        origin_mm=origin,
        coefficients=(a / unit**2, b / unit, c),
        used=used,
        is_outside_sweep=not float(tried.min()) <= best <= float(tried.max()),
    )


def infer_sweep_axis(seq_num: ArrayLike, positions: Mapping[str, ArrayLike]) -> str:
    """Return the axis that was swept: the one that follows a straight line in the sequence number.

    Parameters
    ----------
    seq_num : array_like of shape (n,)
    positions
        By axis name, its values in n exposures, each axis in its own unit.

    Raises
    ------
    PayloadError
        Raised if there are fewer than three exposures, or no axis moved steadily.

    Notes
    -----
    Largest ratio of scatter to scatter about the line. An axis that jitters has a ratio of about 1, one that was
    commanded in equal steps a large one; one that stood still has none. Of two exact lines, the first is taken.
    """
    order = np.asarray(seq_num, dtype=np.float64)
    if len(order) < 3:
        raise PayloadError("a sweep's axis cannot be told from fewer than three exposures")
    best, best_ratio = None, MIN_AXIS_RATIO
    for axis, values in positions.items():
        v = np.asarray(values, dtype=np.float64)
        if v.shape != order.shape:
            raise ValueError(f"axis {axis} has {v.size} positions for {order.size} exposures")
        if not np.isfinite(v).all():
            continue
        spread = float(v.std())
        if spread <= 1e-9 * max(1.0, float(np.abs(v).max())):
            continue
        line = np.polynomial.Polynomial.fit(order, v, 1)
        about = float((v - line(order)).std())
        ratio = min(spread / max(about, spread / MAX_AXIS_RATIO), MAX_AXIS_RATIO)
        if ratio > best_ratio:
            best, best_ratio = axis, ratio
    if best is None:
        raise PayloadError("no axis moved steadily: not a focus sweep")
    return best
