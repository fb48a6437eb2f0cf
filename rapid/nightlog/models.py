"""What an observer can write down."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.errors import RapidError, RefusedError

MAX_TEXT = 4000
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class LogError(RapidError):
    """What was to be written is not valid; ``field`` names where."""

    code = "bad_log_entry"

    def __init__(self, field: str, reason: str, **facts: Any) -> None:
        super().__init__(f"{field}: {reason}", field=field, **facts)
        self.field = field
        self.reason = reason


class RetractedAlreadyError(RefusedError):
    """Somebody else has taken the entry back, or replaced it, before."""

    code = "retracted_already"


class Flag(StrEnum):
    """What an exposure is fit for. The words of the summit's exposure log."""

    NONE = "none"
    """Nothing against it: takes an earlier flag away."""

    QUESTIONABLE = "questionable"
    JUNK = "junk"


class LogEntry(BaseModel):
    """One entry of the night log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    camera: str
    day_obs: int
    exposure_id: int | None = Field(default=None, description="The exposure; None for a word on the night.")
    seq_num: int | None = None
    author: str
    created_at: datetime = Field(description="UTC.")
    text: str = ""
    flag: Flag | None = Field(default=None, description="None leaves the exposure's flag as it is.")
    replaces: int | None = Field(default=None, description="The entry that this one is a new wording of.")
    retracted_by: str | None = None
    retracted_at: datetime | None = Field(default=None, description="UTC. Taken back, or replaced.")

    @property
    def stands(self) -> bool:
        """Whether it has not been taken back."""
        return self.retracted_at is None


def check_text(text: str) -> str:
    """Return a comment as it is kept: line breaks stay, other control characters go.

    Raises
    ------
    LogError
        Raised if it is too long.
    """
    cleaned = _UNPRINTABLE.sub("", text.replace("\r\n", "\n")).strip()
    if len(cleaned) > MAX_TEXT:
        raise LogError("text", f"has {len(cleaned)} characters; {MAX_TEXT} are kept")
    return cleaned


def flags_of(entries: list[LogEntry]) -> dict[int, Flag]:
    """Return the flag in force of every flagged exposure.

    Parameters
    ----------
    entries
        In any order. The newest entry with a flag that stands counts.
    """
    found: dict[int, Flag] = {}
    for entry in sorted(entries, key=lambda entry: entry.id):
        if entry.stands and entry.flag is not None and entry.exposure_id is not None:
            found[entry.exposure_id] = entry.flag
    return {exposure: flag for exposure, flag in found.items() if flag is not Flag.NONE}
