"""What a campaign selects, and what is answered of it.

A campaign is a request: nights, or a selection of them, are processed as backlog under a name of their own, beside the results
that are there.
"""

from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rapid.exposure.models import ImageType
from rapid.requests.message import ExposureId, Message, read_range

MAX_NIGHTS = 400
"""A season: what is longer is several campaigns, each with an end that somebody lives to see."""

MAX_ITEMS = 5000
"""Ids and ranges that are named one by one."""

MAX_TOLD = 300
"""Exposures that an answer names; the holes report has them all."""


def _is_day(day_obs: int) -> int:
    try:
        date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100)
    except (ValueError, OverflowError):
        raise ValueError(f"{day_obs} is no day_obs: YYYYMMDD is wanted") from None
    return day_obs


def _one_or_range(value: Any) -> Any:
    """Read a range as `read_range` does, and a number as the range that is that number alone."""
    found = read_range(value)
    return {"first": found, "last": found} if isinstance(found, int) and not isinstance(found, bool) else found


DayObs = Annotated[int, AfterValidator(_is_day)]


class NightRange(Message):
    """Nights from one to another, both included."""

    first: DayObs
    last: DayObs

    @model_validator(mode="after")
    def _in_order(self) -> "NightRange":
        if self.last < self.first:
            raise ValueError(f"the last night, {self.last}, is before the first, {self.first}")
        return self

    def holds(self, day_obs: int) -> bool:
        """Whether a night is one of them."""
        return self.first <= day_obs <= self.last


class IdRange(Message):
    """Exposure ids from one to another, both included."""

    first: ExposureId
    last: ExposureId

    @model_validator(mode="after")
    def _in_order(self) -> "IdRange":
        if self.last < self.first:
            raise ValueError(f"the last exposure, {self.last}, is before the first, {self.first}")
        return self

    def holds(self, exposure_id: int) -> bool:
        """Whether an exposure is one of them."""
        return self.first <= exposure_id <= self.last


Nights = Annotated[NightRange, BeforeValidator(_one_or_range)]
Ids = Annotated[IdRange, BeforeValidator(_one_or_range)]


class CampaignSelection(Message):
    """Exposures of whole nights: all that the other fields leave."""

    nights: tuple[Nights, ...] = Field(
        min_length=1, max_length=MAX_NIGHTS, description='Nights and ranges: 20261120, "20261120-20261124".'
    )
    exposures: tuple[Ids, ...] = Field(
        default=(), max_length=MAX_ITEMS, description="Only these ids and ranges; all if left out."
    )
    exclude: tuple[Ids, ...] = Field(default=(), max_length=MAX_ITEMS, description="Not these ids and ranges.")
    image_types: tuple[ImageType, ...] = Field(default=(), description="Only of these types; all if left out.")
    where: str = Field(
        default="",
        max_length=1000,
        description="Only those that meet an expression on what the header says and on the summary's metrics: "
        "physical_filter == 'r_57' and psf_fwhm_arcsec_median > 1.2",
    )
    holes: bool = Field(default=False, description="Only the detectors that have no result in the run `of`.")
    of: str = Field(
        default="prompt", min_length=1, max_length=64, description="Run whose metrics and holes are looked at."
    )
    resume: bool = Field(
        default=False, description="Go on with a campaign that has ended: what failed is tried once more."
    )


class CampaignAnswer(Message):
    """What became of a campaign."""

    run: str
    nights: tuple[int, ...] = ()
    n_exposures: int = Field(description="Exposures of the selection.")
    n_done: int = Field(description="Of these, with a result of every detector that there is a raw of.")
    n_before: int = Field(default=0, description="Batches that were done when it began: it was resumed.")
    n_results: int = Field(default=0, description="Results of single detectors, those from before included.")
    n_failed: int = Field(default=0, description="Detectors without one.")
    not_done: dict[str, str] = Field(
        default_factory=dict, description="Exposure and pipeline: what is missing of it and why; the first 300."
    )
