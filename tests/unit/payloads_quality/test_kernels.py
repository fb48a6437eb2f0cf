"""The compiled loops agree with plain Python."""

import numpy as np
import pytest

from payloads.mask import BAD, SAT
from payloads.quality.kernels import bin_image, cut_stamp, sample_residuals, subtract_level, weighted_moments


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


def test_blocks_of_the_background_may_reach_beyond_the_image():
    image, background = np.full((10, 13), 7.0, dtype=np.float32), np.full((3, 4), 5.0, dtype=np.float32)
    out = np.empty(1000, dtype=np.float32)
    assert sample_residuals(image, np.zeros((0, 0), np.int32), BAD, background, 4, 1, out) == image.size
    assert (out[: image.size] == 2.0).all()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_coarse_level_is_subtracted_from_all_its_blocks(every):
    rng = np.random.default_rng(5)
    binned = rng.normal(0, 1, (11, 14)).astype(np.float32)
    level = rng.normal(100, 10, (-(-11 // every), -(-14 // every))).astype(np.float32)
    expected = binned - level.repeat(every, axis=0).repeat(every, axis=1)[:11, :14]
    subtract_level(binned, level, every)
    np.testing.assert_array_equal(binned, expected)


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


@pytest.mark.parametrize(("x", "y"), [(20.3, 19.8), (2.6, 37.9)], ids=["in the middle", "cut by the edge"])
def test_weighted_moments_are_those_of_plain_sums(x, y):
    stamp = np.random.default_rng(6).normal(10, 3, (41, 38)).astype(np.float32)
    ixx, iyy, ixy = 9.0, 5.0, -2.0
    values, vectors = np.linalg.eigh([[ixx, ixy], [ixy, iyy]])
    unit = vectors @ np.diag(values**-0.5) @ vectors.T
    yy, xx = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    u, v = unit[0, 0] * (xx - x) + unit[0, 1] * (yy - y), unit[1, 0] * (xx - x) + unit[1, 1] * (yy - y)
    light = np.where(u * u + v * v <= 25.0, np.exp(-0.5 * (u * u + v * v)) * stamp, 0.0)
    expected = [(light * u**a * v ** (order - a)).sum() / light.sum() for order in (3, 4) for a in range(order, -1, -1)]
    np.testing.assert_allclose(weighted_moments(stamp, x, y, ixx, iyy, ixy), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n_stars", [0, 3], ids=["an empty ring", "stars in the ring"])
@pytest.mark.parametrize("size", [12, 33, 34, 57])
def test_the_background_of_a_stamp_is_that_of_sorting(size, n_stars):
    rng = np.random.default_rng(size)
    image = rng.normal(50, 4, (size, size)).astype(np.float32)
    for x, y in rng.integers(0, size, (n_stars, 2)):
        image[y : y + 4, x : x + 4] += 300
    ring_px, middle = 0.6 * size / 2, (size - 1) / 2
    yy, xx = np.mgrid[:size, :size]
    is_ring = (xx - middle) ** 2 + (yy - middle) ** 2 > ring_px**2
    ring = image[is_ring].astype(float)
    stamp = np.empty_like(image)
    _, level = cut_stamp(image, np.zeros((0, 0), np.int32), BAD, 0, 0, 2.0, ring_px, stamp)
    # Where to clip comes from a sample: what lies at the limits may be in or out.
    deviation = 1.4826 * np.median(np.abs(ring - np.median(ring)))
    wide, narrow = (ring[np.abs(ring - np.median(ring)) <= factor * deviation] for factor in (3.0 * 1.35, 3.0 / 1.35))
    spread = abs(np.median(wide) - np.median(narrow)) + 0.02 * deviation
    assert level == pytest.approx(0.5 * (np.median(wide) + np.median(narrow)), abs=spread)
    np.testing.assert_allclose(stamp, image - np.float32(level), atol=1e-4)
