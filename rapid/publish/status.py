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
