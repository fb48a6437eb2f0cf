"""Motion of the mount from its encoders."""

import numpy as np
import pytest

from payloads.mount.kernels import AxisMotion, axis_motion, mount_motion

TIME = np.arange(0.0, 30.0, 0.05)


def track(rate_deg_s: float = 0.004, start_deg: float = 120.0):
    return start_deg + rate_deg_s * TIME + 2e-6 * TIME**2


def shake(amplitude_arcsec: float, period_s: float = 1.5):
    return amplitude_arcsec / 3600 * np.sin(2 * np.pi * TIME / period_s)


@pytest.mark.parametrize("has_demand", [True, False], ids=["against what was wanted", "against a smooth path"])
def test_a_shake_is_measured(has_demand):
    motion = axis_motion(TIME, track() + shake(0.5), track() if has_demand else None)
    assert motion.rms_arcsec == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert motion.peak_arcsec == pytest.approx(0.5, rel=0.15)
    assert motion.n_samples == len(TIME)


@pytest.mark.parametrize("has_demand", [True, False])
def test_tracking_through_north_and_a_constant_offset_are_no_motion(has_demand):
    demand = track(start_deg=359.95)
    motion = axis_motion(TIME, (demand + 0.01) % 360, demand % 360 if has_demand else None)
    assert motion.rms_arcsec < 1e-3


def test_a_slow_drift_is_seen_against_what_was_wanted_only():
    drift = 1.0 / 3600 * TIME / 30.0
    assert axis_motion(TIME, track() + drift, track()).rms_arcsec == pytest.approx(1 / np.sqrt(12), rel=0.01)
    assert axis_motion(TIME, track() + drift).rms_arcsec < 1e-3


def test_azimuth_counts_by_the_cosine_and_rotation_by_the_field():
    one, none = AxisMotion(1.0, 2.0, 100), AxisMotion(0.0, 0.0, 100)
    assert mount_motion(one, none, None, elevation_deg=60.0).image_rms_arcsec == pytest.approx(0.5)
    turned = mount_motion(none, none, one, elevation_deg=60.0, field_radius_deg=1.75)
    # A star at radius r moves by r times the angle; over a round field the mean of r squared is half the radius squared.
    rng = np.random.default_rng(1)
    r = np.deg2rad(1.75) * np.sqrt(rng.random(200_000))
    assert turned.image_rms_arcsec == pytest.approx(np.sqrt((r**2).mean()), rel=0.01)
    both = mount_motion(one, one, none, elevation_deg=0.0)
    assert both.image_rms_arcsec == pytest.approx(np.sqrt(2))
    assert both.fwhm_arcsec == pytest.approx(2.3548, rel=1e-4)


@pytest.mark.parametrize(
    ("time_s", "actual"), [(TIME[:4], track()[:4]), (TIME, np.full(len(TIME), np.nan))], ids=["too few", "not numbers"]
)
def test_what_tells_nothing_is_refused(time_s, actual):
    with pytest.raises(ValueError, match=r"too few|not finite"):
        axis_motion(time_s, actual, actual)
