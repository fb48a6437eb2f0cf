"""Raws of given electrons, uncompressed, without a plan: what a single test needs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from payloads.plugin import Frame
from rapid.camera.models import Camera, Detector
from rapid.exposure.models import ExposureInfo, ImageType
from replay.fits_writer import raw_bytes

BIAS_ADU = 23_000


def make_raw(
    det: Detector,
    electrons: np.ndarray,
    rng: np.random.Generator,
    *,
    pedestal_adu: int = 0,
    edit: Callable[[np.ndarray], np.ndarray] | None = None,
) -> bytes:
    """Return a raw whose amps read the electrons, with read noise, over a bias level."""
    first = det.amps[0]
    stack = np.empty((len(det.amps), first.raw_height, first.raw_width), np.int32)
    for place, amp in enumerate(det.amps):
        raw = rng.normal(0, amp.read_noise, stack.shape[1:])
        part = electrons[amp.trimmed.slices]
        raw[amp.data.slices] += part[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        stack[place] = np.rint(raw / amp.gain) + BIAS_ADU + pedestal_adu
    return raw_bytes({}, edit(stack) if edit else stack, det, compress=False)


def frame_of(camera: Camera, det: Detector, *, raw: bytes | None = None, calibs: Any = None, **facts: Any) -> Frame:
    """Return a frame of one of the camera's detectors."""
    info = {
        "camera": camera.name, "exposure_id": 2026112000001, "obs_id": "TC_O_20261120_000001", "controller": "O",
        "day_obs": 20261120, "seq_num": 1, "detector": det.id, "detector_name": det.name,
        "image_type": ImageType.SCIENCE, "exposure_time_s": 30.0, "dark_time_s": 30.0, "physical_filter": "r_57",
    }  # fmt: skip
    frame = Frame(raw=raw, info=ExposureInfo(**{**info, **facts}), header={}, camera=camera, detector=det)
    if calibs is not None:
        frame.calibs = calibs
    return frame
