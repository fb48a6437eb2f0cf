"""Make the focal-plane mosaic from binned detector images.

Each binned image is turned to the focal-plane frame, scaled to the mosaic's pixel and put at its place in
millimetres; north of the picture is +y. Never matplotlib: OpenCV and numpy, a second for 189 CCDs at most.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rapid.camera.geometry import extent_mm, rotate_to_focal_plane
from rapid.camera.models import Camera

MISSING = np.float32(np.nan)
BACKGROUND = 14
"""Grey level of the ground between detectors; the display's own ground."""

MAX_SIDE = 4096
"""Longest side of a mosaic [px]: what a browser shows without tiles."""


def mosaic_scale(camera: Camera, *, max_side: int = MAX_SIDE, binning: int = 8) -> float:
    """Return mosaic pixels per millimetre: the binned images' own, or less if the mosaic would be too large."""
    x0, x1, y0, y1 = extent_mm(camera)
    native = 1.0 / (camera.detectors[0].pixel_mm * binning)
    return min(native, max_side / max(x1 - x0, y1 - y0))


def make_mosaic(
    camera: Camera, images: Mapping[int, NDArray[np.float32]], *, pixels_per_mm: float
) -> NDArray[np.float32]:
    """Put binned images at their places in the focal plane.

    Parameters
    ----------
    camera
        Gives places and rotations.
    images : mapping of detector number to ndarray of shape (ny, nx), float32
        Binned images in the detector frame, all in one unit.
    pixels_per_mm
        Scale of the mosaic.

    Returns
    -------
    mosaic : ndarray of shape (ny, nx), float32
        Row 0 is the top of the focal plane (largest y). NaN where there is no image.
    """
    x0, x1, y0, y1 = extent_mm(camera)
    width, height = max(int(np.ceil((x1 - x0) * pixels_per_mm)), 1), max(int(np.ceil((y1 - y0) * pixels_per_mm)), 1)
    mosaic = np.full((height, width), MISSING, dtype=np.float32)
    for number, image in images.items():
        detector = camera.by_id[number]
        turned: NDArray[Any] = np.ascontiguousarray(rotate_to_focal_plane(image, detector)[::-1])
        w_mm, h_mm = detector.focal_plane_size_mm
        left = round((detector.x_mm - w_mm / 2 - x0) * pixels_per_mm)
        top = round((y1 - detector.y_mm - h_mm / 2) * pixels_per_mm)
        size = (max(round(w_mm * pixels_per_mm), 1), max(round(h_mm * pixels_per_mm), 1))
        if (turned.shape[1], turned.shape[0]) != size:
            shrinks = turned.shape[1] > size[0]
            turned = cv2.resize(turned, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)
        bottom, right = min(top + size[1], height), min(left + size[0], width)
        mosaic[max(top, 0) : bottom, max(left, 0) : right] = turned[
            max(-top, 0) : bottom - top, max(-left, 0) : right - left
        ]
    return mosaic


def stretch(mosaic: NDArray[np.float32], *, sky: bool) -> NDArray[np.uint8]:
    """Return a mosaic as grey levels.

    Parameters
    ----------
    mosaic : ndarray of shape (ny, nx), float32
        NaN where there is no image.
    sky
        An asinh stretch from just below the sky, so that faint and bright show together; else linear
        between percentiles, so that the pattern of a flat or bias shows.

    Returns
    -------
    levels : ndarray of shape (ny, nx), uint8
        `BACKGROUND` where there is no image.
    """
    sample = mosaic[:: max(mosaic.shape[0] // 512, 1), :: max(mosaic.shape[1] // 512, 1)]
    good = sample[np.isfinite(sample)]
    levels = np.full(mosaic.shape, BACKGROUND, dtype=np.uint8)
    if good.size == 0:
        return levels
    low, median, high = (float(v) for v in np.percentile(good, (2.0, 50.0, 99.5)))
    if sky:
        noise = max(1.4826 * float(np.median(np.abs(good - median))), 1e-6)
        scaled = np.arcsinh((mosaic - np.float32(median - 2 * noise)) / np.float32(2 * noise))
        top = float(np.arcsinh((max(high - median, 0.0) + 12 * noise) / (2 * noise)))
        scaled /= np.float32(top)
    else:
        scaled = (mosaic - np.float32(low)) / np.float32(max(high - low, 1e-6))
    shown = np.isfinite(scaled)
    values = np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 1.0)
    levels[shown] = (values[shown] * 225 + 30).astype(np.uint8)
    return levels


def to_jpeg(levels: NDArray[np.uint8], *, quality: int = 88) -> bytes:
    """Return grey levels as a JPEG file."""
    ok, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"cannot encode an image of shape {levels.shape}")
    return bytes(data.tobytes())
