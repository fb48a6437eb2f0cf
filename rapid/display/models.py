"""What the display says, over HTTP and in its pages.

`ExposureRow` is a line of the night; `ExposureView` all that is shown of one exposure. Both carry one
version of the summary and say whether it is partial, which detectors are missing, and why (invariant I10).
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.results.models import DetectorResult, DetectorState, ExposureSummary, QuarantineRecord, Scalar


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExposureState(StrEnum):
    """How far an exposure has come."""

    WAITING = "waiting"
    """Nothing of it has been started."""

    RUNNING = "running"
    COMPLETE = "complete"
    PARTIAL = "partial"
    """Settled, or gathered at the timeout, with detectors missing."""

    FAILED = "failed"
    """Settled without a single finished detector."""


class DetectorCell(_Answer):
    """One detector of an exposure: a cell of the focal plane."""

    detector: int
    name: str
    state: DetectorState
    reason: str | None = None
    pipeline: str
    metrics: dict[str, Scalar] = Field(default_factory=dict)


class MissingDetector(_Answer):
    """A detector that should have finished and has not."""

    detector: int
    name: str
    state: DetectorState
    reason: str | None = None


class ExposureRow(_Answer):
    """One exposure in the night's table."""

    exposure_id: int
    day_obs: int
    seq_num: int
    image_type: str
    physical_filter: str | None = None
    object_name: str | None = None
    program: str | None = None
    begin: datetime | None = Field(default=None, description="Start of the exposure, TAI.")
    end: datetime | None = Field(default=None, description="End of the exposure, TAI.")
    exposure_time_s: float | None = None
    airmass: float | None = None
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    zenith_deg: float | None = Field(
        default=None, description="Direction of the zenith in the focal plane, clockwise from +y; null if not known."
    )
    state: ExposureState
    pipeline: str = Field(description="The pipeline the numbers are from.")
    pipelines: list[str] = Field(description="Every pipeline that was asked for.")
    version: int = Field(description="Version of the summary; 0 while there is none.")
    n_finished: int
    n_failed: int
    n_expected: int
    n_excluded: int = 0
    n_later: int = Field(default=0, description="Detectors left for later: not in the pattern, or shed.")
    missing: list[MissingDetector] = Field(
        default_factory=list, description="Expected detectors without a result, once the exposure is gathered."
    )
    excluded: list[MissingDetector] = Field(
        default_factory=list, description="Detectors that are switched off, with the reason; they are not missing."
    )
    n_excluded_amps: int = Field(default=0, description="Amps that are switched off, of detectors that are not.")
    metrics: dict[str, Scalar] = Field(
        default_factory=dict, description="The summary's numbers; before it, medians of the detectors so far."
    )
    is_provisional: bool = Field(description="Whether the numbers are medians so far, not a summary's.")
    timings: dict[str, float] = Field(default_factory=dict)
    n_summarised: int = Field(default=0, description="Detectors in the summary on show, and so in its mosaic.")
    first_seen: datetime | None = Field(default=None, description="When the board heard of it, UTC.")
    updated: datetime | None = Field(default=None, description="Time of the last change, UTC.")


class ExposureView(_Answer):
    """Everything a page shows of one exposure."""

    row: ExposureRow
    info: dict[str, Any] = Field(default_factory=dict, description="Facts of the exposure, as in ExposureInfo.")
    products: dict[str, str] = Field(default_factory=dict, description="Keys under /products/, by kind.")
    detectors: list[DetectorCell] = Field(default_factory=list)
    summaries: list[ExposureSummary] = Field(
        default_factory=list, description="Newest summary of each pipeline; detectors left to `detectors`."
    )


class Source(_Answer):
    """Whether a thing the display reads from is there."""

    name: str
    is_up: bool
    since: datetime = Field(description="Since when it is, or is not, UTC.")
    reason: str | None = None


class NowView(_Answer):
    """The page that is open all night."""

    as_of: str = Field(description="Id of the last event seen; ask /api/events for what follows it.")
    server_time: datetime = Field(description="UTC.")
    camera: str
    day_obs: int | None = None
    cadence_s: float = Field(description="Typical time between exposures of this night [s].")
    exposure: ExposureView | None = Field(default=None, description="The newest exposure; none in an empty night.")
    sources: list[Source] = Field(default_factory=list)


class ExposureUpdate(_Answer):
    """What changed of an exposure, as told to viewers: server-sent event ``exposures`` carries a list of them."""

    row: ExposureRow
    cells: list[DetectorCell] = Field(description="Detectors that changed.")
    is_new: bool = Field(default=False, description="Whether the exposure was not known before.")
    info: dict[str, Any] | None = Field(default=None, description="Facts of the exposure, if they are news.")
    products: dict[str, str] | None = Field(default=None, description="Keys of products, if a summary is news.")


class NightCount(_Answer):
    """A night in the calendar."""

    day_obs: int
    n_exposures: int


class NightView(_Answer):
    """A night's exposures, newest first."""

    as_of: str
    day_obs: int
    is_live: bool = Field(description="Whether this is the night now running.")
    previous: int | None = None
    next: int | None = None
    exposures: list[ExposureRow]


class MovieView(_Answer):
    """A night's movie."""

    url: str
    frames_per_s: int
    exposures: list[int] = Field(description="Exposure id of each frame.")
    width: int
    height: int


class DetectorView(_Answer):
    """One detector of one exposure, from every pipeline that ran on it."""

    exposure_id: int
    detector: int
    name: str
    state: DetectorState
    reason: str | None = None
    results: list[DetectorResult]
    failures: list["FailureView"] = Field(default_factory=list)


class FailureView(_Answer):
    """A job that failed for good."""

    job_id: str = ""
    exposure_id: int | None = None
    detector: int | None = None
    pipeline: str | None = None
    code: str = ""
    message: str = ""
    traceback: str | None = None
    attempts: int | None = None
    failed_at: datetime | None = None


class QuarantineView(_Answer):
    """Raws that could not be read, newest first."""

    records: list[QuarantineRecord]


class FailuresView(_Answer):
    """Jobs that failed for good, newest first."""

    failures: list[FailureView]


class StatusView(_Answer):
    """The board, as it reports itself, and what the display reads from."""

    server_time: datetime
    board: dict[str, Any]
    workers: list[dict[str, Any]] = Field(default_factory=list)
    sources: list[Source]
    viewers: int = Field(description="Pages connected to this display.")


class DetectorPlace(_Answer):
    """Where a detector sits in the focal plane."""

    id: int
    name: str
    raft: str
    slot: str
    purpose: str
    physical_type: str
    x_mm: float
    y_mm: float
    width_mm: float
    height_mm: float


class QuantityView(_Answer):
    """How a number is named and drawn."""

    key: str
    title: str
    unit: str
    decimals: int
    scale: str = Field(description="sequential, or diverging around `nominal`.")
    nominal: float | None = None


class TileView(_Answer):
    """One of the big numbers, and where it is taken from."""

    id: str
    title: str
    unit: str
    decimals: int
    is_optional: bool = Field(default=False, description="Shown only in nights in which it was measured.")
    keys: list[str] = Field(description="Metrics of the summary, the first that is there is shown.")
    notes: list[QuantityView] = Field(default_factory=list, description="Numbers shown small below it.")
    low: float | None = None
    high: float | None = None
    why: str = ""
    set_by: str = ""
    since: str = ""


class CameraView(_Answer):
    """What pages need to draw a camera and name its numbers."""

    name: str
    witness_detector: int
    filters: list[str]
    detectors: list[DetectorPlace]
    quantities: list[QuantityView]
    tiles: dict[str, list[TileView]] = Field(description="Tiles for the sky and for calibrations.")


class Health(_Answer):
    """Liveness or readiness."""

    status: str
    sources: list[Source] = Field(default_factory=list)
