"""Twilight at a site, against astropy's ephemeris of the sun."""

import contextlib
from datetime import UTC, datetime, timedelta

import astropy.units as u
import pytest
from astropy.coordinates import AltAz, EarthLocation, get_sun
from astropy.time import Time
from astropy.utils import iers

from rapid.nightlog.sun import night_between, sun_altitude_deg

PACHON = {"latitude_deg": -30.244639, "longitude_deg": -70.749417}


def true_altitude_deg(moment: datetime) -> float:
    place = EarthLocation.from_geodetic(PACHON["longitude_deg"] * u.deg, PACHON["latitude_deg"] * u.deg, 2650 * u.m)
    told = {"auto_download": False, "auto_max_age": None, "iers_degraded_accuracy": "ignore"}
    with contextlib.ExitStack() as settings:
        for name, value in told.items():
            settings.enter_context(iers.conf.set_temp(name, value))
        time = Time(moment.replace(tzinfo=None), scale="utc")
        return float(get_sun(time).transform_to(AltAz(obstime=time, location=place)).alt.deg)


@pytest.mark.parametrize("month", [1, 4, 7, 11])
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_the_sun_stands_where_astropy_says(month):
    moment = datetime(2026, month, 20, 23, 30, tzinfo=UTC)
    assert sun_altitude_deg(moment, **PACHON) == pytest.approx(true_altitude_deg(moment), abs=0.03)


@pytest.mark.parametrize("day_obs", [20260120, 20260620, 20261120])
def test_the_night_begins_and_ends_at_the_height_asked_for(day_obs):
    begin, end = night_between(day_obs, **PACHON)
    for moment in (begin, end):
        assert sun_altitude_deg(moment, **PACHON) == pytest.approx(-12.0, abs=0.01)
    assert timedelta(hours=7) < end - begin < timedelta(hours=13)
    noon = datetime.strptime(str(day_obs), "%Y%m%d").replace(hour=12, tzinfo=UTC)
    assert noon < begin < end < noon + timedelta(days=1)


def test_a_summer_without_a_night_has_none():
    assert night_between(20260621, latitude_deg=65.0, longitude_deg=20.0) is None


def test_what_is_no_date_has_no_night():
    assert night_between(20261399, **PACHON) is None
