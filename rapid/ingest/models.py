"""What the ingest role takes in, what it says, and how it stands."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.arrival.models import RawHeader


@dataclass(frozen=True)
class Receipt:
    """Which entry of which list in Redis is to be taken off once a file is dealt with.

    Attributes
    ----------
    taken_list
        Full name of the list that holds what this process has in hand.
    """

    taken_list: str
    entry: bytes


@dataclass(eq=False)
class Item:
    """A file that waits to be ingested.

    Attributes
    ----------
    header
        Who a raw is; None if it has not been read.
    replaces
        Whether it was seen to take another file's place.
    since_s
        When it came, monotonic.
    """

    uri: str
    since_s: float
    size_bytes: int | None = None
    header: RawHeader | None = None
    replaces: bool = False
    receipts: list[Receipt] = field(default_factory=list)
    attempts: int = 0
    """How often it was refused."""
    waits: int = 0
    """How often its store did not answer."""


class Fate(StrEnum):
    """What became of a file."""

    INGESTED = "ingested"
    ALREADY = "already"
    REPLACED = "replaced"
    HANDLED = "handled"
    """No raw, and a handler took it."""

    IGNORED = "ignored"
    """No raw, and no rule is for it."""

    SET_ASIDE = "set_aside"
    """It cannot be read, or the repository does not take it: a person has to look."""


class IngestedMessage(BaseModel):
    """Raws of one exposure are in the repository: what others wait for."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    camera: str
    exposure_id: int
    detectors: tuple[int, ...]
    dataset_type: str = "raw"
    run: str = Field(description="RUN collection they are in.")
    at_ms: int = Field(default=0, description="Redis server time, ms since the Unix epoch.")


class SetAsideRecord(BaseModel):
    """A file that was not ingested, and why: a dead letter."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    uri: str
    code: str = Field(description="Stable code of the reason, e.g. raw_truncated or ingest_failed.")
    reason: str
    attempts: int = 0
    exposure_id: int | None = None
    detector: int | None = None
    at: datetime = Field(description="UTC.")


class IngestStatus(BaseModel):
    """How one ingest process stands."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    camera: str
    repository: str
    at_ms: int
    is_up: bool = Field(description="Whether the repository answers.")
    error: str | None = None
    n_waiting: int = Field(description="Files in hand or waiting in this process.")
    n_queued: int = Field(default=0, description="Files told of over HTTP or Redis that nobody has taken yet.")
    oldest_s: float = 0.0
    counts: dict[str, int] = Field(
        default_factory=dict, description="Files dealt with since the start, by what became of them."
    )
    n_set_aside: int = Field(default=0, description="Files set aside, by any process.")


class KafkaRecord(BaseModel):
    """One record of a batch as a Kafka REST proxy hands it on."""

    model_config = ConfigDict(extra="ignore")

    topic: str = ""
    key: Any = None
    value: Any = Field(description="An S3 notification, as JSON or as its text.")
