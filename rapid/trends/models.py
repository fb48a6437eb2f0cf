"""What trends say: series of numbers, their drift over the focal plane, and alarms."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from payloads.trend.decompose import Scale
from payloads.trend.search import Kind
from rapid.errors import NotFoundError

FIRST_DAY, LAST_DAY = 19900101, 99991231
"""Observing days that can be."""


def date_of(day_obs: int) -> date:
    """Return an observing day as a date.

    Examples
    --------
    >>> date_of(20261120)
    datetime.date(2026, 11, 20)
    """
    return date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100)


def day_obs_of(ordinal: float) -> int:
    """Return the observing day of a proleptic day number, rounded to the nearest.

    Examples
    --------
    >>> day_obs_of(date_of(20261120).toordinal() + 0.4)
    20261120
    """
    day = date.fromordinal(max(round(ordinal), 1))
    return day.year * 10_000 + day.month * 100 + day.day


def days_before(day_obs: int, n_days: int) -> int:
    """Return the observing day some days earlier."""
    day = date_of(day_obs) - timedelta(days=n_days)
    return day.year * 10_000 + day.month * 100 + day.day


class NoTrendError(NotFoundError):
    """Nothing was ever stored of what was asked for; ``field`` names which part of the question that is."""

    def __init__(self, field: str, name: object, *, owner: str) -> None:
        super().__init__("trend of" if field == "metric" else f"trend of {field}", name, owner=owner)
        self.field = field
        self.facts["field"] = field


class SeriesKey(BaseModel):
    """What is measured alike, and can be compared over months."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str
    metric: str
    image_type: str
    condition: str = Field(default="", description='Filter and exposure time, e.g. "r_57 4 s"; empty for a bias.')
    pipeline: str
    run: str = "prompt"

    @property
    def title(self) -> str:
        """Say it in one line.

        Examples
        --------
        >>> SeriesKey(camera="LSSTCam", metric="n_hot_px", image_type="dark", condition="30 s", pipeline="dark").title
        'n_hot_px (dark 30 s)'
        """
        words = " ".join(part for part in (self.image_type, self.condition) if part)
        kind = f", {self.pipeline}" if self.pipeline != self.image_type else ""
        return f"{self.metric} ({words}{kind})"


class SeriesFacts(SeriesKey):
    """A series, and how much there is of it."""

    unit: str = ""
    n_exposures: int
    first_day: int
    last_day: int


class SeriesHistory(BaseModel):
    """Numbers of one detector in one series, in the order they were taken."""

    key: SeriesKey
    unit: str
    detector: int
    detector_name: str
    exposures: list[int]
    days: list[int] = Field(description="Observing day of each exposure.")
    times: list[datetime | None] = Field(description="Begin of each exposure, TAI; None where it is not known.")
    amps: dict[str, list[float | None]] = Field(
        description='Numbers by amp, and under the name "" the detector\'s own; None where not measured.'
    )


class AmpDrift(BaseModel):
    """How one amp's number changed over a stretch of days."""

    first: float | None = Field(description="Median of the first tenth of the exposures.")
    last: float | None = Field(description="Median of the last tenth of the exposures.")
    change: float | None = Field(description="Last minus first.")
    change_percent: float | None
    change_sigma: float | None = Field(description="Change over the error of the two medians' difference.")
    slope_per_day: float | None = Field(description="Theil and Sen's slope through the medians of ten stretches.")


class DriftMap(BaseModel):
    """How one number changed, for every amp of a camera."""

    key: SeriesKey
    unit: str
    first_day: int
    last_day: int
    n_exposures: int
    amps: dict[int, dict[str, AmpDrift]] = Field(description="By detector and amp.")
    names: dict[int, str] = Field(description="Names of the detectors.")


class Scope(StrEnum):
    """Whose change it is."""

    CAMERA = "camera"
    RAFT = "raft"
    DETECTOR = "detector"
    AMP = "amp"


class AlarmState(StrEnum):
    """What became of an alarm."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    OVER = "over"
    """It went back, or the numbers that raised it were corrected."""


class Alarm(BaseModel):
    """A change that somebody should know of."""

    model_config = ConfigDict(extra="forbid")

    id: int = 0
    camera: str
    series: int = Field(default=0, description="Number of the series in the store.")
    metric: str
    image_type: str
    condition: str
    pipeline: str
    run: str
    scope: Scope
    raft: str | None = None
    detector: int | None = None
    detector_name: str | None = None
    amp: str | None = None
    kind: Kind
    state: AlarmState = AlarmState.OPEN
    onset_day: int = Field(description="First observing day of the change.")
    onset_error_days: float
    exposure: int | None = Field(default=None, description="First exposure of the change; of an outlier, the bad one.")
    size: float | None = Field(description="After minus before, in the unit; None for what is only known as a part.")
    size_error: float | None = None
    relative: float | None = Field(default=None, description="Size over the level before.")
    slope_per_day: float | None = Field(
        default=None, description="Of a drift: unit, or for a part of the level, per day."
    )
    unit: str = ""
    significance: float = Field(description="Size over its error.")
    n_channels: int = Field(default=1, description="Amps that share it.")
    detectors: list[int] = Field(default_factory=list, description="Of a change that several detectors share.")
    raised_day: int = Field(description="Last observing day known when it was raised.")
    raised_at: datetime
    updated_at: datetime
    over_reason: str = ""
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    acknowledge_reason: str = ""

    @property
    def target(self) -> str:
        """Name what it is about: R22_S11/C00, R22_S11, R22, or the camera."""
        if self.scope is Scope.AMP:
            return f"{self.detector_name}/{self.amp}" if self.amp else f"{self.detector_name}"
        return {
            Scope.DETECTOR: self.detector_name or "",
            Scope.RAFT: self.raft or "",
            Scope.CAMERA: self.camera,
            Scope.AMP: "",
        }[self.scope]

    @property
    def text(self) -> str:
        """Say it in a sentence."""
        title = SeriesKey(
            camera=self.camera, metric=self.metric, image_type=self.image_type, condition=self.condition,
            pipeline=self.pipeline, run=self.run,
        ).title  # fmt: skip
        where = self.target
        if self.scope is Scope.CAMERA:
            where = f"all of {self.camera}" if self.n_channels else self.camera
        day = f"{date_of(self.onset_day).isoformat()} ± {self.onset_error_days:.2g} d"
        if self.kind is Kind.MISSING:
            return f"{where}: {title} cannot be measured any more since {day}"
        words = {
            Kind.STEP: "jumped by",
            Kind.DRIFT: "has been drifting, so far by",
            Kind.GROWTH: "has been growing, so far by",
            Kind.DEAD: "fell to nothing, by",
            Kind.OUTLIER: "is off by",
            Kind.MISSING: "",
        }[self.kind]
        size = self.size_text
        when = "on" if self.kind is Kind.OUTLIER else "since"
        which = f" in exposure {self.exposure}" if self.kind is Kind.OUTLIER and self.exposure else ""
        return f"{where}: {title} {words} {size} {when} {day}{which}"

    @property
    def size_text(self) -> str:
        """The size with its error, as a part of the level or in its unit."""
        if self.size is not None:
            error = f" ± {self.size_error:.2g}" if self.size_error is not None else ""
            part = f" ({100 * self.relative:+.3g} %)" if self.relative is not None else ""
            return f"{self.size:+.4g}{error} {self.unit}".rstrip() + part
        return f"{100 * self.relative:+.3g} %" if self.relative is not None else "an unknown amount"

    def document(self) -> dict[str, Any]:
        """Return it as JSON with its sentence and the name of its target."""
        return {**self.model_dump(mode="json"), "target": self.target, "text": self.text}


@dataclass(frozen=True)
class SeriesNumbers:
    """Numbers of a whole camera in one series, as arrays."""

    series: int
    key: SeriesKey
    exposures: NDArray[np.int64]
    """Shape (n_exposures,), in the order they were taken."""

    days: NDArray[np.int64]
    """Observing days, YYYYMMDD."""

    values: NDArray[np.float32]
    """Shape (n_exposures, n_channels); NaN where not measured."""


def utc_now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


__all__ = [
    "Alarm",
    "AlarmState",
    "AmpDrift",
    "DriftMap",
    "Kind",
    "Scale",
    "Scope",
    "SeriesFacts",
    "SeriesHistory",
    "SeriesKey",
    "SeriesNumbers",
    "date_of",
    "day_obs_of",
    "days_before",
    "utc_now",
]
