"""Zernikes from donuts: a forward model of the image is fitted to the pixels.

The model is danish's: pupil mask at the field angle, a ray-optics map from pupil to focal plane, a Kolmogorov blur.
One donut leaves pairs of terms hard to tell apart (Z4 and Z11 with the blur, Z5 and Z13, ...); an intra- and an
extra-focal one share the aberrations and not these ambiguities, so that their joint fit is the better one.

Accuracy on simulated donuts (0.15 um rms in each of 19 terms, over a sky of 1000 electrons, r band, 1.6 degrees off
axis, seeing 0.7-1.1 arcsec, binned 2x2): rss error over all terms 58 nm (99 nm at most) for one donut of 4e6 electrons
and 44 nm for a pair, medians of 8 and 4 draws; 97 and 66 nm with half the light. In seeing below 0.65 arcsec blocks of
two pixels are coarse: up to 240 nm, and chi2_per_dof says so.

All Zernikes here are deviations from the perfect telescope's, in the camera's axes as batoid draws them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from payloads.focus.optics import donut_factory, fwhm_of_zernikes, intrinsic_zernikes_m
from rapid.errors import PayloadError

NOLL = tuple(range(4, 23))
"""Terms fitted: focus to secondary spherical."""
TOLERANCE = 1e-4
"""Relative change of fit and parameters at which the fit rests: 1e-6 takes 10 % longer for the same Zernikes to 2 nm."""
SCALE_M = 1e-7
"""A tenth of a micrometre: the step in which Zernikes are of the same order as the other parameters."""
FWHM_RANGE_ARCSEC = (0.2, 4.0)
N_OWN = 4
"""Parameters of each donut alone: flux, x, y, FWHM."""


@dataclass(frozen=True)
class DonutStamp:
    """One donut cut out for the fit.

    Attributes
    ----------
    image : ndarray of shape (n, n), float64, electron
        n odd, background subtracted, the donut near the middle; in the camera's axes, indexed ``[y, x]``.
    sky_variance
        Of a pixel without the star [electron^2].
    pixel_m
        Side of a pixel, binned or not.
    pixel_arcsec
        The same on the sky.
    defocus_mm
        Displacement of the detector in the camera, positive beyond focus.
    camera_mm
        Displacement of the whole camera, positive beyond focus.
    thx_rad, thy_rad
        Field angle along the camera's axes.
    """

    image: NDArray[np.float64]
    sky_variance: float
    pixel_m: float
    pixel_arcsec: float
    defocus_mm: float
    thx_rad: float
    thy_rad: float
    camera_mm: float = 0.0


@dataclass(frozen=True)
class WavefrontFit:
    """A fitted wavefront.

    Attributes
    ----------
    zernikes_um, errors_um : ndarray of shape (19,), float64
        Z4 to Z22 beyond the perfect telescope's, and their standard errors by photon noise alone.
    fwhm_arcsec
        Atmospheric blur of each donut.
    chi2_per_dof
        Well above 1 where the model misses something: a neighbour, a gradient, a wrong mask.
    aberration_fwhm_arcsec
        What the aberrations add to the seeing in quadrature.
    converged
        Whether the fit came to rest.
    models : ndarrays of the stamps' shapes, electron
        The fitted donuts, one for each stamp.
    """

    zernikes_um: NDArray[np.float64]
    errors_um: NDArray[np.float64]
    fwhm_arcsec: tuple[float, ...]
    chi2_per_dof: float
    aberration_fwhm_arcsec: float
    converged: bool
    models: tuple[NDArray[np.float64], ...] = ()


def bin_stamp(image: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Add up blocks of pixels and leave an odd number of them on a side.

    The rows and columns beyond are cut off evenly.
    """
    n = image.shape[0] // factor
    n -= 1 - n % 2
    cut = (image.shape[0] - n * factor) // 2
    part = image[cut : cut + n * factor, cut : cut + n * factor]
    summed: NDArray[np.float64] = part.reshape(n, factor, n, factor).sum(axis=(1, 3))
    return summed


def _model(stamp: DonutStamp, camera: str, band: str) -> Any:
    import danish

    n = stamp.image.shape[0]
    if stamp.image.shape != (n, n) or n % 2 == 0:
        raise ValueError("a donut stamp is square with an odd number of pixels")
    reference = intrinsic_zernikes_m(
        camera,
        band=band,
        defocus_mm=stamp.defocus_mm,
        camera_mm=stamp.camera_mm,
        thx_rad=stamp.thx_rad,
        thy_rad=stamp.thy_rad,
    )
    return danish.SingleDonutModel(
        donut_factory(camera, pixel_m=stamp.pixel_m),
        z_ref=reference,
        z_terms=NOLL,
        thx=stamp.thx_rad,
        thy=stamp.thy_rad,
        npix=n,
    )


def _spread(parameters: NDArray[np.float64]) -> tuple[Any, ...]:
    flux, x, y, fwhm, *zernikes_m = (float(value) for value in parameters)
    return flux, x, y, fwhm, zernikes_m


def _centre(stamp: DonutStamp) -> tuple[float, float]:
    """Return the light's centroid from the middle of the stamp [arcsec]."""
    light = np.where(stamp.image > 3.0 * math.sqrt(stamp.sky_variance), stamp.image, 0.0)
    if light.sum() <= 0.0:
        raise PayloadError("a donut to be fitted has no light above the noise")
    at = np.arange(len(light)) - (len(light) - 1) / 2.0
    return (
        float((light.sum(axis=0) * at).sum() / light.sum()) * stamp.pixel_arcsec,
        float((light.sum(axis=1) * at).sum() / light.sum()) * stamp.pixel_arcsec,
    )


def fit_wavefront(
    stamps: Sequence[DonutStamp],
    *,
    camera: str = "LSSTCam",
    band: str = "r",
    seeing_arcsec: float = 0.9,
    start_um: NDArray[np.float64] | None = None,
) -> WavefrontFit:
    """Fit one wavefront to one donut, or jointly to several that share it.

    Parameters
    ----------
    stamps
        One donut; or an intra- and an extra-focal one near each other in the field.
    seeing_arcsec
        Where the fit of the blur starts.
    start_um : ndarray of shape (19,), float64, or None
        Where that of Z4 to Z22 starts; zero if left out.

    Raises
    ------
    PayloadError
        Raised without danish or batoid, for a camera or band without optics, or a stamp without light.
    ValueError
        Raised if there is no stamp, or one is not square with an odd side.
    """
    if not stamps:
        raise ValueError("a wavefront needs a donut")
    models = [_model(stamp, camera, band) for stamp in stamps]
    n_own = N_OWN * len(stamps)
    # Fluxes enter as a part of the first guess and Zernikes in tenths of a micrometre: all parameters of order one.
    fluxes = [max(float(stamp.image.sum()), 1.0) for stamp in stamps]
    start: list[float] = []
    low: list[float] = []
    high: list[float] = []
    for stamp in stamps:
        x, y = _centre(stamp)
        reach = 0.25 * len(stamp.image) * stamp.pixel_arcsec
        start += [1.0, x, y, seeing_arcsec]
        low += [0.1, x - reach, y - reach, FWHM_RANGE_ARCSEC[0]]
        high += [10.0, x + reach, y + reach, FWHM_RANGE_ARCSEC[1]]
    start += [0.0] * len(NOLL) if start_um is None else [float(z) * 1e-6 / SCALE_M for z in start_um]
    low += [-np.inf] * len(NOLL)
    high += [np.inf] * len(NOLL)

    def parameters_of(k: int, p: NDArray[np.float64]) -> NDArray[np.float64]:
        flux, x, y, fwhm = p[N_OWN * k : N_OWN * (k + 1)]
        return np.array([flux * fluxes[k], x, y, fwhm, *(p[n_own:] * SCALE_M)])

    def chi(p: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [
            model.chi(parameters_of(k, p), stamp.image, stamp.sky_variance)
            for k, (model, stamp) in enumerate(zip(models, stamps, strict=True))
        ]
        return np.concatenate(parts)

    def jacobian(p: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = []
        for k, (model, stamp) in enumerate(zip(models, stamps, strict=True)):
            part = model.jac(parameters_of(k, p), stamp.image, stamp.sky_variance)
            block = np.zeros((part.shape[0], len(p)))
            block[:, N_OWN * k : N_OWN * (k + 1)] = part[:, :N_OWN]
            block[:, N_OWN * k] *= fluxes[k]
            block[:, n_own:] = part[:, N_OWN:] * SCALE_M
            rows.append(block)
        return np.concatenate(rows)

    fit = least_squares(
        chi, start, jac=jacobian, bounds=(low, high), ftol=TOLERANCE, xtol=TOLERANCE, gtol=TOLERANCE, max_nfev=30
    )
    slopes = np.asarray(fit.jac, dtype=np.float64)
    covariance = np.linalg.pinv(slopes.T @ slopes)
    n_dof = len(fit.fun) - len(fit.x)
    zernikes_um = fit.x[n_own:] * SCALE_M * 1e6
    return WavefrontFit(
        zernikes_um=zernikes_um,
        errors_um=np.sqrt(np.diag(covariance)[n_own:]) * SCALE_M * 1e6,
        fwhm_arcsec=tuple(float(fit.x[N_OWN * k + 3]) for k in range(len(stamps))),
        chi2_per_dof=float(2.0 * fit.cost / n_dof),
        aberration_fwhm_arcsec=fwhm_of_zernikes(NOLL, zernikes_um),
        converged=bool(fit.status > 0),
        models=tuple(model.model(*_spread(parameters_of(k, fit.x))) for k, model in enumerate(models)),
    )
