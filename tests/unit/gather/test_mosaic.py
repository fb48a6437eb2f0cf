"""Mosaics put every detector at its place, turned as it sits in the focal plane."""

import cv2
import numpy as np
import pytest

from rapid.camera.geometry import detector_to_focal_plane, extent_mm
from rapid.camera.store import load_camera
from rapid.gather.mosaic import make_mosaic, mosaic_scale, to_jpeg
from rapid.gather.stretch import BACKGROUND, choose_stretch

LSSTCAM = load_camera("LSSTCam")


@pytest.mark.parametrize("number", [0, 94, 188, 189, 190, 191, 192, 195, 196, 199, 200, 203, 204])
def test_a_marked_corner_appears_where_geometry_says(number):
    detector = LSSTCAM.by_id[number]
    image = np.zeros((detector.height // 8, detector.width // 8), dtype=np.float32)
    image[-24:, :24] = 1000.0  # upper left in the detector frame
    scale = mosaic_scale(LSSTCAM, max_side=4096)
    mosaic = make_mosaic(LSSTCAM, {number: image}, pixels_per_mm=scale)
    x_mm, y_mm = detector_to_focal_plane(detector, 12 * 8.0, detector.height - 12 * 8.0)
    x0, _, _, y1 = extent_mm(LSSTCAM)
    column, row = round(float((x_mm - x0) * scale)), round(float((y1 - y_mm) * scale))
    assert np.nanmax(mosaic[row - 3 : row + 4, column - 3 : column + 4]) > 900
    marked = np.argwhere(np.nan_to_num(mosaic) > 500)
    assert np.allclose(marked.mean(axis=0), [row, column], atol=3.0)


def test_detectors_do_not_overlap_and_gaps_stay_empty():
    images = {d.id: np.full((d.height // 8, d.width // 8), float(d.id + 1), np.float32) for d in LSSTCAM.detectors}
    mosaic = make_mosaic(LSSTCAM, images, pixels_per_mm=4.0)
    assert {round(float(v)) for v in np.unique(mosaic[np.isfinite(mosaic)])} == {d.id + 1 for d in LSSTCAM.detectors}
    areas = {d.id: d.width * d.height * d.pixel_mm**2 * 16 for d in LSSTCAM.detectors}
    for number in (94, 191):
        assert np.isclose(mosaic, number + 1, atol=0.01).sum() == pytest.approx(areas[number], rel=0.03)
    assert np.isnan(mosaic).any()


def test_stretch_keeps_missing_detectors_dark_and_never_saturates_on_one_star():
    rng = np.random.default_rng(4)
    mosaic = rng.normal(900, 30, (400, 400)).astype(np.float32)
    mosaic[:, :100] = np.nan
    mosaic[200, 200] = 1e6
    levels = choose_stretch([mosaic], sky=True).levels(mosaic)
    assert (levels[:, :100] == BACKGROUND).all()
    assert 40 < np.median(levels[:, 150:]) < 160
    ramp = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    flat = choose_stretch([ramp], sky=False).levels(ramp)
    assert flat.min() < 40
    assert flat.max() > 240
    nothing = np.full((5, 5), np.nan, np.float32)
    assert (choose_stretch([nothing], sky=True).levels(nothing) == BACKGROUND).all()


def test_the_jpeg_can_be_read_back():
    levels = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (50, 1))
    decoded = cv2.imdecode(np.frombuffer(to_jpeg(levels), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.abs(decoded.astype(int) - levels).mean() < 4
