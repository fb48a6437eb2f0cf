"""Which exposures, or calibs, a request is about."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from rapid.exposure.models import ImageType
from rapid.requests.calibs import MAX_CALIBS, Action
from rapid.requests.campaigns import CampaignSelection
from rapid.requests.message import ExposureId, Message, read_range

MAX_EXPOSURES = 1000
"""A long night. More is several requests, so that each can be cancelled, and answered, on its own."""


class ExposureRange(Message):
    """Exposures from one id to another, both included, of one night."""

    first: ExposureId
    last: ExposureId

    @model_validator(mode="after")
    def _in_order(self) -> "ExposureRange":
        if self.last < self.first:
            raise ValueError(f"the last exposure, {self.last}, is before the first, {self.first}")
        if self.last - self.first >= MAX_EXPOSURES:
            raise ValueError(f"{self.last - self.first + 1} exposures are too many; {MAX_EXPOSURES} at most")
        return self


ExposureItem = Annotated[ExposureId | ExposureRange, BeforeValidator(read_range)]


class NextExposures(Message):
    """The next exposures of a kind, taken after the request was accepted."""

    n: int = Field(ge=1, le=MAX_EXPOSURES)
    image_type: ImageType | None = Field(default=None, description="Any if left out.")


class GroupExposures(Message):
    """The exposures of a group, those still to be taken included."""

    group_id: str = Field(min_length=1, max_length=256, description="GROUPID in their headers.")
    n: int | None = Field(
        default=None,
        ge=1,
        le=MAX_EXPOSURES,
        description="How many there will be; MAXINDEX in their headers if left out.",
    )
    image_type: ImageType | None = Field(default=None, description="Only those of this kind.")
    quiet_s: float = Field(
        default=60.0,
        gt=0,
        le=86400.0,
        description="If neither n nor MAXINDEX says how many: it is whole when no other came for so long [s].",
    )


class SequenceExposures(Message):
    """The exposures counted together by CURINDEX and MAXINDEX, those still to be taken included."""

    of: ExposureId = Field(description="Any exposure of the sequence.")


class AffectedExposures(Message):
    """The results that a bad calib, or a bad exposure, has touched: they are done again in place, and nothing else is."""

    calib: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Id of the bad calib; `*` stands for anything, so that one id means every detector's.",
    )
    exposure: ExposureId | None = Field(
        default=None, description="Id of an excluded exposure that calibs were built from."
    )
    replacement: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Id of the calib to take instead, `*` as above; what look-up gives, if left out.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "AffectedExposures":
        if (self.calib is None) == (self.exposure is None):
            raise ValueError("give either calib or exposure")
        if self.replacement is not None and self.calib is None:
            raise ValueError("replacement: is for a bad calib; an exposure is left out of what is built anew")
        return self


class CalibSelection(Message):
    """Calibs that are there, and what is to be done with them."""

    ids: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        min_length=1, max_length=MAX_CALIBS, description="Calib ids."
    )
    action: Action = Field(
        description="verify: hold them against the thresholds again; certify: let look-ups choose them; reject: no longer; "
        "withdraw: they are bad, and what used them may be done again."
    )
    override: bool = Field(default=False, description="Certify also what did not pass; needs a reason.")
    reason: str = Field(default="", max_length=1000, description="Why; is written down.")

    @model_validator(mode="after")
    def _says_why(self) -> "CalibSelection":
        if self.override and self.action != "certify":
            raise ValueError("override: is for certify")
        if (self.override or self.action in {"reject", "withdraw"}) and not self.reason.strip():
            raise ValueError("reason: say why")
        return self


class Selection(Message):
    """Which exposures, or calibs: exactly one of the seven ways."""

    exposures: tuple[ExposureItem, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_EXPOSURES,
        description='Ids and ranges: 2026112000012, "2026112000012-2026112000020".',
    )
    group: GroupExposures | None = None
    next: NextExposures | None = None
    sequence: SequenceExposures | None = None
    affected: AffectedExposures | None = None
    calibs: CalibSelection | None = None
    campaign: CampaignSelection | None = Field(
        default=None, description="Exposures of whole nights, as backlog under a run of their own."
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Selection":
        ways = ("exposures", "group", "next", "sequence", "affected", "calibs", "campaign")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(ways)}; got {', '.join(given) or 'none'}")
        n = sum(item.last - item.first + 1 if isinstance(item, ExposureRange) else 1 for item in self.exposures or ())
        if n > MAX_EXPOSURES:
            raise ValueError(f"{n} exposures are too many; {MAX_EXPOSURES} at most")
        return self

    def listed(self) -> tuple[int, ...]:
        """Return the listed exposure ids, each once, in order of the list."""

        def expand() -> Iterator[int]:
            for item in self.exposures or ():
                yield from range(item.first, item.last + 1) if isinstance(item, ExposureRange) else (item,)

        return tuple(dict.fromkeys(expand()))
