"""Charge pushed out of bright pixels, step by step as it arrives, comes back."""

import galsim
import numpy as np
import pytest
from scipy.ndimage import convolve

from payloads.isr.brighter_fatter import BrighterFatterConfig, correct_brighter_fatter
from rapid.errors import PayloadError

SKY = 500.0


def make_kernel(size=17):
    y, x = np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1].astype(float)
    r = np.hypot(x, 0.9 * y)
    return (-8e-7 / (1 + r**2) ** 0.75 * np.exp(-r / 5)).astype(np.float32)


def make_star(flux, *, size=121):
    light = np.full((size, size), SKY)
    stamp = galsim.Image(61, 61, dtype=float)
    galsim.Moffat(beta=3.5, fwhm=3.5).shear(e1=0.05).drawImage(image=stamp, scale=1, method="no_pixel")
    light[30:91, 30:91] += flux * stamp.array
    return light


def expose(light, kernel, n_steps=60):
    """Collect light evenly in time; each step's share crosses the edges as the charge collected so far bends it."""
    collected, step = np.zeros_like(light), light / n_steps
    for _ in range(n_steps):
        potential = convolve(collected + 0.5 * step, kernel.astype(float), mode="nearest")
        across = 0.5 * (step[:, 1:] + step[:, :-1]) * np.diff(potential, axis=1)
        along = 0.5 * (step[1:] + step[:-1]) * np.diff(potential, axis=0)
        collected += step
        collected[:, :-1] -= across
        collected[:, 1:] += across
        collected[:-1] -= along
        collected[1:] += along
    return collected


def shape_of(image):
    found = galsim.hsm.FindAdaptiveMom(galsim.Image((image - SKY)[30:91, 30:91].astype(float)))
    return found.moments_sigma, found.observed_shape.e1


@pytest.mark.parametrize("flux", [2e4, 4e5, 1.2e6])
def test_a_star_gets_its_width_and_shape_back(flux):
    kernel, light = make_kernel(), make_star(flux)
    seen = expose(light, kernel)
    image = seen.astype(np.float32)
    found = correct_brighter_fatter(image, kernel)
    assert found.has_converged
    (true, e1), (wide, _), (back, back_e1) = shape_of(light), shape_of(seen), shape_of(image)
    assert wide / true - 1 > 0.015 * flux / 1.2e6  # the effect is there: 2 % at 65 ke-
    assert abs(back / true - 1) < 0.05 * (wide / true - 1)
    assert back_e1 == pytest.approx(e1, abs=1e-4)


def test_no_charge_is_made_or_lost_and_the_flat_sky_stays():
    rng = np.random.default_rng(1)
    image = rng.uniform(100, 60_000, (60, 70)).astype(np.float32)
    total = image.sum(dtype=float)
    correct_brighter_fatter(image, make_kernel(), config=BrighterFatterConfig(max_iterations=4))
    assert image.sum(dtype=float) == pytest.approx(total, rel=1e-7)
    flat = np.full((40, 50), 30_000, np.float32)
    correct_brighter_fatter(flat, make_kernel())
    np.testing.assert_allclose(flat, 30_000, rtol=1e-6)


def test_one_round_is_the_divergence_in_numpy():
    rng = np.random.default_rng(2)
    image = rng.uniform(100, 40_000, (33, 41)).astype(np.float32)
    kernel = make_kernel(5)
    kernel[0, 3] *= 3  # not symmetric: a convolution is not a correlation
    f, p = image.astype(float), convolve(image.astype(float), kernel.astype(float), mode="nearest")
    across = 0.5 * (f[:, 1:] + f[:, :-1]) * np.diff(p, axis=1)
    along = 0.5 * (f[1:] + f[:-1]) * np.diff(p, axis=0)
    divergence = np.zeros_like(f)
    divergence[:, :-1] += across
    divergence[:, 1:] -= across
    divergence[:-1] += along
    divergence[1:] -= along
    found = correct_brighter_fatter(image, kernel, config=BrighterFatterConfig(max_iterations=1))
    np.testing.assert_allclose(image, f + 0.5 * divergence, rtol=1e-5, atol=0.02)
    assert found.n_iterations == 1
    assert not found.has_converged
    assert found.change_electron == pytest.approx(np.abs(0.5 * divergence).mean(), rel=1e-3)


def test_a_flats_variance_comes_back():
    rng = np.random.default_rng(3)
    kernel = make_kernel()
    seen = expose(rng.poisson(50_000, (250, 250)).astype(float), kernel, n_steps=10)
    image = seen.astype(np.float32)
    correct_brighter_fatter(image, kernel)
    inner = (slice(10, -10), slice(10, -10))
    assert seen[inner].var() < 0.95 * 50_000
    assert image[inner].var() == pytest.approx(50_000, rel=0.02)


@pytest.mark.parametrize(
    "kernel",
    [np.zeros((4, 4)), np.zeros((3, 5)), np.full((3, 3), np.nan), np.zeros((41, 41)), np.zeros(9)],
    ids=["even", "oblong", "NaN", "larger than the image", "a row"],
)
def test_what_is_no_kernel_is_refused(kernel):
    with pytest.raises(PayloadError, match="kernel"):
        correct_brighter_fatter(np.ones((31, 31), np.float32), kernel.astype(np.float32))


@pytest.mark.parametrize("scale", [1e3, 1e6, -1e5], ids=["too large", "in other units", "of the other sign"])
def test_an_iteration_that_diverges_leaves_the_image_as_it_was(scale):
    image = make_star(2e5).astype(np.float32)
    before = image.copy()
    found = correct_brighter_fatter(image, make_kernel() * np.float32(scale))
    assert found.has_diverged
    assert not found.has_converged
    np.testing.assert_array_equal(image, before)
