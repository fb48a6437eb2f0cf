"""What an exclusion is: a detector or an amp that is switched off for some time, by somebody, for a reason.

An exclusion is never deleted. It ends at a time, or is undone as if it had never been, and stays in the history with
who set it and who ended it, so that a summary of months ago can still be understood.
"""

import re
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.errors import RapidError, RefusedError

MAX_REASON = 500
MAX_NAME = 200

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class ExclusionError(RapidError):
    """What was asked for is not valid; ``field`` names where."""

    code = "bad_exclusion"

    def __init__(self, field: str, reason: str, **facts: Any) -> None:
        super().__init__(f"{field}: {reason}", field=field, **facts)
        self.field = field
        self.reason = reason


class ExcludedAlreadyError(RefusedError):
    """The detector or amp is switched off already, for some of that time."""

    code = "excluded_already"


class EndedAlreadyError(RefusedError):
    """Somebody else has ended the exclusion before."""

    code = "ended_already"


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Fact):
    """What can be switched off: a detector, or one of its amps."""

    detector: int = Field(ge=0)
    detector_name: str
    amp: str | None = Field(default=None, description="Name of the amp; none for the whole detector.")

    @property
    def name(self) -> str:
        """``R22_S11``, or ``R22_S11/C00`` for an amp."""
        return self.detector_name if self.amp is None else f"{self.detector_name}/{self.amp}"


class Exclusion(Target):
    """A detector or an amp that is, was, or will be switched off."""

    id: int
    camera: str
    reason: str = Field(min_length=1, max_length=MAX_REASON)
    author: str = Field(description="Who switched it off.")
    created_at: datetime = Field(description="When it was switched off, UTC.")
    valid_from: datetime = Field(description="Exposures that begin from here on are concerned, UTC.")
    valid_to: datetime | None = Field(
        default=None, description="Exposures that begin from here on are no longer concerned, UTC; open if none."
    )
    ended_by: str | None = Field(default=None, description="Who ended it before its time, or undid it.")
    ended_at: datetime | None = Field(default=None, description="When they did, UTC.")
    end_reason: str | None = None

    @property
    def is_undone(self) -> bool:
        """Whether it counts as never made: there is no time it holds for."""
        return self.valid_to is not None and self.valid_to <= self.valid_from

    @property
    def why(self) -> str:
        """The reason as displays and summaries show it, with who and since when."""
        return f"{self.reason} ({self.author}, since {self.valid_from:%Y-%m-%d %H:%M} UTC)"

    def covers(self, moment: datetime) -> bool:
        """Whether an exposure that begins at a moment [UTC, with zone] is concerned."""
        return self.valid_from <= moment and (self.valid_to is None or moment < self.valid_to)
