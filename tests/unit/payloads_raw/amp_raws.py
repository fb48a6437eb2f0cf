"""Make raws of known truth for the tests of payloads: numpy and astropy only."""

import io
from typing import Any

import numpy as np
from astropy.io import fits

from payloads.plugin import Frame
from rapid.camera.models import Detector
from rapid.camera.store import load_camera
from rapid.exposure.models import ExposureInfo, ImageType

BIAS_ADU = 23000.0


class DictCalibs:
    """Calibs from a dict."""

    def __init__(self, **calibs: Any) -> None:
        self.calibs = calibs

    def get(self, kind: str) -> Any:
        return self.calibs.get(kind)


def detector(camera: str = "TestCam205", detector_id: int = 94) -> Detector:
    return load_camera(camera).by_id[detector_id]


def amp_pixels(image, amp):
    """Return the part of a trimmed image that an amp reads, in the order it is read."""
    part = image[amp.trimmed.slices]
    return part[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]


def expose(det: Detector, electrons: np.ndarray, *, rng: np.random.Generator, noise: bool = True) -> np.ndarray:
    """Return the counts a detector reads for an image of electrons: bias, read noise, gain; int32 ``[amp, y, x]``."""
    stack = np.empty((len(det.amps), det.amps[0].raw_height, det.amps[0].raw_width), dtype=np.int32)
    for place, amp in enumerate(det.amps):
        raw = np.zeros((amp.raw_height, amp.raw_width))
        raw[amp.data.slices] = amp_pixels(electrons, amp)
        if noise:
            raw += rng.normal(0.0, amp.read_noise, raw.shape)
        stack[place] = np.rint(raw / amp.gain + BIAS_ADU + 10 * place)
    return np.clip(stack, 0, 262143)


def raw_bytes(det: Detector, stack: np.ndarray, *, compressed: bool = False, **header: Any) -> bytes:
    """Return a raw FITS file of the counts."""
    hdus = [fits.PrimaryHDU(header=fits.Header(list(header.items())))]
    for amp, pixels in zip(det.amps, stack, strict=True):
        name = f"Segment{amp.name.removeprefix('C')}"
        if compressed:
            hdus.append(fits.CompImageHDU(pixels, name=name, compression_type="RICE_1"))
        else:
            hdus.append(fits.ImageHDU(pixels, name=name))
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("T", "D", array=np.arange(3.0))], name="REB_COND"))
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def frame_of(
    raw: bytes | None, *, camera: str = "TestCam205", detector_id: int = 94, calibs: Any = None, **facts: Any
) -> Frame:
    cam = load_camera(camera)
    det = cam.by_id[detector_id]
    info = ExposureInfo(
        **{
            "camera": cam.name, "exposure_id": 2026112000001, "obs_id": "MC_O_20261120_000001", "controller": "O",
            "day_obs": 20261120, "seq_num": 1, "detector": det.id, "detector_name": det.name,
            "image_type": ImageType.SCIENCE, "exposure_time_s": 30.0, "dark_time_s": 30.0, "physical_filter": "r_57",
            **facts,
        }
    )  # fmt: skip
    frame = Frame(raw=raw, info=info, header={}, camera=cam, detector=det)
    if calibs is not None:
        frame.calibs = calibs
    return frame
