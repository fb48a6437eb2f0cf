"""What an incident is about: a job that became a dead letter, its batch, or an exposure."""

import re
from dataclasses import dataclass

from rapid.dispatch.models import BatchKey
from rapid.errors import ConfigurationError
from rapid.pipeline.models import base_of
from rapid.requests.models import PROMPT

EXPOSURE = re.compile(r"[0-9]{9,16}")
BUILD = "build_"


@dataclass(frozen=True)
class Subject:
    """What an incident is about.

    Attributes
    ----------
    detector
        None for a gather, or for an exposure as a whole.
    """

    name: str
    exposure: int
    run: str = PROMPT
    pipeline: str | None = None
    detector: int | None = None

    @property
    def is_build(self) -> bool:
        """Whether a calib was being built."""
        return self.pipeline is not None and self.pipeline.startswith(BUILD)

    @property
    def is_asked_for(self) -> bool:
        """Whether it was part of a request, and none of the night's own processing."""
        return self.run != PROMPT

    def is_of(self, pipeline: str) -> bool:
        """Whether a pipeline is part of it: an afterburner adds to the results of another, and is nothing without it."""
        return self.pipeline is None or pipeline in {self.pipeline, base_of(self.pipeline)}


def parse_subject(text: str) -> Subject:
    """Read what an incident is about: an exposure id, a batch id, or a job's id as dead letters have it.

    Raises
    ------
    ConfigurationError
        Raised for anything else.
    """
    if EXPOSURE.fullmatch(text):
        return Subject(text, int(text))
    batch, last = text, ""
    if text.count(".") == 3:
        batch, _, last = text.rpartition(".")
    try:
        key = BatchKey.parse(batch)
    except ValueError as error:
        raise ConfigurationError(
            "incident",
            f"{text!r} is neither an exposure, 2026112000017, nor a job, prompt.2026112000017.quicklook.094, nor its batch",
        ) from error
    if last and last != "gather" and not last.isdecimal():
        raise ConfigurationError("incident", f"{text!r}: {last!r} is no detector number")
    return Subject(text, key.exposure_id, key.run, key.pipeline, int(last) if last.isdecimal() else None)
