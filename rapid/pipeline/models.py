"""What a pipeline is: a named, versioned list of payloads with their configuration.

Rules say which pipeline an image gets. Both are YAML; both are checked when loaded, so that a typing
mistake is an error naming the field at start, not a surprise at three in the morning.
"""

import hashlib
import json
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from rapid.camera.models import Purpose
from rapid.exposure.models import ImageType

NAME = r"^[a-z][a-z0-9_]*$"

AFTER = "_after"
"""Ends the name of an afterburner's pipeline, and no other's: ``quicklook_after`` adds to the results of ``quicklook``."""


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
    verifies: str | None = Field(
        default=None, description="Image type whose exposures are verified by what this pipeline measures."
    )
    afterburner: tuple[Step, ...] = Field(
        default=(),
        description="Payloads that run once the exposure is gathered, as backlog, and add to the same result.",
    )
    after_time_limit_s: float = Field(default=600.0, gt=0, description="Hard limit of the afterburner [s].")
    after_runs: Literal["every", "night"] = Field(
        default="every",
        description="Whether the afterburner follows every run, campaigns' and requests' too, or the night's own only.",
    )
    source: str = Field(default="", exclude=True, repr=False, description="File it was read from; not to be given.")

    @model_validator(mode="after")
    def _is_one_of_two(self) -> "Pipeline":
        if self.builds and self.afterburner:
            raise ValueError("a pipeline that builds calibs cannot have an afterburner")
        twice = {step.payload for step in self.afterburner} & {step.payload for step in self.steps}
        if twice:
            raise ValueError(f"afterburner: {sorted(twice)[0]} is one of the pipeline's steps")
        return self

    @property
    def after(self) -> "Pipeline | None":
        """The pipeline of the afterburner: the first step, which makes the image, then the afterburner's payloads."""
        if not self.afterburner:
            return None
        return self.model_copy(
            update={
                "name": self.name + AFTER,
                "description": f"Afterburner of {self.name}: adds to its results once the exposure is gathered.",
                "steps": (self.steps[0], *self.afterburner),
                "time_limit_s": self.after_time_limit_s,
                "afterburner": (),
                "verifies": None,
            }
        )

    def with_config(self, overrides: dict[str, Any]) -> "Pipeline":
        """Return a copy with some payloads' configuration changed.

        Parameters
        ----------
        overrides
            Configuration to merge, by payload name; a payload this pipeline does not have is an error.

        Raises
        ------
        KeyError
            Raised for a payload that is neither one of the steps nor of the afterburner's.
        """
        unknown = set(overrides) - {step.payload for step in (*self.steps, *self.afterburner)}
        if unknown:
            raise KeyError(sorted(unknown)[0])

        def changed(steps: tuple[Step, ...]) -> tuple[Step, ...]:
            return tuple(
                step.model_copy(update={"config": {**step.config, **overrides.get(step.payload, {})}}) for step in steps
            )

        return self.model_copy(update={"steps": changed(self.steps), "afterburner": changed(self.afterburner)})

    @property
    def config_hash(self) -> str:
        """Return sha256 over everything that decides the result."""
        # For which runs the afterburner follows changes nothing of a result.
        text = json.dumps(self.model_dump(mode="json", exclude={"description", "after_runs"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class HeaderCondition(_Definition):
    """What a header value must be like, where one value or a list of values does not say it."""

    like: str | None = Field(default=None, description="Pattern with * and ?, upper and lower case alike: `r_*`.")
    min: float | None = Field(default=None, description="Least number.")
    max: float | None = Field(default=None, description="Largest number.")
    present: bool | None = Field(default=None, description="Whether the key is there at all.")

    @model_validator(mode="after")
    def _says_something(self) -> "HeaderCondition":
        if self == HeaderCondition.model_construct():
            raise ValueError("needs like, min, max or present")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self

    def is_met(self, value: Any) -> bool:
        """Whether a header's value, None for a missing one, is as asked for."""
        if self.present is not None and (value is not None) != self.present:
            return False
        if self.like is not None and not fnmatchcase(str("" if value is None else value).lower(), self.like.lower()):
            return False
        if self.min is None and self.max is None:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


def _kind_of(condition: Any) -> str:
    """Return which form a condition has, so that a mistake is told of that form alone."""
    if isinstance(condition, dict | HeaderCondition):
        return "condition"
    return "list" if isinstance(condition, list) else "value"


HeaderValue = Annotated[str | int | float | bool, Tag("value")]
OneCondition = Annotated[HeaderValue | Annotated[HeaderCondition, Tag("condition")], Discriminator(_kind_of)]
Condition = Annotated[
    HeaderValue | Annotated[HeaderCondition, Tag("condition")] | Annotated[list[OneCondition], Tag("list")],
    Discriminator(_kind_of),
]


def _is_met(condition: Any, value: Any) -> bool:
    if isinstance(condition, HeaderCondition):
        return condition.is_met(value)
    if isinstance(condition, list):
        return any(_is_met(one, value) for one in condition)
    # A header's True is no 1, though Python thinks so.
    return isinstance(value, bool) == isinstance(condition, bool) and value == condition


class Rule(_Definition):
    """Which images a pipeline is for. A condition left out is met by every image.

    Of the rules that are met the first one chooses the image's pipeline. A rule with ``beside`` chooses nothing: its
    pipeline runs as well, as a batch of its own that the first one does not wait for.
    """

    pipeline: str = Field(pattern=NAME)
    beside: bool = Field(default=False, description="Run in addition to the pipeline that the other rules choose.")
    image_types: frozenset[ImageType] = Field(default=frozenset())
    cameras: frozenset[str] = Field(default=frozenset())
    header: dict[str, Condition] = Field(
        default_factory=dict,
        description="Header keys and the value, the list of values, or the condition (like, min, max, present) they meet.",
    )
    purposes: frozenset[Purpose] = Field(default=frozenset(), description="Purposes of the detector.")
    guider: bool = Field(default=False, description="Whether this rule is for guider files.")
    needs: tuple[str, ...] = Field(
        default=(), description="Python modules that must be installed, else the rule is passed over."
    )
    source: str = Field(default="", exclude=True, repr=False, description="File and place it was read from.")

    def __str__(self) -> str:
        """Describe the images in words: `science images of LSSTCam, beside another pipeline`."""
        types = ", ".join(sorted(kind.value for kind in self.image_types)) or "all"
        words = [f"{types} {'guider files' if self.guider else 'images'}"]
        if self.purposes:
            words.append(f"of {', '.join(sorted(p.value.lower() for p in self.purposes))} detectors")
        if self.cameras:
            words.append(f"of {', '.join(sorted(self.cameras))}")
        for key, wanted in self.header.items():
            facts = wanted.model_dump(exclude_none=True) if isinstance(wanted, HeaderCondition) else wanted
            words.append(f"with {key} {facts}")
        if self.beside:
            words.append("beside another pipeline")
        if self.missing:
            words.append(f"(passed over: {', '.join(self.missing)} not installed)")
        return " ".join(words)

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules of ``needs`` that are not installed."""
        return tuple(module for module in self.needs if not _is_installed(module))

    def is_for_camera(self, camera: str) -> bool:
        """Whether the rule can apply to images of a camera, here."""
        return (not self.cameras or camera in self.cameras) and not self.missing

    def is_for(
        self, *, camera: str, image_type: ImageType, header: dict[str, Any], guider: bool, purpose: Purpose
    ) -> bool:
        """Whether an image meets every condition."""
        if self.guider != guider:
            return False
        if self.purposes and purpose not in self.purposes:
            return False
        if self.image_types and image_type not in self.image_types:
            return False
        if not all(_is_met(wanted, header.get(key)) for key, wanted in self.header.items()):
            return False
        return self.is_for_camera(camera)


@lru_cache(maxsize=128)
def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # its parent package is not there
        return False


def base_of(pipeline: str) -> str | None:
    """Return the name of the pipeline whose results an afterburner adds to; None if it is no afterburner.

    Examples
    --------
    >>> base_of("quicklook_after"), base_of("quicklook")
    ('quicklook', None)
    """
    return pipeline.removesuffix(AFTER) if pipeline.endswith(AFTER) else None


class PipelineBook(_Definition):
    """All pipelines, and the rules that choose between them (first match wins)."""

    pipelines: tuple[Pipeline, ...]
    rules: tuple[Rule, ...]

    def get(self, name: str) -> Pipeline | None:
        """Return the pipeline of a name, or None; ``quicklook_after`` is the afterburner of ``quicklook``."""
        base = base_of(name)
        found = next((pipeline for pipeline in self.pipelines if pipeline.name == (base or name)), None)
        return found.after if found is not None and base is not None else found

    @property
    def beside(self) -> frozenset[str]:
        """Names of the pipelines that only run beside others, or after them."""
        chosen = {rule.pipeline for rule in self.rules if not rule.beside}
        after = {pipeline.name + AFTER for pipeline in self.pipelines if pipeline.afterburner}
        return (frozenset(rule.pipeline for rule in self.rules) - chosen) | after

    def for_camera(self, camera: str) -> tuple[Pipeline, ...]:
        """Return the pipelines that rules can choose for images of a camera, in the rules' order."""
        names = dict.fromkeys(rule.pipeline for rule in self.rules if rule.is_for_camera(camera))
        return tuple(pipeline for name in names if (pipeline := self.get(name)) is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all pipelines, sorted."""
        return tuple(sorted(pipeline.name for pipeline in self.pipelines))
