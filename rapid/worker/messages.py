"""What a worker and its payload child say to each other, one JSON line each."""

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.results.models import DetectorResult

PRELOAD = "preload"
"""Name by which a line to the child is known for a preload; other lines are jobs."""


class ChildSettings(BaseModel):
    """What the parent tells the child once, when it starts."""

    model_config = ConfigDict(extra="forbid")

    results_url: str
    products_url: str
    calibs_path: Path
    thresholds: Path | None = Field(default=None, description="A site's own thresholds of the verification.")
    templates: Path | None = Field(default=None, description="Templates that images are subtracted from.")
    warm: list[str] = Field(default_factory=list, description="Pipelines whose payloads to load before the first job.")


class Preload(BaseModel):
    """What an announced visit will need of one detector, to be loaded; or what was loaded for it, to be let go.

    Told and answered step by step, one calib each, so that a job never waits for more.
    """

    model_config = ConfigDict(extra="forbid")

    group_id: str
    is_release: bool = False
    camera: str = ""
    detector: int = 0
    filters: tuple[str, ...] = Field(default=(), description="Filters or bands announced; none is any.")
    begin: datetime | None = Field(default=None, description="Announced begin, TAI.")
    sky: tuple[float, float] | None = Field(default=None, description="Announced pointing, ICRS [deg].")
    angle_deg: float | None = Field(default=None, description="Announced angle of the camera on the sky.")
    step: int = 0


class ChildAnswer(BaseModel):
    """What the child says: that it is ready, what a job found, or why it failed."""

    model_config = ConfigDict(extra="forbid")

    ready: bool = False
    more: bool = Field(default=False, description="Of a preload: there is another step.")
    result: DetectorResult | None = None
    joins: str | None = Field(
        default=None, description="Of an afterburner: the pipeline whose result it adds to; else the result is its own."
    )
    certified: str | None = Field(
        default=None, description="Id of the calib a build certified; None if it was refused."
    )
    error: dict[str, Any] | None = Field(default=None, description="code, message, retry, traceback.")
