"""Tile pyramids: every scale shows the same picture, and a damaged one says so."""

import cv2
import numpy as np
import pytest

from rapid.camera.store import load_camera
from rapid.errors import NotFoundError, StoreError
from rapid.gather.mosaic import draw_mosaic
from rapid.gather.pyramid import TILE_PX, Pyramid, draw_pyramid
from rapid.gather.stretch import BACKGROUND, Curve, Stretch

CAMERA = load_camera("LSSTComCam")
STRETCH = Stretch(curve=Curve.LINEAR, low=0.0, high=100.0)


@pytest.fixture(scope="module")
def drawn():
    images = {d.id: np.full((d.height // 8, d.width // 8), 20.0 + 8 * d.id, np.float32) for d in CAMERA.detectors}
    mosaic = draw_mosaic(CAMERA, images, STRETCH)
    return mosaic, draw_pyramid(CAMERA, mosaic, STRETCH, unit="e⁻")


def picture_of(tile: bytes):
    return cv2.imdecode(np.frombuffer(tile, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_the_tiles_of_each_scale_put_together_are_the_mosaic(drawn):
    mosaic, pyramid = drawn
    stored = Pyramid(pyramid.tiles)
    assert [level.scale for level in stored.info.levels][:2] == [8, 16]
    assert max(stored.info.levels[-1].width, stored.info.levels[-1].height) <= TILE_PX
    for level in stored.info.levels:
        whole = np.full((level.height, level.width), BACKGROUND, np.uint8)
        for row in range(level.rows):
            for column in range(level.columns):
                tile = stored.tile(level.scale, column, row)
                if tile is not None:
                    part = picture_of(tile)
                    top, left = row * TILE_PX, column * TILE_PX
                    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        step = level.scale // 8
        shrunk = cv2.resize(mosaic, (level.width, level.height), interpolation=cv2.INTER_AREA)
        assert np.median(np.abs(whole.astype(int) - shrunk)) <= 2, f"scale {level.scale}"
        assert abs(whole.shape[0] * step - mosaic.shape[0]) <= 2 * step


def test_tiles_without_a_detector_are_left_out():
    camera = load_camera("LSSTCam")
    detector = camera.by_id[94]
    image = np.full((detector.height // 8, detector.width // 8), 50.0, np.float32)
    stored = Pyramid(draw_pyramid(camera, draw_mosaic(camera, {94: image}, STRETCH), STRETCH).tiles)
    finest = stored.info.levels[0]
    there = [
        (column, row)
        for row in range(finest.rows)
        for column in range(finest.columns)
        if stored.tile(8, column, row) is not None
    ]
    assert 1 <= len(there) <= 4
    assert stored.tile(8, 0, 0) is None


@pytest.mark.parametrize("place", [(8, 99, 0), (8, 0, 99), (7, 0, 0), (4, 0, 0)])
def test_beyond_the_pyramid_there_is_nothing(drawn, place):
    with pytest.raises(NotFoundError):
        Pyramid(drawn[1].tiles).tile(*place)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04 half"])
def test_a_damaged_pyramid_says_so(data):
    with pytest.raises(StoreError, match="not a tile pyramid"):
        Pyramid(data)


def test_the_same_pixels_make_the_same_bytes(drawn):
    mosaic, pyramid = drawn
    assert draw_pyramid(CAMERA, mosaic, STRETCH, unit="e⁻") == pyramid


def test_a_tiny_camera_has_one_tile():
    stored = Pyramid(draw_pyramid(CAMERA, np.full((40, 30), 77, np.uint8), STRETCH).tiles)
    assert [(level.columns, level.rows) for level in stored.info.levels] == [(1, 1)]
