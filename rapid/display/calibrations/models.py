"""What is said of verification and masters."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubjectView(_Answer):
    """Something that was verified: a calibration exposure, or a build of masters."""

    exposure_id: int = Field(description="The exposure; of a build, its newest input.")
    seq_num: int
    pipeline: str
    kind: str = Field(description="bias, dark, flat, ptc, ...")
    is_master: bool
    physical_filter: str | None = None
    begin: datetime | None = Field(default=None, description="TAI.")
    n_finished: int
    n_expected: int
    outcome: str | None = Field(default=None, description="pass, warn, fail, not_measured; None: not verified.")
    n_failed_amps: int | None = None
    failures: list[str] = Field(default_factory=list, description='The first, as "R22_S11 C00 NOISE".')


class AmpTest(_Answer):
    """One test of one amp, or of the detector as a whole."""

    amp: str | None = None
    test: str
    value: float | None
    uncertainty: float | None = None
    unit: str = ""
    outcome: str
    warn: str | None = Field(default=None, description="The band, in words.")
    error: str | None = None
    reason: str = Field(default="", description="Why these limits.")
    note: str = Field(default="", description="Why there is no value; or why one outside of a band passes.")


class DetectorVerdict(_Answer):
    """How a detector fared."""

    detector: int
    name: str
    state: str = Field(description="As a detector of the exposure: finished, failed, ...")
    outcome: str | None = Field(default=None, description="None: not verified.")
    failures: list[str] = Field(default_factory=list, description='All of them: "C00 NOISE".')
    amps: dict[str, str] = Field(default_factory=dict, description="Outcome of each amp.")
    tests: dict[str, str] = Field(default_factory=dict, description="Worst outcome of each test.")


class MatrixView(_Answer):
    """The verification of one subject over the focal plane."""

    subject: SubjectView
    tests: list[str]
    detectors: list[DetectorVerdict]


class DetectorTests(_Answer):
    """Every test of one detector."""

    subject: SubjectView
    detector: int
    name: str
    outcome: str | None
    excluded: dict[str, str] = Field(default_factory=dict, description="Amps switched off, with the reason.")
    tests: list[AmpTest]


class MasterDetector(_Answer):
    """A master of one detector."""

    detector: int
    name: str
    calib_id: str
    state: str
    outcome: str | None = None
    is_overridden: bool = False
    failures: list[str] = Field(default_factory=list)


class MasterView(_Answer):
    """Masters of a kind that begin to hold at the same time: one for each detector."""

    kind: str
    physical_filter: str | None = None
    valid_from: datetime
    valid_to: datetime | None = None
    version: int
    created_at: datetime
    n_inputs: int
    states: dict[str, int] = Field(description="Detectors by state: certified, rejected, withdrawn.")
    outcomes: dict[str, int] = Field(description="Detectors by outcome of the verification.")
    is_in_force: bool = Field(description="Whether a look-up for now would choose one of them.")
    detectors: list[MasterDetector]


class CalibrationNight(_Answer):
    """Everything that was verified in a night, newest first."""

    day_obs: int
    previous: int | None = Field(default=None, description="The night before it that has calibration exposures.")
    next: int | None = None
    subjects: list[SubjectView]
