"""What a pipeline is: a named, versioned list of payloads with their configuration.

Rules say which pipeline an image gets. Both are YAML; both are checked when loaded, so that a typing
mistake is an error naming the field at start, not a surprise at three in the morning.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.camera.models import Purpose
from rapid.exposure.models import ImageType

NAME = r"^[a-z][a-z0-9_]*$"


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Definition):
    """One payload and its configuration."""

    payload: str = Field(pattern=NAME, description="Name in the entry-point group rapid.payloads.")
    config: dict[str, Any] = Field(default_factory=dict)


class Pipeline(_Definition):
    """A named list of payloads."""

    name: str = Field(pattern=NAME)
    version: str
    description: str
    steps: tuple[Step, ...] = Field(min_length=1)
    pool: str = Field(default="science", pattern=NAME, description="Worker group that may take its jobs.")
    time_limit_s: float = Field(default=120.0, gt=0, description="Hard limit for one detector [s].")
    builds: str | None = Field(default=None, description="Kind of calib this pipeline builds from several exposures.")

    def with_config(self, overrides: dict[str, Any]) -> "Pipeline":
        """Return a copy with some payloads' configuration changed.

        Parameters
        ----------
        overrides
            Configuration to merge, by payload name; a payload this pipeline does not have is an error.

        Raises
        ------
        KeyError
            Raised for a payload that is not one of the steps.
        """
        unknown = set(overrides) - {step.payload for step in self.steps}
        if unknown:
            raise KeyError(sorted(unknown)[0])
        steps = tuple(
            step.model_copy(update={"config": {**step.config, **overrides.get(step.payload, {})}})
            for step in self.steps
        )
        return self.model_copy(update={"steps": steps})

    @property
    def config_hash(self) -> str:
        """Return sha256 over everything that decides the result."""
        text = json.dumps(self.model_dump(mode="json", exclude={"description"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Rule(_Definition):
    """Which images a pipeline is for. A condition left out is met by every image."""

    pipeline: str = Field(pattern=NAME)
    image_types: frozenset[ImageType] = Field(default=frozenset())
    cameras: frozenset[str] = Field(default=frozenset())
    header: dict[str, str | int | float | bool | list[str]] = Field(
        default_factory=dict, description="Header keys and the value, or the list of values, they must have."
    )
    purposes: frozenset[Purpose] = Field(default=frozenset(), description="Purposes of the detector.")
    guider: bool = Field(default=False, description="Whether this rule is for guider files.")

    def is_for(
        self, *, camera: str, image_type: ImageType, header: dict[str, Any], guider: bool, purpose: Purpose
    ) -> bool:
        """Whether an image meets every condition."""
        if self.guider != guider:
            return False
        if self.purposes and purpose not in self.purposes:
            return False
        if self.cameras and camera not in self.cameras:
            return False
        if self.image_types and image_type not in self.image_types:
            return False
        return all(
            header.get(key) in wanted if isinstance(wanted, list) else header.get(key) == wanted
            for key, wanted in self.header.items()
        )


class PipelineBook(_Definition):
    """All pipelines, and the rules that choose between them (first match wins)."""

    pipelines: tuple[Pipeline, ...]
    rules: tuple[Rule, ...]

    def get(self, name: str) -> Pipeline | None:
        """Return the pipeline of a name, or None."""
        return next((pipeline for pipeline in self.pipelines if pipeline.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all pipelines, sorted."""
        return tuple(sorted(pipeline.name for pipeline in self.pipelines))
