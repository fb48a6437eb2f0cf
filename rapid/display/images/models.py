"""What viewers of pictures are told, and what the display and its darkroom say to each other."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.gather.stretch import Stretch


class DevelopTask(BaseModel):
    """Make the calibrated image of one detector, as a plane of 32-bit floats in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    results_url: str
    calibs_path: Path
    raw_uri: str
    raw_sha256: str
    camera: str
    pipeline: str
    target: Path


class DevelopAnswer(BaseModel):
    """What was made, or why nothing was."""

    model_config = ConfigDict(extra="forbid")

    unit: str = ""
    applied: list[str] = Field(default_factory=list)
    calibs: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    took_s: float = 0.0
    error: dict[str, Any] | None = None


class ImageView(BaseModel):
    """A detector's image at full resolution, as a viewer shows it."""

    model_config = ConfigDict(extra="forbid")

    exposure_id: int
    detector: int
    name: str
    image_id: str = Field(description="Part of the tiles' addresses; another one when the image is made otherwise.")
    width: int = Field(description="Columns of the picture, turned as it lies in the focal plane [px].")
    height: int
    n_quarter: int = Field(description="Quarter turns from the detector's own frame to the picture's.")
    tile_px: int
    scales: list[int] = Field(description="Detector pixels to a side of a tile's pixel; finest first.")
    stretch: Stretch = Field(description="Chosen for this image; tiles take another one as parameters.")
    median: float
    noise: float = Field(description="Robust scatter of the pixels.")
    unit: str
    is_calibrated: bool = Field(description="Without sky and on the calibrated mosaic's scale; else post-ISR.")
    applied: list[str] = Field(description="Corrections that were applied, in order.")
    calibs: dict[str, str] = Field(description="Calib ids used, by kind.")
    notes: list[str] = Field(description="How it differs from what the result was measured on, if it does.")
    took_s: float = Field(description="Time it took to make [s].")


class PixelsView(BaseModel):
    """Values of some pixels, for the one under the pointer."""

    model_config = ConfigDict(extra="forbid")

    x0: int = Field(description="Column of the first value, in the detector's own frame [px].")
    y0: int
    width: int
    height: int
    values: list[list[float | None]] = Field(description="Rows from y0 upwards.")
    unit: str
