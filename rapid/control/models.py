"""The control state of an instrument: one document that says what is done with the next exposure.

It is validated as a whole, so that no combination of settings that cannot be carried out is ever stored.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from rapid.dispatch.models import WorkerMode
from rapid.exposure.models import ImageType
from rapid.patterns import PatternError, VisitMode, parse_pattern

SAVED_NAME = r"^[a-z][a-z0-9_]{0,63}$"
MAX_SAVED = 200


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timeouts(_Document):
    """How long to wait for what; what is left out is as the installation is set up."""

    gather_s: float | None = Field(default=None, gt=0, le=3600, description="From the first result to the gather [s].")
    regather_s: float | None = Field(
        default=None, gt=0, le=7200, description="From the first result to the re-gather [s]."
    )
    deadline_s: float | None = Field(
        default=None, gt=0, le=86_400, description="From the post to a gather with whatever there is [s]."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "Timeouts":
        if self.gather_s is not None and self.regather_s is not None and self.regather_s < self.gather_s:
            raise ValueError("regather_s must not be shorter than gather_s")
        return self


class SheddingPolicy(_Document):
    """When to process fewer detectors rather than fall behind, and when to come back.

    The predicted finish of an exposure is compared with the time until the next one. Above ``step_down_at``
    of it the exposure gets the first pattern down the ladder that fits; when for ``calm_exposures`` in a
    row the step above would take less than ``step_up_at`` of it, it goes one step back. The gap between
    the two and the count keep it from flapping. Calibration images are never shed: their builds want all
    detectors, and nobody waits for them.
    """

    enabled: bool = True
    ladder: tuple[str, ...] = Field(
        default=("ccd_checkerboard", "raft_checkerboard", "minimal"),
        max_length=16,
        description="Patterns to fall back to, in order; each is cut with the pattern in force.",
    )
    cadence_s: float | None = Field(
        default=None, gt=0, le=86_400, description="Time between exposures [s]; measured from the night if left out."
    )
    step_down_at: float = Field(default=1.0, gt=0, le=100, description="Predicted finish over cadence that sheds.")
    step_up_at: float = Field(default=0.6, gt=0, le=100, description="Predicted finish over cadence that is calm.")
    calm_exposures: int = Field(default=2, ge=1, le=1000, description="Calm exposures in a row before a step back.")

    @field_validator("ladder")
    @classmethod
    def _patterns(cls, ladder: tuple[str, ...]) -> tuple[str, ...]:
        for text in ladder:
            _check_pattern(text)
        return ladder

    @model_validator(mode="after")
    def _hysteresis(self) -> "SheddingPolicy":
        if self.step_up_at >= self.step_down_at:
            raise ValueError("step_up_at must be below step_down_at")
        return self


class ControlState(_Document):
    """What is done with the next exposure."""

    pattern: str = Field(default="all", max_length=4096, description="Detectors to process: a pattern expression.")
    visit_mode: VisitMode = Field(default=VisitMode.CONSTANT, description="How the pattern's phase moves.")
    worker_mode: WorkerMode = Field(default=WorkerMode.CONSUMING, description="What free workers take.")
    pipelines: dict[ImageType, str] = Field(
        default_factory=dict, description="Pipeline by image type, where it differs from the rules of the book."
    )
    wavefront_pipeline: str | None = Field(
        default=None, max_length=64, description="Pipeline of the corner wavefront sensors; by the rules if left out."
    )
    timeouts: Timeouts = Timeouts()
    shedding: SheddingPolicy = SheddingPolicy()
    witness_detector: int | None = Field(
        default=None, ge=0, le=100_000, description="Detector shown on its own; the camera's first choice if left out."
    )
    guaranteed: frozenset[int] = Field(
        default=frozenset(),
        max_length=10_000,
        description="Exposures processed on every detector, whatever the pattern.",
    )
    guaranteed_header: str = Field(
        default="RAPIDALL",
        pattern=r"^[A-Z0-9_-]{1,8}$",
        description="Header key that, if true, guarantees an exposure.",
    )
    patterns: dict[str, str] = Field(
        default_factory=dict, max_length=MAX_SAVED, description="Patterns saved by name: name and expression."
    )

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, text: str) -> str:
        _check_pattern(text)
        return text

    @field_serializer("guaranteed")
    def _in_order(self, ids: frozenset[int]) -> list[int]:
        return sorted(ids)  # so that two dumps of one state are the same

    @property
    def facts(self) -> dict[str, Any]:
        """What an exposure records of the control state it was dispatched under (I9)."""
        return self.model_dump(mode="json", exclude={"patterns", "guaranteed"})


class ControlDocument(_Document):
    """The control state in force, and which change made it so."""

    version: int = Field(default=0, ge=0, description="Counts the changes; 0 is the defaults.")
    state: ControlState = ControlState()
    changed_by: str = ""
    changed_ms: int = Field(default=0, ge=0, description="Board time of the change [ms].")
    reason: str = ""


class ControlChange(_Document):
    """One entry of the audit log."""

    version: int
    changed_by: str
    changed_ms: int
    door: str = Field(description="Where it came in: cli, http, display, redis, rubintv, head.")
    reason: str = ""
    before: dict[str, Any] = Field(description="The fields that changed, as they were.")
    after: dict[str, Any] = Field(description="The fields that changed, as they are now.")


def _check_pattern(text: str) -> None:
    try:
        parse_pattern(text)
    except PatternError as error:
        raise ValueError(error.message) from error
