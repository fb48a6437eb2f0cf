"""What the arrival door says: a raw came, an exposure's sensors are known, a raw cannot be read.

Every raw that lands ends as `RawArrived` or `RawQuarantined` (invariant I1).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.exposure.models import ExposureInfo
from rapid.exposure.naming import RawName


@dataclass(frozen=True)
class RawHeader:
    """Who a raw is.

    Attributes
    ----------
    header
        Its primary header.
    """

    uri: str
    info: ExposureInfo
    header: dict[str, Any] = field(default_factory=dict)


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(description="Path of the file, or s3://bucket/key; what `read_raw` takes.")


class RawArrived(_Said):
    """A raw is complete and readable, and its header told which detector of which exposure it is."""

    camera: str
    exposure_id: int
    detector: int
    is_guider: bool = False
    name: RawName | None = Field(default=None, description="What its name tells.")
    size_bytes: int = Field(gt=0)
    replaces: str | None = Field(
        default=None, description="URI of an earlier raw of the same detector and exposure with other content."
    )
    arrived_at: datetime = Field(description="UTC.")
    arrived_monotonic_s: float = Field(description="This process's monotonic clock, to measure latencies with.")


class ExpectedSensors(_Said):
    """The camera said which detectors it reads out for an exposure."""

    exposure_id: int
    detector_names: frozenset[str]


class RawQuarantined(_Said):
    """A raw cannot be read, and why."""

    code: str = Field(description="Stable code of the error, e.g. raw_truncated.")
    reason: str
    size_bytes: int | None = None
    exposure_id: int | None = Field(default=None, description="If its name told.")
    detector_name: str | None = Field(default=None, description="If its name told.")
    quarantined_at: datetime = Field(description="UTC.")


Arrival = RawArrived | ExpectedSensors | RawQuarantined

IsDone = Callable[[str, int], bool]
"""Whether a raw, by its URI and size [bytes], is done with: it needs no look. Safe for threads, and never raises."""
