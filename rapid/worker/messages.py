"""What a worker and its payload child say to each other, one JSON line each."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.results.models import DetectorResult


class ChildSettings(BaseModel):
    """What the parent tells the child once, when it starts."""

    model_config = ConfigDict(extra="forbid")

    results_url: str
    products_url: str
    calibs_path: Path
    thresholds: Path | None = Field(default=None, description="A site's own thresholds of the verification.")
    warm: list[str] = Field(default_factory=list, description="Pipelines whose payloads to load before the first job.")


class ChildAnswer(BaseModel):
    """What the child says: that it is ready, what a job found, or why it failed."""

    model_config = ConfigDict(extra="forbid")

    ready: bool = False
    result: DetectorResult | None = None
    joins: str | None = Field(
        default=None, description="Of an afterburner: the pipeline whose result it adds to; else the result is its own."
    )
    certified: str | None = Field(
        default=None, description="Id of the calib a build certified; None if it was refused."
    )
    error: dict[str, Any] | None = Field(default=None, description="code, message, retry, traceback.")
