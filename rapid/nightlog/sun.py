"""When the night began and ended at a site: the sun's height, to a few seconds of time. Pure."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

NAUTICAL_DEG = -12.0
"""The sky can be observed for most purposes between these; deep exposures wait for -18."""

_J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


def sun_altitude_deg(moment: datetime, *, latitude_deg: float, longitude_deg: float) -> float:
    """Return the height of the sun's centre, without refraction.

    Parameters
    ----------
    moment
        With its time zone.
    longitude_deg
        East positive.

    Notes
    -----
    The Astronomical Almanac's low-precision formulae, good to 0.01 degrees from 1950 to 2050: two seconds of time.

    Examples
    --------
    Noon at Greenwich on an equinox: the sun stands at 90 degrees less the latitude.

    >>> round(sun_altitude_deg(datetime(2026, 3, 20, 12, 7, 30, tzinfo=UTC), latitude_deg=51.5, longitude_deg=0.0), 1)
    38.5
    """
    days = (moment - _J2000).total_seconds() / 86400.0
    mean_longitude = math.radians((280.460 + 0.9856474 * days) % 360.0)
    anomaly = math.radians((357.528 + 0.9856003 * days) % 360.0)
    longitude = mean_longitude + math.radians(1.915) * math.sin(anomaly) + math.radians(0.020) * math.sin(2 * anomaly)
    obliquity = math.radians(23.439 - 4e-7 * days)
    right_ascension = math.atan2(math.cos(obliquity) * math.sin(longitude), math.cos(longitude))
    declination = math.asin(math.sin(obliquity) * math.sin(longitude))
    sidereal = math.radians((280.46061837 + 360.98564736629 * days + longitude_deg) % 360.0)
    hour_angle = sidereal - right_ascension
    latitude = math.radians(latitude_deg)
    sine = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(declination) * math.cos(
        hour_angle
    )
    return math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def night_between(
    day_obs: int, *, latitude_deg: float, longitude_deg: float, altitude_deg: float = NAUTICAL_DEG
) -> tuple[datetime, datetime] | None:
    """Return when the sun went below a height in the evening and came above it in the morning.

    Parameters
    ----------
    day_obs
        YYYYMMDD; an observing day begins at noon UTC of that date.

    Returns
    -------
    begin, end
        UTC, to a second; None if the sun does not cross that height, or ``day_obs`` is no date.
    """
    try:
        noon = datetime.strptime(str(day_obs), "%Y%m%d").replace(hour=12, tzinfo=UTC)
    except ValueError:
        return None

    def height(minutes: float) -> float:
        at = noon + timedelta(minutes=minutes)
        return sun_altitude_deg(at, latitude_deg=latitude_deg, longitude_deg=longitude_deg) - altitude_deg

    # From local noon to local noon: the observing day of a site to the west begins in its morning.
    start = -(longitude_deg / 360.0) * 1440.0
    heights = [(start + 10.0 * k, height(start + 10.0 * k)) for k in range(145)]
    falls = [a for (a, above), (_, below) in pairwise(heights) if above >= 0.0 > below]
    rises = [a for (a, below), (_, above) in pairwise(heights) if below < 0.0 <= above]
    if not falls or not rises:
        return None

    def cross(low: float) -> datetime:
        high, sign = low + 10.0, 1.0 if height(low) >= 0.0 else -1.0
        for _ in range(12):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if sign * height(middle) >= 0.0 else (low, middle)
        return (noon + timedelta(minutes=0.5 * (low + high))).replace(microsecond=0)

    return cross(falls[0]), cross(rises[-1])
