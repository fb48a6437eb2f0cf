"""What a display has to be told."""

from datetime import date
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator


class Tolerance(BaseModel):
    """The band in which a number is good, and who says so."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float | None = Field(default=None, description="Below this the number is out of tolerance.")
    high: float | None = Field(default=None, description="Above this the number is out of tolerance.")
    why: str = Field(min_length=1, description="The reason for the band, in a sentence an observer can act on.")
    set_by: str = ""
    since: str = Field(default="", description="Date the band holds from, e.g. 2026-11-20.")

    @field_validator("since", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, date) else value  # YAML reads a bare date as one

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("a band needs low, high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class DisplaySettings(BaseModel):
    """Where a display reads from, and how it presents itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str = Field(description="Name of a camera definition, or path of one.")
    redis_url: str = Field(description="URL of the Redis or Valkey that holds the board.")
    results_url: str = Field(description="URL of the results store, e.g. sqlite:///night.db.")
    products_url: str = Field(description="URL of the products store: a directory or s3://bucket/prefix.")
    raws_url: str = Field(
        default="",
        description="Where raws are looked up for reports of holes, as a head takes it; not at all if empty.",
    )
    ingest_run: str = Field(
        default="", description="RUN collection of raws in a Butler repository; the default if empty."
    )
    compare_s: float = Field(
        default=300.0, gt=0, description="A comparison of two runs that takes longer is given up [s]."
    )
    calibs_path: Path | None = Field(
        default=None, description="Certified calibs; a folder beside the products if empty."
    )
    images_kept: int = Field(
        default=32, gt=0, description="Full-resolution images kept on disk for viewers that zoom in; 64 MB each."
    )
    image_s: float = Field(default=60.0, gt=0, description="A full-resolution image that takes longer is given up [s].")
    title: str = Field(default="Rapid Analysis", description="Name shown in the page's title.")
    token: SecretStr | None = Field(default=None, description="Token that state-changing requests will have to carry.")
    proxy_header: str = Field(default="", description="Header in which an auth proxy names the user; none if empty.")
    trusted_proxies: str = Field(default="", description="Addresses or networks of that proxy, comma separated.")
    thresholds: Path | None = Field(default=None, description="A site's own thresholds of verifications (YAML).")
    run: str = Field(default="prompt", description="Which run's results are shown; others are tests and reprocessings.")
    tolerances: dict[str, Tolerance] = Field(default_factory=dict, description="Tolerance bands, by tile.")
    cadence_s: float = Field(
        default=40.0, gt=0, description="Cadence assumed for staleness until the night has shown its own [s]."
    )
    heartbeat_s: float = Field(
        default=10.0,
        gt=0,
        description="Silence after which a viewer is sent a sign of life; three are a lost connection [s].",
    )
    viewer_queue: int = Field(
        default=256, gt=0, description="Messages a slow viewer may lag behind before it is asked to reconnect."
    )
    history: int = Field(default=4096, gt=0, description="Messages kept for viewers that reconnect.")
