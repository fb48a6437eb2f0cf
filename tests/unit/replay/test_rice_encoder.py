"""The encoder writes what any FITS reader decodes."""

import io

import numpy as np
import pytest
from astropy.io import fits

from rapid.camera.store import load_camera
from replay.fits_writer import card, raw_bytes

DETECTOR = load_camera("TestCam205").by_id[94]


def read_back(stack: np.ndarray, *, compress: bool) -> list[np.ndarray]:
    data = raw_bytes({"INSTRUME": "TestCam205"}, stack, DETECTOR, compress=compress)
    with fits.open(io.BytesIO(data)) as hdus:
        hdus.verify("exception")
        assert len(hdus) == 1 + len(stack) + 1
        return [np.asarray(hdu.data) for hdu in hdus[1:-1]]


def stacks():
    shape = (16, DETECTOR.amps[0].raw_height, DETECTOR.amps[0].raw_width)
    rng = np.random.default_rng(7)
    yield pytest.param(np.zeros(shape, np.int32), id="nothing but zeros")
    yield pytest.param(np.full(shape, 262143, np.int32), id="a saturated image")
    yield pytest.param(rng.integers(-(2**31), 2**31 - 1, shape).astype(np.int32), id="all 32 bits random")
    for sigma in (0.3, 3.0, 50.0, 5e3, 1e6):
        yield pytest.param(np.rint(rng.normal(25_000, sigma, shape)).astype(np.int32), id=f"noise of {sigma:g}")
    jumps = np.full(shape, 20_000, np.int32)
    jumps[:, :, 7::29] = 262_143
    jumps[:, 3::11] = -5
    yield pytest.param(jumps, id="lone bright columns and dark rows")


@pytest.mark.parametrize("stack", list(stacks()))
@pytest.mark.parametrize("compress", [True, False])
def test_segments_come_back_pixel_by_pixel(stack, compress):
    for written, read in zip(stack, read_back(stack, compress=compress), strict=True):
        assert np.array_equal(written, read)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "KEY     = "),
        (True, "KEY     =                    T"),
        (12, "KEY     =                   12"),
        (1.5, "KEY     =                  1.5"),
        ("it's", "KEY     = 'it''s   '"),
    ],
)
def test_cards_are_as_the_standard_says(value, text):
    assert card("KEY", value).rstrip() == text.rstrip()
    assert len(card("KEY", value, "a comment")) == 80
