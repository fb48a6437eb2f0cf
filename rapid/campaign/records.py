"""Campaigns as the results store remembers them: found by name, and begun once more."""

from collections.abc import Iterable

from pydantic import ValidationError

from rapid.campaign.plan import nights_of
from rapid.errors import NotFoundError
from rapid.requests.archive import RequestArchive
from rapid.requests.campaigns import CampaignSelection
from rapid.requests.faults import BadRequestError
from rapid.requests.models import MAX_DEADLINE_S, RequestPriority, RequestRecord, RequestSpec

DEADLINE_S = MAX_DEADLINE_S
"""As long as a request may take: a campaign has the hours that the nights leave."""


def selection_of(record: RequestRecord) -> CampaignSelection | None:
    """Return what a campaign selects; None of any other request."""
    return record.spec.select.campaign if record.spec is not None else None


def find_campaign(archive: RequestArchive, camera: str, name: str) -> RequestRecord:
    """Return the newest request of a campaign, by its name or by a request's id.

    Raises
    ------
    NotFoundError
        Raised if there is no campaign of that name.
    """
    record = archive.by_run(camera, name) or archive.get(camera, name)
    if record is None or selection_of(record) is None:
        raise NotFoundError("campaign", name)
    return record


def list_campaigns(archive: RequestArchive, camera: str, *, limit: int = 1000) -> list[RequestRecord]:
    """Return the newest request of every campaign, newest first."""
    found: dict[str, RequestRecord] = {}
    for record in archive.campaigns(camera, limit):
        found.setdefault(record.run, record)
    return list(found.values())


def resumption_of(record: RequestRecord) -> RequestSpec:
    """Return the request that goes on with a campaign: the same, and what failed is tried once more.

    Raises
    ------
    BadRequestError
        Raised if the record is of no campaign that can be read.
    """
    spec, campaign = record.spec, selection_of(record)
    if spec is None or campaign is None:
        raise BadRequestError("run", f"campaign {record.run} cannot be read")
    select = spec.select.model_copy(update={"campaign": campaign.model_copy(update={"resume": True})})
    return spec.model_copy(
        update={"select": select, "client_key": None, "run": record.run, "priority": RequestPriority.BACKLOG}
    )


def read_nights(items: Iterable[str], stored: frozenset[int]) -> list[int]:
    """Return the nights that a person names: one by one, and of ranges those that anything is stored of.

    Raises
    ------
    BadRequestError
        Raised for what is no night.
    """
    named = list(items)
    try:
        select = CampaignSelection.model_validate({"nights": named})
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise BadRequestError("night", f"{', '.join(named)[:60]}: {message}") from error
    return list(nights_of(select, stored))


def nights_of_runs(archive: RequestArchive, camera: str, runs: Iterable[str], stored: frozenset[int]) -> list[int]:
    """Return the nights of the first of some runs that is a campaign; all nights that are stored if none is."""
    for run in runs:
        record = archive.by_run(camera, run)
        campaign = selection_of(record) if record is not None else None
        if campaign is not None:
            return list(nights_of(campaign, stored))
    return sorted(stored)
