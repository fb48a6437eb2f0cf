"""How a wavefront changes over the field: each pupil term as a sum of field terms (double Zernikes).

Four corners give mean and tilt; the whole focal plane, seen by an intra- and an extra-focal exposure, the second
order as well.
"""

import math
from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray

FIELD_RADIUS_DEG = 1.75
"""Where the field terms are normalised: the edge of the LSST field."""
SITES_FOR_ORDER = {6: 10, 3: 4, 1: 1}
"""By number of field terms, the least number of sites: one more than the terms, so that the scatter is seen."""
MIN_SINGULAR = 1e-3
"""Field terms that the sites hold apart worse than this are not fitted: sites on one line have no tilt across it."""


@dataclass(frozen=True)
class FieldFit:
    """A wavefront over the field.

    Attributes
    ----------
    coefficients_um, errors_um : ndarray of shape (n_field, n_pupil), float64
        Row k - 1 belongs to the field's Zernike k (1: mean, 2 and 3: tilt along x and y, 4 to 6: second order), of
        Noll index, on a circle of `FIELD_RADIUS_DEG`. Errors are the sites' own or, if larger, their scatter's.
    rms_um : ndarray of shape (n_pupil,), float64
        Of the sites about the fit; NaN where nothing is left to tell.
    """

    coefficients_um: NDArray[np.float64]
    errors_um: NDArray[np.float64]
    rms_um: NDArray[np.float64]

    @property
    def n_terms(self) -> int:
        """Field terms fitted: 1, 3 or 6."""
        return len(self.coefficients_um)


def field_basis(thx_deg: NDArray[np.float64], thy_deg: NDArray[np.float64], n_terms: int) -> NDArray[np.float64]:
    """Return the field Zernikes 1 to ``n_terms`` at field angles, of shape (n, n_terms)."""
    basis = galsim.zernike.zernikeBasis(n_terms, thx_deg, thy_deg, R_outer=FIELD_RADIUS_DEG)
    found: NDArray[np.float64] = np.asarray(basis, dtype=np.float64)[1:].T
    return found


def fit_field(
    thx_deg: NDArray[np.float64],
    thy_deg: NDArray[np.float64],
    zernikes_um: NDArray[np.float64],
    errors_um: NDArray[np.float64],
) -> FieldFit:
    """Fit every pupil term over the field, with as many field terms as the sites carry.

    Parameters
    ----------
    thx_deg, thy_deg : ndarray of shape (n,), float64
        Field angles of the sites.
    zernikes_um, errors_um : ndarray of shape (n, n_pupil), float64
        Wavefront of each site and its standard errors.

    Raises
    ------
    ValueError
        Raised if there is no site.
    """
    n = len(thx_deg)
    if n == 0:
        raise ValueError("a field needs a site")
    n_terms = next(terms for terms, least in SITES_FOR_ORDER.items() if n >= least)
    basis = field_basis(thx_deg, thy_deg, n_terms)
    while n_terms > 1 and np.linalg.svd(basis, compute_uv=False)[-1] < MIN_SINGULAR * math.sqrt(n):
        n_terms = 3 if n_terms == 6 else 1
        basis = field_basis(thx_deg, thy_deg, n_terms)
    n_pupil = zernikes_um.shape[1]
    coefficients = np.empty((n_terms, n_pupil))
    errors = np.empty((n_terms, n_pupil))
    rms = np.full(n_pupil, np.nan)
    for k in range(n_pupil):
        weight = 1.0 / np.maximum(errors_um[:, k], 1e-4)
        inverse = np.linalg.inv((basis * weight[:, None] ** 2).T @ basis)
        coefficients[:, k] = inverse @ (basis.T @ (weight**2 * zernikes_um[:, k]))
        residual = zernikes_um[:, k] - basis @ coefficients[:, k]
        inflation = 1.0
        if n > n_terms:
            rms[k] = math.sqrt(float((residual**2).sum()) / (n - n_terms))
            inflation = max(1.0, float(((weight * residual) ** 2).sum()) / (n - n_terms))
        errors[:, k] = np.sqrt(inflation * np.diag(inverse))
    return FieldFit(coefficients, errors, rms)
