"""Donuts on the corner wavefront sensors of a sky image: traced through the telescope, vignetted as there.

Far off the axis a donut is no plain ring. Where the packages batoid and danish are installed and know the camera's
optics, each star of a corner sensor is drawn by them, with the exposure's aberrations; else the sensors show what any
other shows.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payloads.focus.optics import OPTICS, donut_factory, intrinsic_zernikes_m
from rapid.camera.geometry import detector_to_focal_plane, focal_plane_to_field_angle
from rapid.camera.models import Camera, Detector, Purpose
from rapid.errors import PayloadError
from replay.plan import PlannedExposure

NOLL = (6, 7, 8)
"""Astigmatism and coma in the camera's axes: those of the plan are in the focal plane's, x and y exchanged."""


def has_corner_donuts(exposure: PlannedExposure, camera: Camera, detector: Detector) -> bool:
    """Whether a detector is a wavefront half whose donuts can be drawn: the camera in focus, optics known."""
    if detector.purpose is not Purpose.WAVEFRONT or not detector.z_mm or exposure.defocus_mm:
        return False
    if camera.name not in OPTICS or exposure.physical_filter is None:
        return False
    try:
        donut_factory(camera.name, pixel_m=detector.pixel_mm * 1e-3)
        intrinsic_zernikes_m(camera.name, band=exposure.physical_filter[0], defocus_mm=0.0, thx_rad=0.0, thy_rad=0.0)
    except PayloadError:
        return False
    return True


def add_corner_donuts(
    image: NDArray[np.float32],
    x: NDArray[Any],
    y: NDArray[Any],
    flux: NDArray[Any],
    *,
    exposure: PlannedExposure,
    camera: Camera,
    detector: Detector,
    fwhm_arcsec: float,
) -> None:
    """Add donuts of given flux, centred on whole pixels.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32, electron
        Changed in place.
    x, y, flux : ndarrays of shape (n,)
    """
    import danish

    coma_x, coma_y, astigmatism = (*exposure.zernikes_um, 0.0, 0.0, 0.0)[:3]
    zernikes_m = np.array([-astigmatism, coma_x, coma_y]) * 1e-6
    half = math.ceil(1.35 * abs(detector.z_mm) / math.sqrt(4 * camera.f_ratio**2 - 1) / detector.pixel_mm)
    for star_x, star_y, star_flux in zip(x, y, flux, strict=True):
        x_deg, y_deg = focal_plane_to_field_angle(camera, *detector_to_focal_plane(detector, star_x, star_y))
        thx, thy = math.radians(float(y_deg)), math.radians(float(x_deg))
        optics = {
            "band": str(exposure.physical_filter)[0],
            "defocus_mm": -detector.z_mm,
            "thx_rad": thx,
            "thy_rad": thy,
        }
        model = danish.SingleDonutModel(
            donut_factory(camera.name, pixel_m=detector.pixel_mm * 1e-3),
            z_ref=intrinsic_zernikes_m(camera.name, **optics),
            z_terms=NOLL,
            thx=thx,
            thy=thy,
            npix=2 * half + 1,
        )
        light = model.model(float(star_flux), 0.0, 0.0, fwhm_arcsec, zernikes_m)
        _add(image, np.rot90(light.T, k=detector.n_quarter), round(float(star_x)) - half, round(float(star_y)) - half)


def _add(image: NDArray[np.float32], stamp: NDArray[np.float64], left: int, bottom: int) -> None:
    """Add a stamp, of which some may lie beyond the edges."""
    height, width = image.shape
    y0, y1 = max(0, bottom), min(height, bottom + stamp.shape[0])
    x0, x1 = max(0, left), min(width, left + stamp.shape[1])
    if y0 < y1 and x0 < x1:
        image[y0:y1, x0:x1] += stamp[y0 - bottom : y1 - bottom, x0 - left : x1 - left].astype(np.float32)
