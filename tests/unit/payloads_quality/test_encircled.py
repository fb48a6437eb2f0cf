"""Curves of growth against profiles whose integral is known."""

import math

import numpy as np
import pytest
from quality_images import make_frame

from payloads.quality.encircled import EncircledEnergy, EncircledEnergyConfig, measure_growth, radius_of
from rapid.errors import PayloadError

SIZE = 71
CENTRE = (35.2, 34.7)


def gaussian(sigma: float, *, flux: float = 1e6, sky: float = 200.0, noise: float = 0.0) -> np.ndarray:
    """Return a star, each pixel the mean over 5 x 5 places in it."""
    fine = (np.arange(5 * SIZE) + 0.5) / 5 - 0.5
    x, y = fine[None, :] - CENTRE[0], fine[:, None] - CENTRE[1]
    light = np.exp(-0.5 * (x**2 + y**2) / sigma**2) / (2 * math.pi * sigma**2)
    stamp = flux * light.reshape(SIZE, 5, SIZE, 5).mean(axis=(1, 3)) + sky
    return (stamp + np.random.default_rng(3).normal(0.0, noise or 1e-9, stamp.shape)).astype(np.float32)


def measure(stamp: np.ndarray, bad: np.ndarray | None = None):
    bad = np.zeros(stamp.shape, dtype=bool) if bad is None else bad
    return measure_growth(stamp, bad, *CENTRE, radius_px=24.0, sky_px=8.0)


@pytest.mark.parametrize("sigma", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("fraction", [0.5, 0.8, 0.95])
def test_the_radii_of_a_gaussian_are_found_to_three_percent(sigma, fraction):
    growth, _ = measure(gaussian(sigma, noise=5.0))
    truth = sigma * math.sqrt(-2.0 * math.log(1.0 - fraction))
    assert radius_of(growth, fraction) == pytest.approx(truth, rel=0.03)


def test_the_signal_to_noise_ratio_is_that_of_the_aperture():
    _, snr = measure(gaussian(2.5, flux=1e5, noise=10.0))
    assert snr == pytest.approx(1e5 / (10.0 * math.sqrt(math.pi) * 24.0), rel=0.1)


def test_wings_show_in_the_outer_radius_and_hardly_in_the_inner_one():
    sharp, winged = gaussian(2.5), gaussian(2.5, flux=9e5) + gaussian(9.0, flux=1e5, sky=0.0)
    first, second = measure(sharp)[0], measure(winged)[0]
    assert radius_of(second, 0.5) / radius_of(first, 0.5) < 1.15
    assert radius_of(second, 0.95) / radius_of(first, 0.95) > 1.5


def test_light_that_cannot_be_summed_gives_no_curve():
    star = gaussian(2.5)
    bad = np.zeros(star.shape, dtype=bool)
    bad[40, 40] = True
    assert measure(star, bad) is None, "a bad pixel within the radius"
    bad = np.zeros(star.shape, dtype=bool)
    bad[:, :32] = bad[:, 40:] = True
    bad[10:60, 10:60] = False
    assert measure(star, bad) is None, "half of the ring is bad"
    neighbour = star.copy()
    neighbour[35, 64] += 0.5 * star.max()
    assert measure(neighbour) is None, "a neighbour in the ring"
    assert measure(np.full_like(star, 200.0)) is None, "no light"


def test_the_payload_refuses_a_frame_without_image_and_a_configuration_that_contradicts_itself():
    with pytest.raises(PayloadError, match="encircled_energy needs an assembled image: put isr"):
        EncircledEnergy(EncircledEnergyConfig()).run(make_frame(None))
    with pytest.raises(ValueError, match="min_stars is above n_max_stars"):
        EncircledEnergyConfig(n_max_stars=2, min_stars=3)
