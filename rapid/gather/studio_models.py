"""What the gather and its studio's process say to each other: a line of JSON for each task, and one for each answer."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PlotTask(BaseModel):
    """Draw the plots of one version of a summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["plots"] = "plots"
    camera: str
    exposure: int
    run: str
    pipeline: str
    version: int


class NightTask(BaseModel):
    """Add up a night, and make its movie if told so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["night"] = "night"
    camera: str
    day_obs: int
    run: str
    with_movie: bool = True


class StudioTask(BaseModel):
    """A line of input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    results_url: str
    products_url: str
    task: PlotTask | NightTask = Field(discriminator="kind")


class StudioAnswer(BaseModel):
    """A line of output: the products that were made, by kind, or why there are none."""

    model_config = ConfigDict(extra="forbid")

    products: dict[str, str] = Field(default_factory=dict)
    error: dict[str, object] | None = None
