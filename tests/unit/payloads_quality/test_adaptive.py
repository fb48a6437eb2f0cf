"""Adaptive moments are those of galsim, whatever the star and wherever it lies in its stamp."""

import galsim
import numpy as np
import pytest

from payloads.quality.adaptive import fit_weight
from payloads.quality.kernels import cut_stamp

PROFILES = [
    pytest.param(galsim.Gaussian(fwhm=4.0), id="round"),
    pytest.param(galsim.Gaussian(fwhm=3.0).shear(e1=0.2, e2=-0.3), id="elliptical"),
    pytest.param(galsim.Moffat(beta=2.5, fwhm=4.5).shear(e1=-0.05), id="with wings"),
    pytest.param(galsim.Gaussian(fwhm=9.0).shear(e2=0.6), id="trailed, and cut by the stamp"),
    pytest.param(galsim.Gaussian(sigma=0.8), id="undersampled"),
]


def stamp_of(profile, *, offset=(0.3, -0.2), noise=0.0, seed=1):
    stamp = galsim.Image(33, 33, dtype=np.float32)
    (1e4 * profile).drawImage(image=stamp, scale=1.0, offset=offset, method="no_pixel")
    stamp.array[:] += noise * np.random.default_rng(seed).normal(size=stamp.array.shape)
    return stamp.array


def by_galsim(stamp, guess):
    image = galsim.Image(stamp, xmin=0, ymin=0)
    found = galsim.hsm.FindAdaptiveMom(
        image, guess_sig=guess, guess_centroid=galsim.PositionD(16, 16), strict=False,
        hsmparams=galsim.hsm.HSMParams(max_mom2_iter=200),
    )  # fmt: skip
    if found.error_message:
        return None
    e1, e2 = found.observed_shape.e1, found.observed_shape.e2
    return found.moments_centroid.x, found.moments_centroid.y, found.moments_sigma, e1, e2


@pytest.mark.parametrize("noise", [0.0, 3.0], ids=["without noise", "with noise"])
@pytest.mark.parametrize("profile", PROFILES)
def test_moments_are_those_of_galsim(profile, noise):
    stamp = stamp_of(profile, noise=noise)
    found, x, y, ixx, iyy, ixy = fit_weight(stamp, 16.0, 16.0, 2.0)
    assert found
    sigma = (ixx * iyy - ixy**2) ** 0.25
    shape = (ixx - iyy) / (ixx + iyy), 2 * ixy / (ixx + iyy)
    np.testing.assert_allclose((x, y, sigma, *shape), by_galsim(stamp, 2.0), rtol=1e-5, atol=1e-5)


def test_what_is_less_than_a_pixel_wide_has_no_moments():
    stamp = stamp_of(galsim.Gaussian(sigma=0.5))
    assert by_galsim(stamp, 2.0) is None
    assert not fit_weight(stamp, 16.0, 16.0, 2.0)[0]


@pytest.mark.parametrize("guess", [0.8, 2.0, 5.0])
def test_where_it_begins_does_not_matter(guess):
    stamp = stamp_of(galsim.Moffat(beta=3.0, fwhm=4.0))
    _, *moments = fit_weight(stamp, 16.0, 16.0, guess)
    np.testing.assert_allclose(moments, fit_weight(stamp, 16.0, 16.0, 1.5)[1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "stamp",
    [
        np.zeros((33, 33), np.float32),
        np.full((33, 33), -5.0, np.float32),
        np.full((33, 33), np.nan, np.float32),
        np.full((33, 33), np.inf, np.float32),
        np.full((33, 33), 7.0, np.float32),
        np.random.default_rng(2).normal(0, 5, (33, 33)).astype(np.float32),
    ],
    ids=["nothing", "less than nothing", "NaN", "infinity", "flat", "noise"],
)
def test_what_is_no_star_ends(stamp):
    found, *moments = fit_weight(stamp, 16.0, 16.0, 2.0)
    assert not found or np.isfinite(moments).all()


def test_galaxies_of_any_shape_converge_where_galsim_does():
    rng = np.random.default_rng(3)
    for _ in range(40):
        e, angle = rng.uniform(0, 0.7), rng.uniform(0, np.pi)
        profile = galsim.Sersic(n=1.0, half_light_radius=rng.uniform(1.5, 4.0))
        profile = profile.shear(e1=e * np.cos(2 * angle), e2=e * np.sin(2 * angle))
        stamp = stamp_of(profile, offset=rng.uniform(-0.5, 0.5, 2), noise=rng.uniform(0, 10), seed=rng.integers(1000))
        theirs = by_galsim(stamp, 2.0)
        found, x, y, ixx, iyy, ixy = fit_weight(stamp, 16.0, 16.0, 2.0)
        assert found == (theirs is not None)
        if found:
            sigma = (ixx * iyy - ixy**2) ** 0.25
            np.testing.assert_allclose((x, y, sigma), theirs[:3], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("size", [25, 33, 57])
@pytest.mark.parametrize("n_bad", [0, 1, 40])
def test_background_of_a_stamp_is_the_clipped_median_of_its_ring(size, n_bad):
    rng = np.random.default_rng(size + n_bad)
    half = size // 2
    yy, xx = np.mgrid[:size, :size] - half
    outside = xx**2 + yy**2 > (0.75 * half) ** 2
    stamp = np.empty((size, size), np.float32)
    image = rng.normal(100, 3, (size, size)).astype(np.float32)
    image[0, :9] = 500.0  # a neighbour
    mask = np.zeros((size, size), np.int32)
    mask[-1].flat[: min(n_bad, size)] = 1
    mask[2, :n_bad] = 1
    ring = image[outside & (mask == 0)].astype(np.float64)
    level = np.median(ring)
    spread = 1.4826 * np.median(np.abs(ring - level))
    inside = ring[np.abs(ring - level) <= 3 * spread]
    found = cut_stamp(image, mask, 1, 0, 0, 5.0, 0.75 * half, stamp)
    # Where it clips it knows from a sample; a pixel more or less moves the median by a fraction of its error.
    assert found == (0, pytest.approx(np.median(inside), abs=1.0 * inside.std() / np.sqrt(len(inside))))
    expected = np.where(mask == 0, image - np.float32(found[1]), 0.0)
    np.testing.assert_allclose(stamp, expected, atol=1e-4)


def test_ring_of_which_most_is_one_value_has_that_level():
    image = np.full((41, 41), 50.0, np.float32)
    image[:, 3] = 70.0
    stamp = np.empty((41, 41), np.float32)
    assert cut_stamp(image, np.zeros((0, 0), np.int32), 1, 0, 0, 5.0, 15.0, stamp) == (0, 50.0)


def test_ring_whose_sample_misleads_is_sorted_whole():
    # Every second pixel of the ring is bright: a sample at even steps may see one sort only.
    image = np.full((57, 57), 10.0, np.float32)
    image[:, ::2] = 20.0
    stamp = np.empty((57, 57), np.float32)
    level = cut_stamp(image, np.zeros((0, 0), np.int32), 1, 0, 0, 5.0, 21.0, stamp)[1]
    assert 10.0 <= level <= 20.0
