"""Pixels, millimetres and angles agree with each other and with the observatory's table."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rapid.camera.geometry import (
    corners_mm,
    detector_to_focal_plane,
    extent_mm,
    focal_plane_to_detector,
    focal_plane_to_field_angle,
    rotate_to_focal_plane,
)
from rapid.camera.store import load_camera

TABLE = Path(__file__).resolve().parents[3].parent / "shared/reference/lsstcam_detectors.csv"
NUMBERS_OF_ALL_TURNS = [94, 193, 197, 201, 189]


@pytest.mark.shared_data
def test_outlines_agree_with_the_observatorys_table():
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is not part of the project")
    camera = load_camera("LSSTCam")
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 205
    for row in rows:
        corners = corners_mm(camera.by_id[int(row["id"])])
        expected = [float(row[f"fp_{key}_mm"]) for key in ("xmin", "ymin", "xmax", "ymax")]
        assert [*corners.min(axis=0), *corners.max(axis=0)] == pytest.approx(expected, abs=1e-6), row["name"]


def test_every_quarter_turn_is_met_among_the_corner_rafts():
    camera = load_camera("LSSTCam")
    assert {camera.by_id[number].n_quarter for number in NUMBERS_OF_ALL_TURNS} == {0, 1, 2, 3}


@pytest.mark.parametrize("number", NUMBERS_OF_ALL_TURNS)
def test_going_to_the_focal_plane_and_back_returns_the_pixel(number):
    detector = load_camera("LSSTCam").by_id[number]
    x_px, y_px = np.array([0.0, 17.5, 4000.0]), np.array([3.0, 1999.0, -8.0])
    back = focal_plane_to_detector(detector, *detector_to_focal_plane(detector, x_px, y_px))
    np.testing.assert_allclose(back, [x_px, y_px], atol=1e-8)


def test_no_two_detectors_overlap_in_the_focal_plane():
    camera = load_camera("LSSTCam")
    boxes = [(d.name, *corners_mm(d).min(axis=0), *corners_mm(d).max(axis=0)) for d in camera.detectors]
    for i, (name, x0, y0, x1, y1) in enumerate(boxes):
        for other, u0, v0, u1, v1 in boxes[i + 1 :]:
            assert x1 <= u0 or u1 <= x0 or y1 <= v0 or v1 <= y0, (name, other)


@pytest.mark.parametrize("number", NUMBERS_OF_ALL_TURNS)
def test_a_turned_image_lies_as_its_pixels_do_in_the_focal_plane(number):
    detector = load_camera("TestCam205").by_id[number]
    image = np.zeros((detector.height, detector.width), dtype=np.float32)
    image[7, 31] = 1.0
    turned = rotate_to_focal_plane(image, detector)
    y, x = np.argwhere(turned == 1.0)[0]
    x_mm, y_mm = detector_to_focal_plane(detector, 31, 7)
    x_min, y_min = corners_mm(detector).min(axis=0)
    assert x_min + (x + 0.5) * detector.pixel_mm == pytest.approx(float(x_mm))
    assert y_min + (y + 0.5) * detector.pixel_mm == pytest.approx(float(y_mm))


def test_field_angle_is_the_plate_scale_near_the_centre_and_distorted_at_the_edge():
    camera = load_camera("LSSTCam")
    x_deg, y_deg = focal_plane_to_field_angle(camera, [0.0, 1.0, 0.0], [0.0, 0.0, 300.0])
    scale = camera.plate_scale_arcsec_per_mm / 3600
    assert x_deg[0] == y_deg[0] == 0.0
    assert x_deg[1] == pytest.approx(scale, rel=1e-7)
    assert y_deg[2] == pytest.approx(scale * (300 - 8.33713991e-09 * 300**3 - 1.41389858e-15 * 300**5), rel=1e-12)


def test_the_field_of_view_of_lsstcam_is_three_and_a_half_degrees():
    camera = load_camera("LSSTCam")
    x_min, x_max, _, _ = extent_mm(camera)
    (left, right), _ = focal_plane_to_field_angle(camera, [x_min, x_max], [0.0, 0.0])
    assert right - left == pytest.approx(3.52, abs=0.02)
