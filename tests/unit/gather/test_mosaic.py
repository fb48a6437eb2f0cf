"""Mosaics put every detector at its place, turned as it sits in the focal plane."""

import cv2
import numpy as np
import pytest

from rapid.camera.geometry import detector_to_focal_plane, extent_mm
from rapid.camera.store import load_camera
from rapid.gather.mosaic import draw_mosaic, halve, make_mosaic, native_scale, to_jpeg
from rapid.gather.stretch import BACKGROUND, Curve, Stretch, choose_stretch

LSSTCAM = load_camera("LSSTCam")
QUADRANTS = {(0.25, 0.25): 0.0, (0.75, 0.25): 1.0, (0.25, 0.75): 2.0, (0.75, 0.75): 3.0}
"""A value for each quarter of a detector: no turn and no mirror leaves them as they are."""


def asymmetric(detector):
    height, width = detector.height // 8, detector.width // 8
    y, x = np.mgrid[:height, :width]
    return ((x >= width / 2) + 2.0 * (y >= height / 2)).astype(np.float32)


@pytest.mark.parametrize("number", [0, 94, 188, 189, 190, 191, 192, 195, 196, 199, 200, 203, 204])
def test_a_marked_corner_appears_where_geometry_says(number):
    detector = LSSTCAM.by_id[number]
    image = np.zeros((detector.height // 8, detector.width // 8), dtype=np.float32)
    image[-24:, :24] = 1000.0  # upper left in the detector frame
    scale = native_scale(LSSTCAM) / 2
    mosaic = make_mosaic(LSSTCAM, {number: image}, pixels_per_mm=scale)
    x_mm, y_mm = detector_to_focal_plane(detector, 12 * 8.0, detector.height - 12 * 8.0)
    x0, _, _, y1 = extent_mm(LSSTCAM)
    column, row = round(float((x_mm - x0) * scale)), round(float((y1 - y_mm) * scale))
    assert np.nanmax(mosaic[row - 3 : row + 4, column - 3 : column + 4]) > 900
    marked = np.argwhere(np.nan_to_num(mosaic) > 500)
    assert np.allclose(marked.mean(axis=0), [row, column], atol=3.0)


@pytest.mark.parametrize("name", ["LSSTCam", "TestCam205"])
def test_every_detector_lies_and_is_turned_as_geometry_says_at_the_binned_scale(name):
    camera = load_camera(name)
    images = {d.id: asymmetric(d) for d in camera.detectors}
    stretch = Stretch(curve=Curve.LINEAR, low=0.0, high=3.0)
    mosaic = draw_mosaic(camera, images, stretch)
    scale = native_scale(camera)
    x0, _, _, y1 = extent_mm(camera)
    assert len(camera.detectors) == 205
    for detector in camera.detectors:
        for (fx, fy), level in QUADRANTS.items():
            x_mm, y_mm = detector_to_focal_plane(detector, fx * detector.width, fy * detector.height)
            column, row = int((float(x_mm) - x0) * scale), int((y1 - float(y_mm)) * scale)
            expected = stretch.levels(np.full((1, 1), level, np.float32))[0, 0]
            assert mosaic[row, column] == expected, f"{detector.name}: quadrant {fx}, {fy}"
    assert (mosaic == BACKGROUND).any(), "the gaps are drawn over"


def test_a_mosaic_at_the_binned_scale_moves_pixels_and_changes_none():
    image = np.arange(500 * 509, dtype=np.float32).reshape(500, 509)
    mosaic = make_mosaic(LSSTCAM, {0: image[:, :]}, pixels_per_mm=native_scale(LSSTCAM))
    shown = mosaic[np.isfinite(mosaic)]
    assert shown.size == image.size
    assert set(shown.tolist()) == set(image.ravel().tolist())


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


@pytest.mark.parametrize(("shape", "half"), [((6, 8), (3, 4)), ((7, 5), (4, 3)), ((1, 1), (1, 1))])
def test_halving_keeps_an_odd_edge(shape, half):
    levels = np.full(shape, 90, np.uint8)
    levels[-1, -1] = 200
    halved = halve(levels)
    assert halved.shape == half
    assert halved[-1, -1] > 90


def test_values_far_off_the_scale_are_clipped_and_nothing_is_the_ground():
    image = np.array([[-1e30, 0.0, 5.0, 10.0, 1e30, np.inf, -np.inf, np.nan]], np.float32)
    levels = Stretch(curve=Curve.LINEAR, low=0.0, high=10.0).levels(image)[0].tolist()
    assert levels[0] == levels[1] == levels[6] == 30
    assert levels[3] == levels[4] == levels[5] == 255
    assert 140 < levels[2] < 145
    assert levels[7] == BACKGROUND
