"""The compiled loops agree with plain Python."""

import numpy as np
import pytest

from payloads.mask import BAD, SAT
from payloads.quality.kernels import bin_image, cut_stamp, sample_residuals, weighted_moments


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("has_mask", [True, False], ids=["with a mask", "without a mask"])
def test_blocks_are_the_mean_of_their_good_pixels(factor, has_mask):
    rng = np.random.default_rng(3)
    image = rng.normal(100, 10, (25, 31)).astype(np.float32)
    image[4, 5], image[10, 20] = np.nan, np.inf
    mask = rng.choice([0, BAD, SAT, BAD | SAT, 1 << 12], image.shape, p=[0.4, 0.3, 0.1, 0.1, 0.1]).astype(np.int32)
    if not has_mask:
        mask = np.zeros((0, 0), dtype=np.int32)
    shape = (25 // factor, 31 // factor)
    binned, quality = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    n_bad, n_saturated = bin_image(image, mask, BAD, SAT, factor, binned, quality)
    bits = mask if has_mask else np.zeros(image.shape, np.int32)
    all_bad = all_saturated = 0
    for row in range(shape[0]):
        for column in range(shape[1]):
            block = np.s_[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            good = np.isfinite(image[block]) & ((bits[block] & BAD) == 0)
            saturated = (bits[block] & SAT) != 0
            all_bad += good.size - good.sum()
            all_saturated += saturated.sum()
            if good.sum() * 2 >= good.size:
                assert binned[row, column] == pytest.approx(image[block][good].mean(), rel=1e-5)
                assert quality[row, column] == (1 if saturated.any() else 0)
            else:
                assert (binned[row, column], quality[row, column]) == (0.0, 2)
    assert (n_bad, n_saturated) == (all_bad, all_saturated)


def test_residuals_leave_out_masked_pixels_and_stop_at_the_end_of_their_room():
    image = np.full((40, 40), 7.0, dtype=np.float32)
    image[:, 20:] = 9.0
    mask = np.zeros((40, 40), dtype=np.int32)
    mask[:, 20:] = BAD
    background = np.full((10, 10), 5.0, dtype=np.float32)
    out = np.empty(1000, dtype=np.float32)
    n = sample_residuals(image, mask, BAD, background, 4, 2, out)
    assert n == 200
    assert (out[:n] == 2.0).all()
    assert sample_residuals(image, mask, BAD, background, 4, 2, out[:5]) == 5


def test_a_stamp_tells_of_bad_pixels_in_its_core_and_takes_the_median_of_its_ring():
    rng = np.random.default_rng(4)
    image = rng.normal(50, 1, (60, 60)).astype(np.float32)
    image[30, 30] += 1000
    image[16, 16] += 5000  # a cosmic ray in the ring
    mask = np.zeros(image.shape, np.int32)
    stamp = np.empty((33, 33), np.float32)
    n_bad, level = cut_stamp(image, mask, BAD, 14, 14, 5.0, 12.0, stamp)
    assert n_bad == 0
    assert level == pytest.approx(50.0, abs=0.2)
    assert stamp[16, 16] == pytest.approx(image[30, 30] - level, rel=1e-5)
    mask[31, 30] = BAD
    assert cut_stamp(image, mask, BAD, 14, 14, 5.0, 12.0, stamp)[0] == 1
    mask[:] = BAD
    assert np.isnan(cut_stamp(image, mask, BAD, 14, 14, 5.0, 12.0, stamp)[1])


def test_a_gaussian_has_the_higher_moments_of_theory_whatever_its_shape():
    yy, xx = np.mgrid[:81, :81].astype(float)
    ixx, iyy, ixy = 20.0, 12.0, 5.0
    dx, dy = xx - 40.3, yy - 39.8
    det = ixx * iyy - ixy**2
    image = np.exp(-0.5 * (iyy * dx**2 - 2 * ixy * dx * dy + ixx * dy**2) / det).astype(np.float32)
    moments = weighted_moments(image, 40.3, 39.8, ixx, iyy, ixy)
    np.testing.assert_allclose(moments, [0, 0, 0, 0, 0.75, 0, 0.25, 0, 0.75], atol=2e-3)


def test_light_that_is_not_there_has_no_moments():
    assert np.isnan(weighted_moments(np.full((9, 9), -1.0, np.float32), 4.0, 4.0, 2.0, 2.0, 0.0)).all()
