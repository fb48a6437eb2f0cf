"""The compiled loops against slow twins and other people's code."""

import numpy as np
import pytest
from scipy import ndimage, signal

from payloads.difference.kernels import BAD, GOOD, LANCZOS, NOTHING, SATURATED, bin_planes, combine, fill_holes, warp
from payloads.difference.match import convolve, decompose, gaussian, smooth

pytestmark = pytest.mark.timeout(900)
"""Compiling the loops anew takes a minute of a core, and more beside other work."""


def blobs(shape, x, y, sigma=2.0, flux=1000.0):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for one_x, one_y in zip(x, y, strict=True):
        image += flux / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((xx - one_x) ** 2 + (yy - one_y) ** 2) / sigma**2)
    return image.astype(np.float32)


def warp_affine(image, shape, matrix, offset, *, quality=None, variance=None, out_quality=None, step=8):
    """Warp by out (x, y) -> matrix @ (x, y) + offset."""
    rows, columns = -(-shape[0] // step) + 1, -(-shape[1] // step) + 1
    y, x = np.mgrid[:rows, :columns].astype(np.float64) * step
    node_x, node_y = matrix[0, 0] * x + matrix[0, 1] * y + offset[0], matrix[1, 0] * x + matrix[1, 1] * y + offset[1]
    out, out_variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    out_quality = np.full(shape, NOTHING, np.uint8) if out_quality is None else out_quality
    quality = np.zeros(image.shape, np.uint8) if quality is None else quality
    variance = np.ones(image.shape, np.float32) if variance is None else variance
    warp(image, variance, 1, quality, node_x, node_y, step, LANCZOS, out, out_variance, out_quality)
    return out, out_variance, out_quality


@pytest.mark.parametrize(
    ("angle_deg", "scale"),
    [(0.0, 1.0), (17.0, 1.0), (90.0, 0.8), (203.0, 1.3)],
    ids=["shift", "turn", "shrink", "grow"],
)
def test_a_star_keeps_flux_place_and_width_through_a_warp(angle_deg, scale) -> None:
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix = scale * np.array([[cos, -sin], [sin, cos]])
    # The star is at the middle of either image, off a pixel's centre in both.
    here, there = np.array([60.3, 55.8]), np.array([50.6, 48.1])
    image = blobs((120, 130), [here[0]], [here[1]])
    out, variance, quality = warp_affine(image, (100, 104), matrix, here - matrix @ there)
    yy, xx = np.mgrid[:100, :104]
    assert out.sum() == pytest.approx(1000.0, rel=1e-3)
    # Lanczos-3 moves a slope by up to 0.02 pixel, as its weights' first moment is not nil.
    assert (out * xx).sum() / out.sum() == pytest.approx(there[0], abs=0.03)
    assert (out * yy).sum() / out.sum() == pytest.approx(there[1], abs=0.03)
    expected = blobs((100, 104), [there[0]], [there[1]], sigma=2.0 / scale)
    assert np.abs(out - expected).max() < 0.01 * expected.max()
    covered = quality == GOOD
    np.testing.assert_allclose(variance[covered], scale**2, rtol=1e-5)


def test_a_warp_agrees_with_scipys_spline_away_from_edges() -> None:
    rng = np.random.default_rng(1)
    image = ndimage.gaussian_filter(rng.normal(size=(90, 90)), 2.0).astype(np.float32)
    matrix, offset = np.array([[0.95, 0.1], [-0.1, 0.95]]), np.array([7.3, 12.4])
    out, _, quality = warp_affine(image, (70, 70), matrix, offset)
    swapped = matrix[::-1, ::-1]
    spline = ndimage.affine_transform(image, swapped, offset[::-1], output_shape=(70, 70), order=5)
    good = quality == GOOD
    assert good.mean() > 0.8
    assert np.abs(out / np.linalg.det(matrix) - spline)[good].max() < 0.02 * image.std()


def test_what_is_there_already_stays_and_bad_pixels_are_carried_along() -> None:
    image, quality = np.ones((40, 40), np.float32), np.zeros((40, 40), np.uint8)
    quality[10, 10], quality[20, 20], quality[30, 30] = BAD, SATURATED, NOTHING
    there = np.full((40, 40), NOTHING, np.uint8)
    there[:, :5] = GOOD
    out, _, found = warp_affine(image, (40, 40), np.eye(2), np.zeros(2), quality=quality, out_quality=there)
    assert (out[:, :5] == 0).all()
    assert (found[9:11, 9:11] == BAD).all()
    assert (found[19:21, 19:21] == SATURATED).all()
    assert (found[29:31, 29:31] == NOTHING).all()
    assert (found[:2, 5:] == NOTHING).all()
    assert found[15, 15] == GOOD
    assert out[15, 15] == pytest.approx(1.0, abs=1e-6)


def test_nodes_that_are_no_numbers_give_nothing() -> None:
    out, _, quality = warp_affine(np.ones((40, 40), np.float32), (30, 30), np.eye(2), np.array([np.nan, 0.0]))
    assert (quality == NOTHING).all()
    assert (out == 0).all()


def test_blocks_are_summed_and_bad_pixels_made_up_from_their_block() -> None:
    rng = np.random.default_rng(2)
    image, variance = rng.normal(10, 1, (9, 13)).astype(np.float32), rng.uniform(1, 2, (9, 13)).astype(np.float32)
    mask = np.zeros((9, 13), np.int32)
    mask[0, 0], mask[2, 3], mask[4:6, 4:6], mask[6:8, 0:2] = 1, 2, 1, 2
    image[1, 7] = np.nan
    sums, variances, quality = np.empty((4, 6), np.float32), np.empty((4, 6), np.float32), np.empty((4, 6), np.uint8)
    bin_planes(image, variance, mask, 3, 2, 2, sums, variances, quality)
    for row in range(4):
        for column in range(6):
            block = np.s_[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            good = (mask[block] == 0) & np.isfinite(image[block])
            n = np.count_nonzero(good)
            full = bool((mask[block] & 2).any())
            assert quality[row, column] == (SATURATED if full else NOTHING if n == 0 else BAD if n < 4 else GOOD)
            assert sums[row, column] == pytest.approx(4 * image[block][good].mean() if n else 0.0, rel=1e-5)
            assert variances[row, column] == pytest.approx(
                16 * variance[block][good].sum() / n**2 if n else 0.0, rel=1e-5
            )


def test_holes_get_the_mean_of_what_is_next_to_them() -> None:
    image, quality = np.arange(25, dtype=np.float32).reshape(5, 5), np.zeros((5, 5), np.uint8)
    quality[2, 2] = BAD
    image[2, 2] = 1e6
    fill_holes(image, quality, 2)
    assert image[2, 2] == pytest.approx(12.0)
    nothing = np.full((5, 5), NOTHING, np.uint8)
    fill_holes(image, nothing, 2)
    assert (image == 0).all()


def test_convolution_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(size=(40, 53)).astype(np.float32)
    kernel = rng.normal(size=(9, 9)) * np.exp(-0.5 * np.add.outer(np.arange(-4, 5) ** 2, np.arange(-4, 5) ** 2) / 4.0)
    expected = signal.convolve2d(image, kernel, mode="same")
    np.testing.assert_allclose(convolve(image, decompose(kernel)), expected, atol=2e-4 * np.abs(expected).max())
    uneven = [(gaussian(1.0, 3), gaussian(2.0, 7, 1))]
    expected = signal.convolve2d(image, np.outer(*uneven[0]), mode="same")
    np.testing.assert_allclose(convolve(image, uneven), expected, atol=1e-5)
    expected = ndimage.gaussian_filter(image, 1.7, mode="constant", radius=6)
    np.testing.assert_allclose(smooth(image, 1.7), expected, atol=1e-5)


def combine_all(values, *, quality=None, variances=None, weights=None, least=1):
    values = np.asarray(values, np.float32)[:, None, :]
    quality = np.zeros(values.shape, np.uint8) if quality is None else np.asarray(quality, np.uint8)[:, None, :]
    variances = np.ones(values.shape, np.float32) if variances is None else variances
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    shape = values.shape[1:]
    out, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    found, counts = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    combine(values, variances, quality, weights, 5.0, 1.0, least, out, variance, found, counts)
    return out[0], variance[0], found[0], counts[0]


def test_what_is_in_one_image_only_is_left_out_of_the_mean() -> None:
    out, variance, quality, counts = combine_all([[1, 100, 1], [2, 103, 2], [300, 98, 3]], weights=[1, 2, 1])
    np.testing.assert_allclose(out, [5 / 3, 101.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(variance, [5 / 9, 6 / 16, 6 / 16], rtol=1e-6)
    assert counts.tolist() == [2, 3, 3]
    assert (quality == GOOD).all()


def test_of_two_images_the_fainter_is_right_where_they_differ() -> None:
    out, *_, counts = combine_all([[0.0, 50.0], [90.0, 52.0]])
    np.testing.assert_allclose(out, [0.0, 51.0])
    assert counts.tolist() == [1, 2]


def test_pixels_of_too_few_images_are_not_there() -> None:
    quality = [[GOOD, NOTHING, SATURATED, BAD], [GOOD, GOOD, SATURATED, BAD], [NOTHING, NOTHING, SATURATED, GOOD]]
    out, _, found, counts = combine_all([[1, 1, 1, 1], [1, 1, 1, 1], [9, 9, 9, 7]], quality=quality, least=2)
    assert found.tolist() == [GOOD, NOTHING, SATURATED, GOOD]
    assert out.tolist() == [1, 0, 0, 7]
    assert counts.tolist() == [2, 0, 0, 1]
