"""What a bad calib, or a bad exposure, has touched."""

from pydantic import BaseModel, ConfigDict, Field

from rapid.errors import RapidError


class AffectedError(RapidError):
    """What was asked for names nothing that could have touched anything."""

    code = "bad_source"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}", field=field)
        self.field = field
        self.reason = reason


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AffectedCalib(_Fact):
    """A calib that was built with one that is bad, or from a bad exposure."""

    calib_id: str
    stage: int = Field(ge=1, description="Rebuilt after those of the stages below: it was built with them.")
    because_of: tuple[str, ...] = Field(description="Bad calibs or exposures it was directly built with.")
    state: str = Field(
        default="", description="certified, rejected, withdrawn; empty if the registry has no such calib."
    )


class AffectedBatch(_Fact):
    """Results of one exposure under one pipeline that used something bad."""

    run: str
    exposure: int
    day_obs: int
    pipeline: str
    image_type: str
    detectors: tuple[int, ...]
    stage: int = Field(
        ge=0, description="Builds of stage n make calibs of stage n + 1; what is no build comes after all of them."
    )

    @property
    def is_build(self) -> bool:
        """Whether a calib was made."""
        return self.pipeline.startswith("build_")


class Affected(_Fact):
    """All that something bad has touched, at first or at second hand."""

    camera: str
    calibs: tuple[str, ...] = Field(default=(), description="The bad calibs.")
    exposures: tuple[int, ...] = Field(default=(), description="The bad exposures.")
    built: tuple[AffectedCalib, ...] = Field(default=(), description="Calibs built with them, in order of stages.")
    batches: tuple[AffectedBatch, ...] = Field(default=(), description="Results that used any of these, builds first.")

    @property
    def n_results(self) -> int:
        """Results of single detectors."""
        return sum(len(batch.detectors) for batch in self.batches)

    @property
    def n_exposures(self) -> int:
        """Exposures with such results."""
        return len({batch.exposure for batch in self.batches})
