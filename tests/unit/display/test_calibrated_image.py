"""A detector's image without sky: the same numbers at full resolution as in the mosaic."""

import numpy as np
import pytest

from rapid.display.images.calibrated import calibrate, calibrated_id
from rapid.gather.pieces import without_sky


def image_with_sky(ny: int, nx: int) -> np.ndarray:
    rows, columns = np.mgrid[:ny, :nx].astype(np.float32)
    image = 400.0 + 0.02 * columns - 0.01 * rows
    image[ny // 2, nx // 3] += 5000.0  # a star that no sky should follow
    return image.astype(np.float32)


def binned_of(image: np.ndarray, n: int = 8) -> np.ndarray:
    ny, nx = (size // n for size in image.shape)
    return image[: ny * n, : nx * n].reshape(ny, n, nx, n).mean(axis=(1, 3), dtype=np.float64).astype(np.float32)


@pytest.mark.parametrize("shape", [(1024, 2048), (1029, 2055)], ids=["whole bins", "a remainder at the edge"])
def test_binned_it_is_what_the_mosaic_shows(shape):
    image = image_with_sky(*shape)
    binned = binned_of(image)
    found = calibrate(image, binned, factor=2.5)
    assert found.shape == image.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(binned_of(found), without_sky(binned, factor=2.5), atol=0.2)
    star = found[shape[0] // 2, shape[1] // 3]
    assert star == pytest.approx(2.5 * 5000.0, rel=0.01)
    assert abs(float(np.median(found))) < 1.0


def test_pixels_without_a_value_stay_so_and_the_image_is_left_as_it_is():
    image = image_with_sky(256, 256)
    image[10:12, 20:40] = np.nan
    before = image.copy()
    found = calibrate(image, binned_of(image))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(image))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("binned", [np.zeros((300, 10), np.float32), np.zeros((0, 0), np.float32)])
def test_what_is_no_binning_of_it_is_refused(binned):
    with pytest.raises(ValueError, match="no binning"):
        calibrate(image_with_sky(256, 256), binned)


def test_another_scale_is_another_image():
    ids = {
        calibrated_id("a", binned_key="k", factor=factor, unit=unit)
        for factor in (1.0, 1.0000001)
        for unit in ("nJy", "e⁻")
    }
    assert len(ids) == 4
