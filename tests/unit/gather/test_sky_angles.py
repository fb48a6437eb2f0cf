"""Directions on the sky, against spherical geometry worked out by hand."""

import math

import numpy as np
import pytest

from payloads.quality.astrometry import Pointing, unproject
from rapid.camera.store import load_camera
from rapid.gather.sky_angles import (
    altaz_axes,
    detector_axes,
    moon_metrics,
    sky_brightness,
    turn_ellipticity,
    zenith_angle_deg,
    zenith_of,
)

LATITUDE = -30.2446


def equatorial(azimuth, elevation):
    """Return declination and hour angle [deg] of a direction."""
    a, h, lat = map(math.radians, (azimuth, elevation, LATITUDE))
    dec = math.asin(math.sin(h) * math.sin(lat) + math.cos(h) * math.cos(lat) * math.cos(a))
    hour = math.atan2(
        -math.sin(a) * math.cos(h), math.sin(h) * math.cos(lat) - math.cos(h) * math.sin(lat) * math.cos(a)
    )
    return math.degrees(dec), math.degrees(hour)


def horizontal(dec, hour):
    """Return azimuth and elevation [deg]."""
    d, t, lat = map(math.radians, (dec, hour, LATITUDE))
    elevation = math.asin(math.sin(d) * math.sin(lat) + math.cos(d) * math.cos(lat) * math.cos(t))
    azimuth = math.atan2(
        -math.cos(d) * math.sin(t), math.sin(d) * math.cos(lat) - math.cos(d) * math.sin(lat) * math.cos(t)
    )
    return math.degrees(azimuth) % 360, math.degrees(elevation)


@pytest.mark.parametrize("rotator", [0.0, 37.0, -120.0, 200.0])
@pytest.mark.parametrize(("azimuth", "elevation"), [(119.0, 68.4), (10.0, 40.0), (250.0, 55.0), (200.0, 80.0)])
def test_a_step_along_the_axes_is_a_step_in_azimuth_and_altitude(azimuth, elevation, rotator):
    zenith = zenith_angle_deg(
        azimuth_deg=azimuth, elevation_deg=elevation, latitude_deg=LATITUDE, rotator_angle_deg=rotator
    )
    dec, hour = equatorial(azimuth, elevation)
    pointing = Pointing(100.0, dec, rotator)
    step = 0.02  # degrees in the focal plane
    for vector in np.linalg.inv(altaz_axes(zenith)).T:
        x, y = step * vector
        plane = pointing.to_plane(x, y)
        ra, star_dec = unproject(plane, centre_ra_deg=100.0, centre_dec_deg=dec)
        # A larger right ascension is a smaller hour angle.
        there = horizontal(float(star_dec[0]), hour - (float(ra[0]) - 100.0))
        moved = ((there[0] - azimuth) * math.cos(math.radians(elevation)), there[1] - elevation)
        expected = step * (altaz_axes(zenith) @ vector)
        assert moved == pytest.approx(tuple(expected), abs=step * 0.01)


def test_at_the_pole_there_is_no_north():
    assert (
        zenith_angle_deg(azimuth_deg=180.0, elevation_deg=-LATITUDE, latitude_deg=LATITUDE, rotator_angle_deg=0) is None
    )


@pytest.mark.parametrize("missing", ["azimuth_deg", "elevation_deg", "rotator_angle_deg"])
def test_headers_that_do_not_tell_give_no_zenith(missing):
    info = {"azimuth_deg": 119.0, "elevation_deg": 68.0, "rotator_angle_deg": 3.0}
    camera = load_camera("LSSTCam")
    assert zenith_of(info, camera) is not None
    assert zenith_of({**info, missing: None}, camera) is None


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_an_ellipse_turns_with_its_detector(quarter):
    # Long along the detector's x: after an odd number of quarter turns, along the focal plane's y.
    e1, e2 = turn_ellipticity(0.1, 0.0, detector_axes(quarter))
    assert (e1, e2) == pytest.approx((0.1 if quarter % 2 == 0 else -0.1, 0.0))


def test_a_mirror_changes_the_sign_of_the_diagonal():
    assert turn_ellipticity(0.1, 0.05, np.diag([-1.0, 1.0])) == pytest.approx((0.1, -0.05))


def test_the_moon_is_full_and_where_it_was():
    # Full moon of 2026-11-24, 14:53 UTC, in Taurus at about 3 h 58 min, +25 deg.
    facts = {"begin": "2026-11-24T14:54:00", "ra_deg": 59.5, "dec_deg": 25.0}
    found = moon_metrics(facts)
    assert found["moon_illuminated_fraction"] > 0.99
    assert found["moon_separation_deg"] < 3.0
    opposite = moon_metrics({**facts, "ra_deg": 239.5, "dec_deg": -25.0})
    assert opposite["moon_separation_deg"] > 177.0


@pytest.mark.parametrize("missing", ["begin", "ra_deg", "dec_deg"])
def test_without_time_or_pointing_nothing_is_said_of_the_moon(missing):
    facts = {"begin": "2026-11-24T14:54:00", "ra_deg": 59.5, "dec_deg": 25.0}
    assert moon_metrics({**facts, missing: None}) == {}


def test_sky_brightness_is_a_magnitude_per_square_arcsecond():
    metrics = {"sky_level_e_median": 1200.0, "zero_point_mag_median": 28.0}
    found = sky_brightness(metrics, {"exposure_time_s": 30.0}, pixel_scale_arcsec=0.2)
    assert found["sky_brightness_mag_arcsec2"] == pytest.approx(28.0 - 2.5 * math.log10(40.0 / 0.04))
    assert sky_brightness({"sky_level_e_median": 5.0}, {"exposure_time_s": 30.0}, pixel_scale_arcsec=0.2) == {}
    assert sky_brightness(metrics, {"exposure_time_s": 0.0}, pixel_scale_arcsec=0.2) == {}
