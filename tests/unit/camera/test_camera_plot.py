"""A camera is shown to people and programs."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from rapid.camera.plot import camera_to_json, describe, plot_camera
from rapid.camera.store import load_camera


def test_the_picture_shows_every_kind_of_detector_on_a_dark_ground():
    png = plot_camera(load_camera("LSSTCam"), dpi=40)
    image = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
    assert image[2, 2].max() < 40
    for colour in ((0x2F, 0x5F, 0x8F), (0x8A, 0x5A, 0x2B), (0x2E, 0x7D, 0x5B), (0x7A, 0x45, 0x94)):
        assert (np.abs(image - colour).sum(axis=2) < 6).mean() > 0.005, colour


def test_json_has_every_detector_with_amps_and_corners():
    document = json.loads(json.dumps(camera_to_json(load_camera("LSSTComCam"))))
    assert (document["name"], document["n_detectors"], len(document["detectors"])) == ("LSSTComCam", 9, 9)
    centre = document["detectors"][4]
    assert (centre["name"], len(centre["amps"]), len(centre["corners_mm"])) == ("R22_S11", 16, 4)
    assert document["pixel_scale_arcsec"] == pytest.approx(0.2)


def test_the_summary_counts_and_lists_rafts():
    text = describe(load_camera("LSSTCam"))
    assert "205 detectors, 25 rafts, 3216 amps" in text
    assert "R22   90-98      science    E2V      4096x4004" in text
    assert "R44   203-204    wavefront  ITL_WF   4072x2000    SW0 SW1" in text
