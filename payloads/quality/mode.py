"""What can be measured on an image: stars, donuts, spectra or nothing."""

from enum import StrEnum

from rapid.camera.models import Camera, Detector, Purpose
from rapid.exposure.models import ExposureInfo, ImageType

DONUT_DIAMETER_PX = 50.0
"""A star spread over more than this is no point source: it has a hole to be measured."""
DISPERSERS = ("holo", "ronchi", "blue300", "grating", "lpmm")
"""Parts of the names of filters that spread the light (LATISS writes ``filter~disperser``)."""


class Mode(StrEnum):
    """How an image's quality is measured."""

    PHOTO = "photo"
    """Point sources."""

    DONUT = "donut"
    """Far out of focus."""

    SPECTRUM = "spectrum"
    """Behind a disperser: sky numbers only."""

    SKIP = "skip"
    """No sky in the image."""


def commanded_defocus_um(info: ExposureInfo, detector: Detector) -> float | None:
    """Return the defocus by command and construction [um]; positive beyond focus (extra-focal), None if none is known.

    Notes
    -----
    FOCUSZ moves the camera along the light that falls on it: positive is beyond focus. The heights of the wavefront
    halves count against the light: the halves SW0, at -1.5 mm, are the extra-focal ones.
    """
    height_mm = detector.z_mm if detector.purpose is Purpose.WAVEFRONT else 0.0
    total_mm = (info.focus_z_mm or 0.0) - height_mm
    return total_mm * 1000.0 if total_mm else None


def expected_donut_diameter_px(info: ExposureInfo, camera: Camera, detector: Detector) -> float:
    """Return the diameter a star has by the commanded defocus, paraxially; unknown counts as none."""
    return abs(commanded_defocus_um(info, detector) or 0.0) / 1000.0 / camera.f_ratio / detector.pixel_mm


def choose_mode(info: ExposureInfo, camera: Camera, detector: Detector) -> Mode:
    """Return how to measure an image, from its headers alone."""
    if info.image_type.is_calibration:
        return Mode.SKIP
    if any(word in (info.physical_filter or "").lower() for word in DISPERSERS):
        return Mode.SPECTRUM
    if info.image_type is ImageType.CWFS or expected_donut_diameter_px(info, camera, detector) > DONUT_DIAMETER_PX:
        return Mode.DONUT
    return Mode.PHOTO
