"""Images of a known truth for the image-quality tests."""

import galsim
import numpy as np

from payloads.plugin import Frame
from rapid.camera.store import load_camera
from rapid.exposure.models import ExposureInfo, ImageType

STAMP = 41


def add_stars(image, x, y, flux, profile):
    """Add noiseless stars, sampled at the pixel centres: widths then are the profile's own."""
    for x_px, y_px, flux_e in zip(x, y, flux, strict=True):
        ix, iy = round(float(x_px)), round(float(y_px))
        stamp = galsim.Image(STAMP, STAMP, dtype=np.float32)
        profile.drawImage(image=stamp, scale=1.0, offset=(x_px - ix, y_px - iy), method="no_pixel")
        half = STAMP // 2
        image[iy - half : iy + half + 1, ix - half : ix + half + 1] += flux_e * stamp.array
    return image


def make_sky(shape=(1024, 1100), *, level=1000.0, read_noise=6.0, seed=1, stars=None):
    """Return a noisy image over a constant sky; `stars` is an image of light to add first."""
    rng = np.random.default_rng(seed)
    light = np.full(shape, level, dtype=np.float64) + (0.0 if stars is None else stars)
    return (light + rng.normal(size=shape) * np.sqrt(light + read_noise**2)).astype(np.float32)


def make_field(profile, *, n=80, seed=2, shape=(1024, 1100), flux=(4.0, 5.5)):
    """Return the light of stars on a jittered grid, with their x, y and flux."""
    rng = np.random.default_rng(seed)
    columns = int(np.ceil(np.sqrt(n)))
    step_x, step_y = (shape[1] - 2 * STAMP) / columns, (shape[0] - 2 * STAMP) / columns
    places = [(i % columns, i // columns) for i in range(n)]
    x = np.array([STAMP + (i + 0.5) * step_x for i, _ in places]) + rng.uniform(-5, 5, n)
    y = np.array([STAMP + (j + 0.5) * step_y for _, j in places]) + rng.uniform(-5, 5, n)
    flux_e = 10 ** rng.uniform(*flux, n)
    return add_stars(np.zeros(shape), x, y, flux_e, profile), x, y, flux_e


def make_frame(image, *, camera="LSSTCam", detector=94, unit="electron", mask=None, **facts):
    """Return a frame around an image."""
    cam = load_camera(camera)
    ccd = cam.by_id[detector]
    info = {
        "camera": camera,
        "exposure_id": 2025111500226,
        "obs_id": "MC_O_20251115_000226",
        "controller": "O",
        "day_obs": 20251115,
        "seq_num": 226,
        "detector": detector,
        "detector_name": ccd.name,
        "image_type": ImageType.SCIENCE,
        "exposure_time_s": 30.0,
        **facts,
    }
    return Frame(
        raw=None,
        info=ExposureInfo(**info),
        header={},
        camera=cam,
        detector=ccd,
        image=image,
        mask=np.zeros(image.shape, dtype=np.int32) if mask is None and image is not None else mask,
        unit=unit,
    )
