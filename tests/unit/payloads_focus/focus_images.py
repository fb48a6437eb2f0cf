"""Donut images of a known truth."""

import cv2
import numpy as np

from payloads.plugin import Frame
from rapid.camera.store import load_camera
from rapid.exposure.models import ExposureInfo, ImageType

OVERSAMPLING = 4


def add_donut(image, x, y, *, radius_px, flux, obscuration=0.61, ellipticity=0.0, angle=0.0, blur_px=2.0):
    """Add a uniform elliptical ring, exact to a quarter pixel and blurred; ellipticity is (a^2-b^2)/(a^2+b^2)."""
    half = int(np.ceil(1.3 * radius_px + 5 * blur_px))
    ix, iy = round(x), round(y)
    n = (2 * half + 1) * OVERSAMPLING
    grid = (np.arange(n) + 0.5) / OVERSAMPLING - 0.5 - half
    dx, dy = np.meshgrid(grid - (x - ix), grid - (y - iy))
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = -dx * np.sin(angle) + dy * np.cos(angle)
    a, b = np.sqrt(1 + ellipticity), np.sqrt(1 - ellipticity)
    mean = 0.5 * (a + b)
    r = np.hypot(u / (a / mean), v / (b / mean))
    ring = ((r <= radius_px) & (r >= obscuration * radius_px)).astype(np.float32)
    ring = cv2.GaussianBlur(ring, (0, 0), blur_px * OVERSAMPLING)
    ring = ring.reshape(2 * half + 1, OVERSAMPLING, 2 * half + 1, OVERSAMPLING).mean(axis=(1, 3))
    y0, x0 = iy - half, ix - half
    top, left = max(0, -y0), max(0, -x0)
    part = image[max(0, y0) : y0 + 2 * half + 1, max(0, x0) : x0 + 2 * half + 1]
    part += (flux / ring.sum() * ring)[top : top + part.shape[0], left : left + part.shape[1]]
    return image


def with_noise(light, *, sky=800.0, read_noise=6.0, seed=1):
    total = light + sky
    return (total + np.random.default_rng(seed).normal(size=light.shape) * np.sqrt(total + read_noise**2)).astype(
        np.float32
    )


def make_frame(image, *, camera="LSSTCam", detector=94, unit="electron", mask=None, **facts):
    cam = load_camera(camera)
    info = {
        "camera": camera,
        "exposure_id": 2025111500226,
        "obs_id": "MC_O_20251115_000226",
        "controller": "O",
        "day_obs": 20251115,
        "seq_num": 226,
        "detector": detector,
        "detector_name": cam.by_id[detector].name,
        "image_type": ImageType.CWFS,
        **facts,
    }
    return Frame(
        raw=None,
        info=ExposureInfo(**info),
        header={},
        camera=cam,
        detector=cam.by_id[detector],
        image=image,
        mask=mask,
        unit=unit,
    )
