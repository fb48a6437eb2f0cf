"""Read series of an axis from InfluxDB, by its query interface of version 1 (version 2 has it, too)."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
import urllib3
from astropy.time import Time
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from rapid.errors import RapidError, Retry
from rapid.telemetry.models import AxisSeries, TelemetryConfig, TimeScale

MAX_SAMPLES = 200_000
"""An hour at 50 Hz. More would be another exposure's."""


class TelemetryError(RapidError):
    """Telemetry cannot be had: not yet, or not at all."""

    code = "telemetry_failed"
    retry = Retry.LATER


class _SeriesAnswer(BaseModel):
    values: list[Annotated[list[int | float | None], Field(min_length=2)]] = []


class _Result(BaseModel):
    series: list[_SeriesAnswer] = []
    error: str = ""


class _Answer(BaseModel):
    """What an InfluxDB answers to a query, as far as it is read."""

    results: list[_Result] = []
    error: str = ""


@dataclass(frozen=True)
class Series:
    """Samples of one axis during an exposure.

    Attributes
    ----------
    time_s : ndarray of shape (n,), float64
        Since the begin of the exposure.
    actual_deg, demand_deg : ndarray of shape (n,), float64
    """

    time_s: NDArray[np.float64]
    actual_deg: NDArray[np.float64]
    demand_deg: NDArray[np.float64] | None


def stored_ns(moment: datetime, scale: TimeScale) -> int:
    """Return a moment [TAI] as samples are stored under it: nanoseconds since 1970 on the archive's scale."""
    if scale is TimeScale.UTC:
        moment = Time(moment, scale="tai").utc.to_datetime()
    since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


class TelemetryReader:
    """Asks one InfluxDB. Methods block."""

    def __init__(self, config: TelemetryConfig) -> None:
        self._config = config
        self._http = urllib3.PoolManager(maxsize=2, timeout=config.timeout_s, retries=False)

    def read(self, axis: AxisSeries, begin: datetime, end: datetime) -> Series:
        """Return the samples of an axis from begin to end of an exposure [TAI].

        Raises
        ------
        TelemetryError
            Raised if the archive does not answer, or its samples do not cover the exposure (yet).
        """
        config = self._config
        first, last = stored_ns(begin, config.time_scale), stored_ns(end, config.time_scale)
        names = [axis.actual, *([axis.demand] if axis.demand else [])]
        columns = ", ".join(_quoted(name) for name in names)
        text = (
            f"SELECT {columns} FROM {_quoted(axis.measurement)} "  # noqa: S608 - names are quoted, the rest are numbers
            f"WHERE time >= {first} AND time <= {last} LIMIT {MAX_SAMPLES}"
        )
        rows = [row for row in self._ask(text) if row[1] is not None]
        # Differences of nanoseconds as integers: as floats they would be off by a tenth of a microsecond.
        times_s = [(int(row[0] or 0) - first) / 1e9 for row in rows]
        self._check(axis, times_s, (last - first) / 1e9)
        if any(len(row) != 1 + len(names) for row in rows):
            raise TelemetryError(f"{axis.measurement}: {config.url} answers otherwise than it was asked")
        numbers = np.array([[np.nan if value is None else float(value) for value in row[1:]] for row in rows])
        demand = numbers[:, 1] if len(names) == 2 and np.isfinite(numbers[:, 1]).all() else None
        return Series(np.array(times_s), numbers[:, 0], demand)

    def _check(self, axis: AxisSeries, times_s: list[float], duration_s: float) -> None:
        config = self._config
        if not times_s:
            raise TelemetryError(f"{axis.measurement} has no sample during the exposure")
        gap_s = float(np.diff([0.0, *times_s, duration_s]).max())
        if gap_s > config.max_gap_s:
            raise TelemetryError(f"{axis.measurement} has no sample for {gap_s:.1f} s of the exposure")
        if len(times_s) < config.min_rate_hz * duration_s:
            raise TelemetryError(f"{axis.measurement} has {len(times_s)} samples in {duration_s:.1f} s: too few")

    def _ask(self, text: str) -> list[list[int | float | None]]:
        config = self._config
        fields = {"db": config.database, "q": text, "epoch": "ns"}
        headers = {}
        if config.user and config.password is not None:
            headers = urllib3.make_headers(basic_auth=f"{config.user}:{config.password.get_secret_value()}")
        try:
            answer = self._http.request(
                "POST", f"{config.url.rstrip('/')}/query", fields=fields, encode_multipart=False, headers=headers
            )
            document = json.loads(answer.data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TelemetryError(f"{config.url} does not answer: {type(error).__name__}") from error
        except ValueError as error:
            raise TelemetryError(f"{config.url} answers what is no JSON ({answer.status})") from error
        try:
            found = _Answer.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise TelemetryError(f"{config.url} answers otherwise than an InfluxDB: {where}: {first['msg']}") from None
        problem = found.error or next((one.error for one in found.results if one.error), "")
        if answer.status >= 400 or problem:
            raise TelemetryError(f"{config.url}: {answer.status}: {(problem or 'refused')[:200]}")
        series = found.results[0].series if found.results else []
        return series[0].values if series else []


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
