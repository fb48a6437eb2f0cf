"""Read header values that may be missing, blank, undefined, of the wrong type or nonsense.

Headers of eight years and five cameras disagree on all of that. A value that cannot be true becomes None
here, so that a translator decides only what the good ones mean.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any

_BLANK = {"", "NONE", "NULL", "NAN", "UNDEFINED", "N/A", "UNSPECIFIED"}
_SEXAGESIMAL = re.compile(r"([+-]?)(\d{1,3}):(\d{1,2}):(\d{1,2}(?:\.\d*)?)")
_MJD_EPOCH = datetime.fromisoformat("1858-11-17")
_LEAP_SECONDS = (("2017-01-01", 37), ("2015-07-01", 36), ("2012-07-01", 35), ("2009-01-01", 34))
"""TAI - UTC [s] from each date on (IERS Bulletin C); no leap second has followed until 2026."""

EARLIEST = datetime.fromisoformat("1990-01-01")
"""Dates before are clocks that were not set: 1970 is met in raws of 2019."""

LATEST = datetime.fromisoformat("2200-01-01")
"""Dates after are nonsense, and near the end of the calendar sums with them fail."""


def leap_seconds(moment: datetime) -> int:
    """Return TAI - UTC at a date [s].

    Examples
    --------
    >>> leap_seconds(datetime(2026, 1, 1))
    37
    """
    day = moment.date().isoformat()
    return next((seconds for start, seconds in _LEAP_SECONDS if day >= start), 33)


def day_obs_of(begin: datetime) -> int:
    """Return the observing day of a TAI date: the UTC date twelve hours earlier, as YYYYMMDD.

    Examples
    --------
    >>> day_obs_of(datetime(2025, 11, 16, 11, 59)), day_obs_of(datetime(2025, 11, 16, 12, 1))
    (20251115, 20251116)
    """
    day: date = (begin - timedelta(hours=12, seconds=leap_seconds(begin))).date()
    return day.year * 10_000 + day.month * 100 + day.day


class Values:
    """A header, asked for values by their possible keys in order of preference.

    Parameters
    ----------
    header
        Keys and values as `rapid.exposure.fits_header.scan` or astropy give them; not modified.
    """

    def __init__(self, header: Mapping[str, Any]) -> None:
        self._header = header

    def text(self, *keys: str) -> str | None:
        """Return the first text that says something, stripped."""
        for key in keys:
            value = self._header.get(key)
            if isinstance(value, bool) or value is None:
                continue
            text = str(value).strip()
            if text.upper() not in _BLANK:
                return text
        return None

    def number(self, *keys: str, low: float = -1e30, high: float = 1e30) -> float | None:
        """Return the first finite number within ``low`` and ``high``; text that reads as a number counts."""
        for key in keys:
            value = self._header.get(key)
            if value is None or isinstance(value, bool):
                continue
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                continue
            if isfinite(number) and low <= number <= high:
                return number
        return None

    def whole(self, *keys: str, low: int = 0, high: int = 10**15) -> int | None:
        """Return the first whole number within ``low`` and ``high``."""
        for key in keys:
            value = self.number(key, low=low, high=high)
            if value is not None and value == int(value):
                return int(value)
        return None

    def angle_deg(self, *keys: str, low: float, high: float, hours: bool = False) -> float | None:
        """Return the first angle in range [degree]; ``hours`` tells the unit of one written with colons."""
        for key in keys:
            value = self._header.get(key)
            if isinstance(value, str) and (match := _SEXAGESIMAL.fullmatch(value.strip())):
                size = int(match[2]) + int(match[3]) / 60 + float(match[4]) / 3600
                angle = (-size if match[1] == "-" else size) * (15.0 if hours else 1.0)
                if low <= angle <= high:
                    return angle
            elif (number := self.number(key, low=low, high=high)) is not None:
                return number
        return None

    def moment(self, *events: str) -> datetime | None:
        """Return the first date of ``DATE-event`` or ``MJD-event``, as TAI without a zone.

        Rubin's dates are TAI unless TIMESYS says UTC.
        """
        is_utc = (self.text("TIMESYS") or "TAI").upper() == "UTC"
        for event in events:
            suffix = f"-{event}" if event else ""
            for moment in (_from_iso(self.text(f"DATE{suffix}")), _from_mjd(self.number(f"MJD{suffix}"))):
                if moment is not None:
                    return moment + timedelta(seconds=leap_seconds(moment)) if is_utc else moment
        return None

    def is_true(self, key_part: str) -> bool:
        """Whether any key that contains ``key_part`` has a true value."""
        for key, value in self._header.items():
            if key_part in key and value and str(value).strip().upper() not in {*_BLANK, "0", "F", "FALSE"}:
                return True
        return False

    def has(self, *keys: str) -> bool:
        """Whether any of the keys is there, whatever its value."""
        return any(key in self._header for key in keys)


def _from_iso(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return moment if EARLIEST < moment < LATEST else None


def _from_mjd(mjd: float | None) -> datetime | None:
    if mjd is None or not 0 < mjd < 2_000_000:
        return None
    moment = _MJD_EPOCH + timedelta(days=mjd)
    return moment if EARLIEST < moment < LATEST else None
