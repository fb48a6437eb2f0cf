"""Motion of the mount during an exposure, from its encoders: arrays in, numbers out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ARCSEC_OF_DEG = 3600.0
FWHM_OF_SIGMA = 2.354820045
DEGREE = 4
"""Of the polynomial that stands for the wanted path where nobody says what it was: as of the mount analysis of summit_utils."""


@dataclass(frozen=True)
class AxisMotion:
    """What an axis did beside what was wanted.

    Attributes
    ----------
    rms_arcsec
        Of its error, the mean left out: a constant offset moves no star.
    peak_arcsec
        Largest error, from the mean.
    n_samples
        Samples it is from.
    """

    rms_arcsec: float
    peak_arcsec: float
    n_samples: int


@dataclass(frozen=True)
class MountMotion:
    """What the axes' errors do to an image.

    Attributes
    ----------
    image_rms_arcsec
        Root of the mean square distance of a star from its mean place, over the field.
    fwhm_arcsec
        Full width of a Gaussian with the mean variance of both directions: what is added to the image in quadrature.
    """

    azimuth: AxisMotion
    elevation: AxisMotion
    rotator: AxisMotion | None
    image_rms_arcsec: float
    fwhm_arcsec: float


def axis_motion(
    time_s: NDArray[np.float64], actual_deg: NDArray[np.float64], demand_deg: NDArray[np.float64] | None = None
) -> AxisMotion:
    """Return the error of one axis.

    Parameters
    ----------
    time_s, actual_deg : ndarray of shape (n,), float64
        Samples within the exposure, at least ``DEGREE + 2``.
    demand_deg : ndarray of shape (n,), float64
        What was wanted at the same times; without it, a polynomial of degree 4 stands for the wanted path. It follows slow
        errors, too: what is told then is the jitter.

    Raises
    ------
    ValueError
        Raised for too few samples, or ones that are not finite.
    """
    if len(time_s) < DEGREE + 2:
        raise ValueError(f"{len(time_s)} samples are too few")
    # Through north the azimuth jumps by a turn.
    actual = np.rad2deg(np.unwrap(np.deg2rad(actual_deg)))
    if demand_deg is not None:
        error = (actual_deg - demand_deg + 180.0) % 360.0 - 180.0
    else:
        error = actual - np.polynomial.Polynomial.fit(time_s, actual, DEGREE)(time_s)
    if not np.isfinite(error).all():
        raise ValueError("a sample is not finite")
    error = (error - error.mean()) * ARCSEC_OF_DEG
    return AxisMotion(float(np.sqrt((error**2).mean())), float(np.abs(error).max()), len(error))


def mount_motion(
    azimuth: AxisMotion,
    elevation: AxisMotion,
    rotator: AxisMotion | None,
    *,
    elevation_deg: float,
    field_radius_deg: float = 1.75,
) -> MountMotion:
    """Return what errors of the axes do to an image.

    Parameters
    ----------
    elevation_deg
        Mean elevation: on the sky an error in azimuth is smaller by its cosine.
    field_radius_deg
        Radius of the field: a rotation moves a star by the angle times its distance from the axis, whose mean square over
        a round field is half the radius squared.
    """
    across = azimuth.rms_arcsec * float(np.cos(np.deg2rad(elevation_deg)))
    turned = 0.0
    if rotator is not None:
        turned = rotator.rms_arcsec * float(np.deg2rad(field_radius_deg)) / float(np.sqrt(2.0))
    total = float(np.sqrt(across**2 + elevation.rms_arcsec**2 + turned**2))
    return MountMotion(azimuth, elevation, rotator, total, FWHM_OF_SIGMA * total / float(np.sqrt(2.0)))
