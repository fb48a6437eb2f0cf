"""Tracks are found, stars are not; the compiled search does what the plain one says."""

import numpy as np
import pytest
from scipy import ndimage

from payloads.isr.cosmic_rays import (
    MIN_RING,
    PRESELECT,
    QUARTILE,
    RING_PX,
    UNUSABLE,
    CosmicRayConfig,
    find_cosmic_rays,
    star_contrast,
)
from payloads.mask import BAD, CR, INTRP, NO_DATA, SAT
from replay import kernels

SCALE = 0.2
READ_NOISE = 6.0
PAIRS = ((0, 1), (1, 0), (1, 1), (1, -1))


def add_tracks(rng, shape, n):
    """Return charge of straight tracks, 80 electron per um, diffused by up to 4 um."""
    charge = np.zeros(shape)
    for _ in range(n):
        y, x = rng.uniform(10, shape[0] - 10), rng.uniform(10, shape[1] - 10)
        t = np.arange(0, rng.exponential(10) + 1, 0.1)
        angle, diffusion = rng.uniform(0, np.pi), rng.uniform(0, 0.4)
        ys = np.rint(y + t * np.sin(angle) + rng.normal(0, diffusion, t.size)).astype(int)
        xs = np.rint(x + t * np.cos(angle) + rng.normal(0, diffusion, t.size)).astype(int)
        inside = (ys >= 0) & (ys < shape[0]) & (xs >= 0) & (xs < shape[1])
        np.add.at(charge, (ys[inside], xs[inside]), 0.1 * rng.uniform(600, 1200))
    return charge


def make_image(fwhm_arcsec, *, seed, shape=(900, 900), n_stars=250, n_tracks=60, sky=1000.0):
    rng = np.random.default_rng(seed)
    light = np.zeros(shape, np.float32)
    x, y = rng.uniform(30, shape[1] - 30, n_stars), rng.uniform(30, shape[0] - 30, n_stars)
    alpha = fwhm_arcsec / SCALE / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    each = np.ones(n_stars)
    kernels.add_stars(
        light, x, y, 10 ** rng.uniform(2.8, 5.8, n_stars), alpha * each, 0.03 * each, -0.02 * each, 3.5,
        np.full(n_stars, 40),
    )  # fmt: skip
    charge = add_tracks(rng, shape, n_tracks)
    image = rng.poisson(light + sky) + charge + rng.normal(0, READ_NOISE, shape)
    return image.astype(np.float32), (np.maximum(image, 0) + READ_NOISE**2).astype(np.float32), light, charge


# --- the twin: the same rules, slowly ------------------------------------------------------------------------------


def ring_level(image, mask, y, x):
    part = [
        image[yy, xx]
        for yy in range(max(0, y - RING_PX), min(image.shape[0], y + RING_PX + 1))
        for xx in range(max(0, x - RING_PX), min(image.shape[1], x + RING_PX + 1))
        if max(abs(yy - y), abs(xx - x)) == RING_PX and not mask[yy, xx] & (UNUSABLE | CR)
    ]
    return float(np.sort(part)[len(part) // 4]) if len(part) >= MIN_RING else np.nan


def judge(image, variance, mask, y, x, contrast, height_sigma, contrast_sigma):
    if mask[y, x] & (UNUSABLE | CR) or (mask[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] & (SAT | NO_DATA)).any():
        return False
    level = ring_level(image, mask, y, x)
    peak, own = float(image[y, x]) - level, float(variance[y, x])
    floor = max(own - peak, 0.05 * own)
    if not peak > (height_sigma + QUARTILE) * np.sqrt(floor):
        return False
    for (dy, dx), part in zip(PAIRS, (contrast[0], contrast[0], contrast[1], contrast[1]), strict=True):
        if (mask[y + dy, x + dx] | mask[y - dy, x - dx]) & UNUSABLE:
            continue
        mean = 0.5 * (float(image[y + dy, x + dx]) + float(image[y - dy, x - dx])) - level
        noise = np.sqrt(part**2 * own + 0.5 * (floor + max(mean, 0.0)))
        if part * peak - mean > contrast_sigma * noise:
            return True
    return False


def find_plainly(image, variance, mask, config, scale):
    image, mask = image.copy(), mask.copy()
    contrast = star_contrast(config.sharpest_fwhm_arcsec / scale)
    lowest = np.full(image.shape, np.inf, np.float32)
    inner = (slice(1, -1), slice(1, -1))
    for dy, dx in PAIRS:
        total = np.roll(image, (dy, dx), (0, 1)) + np.roll(image, (-dy, -dx), (0, 1))
        np.minimum(lowest, total, out=lowest)
    excess = image - np.float32(0.5) * lowest
    reach = np.float32(PRESELECT * config.contrast_sigma)
    hot = np.zeros(image.shape, bool)
    hot[inner] = ((excess > 0) & (excess**2 > reach**2 * variance))[inner]
    new = [
        (y, x)
        for y, x in np.argwhere(hot)
        if judge(image, variance, mask, y, x, contrast, config.min_sigma, config.contrast_sigma)
    ]
    for y, x in new:
        mask[y, x] |= CR
    for _ in range(config.n_grow):
        for y, x in new:
            means = [
                0.5 * (float(image[y + dy, x + dx]) + float(image[y - dy, x - dx]))
                for dy, dx in PAIRS
                if not (mask[y + dy, x + dx] | mask[y - dy, x - dx]) & (UNUSABLE | CR)
            ]
            image[y, x] = min(means) if means else ring_level(image, mask, y, x)
        old, new = new, []
        for y, x in old:
            for yy in range(max(1, y - 1), min(image.shape[0] - 1, y + 2)):
                for xx in range(max(1, x - 1), min(image.shape[1] - 1, x + 2)):
                    if judge(image, variance, mask, yy, xx, contrast, config.grow_sigma, config.grow_sigma):
                        mask[yy, xx] |= CR
                        new.append((yy, xx))
    return mask


@pytest.mark.parametrize(("fwhm", "seed"), [(0.6, 1), (1.0, 2)])
def test_the_compiled_search_finds_the_pixels_of_the_plain_one(fwhm, seed):
    image, variance, _, _ = make_image(fwhm, seed=seed, shape=(300, 317), n_stars=60, n_tracks=25)
    mask = np.zeros(image.shape, np.int32)
    mask[40:46, 100:140], mask[:, 200], mask[150:170, 50:60], mask[-4:, -30:] = BAD, BAD, SAT, NO_DATA
    expected = find_plainly(image, variance, mask, CosmicRayConfig(), SCALE)
    before = image.copy()
    found = find_cosmic_rays(image, variance, mask, pixel_scale_arcsec=SCALE)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(image, before)
    flagged = (mask & CR) != 0
    assert found.n_pixels == flagged.sum() > 100
    assert found.n_rays == ndimage.label(flagged, np.ones((3, 3)))[1]


@pytest.mark.parametrize("fwhm", [0.6, 0.8, 1.0, 1.2])
def test_tracks_are_found_and_stars_are_not(fwhm):
    image, variance, light, charge = make_image(fwhm, seed=11)
    mask = np.zeros(image.shape, np.int32)
    find_cosmic_rays(image, variance, mask, pixel_scale_arcsec=SCALE)
    found = (mask & CR) != 0
    clear = charge > 6 * np.sqrt(light + 1000 + READ_NOISE**2)
    assert clear.sum() > 500
    assert found[clear].mean() > 0.95
    assert charge[found].sum() > 0.9 * charge.sum()
    label, n = ndimage.label(charge > 0, np.ones((3, 3)))
    hit = ndimage.maximum(found, label, np.arange(1, n + 1))
    assert hit.mean() > 0.97
    # Nothing where no particle came near: 250 stars, 8e5 pixels of sky.
    assert (found & ~ndimage.binary_dilation(charge > 0, np.ones((3, 3)))).sum() <= 1


def test_a_field_of_bright_sharp_stars_and_no_tracks_is_left_alone():
    image, variance, _, _ = make_image(0.55, seed=4, n_tracks=0, n_stars=500)
    mask = np.zeros(image.shape, np.int32)
    assert find_cosmic_rays(image, variance, mask, pixel_scale_arcsec=SCALE).n_pixels <= 1


def test_repaired_pixels_have_the_sky_and_say_so():
    image, variance, light, charge = make_image(0.8, seed=5, n_stars=1)
    mask = np.zeros(image.shape, np.int32)
    find_cosmic_rays(image, variance, mask, pixel_scale_arcsec=SCALE, config=CosmicRayConfig(repair=True))
    found = (mask & CR) != 0
    assert (mask[found] & INTRP).all()
    assert not (mask[~found] & INTRP).any()
    away = found & (light < 5)
    assert abs(np.median(image[away]) - 1000) < 15
    assert np.abs(image[away] - 1000).mean() < 50 < charge[away].mean()
    assert abs(np.median(variance[away]) - 1036) < 40


def test_an_image_full_of_spikes_is_left_as_it_was():
    rng = np.random.default_rng(6)
    image = rng.normal(1000, 30, (200, 200)).astype(np.float32)
    image[rng.random(image.shape) < 0.03] += 5000
    before, mask = image.copy(), np.zeros(image.shape, np.int32)
    found = find_cosmic_rays(image, np.full(image.shape, 900, np.float32), mask, pixel_scale_arcsec=SCALE)
    assert found.too_many
    np.testing.assert_array_equal(image, before)
    assert not mask.any()


def test_too_many_only_after_growing_is_undone_too():
    image = np.random.default_rng(7).normal(1000, 30, (100, 100)).astype(np.float32)
    image[50, 20:60] += 3000
    image[51, 20:60] += 900
    image[49, 20:60] += 900
    before, mask = image.copy(), np.zeros(image.shape, np.int32)
    config = CosmicRayConfig(max_fraction=0.0050)
    found = find_cosmic_rays(
        image, np.full(image.shape, 900, np.float32), mask, pixel_scale_arcsec=SCALE, config=config
    )
    assert found.too_many
    np.testing.assert_array_equal(image, before)
    assert not mask.any()


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (8, 8)])
def test_tiny_and_constant_images_hold_none(shape):
    mask = np.zeros(shape, np.int32)
    ones = np.ones(shape, np.float32)
    assert find_cosmic_rays(7 * ones, ones, mask, pixel_scale_arcsec=SCALE).n_pixels == 0


def test_planes_of_different_sizes_are_the_callers_mistake():
    with pytest.raises(ValueError, match="differ in shape"):
        find_cosmic_rays(
            np.ones((4, 4), np.float32), np.ones((4, 5), np.float32), np.zeros((4, 4), np.int32), pixel_scale_arcsec=1
        )


def test_hits_beside_those_of_an_earlier_search_are_counted_alone():
    """A long track that is flagged already, and one new pixel beside it: nothing is written past the end."""
    rng = np.random.default_rng(8)
    image = rng.normal(1000.0, 32.0, (300, 300)).astype(np.float32)
    image[150, 100] += 20_000
    mask = np.zeros(image.shape, np.int32)
    mask[151, 10:290] = CR
    mask[152:290, 10:290] = CR
    before = mask.copy()
    found = find_cosmic_rays(image, np.full_like(image, 1024.0), mask, pixel_scale_arcsec=SCALE)
    assert (found.n_pixels, found.n_rays) == (1, 1)
    before[150, 100] |= CR
    np.testing.assert_array_equal(mask, before)
