"""Make the focal-plane mosaic from binned detector images.

Each binned image is turned to the focal-plane frame and put at its place in millimetres; up in the picture is +y. At
the binned images' own scale nothing is resampled. Never matplotlib: numpy, OpenCV and one compiled loop (`stretch`).
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rapid.camera.geometry import extent_mm, rotate_to_focal_plane
from rapid.camera.models import Camera, Detector
from rapid.gather.stretch import BACKGROUND, Stretch

MISSING = np.float32(np.nan)

MAX_SIDE = 4096
"""Longest side of a mosaic that is shown without tiles [px]."""
BINNING = 8

_Pixel = TypeVar("_Pixel", np.float32, np.uint8)


def native_scale(camera: Camera, *, binning: int = BINNING) -> float:
    """Return mosaic pixels per millimetre at the binned images' own scale."""
    return 1.0 / (camera.detectors[0].pixel_mm * binning)


def place_of(
    detector: Detector, *, x_min_mm: float, y_max_mm: float, pixels_per_mm: float
) -> tuple[int, int, int, int]:
    """Return where a detector lies in a mosaic: left, top, width and height [px], row 0 at the top (largest y)."""
    x0, y1 = x_min_mm, y_max_mm
    w_mm, h_mm = detector.focal_plane_size_mm
    left = round((detector.x_mm - w_mm / 2 - x0) * pixels_per_mm)
    top = round((y1 - detector.y_mm - h_mm / 2) * pixels_per_mm)
    return left, top, max(round(w_mm * pixels_per_mm), 1), max(round(h_mm * pixels_per_mm), 1)


def upright(image: NDArray[Any], detector: Detector) -> NDArray[Any]:
    """Return a detector's image as a picture of the focal plane: turned, row 0 at the top."""
    return rotate_to_focal_plane(image, detector)[::-1]


def make_mosaic(
    camera: Camera,
    images: Mapping[int, NDArray[_Pixel]],
    *,
    pixels_per_mm: float,
    ground: float = float("nan"),
) -> NDArray[_Pixel]:
    """Put binned images at their places in the focal plane.

    Parameters
    ----------
    camera
        Gives places and rotations.
    images : mapping of detector number to ndarray of shape (ny, nx), float32 or uint8
        Binned images in the detector frame, all in one unit.
    pixels_per_mm
        Scale of the mosaic.
    ground
        Value where there is no image.

    Returns
    -------
    mosaic : ndarray of shape (ny, nx), type of the images
        Row 0 is the top of the focal plane (largest y).
    """
    x0, x1, y0, y1 = extent_mm(camera)
    width, height = max(int(np.ceil((x1 - x0) * pixels_per_mm)), 1), max(int(np.ceil((y1 - y0) * pixels_per_mm)), 1)
    kind = next((image.dtype for image in images.values()), np.dtype(np.float32))
    mosaic: NDArray[Any] = np.full((height, width), ground, dtype=kind)
    for number, image in images.items():
        detector = camera.by_id[number]
        turned: NDArray[Any] = upright(image, detector)
        left, top, w, h = place_of(detector, x_min_mm=x0, y_max_mm=y1, pixels_per_mm=pixels_per_mm)
        if abs(turned.shape[1] - w) > 1 or abs(turned.shape[0] - h) > 1:
            # A pixel more or less is the binning's rounding, at the native scale: no reason to resample.
            shrinks = turned.shape[1] > w
            turned = cv2.resize(
                np.ascontiguousarray(turned), (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
            )
        bottom, right = min(top + turned.shape[0], height), min(left + turned.shape[1], width)
        mosaic[max(top, 0) : bottom, max(left, 0) : right] = turned[
            max(-top, 0) : bottom - top, max(-left, 0) : right - left
        ]
    return mosaic


def draw_mosaic(camera: Camera, images: Mapping[int, NDArray[np.float32]], stretch: Stretch) -> NDArray[np.uint8]:
    """Return the mosaic at the binned images' own scale, as grey levels.

    Stretched before it is put together: 62 million levels are moved, not as many floats.
    """
    pieces = {number: stretch.levels(image) for number, image in images.items()}
    return make_mosaic(camera, pieces, pixels_per_mm=native_scale(camera), ground=BACKGROUND)


def halve(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture at half the scale; an odd last row or column keeps its own pixel."""
    height, width = (side + side % 2 for side in levels.shape)
    if (height, width) != levels.shape:
        levels = np.pad(levels, ((0, height - levels.shape[0]), (0, width - levels.shape[1])), mode="edge")
    halved: NDArray[Any] = cv2.resize(levels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return halved


def to_jpeg(levels: NDArray[np.uint8], *, quality: int = 88) -> bytes:
    """Return grey levels as a JPEG file."""
    ok, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"cannot encode an image of shape {levels.shape}")
    return bytes(data.tobytes())
