"""Pictures and sketches of patterns."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from rapid.camera.store import load_camera
from rapid.patterns import parse_pattern
from rapid.patterns.plot import plot_pattern, plot_sheet, sketch

AMBER, GREEN, VIOLET, OFF = (0xF0, 0xA6, 0x3C), (0x41, 0xB8, 0x83), (0xB4, 0x7A, 0xE0), (0x1A, 0x1F, 0x29)


def shares(png: bytes) -> dict[str, float]:
    """Return the share of pixels of each face colour."""
    pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB"))
    return {
        name: float((pixels == colour).all(axis=2).mean())
        for name, colour in {"on": AMBER, "guider": GREEN, "wavefront": VIOLET, "off": OFF}.items()
    }


def test_the_lit_area_is_that_of_the_detectors():
    camera = load_camera("LSSTCam")
    all_on = shares(plot_pattern(camera, camera.science_ids, "all", dpi=25))
    half = shares(plot_pattern(camera, parse_pattern("ccd_checkerboard").detectors(camera), "half", dpi=25))
    assert all_on["guider"] == all_on["wavefront"] == 0
    assert half["on"] / all_on["on"] == pytest.approx(96 / 189, abs=0.02)
    assert half["off"] > all_on["off"]
    corners = shares(plot_pattern(camera, parse_pattern("guiders|wavefront").detectors(camera), "corners", dpi=25))
    assert corners["guider"] > corners["wavefront"] > 0
    assert corners["on"] == 0


@pytest.mark.parametrize("camera", ["LATISS", "LSST-UCDCam", "LSSTComCam"])
def test_any_camera_is_drawn_square(camera):
    camera = load_camera(camera)
    png = plot_pattern(camera, camera.science_ids, "$x_ " * 2000, dpi=25)
    assert Image.open(BytesIO(png)).size == (275, 285)
    assert shares(png)["on"] > 0.01


def test_other_formats():
    camera = load_camera("LSSTComCam")
    assert plot_pattern(camera, {4}, "one", format="svg").lstrip().startswith(b"<?xml")
    assert plot_pattern(camera, {4}, "one", format="pdf").startswith(b"%PDF")


def test_the_sheet_shows_every_pattern_and_phase():
    camera = load_camera("LSSTComCam")
    width, height = Image.open(BytesIO(plot_sheet(camera, {"mine": "0-3"}, dpi=30))).size
    # 24 panels: what this camera has but raft, slot and vendor, four in two phases, and the saved one.
    assert (width, height) == (6 * 81, 4 * 93)
    single = load_camera("LATISS")
    assert plot_sheet(single, dpi=20)[:4] == b"\x89PNG"


def test_a_sketch_has_a_letter_for_each_science_detector():
    camera = load_camera("LSSTCam")
    chosen = parse_pattern("R22_S20 | R01_S00").detectors(camera)
    text = sketch(camera, chosen)
    assert text.count("#") == 2
    assert text.count(".") == 187
    lines = text.splitlines()
    assert len(lines) == 15 + 4
    assert lines[-1] == "       # . .  . . .  . . ."
    assert lines[8] == ". . .  . . .  # . .  . . .  . . ."
    assert sketch(load_camera("LATISS"), {0}) == "#"
