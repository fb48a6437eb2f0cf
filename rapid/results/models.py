"""What a finished job and a finished gather say.

`DetectorResult` is the one document of a pipeline run on one raw: `rapid process` prints it, a worker
stores it, the display shows it. `ExposureSummary` is one version of an exposure's focal-plane summary
(invariants I4 and I10).
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Scalar = float | int | str | bool | None


class AfterburnerProvenance(BaseModel):
    """How the numbers came to be that an afterburner added to a result: on the image and the calibs of that result."""

    model_config = ConfigDict(extra="forbid")

    software_version: str
    pipeline: str
    pipeline_version: str
    config_hash: str = Field(description="sha256 over the afterburner's resolved configuration.")
    payloads: dict[str, str] = Field(description="Version of each payload that ran, by name.")
    metrics: list[str] = Field(default_factory=list, description="Metrics that it added.")
    amp_metrics: list[str] = Field(default_factory=list, description="Metrics of amps that it added.")
    products: list[str] = Field(default_factory=list, description="Products that it added, by kind.")
    timings: list[str] = Field(default_factory=list, description="Timings that it added.")
    host: str = ""
    finished_at: datetime | None = Field(default=None, description="UTC.")


class Provenance(BaseModel):
    """How a result came to be: enough to repeat it, or to find all results a bad calib has touched."""

    model_config = ConfigDict(extra="forbid")

    software_version: str
    pipeline: str
    pipeline_version: str
    config_hash: str = Field(description="sha256 over the pipeline's resolved configuration.")
    payloads: dict[str, str] = Field(description="Version of each payload that ran, by name.")
    applied: list[str] = Field(default_factory=list, description="Corrections applied, in order.")
    calibs: dict[str, str] = Field(default_factory=dict, description="Calib ids used, by kind.")
    raw: str = Field(description="URI of the raw.")
    raw_sha256: str = Field(description="Checksum of the raw's bytes.")
    inputs: list[int] = Field(default_factory=list, description="Exposures combined, for a build.")
    input_sha256: dict[str, str] = Field(
        default_factory=dict, description="Checksum of the raw of each exposure combined, by exposure id."
    )
    host: str = ""
    afterburner: AfterburnerProvenance | None = Field(
        default=None, description="Of what was added once the exposure was gathered; None if nothing was."
    )


class SummaryProvenance(BaseModel):
    """How a summary came to be: of what, and what that was made with. Each detector's own result says it in full.

    Detectors are told as ranges, "0-93,95-204": nearly always all of them are alike.
    """

    model_config = ConfigDict(extra="forbid")

    software_version: str = Field(description="Of whoever made the summary.")
    pipeline: str
    results: dict[str, str] = Field(default_factory=dict, description="Software version of the results: detectors.")
    pipeline_versions: dict[str, str] = Field(default_factory=dict, description="Pipeline version: detectors.")
    config_hashes: dict[str, str] = Field(
        default_factory=dict, description="sha256 over the pipeline's resolved configuration: detectors."
    )
    payloads: dict[str, list[str]] = Field(default_factory=dict, description="Versions of each payload, by name.")
    calibs: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="By kind, calib id with * for the detector's number: detectors."
    )
    raw_sha256: dict[int, str] = Field(default_factory=dict, description="Checksum of each detector's raw.")
    raws_sha256: str = Field(
        default="", description="One checksum of these: sha256 over lines of detector, space, checksum."
    )
    inputs: list[int] = Field(default_factory=list, description="Exposures combined, for a build.")
    afterburners: dict[str, str] = Field(
        default_factory=dict, description="Configuration hash of the afterburner whose numbers are in it: detectors."
    )
    host: str = ""


class DetectorResult(BaseModel):
    """What a pipeline found on one detector of one exposure."""

    model_config = ConfigDict(extra="forbid")

    run: str = "prompt"
    camera: str
    exposure: int = Field(description="Exposure id.")
    day_obs: int
    seq_num: int
    detector: int
    detector_name: str
    image_type: str
    physical_filter: str | None = None
    exposure_time_s: float | None = None
    begin: datetime | None = Field(default=None, description="Begin of the exposure, TAI.")
    pipeline: str
    metrics: dict[str, Scalar] = Field(default_factory=dict, description="Never NaN: None where not measured.")
    amps: dict[str, dict[str, Scalar]] = Field(default_factory=dict, description="By amp name.")
    timings: dict[str, float] = Field(default_factory=dict, description="Seconds per step; total_s, cpu_s, worker_s.")
    resources: dict[str, float] = Field(default_factory=dict, description="max_rss_mb, read_bytes, written_bytes.")
    products: dict[str, str] = Field(default_factory=dict, description="Keys in the products store, by kind.")
    verification: dict[str, Any] | None = Field(
        default=None, description="Of a calibration exposure or a build: a `rapid.verification.models.Verification`."
    )
    provenance: Provenance
    finished_at: datetime | None = Field(default=None, description="UTC.")


class DetectorState(StrEnum):
    """How a detector of an exposure ended, or why it has not (yet)."""

    WAITING = "waiting"
    """Expected; its raw has not arrived."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    """A newer image took its place; on the backlog until it expires."""

    QUARANTINED = "quarantined"
    EXCLUDED = "excluded"
    """Switched off on purpose, with reason and author."""

    @property
    def is_without_result(self) -> bool:
        """Whether it ended and left nothing to build from."""
        return self in {DetectorState.FAILED, DetectorState.QUARANTINED, DetectorState.EXCLUDED}


class DetectorStatus(BaseModel):
    """State of one expected detector in a summary, with the reason if it is not finished."""

    model_config = ConfigDict(frozen=True)

    state: DetectorState
    reason: str | None = None


class GatherReason(StrEnum):
    """Why a gather ran."""

    COMPLETE = "complete"
    TIMEOUT = "timeout"
    REGATHER = "regather"


class ExposureSummary(BaseModel):
    """One version of an exposure's focal-plane summary."""

    model_config = ConfigDict(extra="forbid")

    run: str = "prompt"
    camera: str
    exposure: int
    day_obs: int
    seq_num: int
    pipeline: str
    image_type: str
    version: int = Field(ge=1, description="1 for the gather, 2.. for re-gathers.")
    reason: GatherReason
    token: int = Field(
        default=0, ge=0, description="Of the gather that made it: of two that made one version the later stands (I3)."
    )
    n_finished: int
    n_expected: int
    is_complete: bool = Field(description="Every expected, not excluded detector finished.")
    detectors: dict[int, DetectorStatus] = Field(description="Every expected detector, by number.")
    metrics: dict[str, Scalar] = Field(
        default_factory=dict, description="Focal-plane numbers, e.g. psf_fwhm_arcsec_median."
    )
    n_afterburned: int = Field(
        default=0, ge=0, description="Finished detectors whose result has the numbers of the pipeline's afterburner."
    )
    info: dict[str, Any] = Field(default_factory=dict, description="The ExposureInfo facts, detector's left out.")
    control: dict[str, Any] = Field(
        default_factory=dict, description="Control state it was dispatched under: pattern, phase, shedding (I9)."
    )
    products: dict[str, str] = Field(default_factory=dict, description="Keys in the products store: mosaic, plots.")
    timings: dict[str, float] = Field(default_factory=dict)
    provenance: SummaryProvenance | None = Field(
        default=None, description="Of the results it is made of; None in summaries of before it was written down."
    )
    gathered_at: datetime | None = Field(default=None, description="UTC.")


class QuarantineRecord(BaseModel):
    """A raw that could not be read, and why."""

    camera: str
    uri: str
    code: str
    reason: str
    size_bytes: int | None = None
    exposure: int | None = Field(default=None, description="If its name or header still told.")
    detector: int | None = None
    quarantined_at: datetime


class CalibState(StrEnum):
    """Whether look-ups may choose a calib."""

    CERTIFIED = "certified"
    REJECTED = "rejected"
    """It failed its verification; kept, and shown, until somebody overrides it."""

    WITHDRAWN = "withdrawn"
    """It was certified, and found to be bad."""


class CalibRecord(BaseModel):
    """One calib of one detector."""

    calib_id: str
    camera: str
    detector: int
    kind: str = Field(description="bias, dark, flat, defects, ptc, ...")
    physical_filter: str | None = Field(default=None, description="For flats.")
    valid_from: datetime
    valid_to: datetime | None = None
    version: int
    path: str = Field(description="Key in the calib store.")
    sha256: str
    inputs: list[int] = Field(default_factory=list, description="Exposures it was built from.")
    created_at: datetime
    certified_by: str = "policy"
    note: str = ""
    provenance: Provenance | None = Field(
        default=None, description="How it was built: software, configuration, calibs used, checksums of the raws."
    )
    state: CalibState = CalibState.CERTIFIED
    is_overridden: bool = Field(default=False, description="Certified by somebody though its verification failed.")
    state_reason: str = Field(default="", description="Why it is in this state, as its author said.")
    outcome: str | None = Field(default=None, description="Of its verification: pass, warn, fail, not_measured.")
    failures: list[str] = Field(default_factory=list, description='What failed: "C00 NOISE".')
    verification: dict[str, Any] | None = Field(
        default=None, description="A `rapid.verification.models.Verification`; None if it was not verified."
    )


class CalibEvent(BaseModel):
    """One change of a calib's state: the registry forgets none."""

    calib_id: str
    state: CalibState
    at: datetime = Field(description="UTC.")
    author: str
    reason: str = ""
    is_override: bool = False
