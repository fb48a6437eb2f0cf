"""Where zenith and moon are for an exposure, and how bright the sky is.

Pure functions of angles; no table of the Earth's rotation is needed, so that nothing is asked of the network.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapid.camera.models import Camera
from rapid.results.models import Scalar


def zenith_angle_deg(
    *, azimuth_deg: float, elevation_deg: float, latitude_deg: float, rotator_angle_deg: float
) -> float | None:
    """Return the direction of the zenith in the focal plane, clockwise from +y as x lies to the right [deg].

    Parameters
    ----------
    azimuth_deg, elevation_deg
        Where the telescope looks; azimuth from north through east.
    rotator_angle_deg
        Position angle of the focal plane's +y on the sky, from north through east (ROTPA).

    Returns
    -------
    float or None
        None at a celestial pole, where there is no north.

    Notes
    -----
    The parallactic angle is the position angle of the zenith. With +y to the north, +x is to the east, as in
    `payloads.quality.astrometry.Pointing`: position angles run clockwise.
    """
    azimuth, elevation, latitude = map(math.radians, (azimuth_deg, elevation_deg, latitude_deg))
    sin_dec = math.sin(latitude) * math.sin(elevation) + math.cos(latitude) * math.cos(elevation) * math.cos(azimuth)
    cos_dec = math.sqrt(max(1.0 - sin_dec**2, 0.0))
    if cos_dec < 1e-6:
        return None
    # Not divided by cos(dec): both have the same positive factor.
    parallactic = math.atan2(
        -math.sin(azimuth) * math.cos(latitude),
        math.sin(latitude) * math.cos(elevation) - math.cos(latitude) * math.sin(elevation) * math.cos(azimuth),
    )
    return (math.degrees(parallactic) - rotator_angle_deg + 180.0) % 360.0 - 180.0


def zenith_of(info: Mapping[str, Any], camera: Camera) -> float | None:
    """Return `zenith_angle_deg` of an exposure's facts; None if they do not tell."""
    azimuth, elevation, rotator = (info.get(key) for key in ("azimuth_deg", "elevation_deg", "rotator_angle_deg"))
    if not all(isinstance(value, int | float) for value in (azimuth, elevation, rotator)) or not camera.latitude_deg:
        return None
    return zenith_angle_deg(
        azimuth_deg=float(azimuth),  # type: ignore[arg-type]  # seen to above
        elevation_deg=float(elevation),  # type: ignore[arg-type]
        latitude_deg=camera.latitude_deg,
        rotator_angle_deg=float(rotator),  # type: ignore[arg-type]
    )


def altaz_axes(zenith_deg: float) -> NDArray[np.float64]:
    """Return the matrix that takes focal-plane vectors (x, y) to (azimuth, altitude), as they are seen on the sky.

    Both grow along their axis; facing the sky, azimuth grows to the right, so that the picture is mirrored: the focal
    plane is looked at from the other side.

    Parameters
    ----------
    zenith_deg
        As `zenith_angle_deg` returns it.

    Returns
    -------
    axes : ndarray of shape (2, 2)
    """
    psi = math.radians(zenith_deg)
    return np.array([[-math.cos(psi), math.sin(psi)], [math.sin(psi), math.cos(psi)]])


def turn_ellipticity(e1: float, e2: float, axes: NDArray[np.float64]) -> tuple[float, float]:
    """Return an ellipticity in other axes, which may be mirrored.

    Parameters
    ----------
    e1, e2
        Of moments along x and y: an image that is long in x has ``e1`` above zero.
    axes : ndarray of shape (2, 2)
        Orthogonal matrix to the new axes.

    Examples
    --------
    >>> quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> [round(value, 6) + 0.0 for value in turn_ellipticity(0.1, 0.02, quarter_turn)]
    [-0.1, -0.02]
    """
    moments = axes @ np.array([[1.0 + e1, e2], [e2, 1.0 - e1]]) @ axes.T
    return float(moments[0, 0] - moments[1, 1]) / 2, float(moments[0, 1])


def detector_axes(n_quarter: int) -> NDArray[np.float64]:
    """Return the matrix that takes vectors of a detector to the focal plane's."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[n_quarter % 4]
    return np.array([[cos, -sin], [sin, cos]], dtype=np.float64)


def moon_metrics(info: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the moon's distance from the boresight and its lit part; nothing if time or pointing are not known.

    Seen from the Earth's centre: from the mountain the moon is up to one degree beside it.
    """
    begin, ra, dec = info.get("begin"), info.get("ra_deg"), info.get("dec_deg")
    if not isinstance(begin, str | datetime) or not isinstance(ra, int | float) or not isinstance(dec, int | float):
        return {}
    from astropy.coordinates import SkyCoord, get_body
    from astropy.time import Time

    when = Time(begin if isinstance(begin, str) else begin.replace(tzinfo=None), scale="tai")
    moon, sun = get_body("moon", when), get_body("sun", when)
    target = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(moon.frame.replicate_without_data())
    lit = 0.5 * (1.0 - math.cos(math.radians(_between(moon, sun))))
    return {"moon_separation_deg": _between(target, moon), "moon_illuminated_fraction": lit}


def sky_brightness(
    metrics: Mapping[str, Scalar], info: Mapping[str, Any], *, pixel_scale_arcsec: float
) -> dict[str, Scalar]:
    """Return the sky's brightness in magnitudes per square arcsecond; nothing without a zero point or exposure time.

    Parameters
    ----------
    metrics
        The summary's: medians of ``sky_level_e`` and ``zero_point_mag`` (of one electron per second).
    """
    sky, zero_point, seconds = (
        metrics.get("sky_level_e_median"),
        metrics.get("zero_point_mag_median"),
        info.get("exposure_time_s"),
    )
    if not all(isinstance(value, int | float) for value in (sky, zero_point, seconds)):
        return {}
    rate = float(sky) / float(seconds) if seconds else 0.0  # type: ignore[arg-type]  # seen to above
    if rate <= 0:
        return {}
    magnitude = float(zero_point) - 2.5 * math.log10(rate / pixel_scale_arcsec**2)  # type: ignore[arg-type]
    return {"sky_brightness_mag_arcsec2": magnitude}


def _between(one: Any, other: Any) -> float:
    from astropy.coordinates import angular_separation

    return float(np.degrees(angular_separation(one.ra.rad, one.dec.rad, other.ra.rad, other.dec.rad)))
