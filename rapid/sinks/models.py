"""What is sent to sinks: measured numbers with their place, time, units, and why one is missing. And what a sink is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from rapid.results.models import Scalar


class MetricDocument(BaseModel):
    """The metrics of one exposure, one detector of it, or one amp.

    Every number is finite. What could not be measured is None, and ``reasons`` says why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: str = Field(pattern="^(exposure|detector|amp)$")
    camera: str
    run: str
    exposure: int
    day_obs: int
    seq_num: int
    pipeline: str
    image_type: str
    physical_filter: str = ""
    detector: int | None = None
    detector_name: str = ""
    amp: str = ""
    time: datetime = Field(description="Begin of the exposure, else when it was measured; UTC with zone.")
    values: dict[str, Scalar]
    units: dict[str, str] = Field(
        default_factory=dict, description="Of the values that have one, as astropy spells it."
    )
    reasons: dict[str, str] = Field(default_factory=dict, description="Of the values that are None.")
    provenance: dict[str, str] = Field(
        default_factory=dict,
        description="software_version, pipeline_version, config_hash, payloads, calibs, raw_sha256 (of an exposure "
        "raws_sha256, one of all), applied; of a build inputs with input_sha256; afterburner_... of what came later.",
    )

    @property
    def name(self) -> str:
        """What it is, for people."""
        place = "/".join(part for part in (self.detector_name, self.amp) if part)
        return f"{self.exposure} {self.pipeline}{f' {place}' if place else ''}"


@dataclass(frozen=True)
class Sent:
    """What became of documents that were sent.

    Attributes
    ----------
    rejected
        Those that will never be taken, by their place in the list, with the reason.
    retry
        Places of those to send again later.
    wait_s
        How long the server asked to wait.
    why
        What the server said, if some are to be sent again.
    """

    rejected: dict[int, str] = field(default_factory=dict)
    retry: tuple[int, ...] = ()
    wait_s: float | None = None
    why: str = ""


class Sink(Protocol):
    """Where metrics go. Third parties may bring their own.

    Attributes
    ----------
    name
        Of this sink, in folders, logs and metrics: letters, digits, dashes.
    """

    name: str

    def send(self, documents: Sequence[MetricDocument]) -> Sent:
        """Send documents; blocks, for a bounded time.

        What a server that is away or busy could not take comes back as to be sent again: nothing is raised for that.
        Sending a document twice must have one effect.
        """
        ...
