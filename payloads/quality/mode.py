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


def expected_donut_diameter_px(info: ExposureInfo, camera: Camera, detector: Detector) -> float:
    """Return the diameter a star has by the known defocus of telescope and detector, paraxially.

    Parameters
    ----------
    info
        Its ``focus_z_mm`` is the camera's defocus as the header tells it; unknown counts as none.
    """
    defocus_mm = (info.focus_z_mm or 0.0) + (detector.z_mm if detector.purpose is Purpose.WAVEFRONT else 0.0)
    return abs(defocus_mm) / camera.f_ratio / detector.pixel_mm


def choose_mode(info: ExposureInfo, camera: Camera, detector: Detector) -> Mode:
    """Return how to measure an image, from its headers alone."""
    if info.image_type.is_calibration:
        return Mode.SKIP
    if any(word in (info.physical_filter or "").lower() for word in DISPERSERS):
        return Mode.SPECTRUM
    if info.image_type is ImageType.CWFS or expected_donut_diameter_px(info, camera, detector) > DONUT_DIAMETER_PX:
        return Mode.DONUT
    return Mode.PHOTO
