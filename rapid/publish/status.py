"""How publishing stands: what displays and people are told."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class DeadParcel(BaseModel):
    """Something that was given up."""

    model_config = ConfigDict(frozen=True)

    key: str
    error: str
    failures: int
    at: datetime = Field(description="UTC.")


class DestinationStatus(BaseModel):
    """One destination."""

    model_config = ConfigDict(frozen=True)

    name: str
    is_up: bool = True
    down_since: datetime | None = Field(default=None, description="UTC.")
    error: str | None = Field(default=None, description="Why it is down.")
    n_waiting: int = 0
    oldest_s: float = Field(default=0.0, description="How long the oldest has waited [s].")
    n_sent: int = Field(default=0, description="Since the role began.")
    n_dead: int = Field(default=0, description="Given up, since the role began.")
    last_sent: datetime | None = None
    is_incomplete: bool = Field(default=False, description="Some were left out for want of room; they come later.")
    n_behind: int = Field(
        default=0, description="Known from the results store to be missing there, those that wait included."
    )
    notes: list[str] = Field(default_factory=list, description="What else a person should know.")
    dead: list[DeadParcel] = Field(default_factory=list, description="The last that were given up.")


class PublishStatus(BaseModel):
    """The whole role, as its key on the board tells it."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Of the process.")
    camera: str
    at_ms: int = Field(description="Redis time of writing.")
    night: int | None = Field(default=None, description="Newest night it publishes.")
    n_exposures: int = 0
    behind_s: float | None = Field(default=None, description="From a summary to its row and images in the bucket [s].")
    destinations: list[DestinationStatus] = Field(default_factory=list)
    troubles: list[str] = Field(default_factory=list, description="What it could not make sense of, newest first.")


class SentRow(BaseModel):
    """When the row of one version of a summary was sent somewhere: for an exposure's timeline."""

    model_config = ConfigDict(frozen=True)

    destination: str
    exposure: int
    pipeline: str
    version: int
    begin_ms: int = Field(description="When publish heard of the version [ms since the epoch].")
    end_ms: int = Field(description="When the row was there.")

    @property
    def field(self) -> str:
        """What it is of, as the board keeps it."""
        return f"{self.exposure} {self.pipeline} {self.version} {self.destination}"

    @classmethod
    def parse(cls, field: str, times: str) -> "SentRow | None":
        """Return a row as the board keeps it; None for what a newer version may have written."""
        try:
            exposure, pipeline, version, destination = field.split(" ")
            begin_ms, end_ms = times.split(" ")
            return cls(
                destination=destination,
                exposure=int(exposure),
                pipeline=pipeline,
                version=int(version),
                begin_ms=int(begin_ms),
                end_ms=int(end_ms),
            )
        except ValueError:
            return None
