"""Decide which exposures belong to a request, and whether one that is not there may still come: pure.

The head looks at what it knows and at the clock; here stands what that means.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from rapid.dispatch.commands import order_of
from rapid.exposure.models import ImageType
from rapid.requests.completion import missing_indices
from rapid.requests.models import RequestState
from rapid.requests.selection import GroupExposures, NextExposures, Selection

LATE_MS = 60_000
"""How long to wait for an exposure that newer ones have overtaken: its raws may be late by a retry or two."""


@dataclass(frozen=True)
class ExposureFacts:
    """What decides whether an exposure belongs to a request."""

    exposure_id: int
    image_type: str
    group_id: str | None = None
    group_index: int | None = None
    group_size: int | None = None


@dataclass(frozen=True)
class Membership:
    """The exposures of a request, as far as they are known.

    Attributes
    ----------
    members
        Exposures that are there, in the order they were asked for.
    missing
        Exposures that are wanted by id and are not there.
    n_wanted
        How many there will be; None if nobody knows.
    indices
        Of a group whose headers count it: places that no exposure has taken.
    """

    members: tuple[int, ...]
    missing: tuple[int, ...] = ()
    n_wanted: int | None = None
    indices: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all are there."""
        return self.n_wanted is not None and len(self.members) >= self.n_wanted


def _is_of_type(facts: ExposureFacts, image_type: ImageType | None) -> bool:
    return image_type is None or facts.image_type == image_type.value


def members_of(
    select: Selection, known: Mapping[int, ExposureFacts], *, after: int = 0, chosen: tuple[int, ...] = ()
) -> Membership:
    """Return the exposures that a selection means.

    Parameters
    ----------
    known
        Exposures that are there: all that could belong.
    after
        Order of the newest exposure when the request was accepted, for the next exposures.
    chosen
        Members found before: they stay, so that an exposure that arrives late does not push another one out.
    """
    if select.exposures is not None:
        listed = select.listed()
        return Membership(
            tuple(item for item in listed if item in known),
            tuple(item for item in listed if item not in known),
            len(listed),
        )
    if select.sequence is not None:
        return _sequence(select.sequence.of, known)
    if select.group is not None:
        return _group(select.group, known)
    coming = select.next or NextExposures(n=1)
    candidates = sorted(
        f.exposure_id
        for f in known.values()
        if order_of(f.exposure_id) > after and _is_of_type(f, coming.image_type) and f.exposure_id not in chosen
    )
    return Membership((*chosen, *candidates)[: coming.n], (), coming.n)


def _group(group: GroupExposures, known: Mapping[int, ExposureFacts]) -> Membership:
    of_group = sorted((f for f in known.values() if f.group_id == group.group_id), key=lambda f: f.exposure_id)
    found = [f for f in of_group if _is_of_type(f, group.image_type)]
    members = tuple(f.exposure_id for f in found)
    if group.n is not None:
        return Membership(members[: group.n], (), group.n)
    announced = max((f.group_size or 0 for f in found), default=0)
    if not announced:
        return Membership(members, (), None)
    counted = [f.group_index for f in of_group if f.group_size == announced and f.group_index]
    if not counted:
        return Membership(members[:announced], (), announced)
    # One that is taken again fills the place it had, and no other: a count would call the group whole too soon.
    lacking = missing_indices(counted, announced)
    return Membership(members, (), len(members) + len(lacking), lacking)


def _sequence(of: int, known: Mapping[int, ExposureFacts]) -> Membership:
    facts = known.get(of)
    if facts is None:
        return Membership((), (of,), None)
    index, size = facts.group_index, facts.group_size
    if not index or not size or index > size:
        return Membership((of,), (), 1)  # it counts itself as standing alone
    wanted = range(of - index + 1, of - index + 1 + size)
    return Membership(
        tuple(item for item in wanted if item in known), tuple(item for item in wanted if item not in known), size
    )


def why_it_cannot_come(exposure_id: int, *, newest: int | None, today: int) -> str | None:
    """Return why an exposure that is not there will not come; None if it may.

    Parameters
    ----------
    newest
        Order of the newest exposure that is known; None if there is none.
    today
        day_obs of now.
    """
    night = _night_of(order_of(exposure_id))
    day = _date_of(night)
    if day is None:
        return f"{night} is no date"
    if newest is None:
        return None
    newest_night = _night_of(newest)
    last = _date_of(max(newest_night, today)) or day
    if day > last + timedelta(days=1):
        return f"it would be of a night to come ({night})"
    if night < newest_night:
        return f"nothing of it is stored, and its night ({night}) is over"
    return None


def is_overtaken(exposure_id: int, *, newest: int | None) -> bool:
    """Whether newer exposures have come since an exposure should have."""
    return newest is not None and order_of(exposure_id) < newest


def _night_of(order: int) -> int:
    """Return day_obs of an exposure's order, in which the century, and what marks a simulated one, is left out."""
    return 20_000_000 + order // 100_000


def _date_of(day_obs: int) -> date | None:
    try:
        return date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100)
    except ValueError:
        return None


def state_of(*, is_whole: bool, n_targets: int, n_ended: int) -> RequestState:
    """Return the state of an accepted request that has not ended."""
    if n_targets == 0:
        return RequestState.WAITING
    if n_ended == n_targets and not is_whole:
        return RequestState.WAITING  # all that is there is done; more is to come
    return RequestState.RUNNING


def first_field(missing: Iterable[int], listed: tuple[int, ...]) -> str:
    """Return the dotted path of the first missing exposure in a list of ids; of the list, where a range hides it."""
    first = next(iter(missing), None)
    return f"select.exposures.{listed.index(first)}" if first in listed else "select"


def may_belong(select: Selection, facts: ExposureFacts, *, after: int, chosen: tuple[int, ...]) -> bool:
    """Whether an exposure that has just come belongs to a selection, told by itself alone."""
    if facts.exposure_id in chosen:
        return True
    if select.exposures is not None:
        return facts.exposure_id in select.listed()
    if select.group is not None:
        return facts.group_id == select.group.group_id and _is_of_type(facts, select.group.image_type)
    if select.sequence is not None:
        of, index, size = select.sequence.of, facts.group_index, facts.group_size
        if of == facts.exposure_id:
            return True
        return bool(index and size) and facts.exposure_id - (index or 0) < of <= facts.exposure_id - (index or 0) + (
            size or 0
        )
    if select.next is None:
        return False
    return (
        len(chosen) < select.next.n
        and order_of(facts.exposure_id) > after
        and _is_of_type(facts, select.next.image_type)
    )
