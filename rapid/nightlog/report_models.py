"""What the report of a night says."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from rapid.nightlog.models import Flag, LogEntry


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Count(_Part):
    """Exposures of a kind."""

    image_type: str
    physical_filter: str | None = None
    n: int
    exposure_time_s: float = Field(description="In all.")


class Gap(_Part):
    """A time in which the shutter stayed closed."""

    after_seq_num: int
    begin: datetime = Field(description="UTC.")
    minutes: float


class Efficiency(_Part):
    """How the dark hours were used."""

    night_begin: datetime | None = Field(default=None, description="Sun at -12 degrees in the evening, UTC.")
    night_end: datetime | None = Field(default=None, description="Sun at -12 degrees in the morning, UTC.")
    night_hours: float | None = None
    first: datetime | None = Field(default=None, description="Begin of the first exposure of the sky, UTC.")
    last: datetime | None = Field(default=None, description="End of the last exposure of the sky, UTC.")
    n_sky: int = Field(description="Exposures of the sky.")
    open_hours: float = Field(description="Shutter open on the sky.")
    open_fraction: float | None = Field(default=None, description="Part of the night with the shutter open.")
    open_fraction_between: float | None = Field(default=None, description="Part of the time from first to last.")
    typical_gap_s: float | None = Field(
        default=None, description="Median from the end of one to the begin of the next."
    )
    long_gaps: list[Gap] = Field(default_factory=list, description="Five longest of more than two minutes.")


class Spread(_Part):
    """A number over the exposures of a filter."""

    quantity: str
    title: str
    unit: str
    decimals: int
    physical_filter: str | None = Field(default=None, description="None: all filters together.")
    n: int
    median: float
    p10: float
    p90: float
    best: float
    worst: float


class SeriesPoint(_Part):
    """An exposure in a plot."""

    exposure_id: int
    seq_num: int
    at: datetime = Field(description="Begin, UTC.")
    physical_filter: str | None = None
    value: float
    error: float | None = None


class Series(_Part):
    """A number through the night."""

    quantity: str
    title: str
    unit: str
    decimals: int
    points: list[SeriesPoint]


class MissingReport(_Part):
    """Detectors of an exposure without a result, by reason."""

    exposure_id: int
    seq_num: int
    pipeline: str
    n_finished: int
    n_expected: int
    state: str
    reason: str
    detectors: list[str]


class FailureCount(_Part):
    """Jobs that failed for good, by what was wrong."""

    code: str
    message: str
    n: int
    first_job: str


class CalibVerdict(_Part):
    """What became of a calibration exposure, or of a master built this night."""

    subject: str = Field(description="exposure or master.")
    name: str = Field(description="Sequence number, or calib id.")
    kind: str
    physical_filter: str | None = None
    outcome: str | None = Field(default=None, description="pass, warn, fail; None: not verified.")
    state: str | None = Field(default=None, description="Of a master: certified, rejected, withdrawn.")
    n: int = Field(default=1, description="How many exposures or detectors this line stands for.")
    failures: list[str] = Field(default_factory=list)


class NightReport(_Part):
    """The report of a night."""

    camera: str
    day_obs: int
    made_at: datetime = Field(description="UTC.")
    run: str
    software_version: str
    n_exposures: int
    n_complete: int
    n_partial: int
    n_failed: int
    efficiency: Efficiency
    counts: list[Count]
    quality: list[Spread]
    series: list[Series]
    missing: list[MissingReport]
    failures: list[FailureCount]
    quarantined: list[str] = Field(description="Raws that could not be read: name and reason.")
    calibrations: list[CalibVerdict]
    comments: list[LogEntry]
    flags: dict[int, Flag]
