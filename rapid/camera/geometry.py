"""Go between pixels of a detector, millimetres in the focal plane, and angles on the sky.

Pure functions. Pixel (0, 0) is the centre of the lower left pixel of the trimmed detector; the focal plane is
DVCS, as in `rapid.camera.models`.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapid.camera.models import Camera, Detector

_Scalar = TypeVar("_Scalar", bound=np.generic)
_QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Exact cosine and sine of 0 to 3 quarter turns."""


def detector_to_focal_plane(
    detector: Detector, x_px: ArrayLike, y_px: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the focal-plane position of pixels.

    Parameters
    ----------
    detector
        The detector.
    x_px, y_px
        Trimmed pixel coordinates, scalars or arrays of the same shape.

    Returns
    -------
    x_mm, y_mm : ndarray of float64, mm
    """
    cos, sin = _QUARTERS[detector.n_quarter]
    u = (np.asarray(x_px, dtype=np.float64) - (detector.width - 1) / 2) * detector.pixel_mm
    v = (np.asarray(y_px, dtype=np.float64) - (detector.height - 1) / 2) * detector.pixel_mm
    return detector.x_mm + cos * u - sin * v, detector.y_mm + sin * u + cos * v


def focal_plane_to_detector(
    detector: Detector, x_mm: ArrayLike, y_mm: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixel coordinates of focal-plane positions; the inverse of `detector_to_focal_plane`.

    Positions beside the detector give coordinates beyond its edges.
    """
    cos, sin = _QUARTERS[detector.n_quarter]
    u = np.asarray(x_mm, dtype=np.float64) - detector.x_mm
    v = np.asarray(y_mm, dtype=np.float64) - detector.y_mm
    x_px = (cos * u + sin * v) / detector.pixel_mm + (detector.width - 1) / 2
    y_px = (-sin * u + cos * v) / detector.pixel_mm + (detector.height - 1) / 2
    return x_px, y_px


def corners_mm(detector: Detector) -> NDArray[np.float64]:
    """Return the outer corners of a detector in the focal plane.

    Returns
    -------
    ndarray of shape (4, 2), mm
        Lower left, lower right, upper right, upper left of the *detector*: after its quarter turns the first may be
        any corner in the focal plane, and the order still runs counter-clockwise.
    """
    right, top = detector.width - 0.5, detector.height - 0.5
    x_mm, y_mm = detector_to_focal_plane(detector, [-0.5, right, right, -0.5], [-0.5, -0.5, top, top])
    return np.stack([x_mm, y_mm], axis=1)


def extent_mm(camera: Camera) -> tuple[float, float, float, float]:
    """Return the smallest rectangle around all detectors: x_min, x_max, y_min, y_max [mm]."""
    corners = np.concatenate([corners_mm(detector) for detector in camera.detectors])
    (x_min, y_min), (x_max, y_max) = corners.min(axis=0), corners.max(axis=0)
    return float(x_min), float(x_max), float(y_min), float(y_max)


def focal_plane_to_field_angle(
    camera: Camera, x_mm: ArrayLike, y_mm: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the angle from the boresight, along the focal-plane axes.

    Returns
    -------
    x_deg, y_deg : ndarray of float64, degree

    Notes
    -----
    The radius is distorted by the camera's ``radial_coefficients``, then scaled by its plate scale, as the
    FocalPlane-FieldAngle transform of lsst.afw.cameraGeom does.
    """
    x, y = np.asarray(x_mm, dtype=np.float64), np.asarray(y_mm, dtype=np.float64)
    r = np.hypot(x, y)
    distorted = np.polynomial.polynomial.polyval(r, np.asarray(camera.radial_coefficients))
    scale = camera.plate_scale_arcsec_per_mm / 3600.0 * np.where(r > 0, distorted / np.where(r > 0, r, 1.0), 1.0)
    return scale * x, scale * y


def rotate_to_focal_plane(image: NDArray[_Scalar], detector: Detector) -> NDArray[_Scalar]:
    """Turn an image of a detector, binned or not, as it lies in the focal plane.

    Parameters
    ----------
    image : ndarray of shape (ny, nx)
        Indexed ``[y, x]``, y upwards. Not modified.
    detector
        The detector, for its quarter turns.

    Returns
    -------
    ndarray of shape (ny, nx), or (nx, ny) after an odd number of turns
        A view where numpy can.
    """
    # np.rot90 turns counter-clockwise with y downwards, so clockwise for us.
    return np.rot90(image, k=-detector.n_quarter)
