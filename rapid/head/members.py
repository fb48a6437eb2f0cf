"""Find the exposures of a request: those that are there, and those that are still to come."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from rapid.head.known import KnownExposure, KnownExposures
from rapid.requests.decide import (
    LATE_MS,
    ExposureFacts,
    Membership,
    first_field,
    is_overtaken,
    members_of,
    why_it_cannot_come,
)
from rapid.requests.faults import BadRequestError, UnknownExposureError
from rapid.requests.models import RequestRecord, RequestState

FRESH_LEAD_MS = 15_000
"""So long after its lead began a head may not have seen all raws that are there."""


class Members:
    """The exposures of one request.

    Parameters
    ----------
    record
        The request, as it was accepted.
    began_ms
        Board time when the lead began.

    Attributes
    ----------
    membership
        Which exposures there are, and how many there will be.
    exposures
        What is known of each.
    wake_ms
        Board times when to look again though nothing came.
    """

    def __init__(self, record: RequestRecord, known: KnownExposures, *, began_ms: int) -> None:
        if record.spec is None:
            raise BadRequestError("request", "cannot be read")
        self.membership = Membership(())
        self.exposures: dict[int, KnownExposure] = {}
        self.wake_ms: list[int] = []
        self._select = record.spec.select
        self._record = record
        self._known = known
        self._began_ms = began_ms
        self._facts: dict[int, ExposureFacts] = {}
        self._has_searched = False
        self._grew_ms = 0

    def may_concern(self, exposure_ids: Collection[int]) -> bool:
        """Whether exposures that have just come, or more of their raws, matter to this request."""
        # A member that an earlier head found may be one that this head is only now seeing.
        if any(item in self.exposures or item in self.membership.members for item in exposure_ids):
            return True
        if self.membership.is_whole:
            return False
        return self._select.exposures is None or any(item in self.membership.missing for item in exposure_ids)

    async def find(self, now_ms: int, *, chosen: tuple[int, ...]) -> None:
        """Find the exposures of the request that are there.

        Parameters
        ----------
        chosen
            Members found before.

        Raises
        ------
        UnknownExposureError
            Raised for an exposure that is not there and will not come.
        """
        select, known, before = self._select, self._known, len(self.exposures)
        self.wake_ms = []
        if select.exposures is not None:
            await self._find(item for item in select.listed() if item not in self.exposures)
        elif select.sequence is not None:
            await self._find([select.sequence.of])
            wanted = members_of(select, self._facts)
            await self._find(item for item in wanted.missing if item not in self.exposures)
        else:
            self._facts = {**self._facts, **known.live_facts()}
            if select.group is not None and not self._has_searched:
                self._facts = {**await known.group_facts(select.group.group_id), **self._facts}
        is_first, self._has_searched = not self._has_searched, True
        membership = members_of(select, self._facts, after=self._record.after, chosen=chosen)
        if self._record.closed_ms is not None:
            membership = self._closed(membership, chosen)
        # Of a group, what the results store has told of.
        stored = await known.find(item for item in membership.members if item not in self.exposures)
        self.exposures |= stored
        if len(self.exposures) != before or not self._grew_ms:
            self._grew_ms = now_ms
        if membership.n_wanted is None and membership.members and select.group is not None:
            quiet_ms = round(select.group.quiet_s * 1000)
            if now_ms - self._grew_ms >= quiet_ms:
                membership = Membership(membership.members, membership.missing, len(membership.members))
            else:
                self.wake_ms.append(self._grew_ms + quiet_ms)
        self.membership = membership
        if self._record.spec is None or self._record.spec.arrival_s is None:
            self._refuse_what_cannot_come(now_ms)
        elif is_first and self._record.state is RequestState.ACCEPTED:
            # Only a wrong id is refused: what may be late has a time of its own, at which it is told what is missing.
            self._refuse_what_cannot_come(now_ms, may_be_late=True)

    @staticmethod
    def _closed(membership: Membership, chosen: tuple[int, ...]) -> Membership:
        """Return the members that were there when it was decided to wait no longer; nothing is added to them."""
        late = tuple(item for item in membership.members if item not in chosen)
        return Membership(chosen, (*membership.missing, *late), len(chosen), membership.indices)

    def close(self, record: RequestRecord) -> None:
        """Take in that it was decided to do without exposures that have not come."""
        self._record = record

    async def _find(self, exposure_ids: Iterable[int]) -> None:
        wanted = list(exposure_ids)
        if self._has_searched:
            # What was not stored when it was accepted can only come in by the front door.
            found = {item: known for item in wanted if (known := self._known.live(item)) is not None}
        else:
            found = await self._known.find(wanted)
        self.exposures |= found
        self._facts |= {item: known.facts for item, known in found.items()}

    def _refuse_what_cannot_come(self, now_ms: int, *, may_be_late: bool = False) -> None:
        missing, newest, listed = self.membership.missing, self._known.newest, self._select.listed()
        if not missing:
            return
        if now_ms < self._began_ms + FRESH_LEAD_MS:
            self.wake_ms.append(self._began_ms + FRESH_LEAD_MS)
            return
        for exposure_id in missing:
            reason = why_it_cannot_come(exposure_id, newest=newest, today=_today(now_ms))
            if reason is None and not may_be_late and is_overtaken(exposure_id, newest=newest):
                # Its raws may be late by a retry or two.
                give_up_ms = max(self._record.accepted_ms or now_ms, self._began_ms) + LATE_MS
                self.wake_ms.append(give_up_ms)
                reason = "it did not come, though newer ones did" if now_ms >= give_up_ms else None
            if reason is not None:
                field = "select.sequence.of" if self._select.sequence else first_field([exposure_id], listed)
                raise UnknownExposureError(field, f"there is no exposure {exposure_id}: {reason}", exposure=exposure_id)


def _today(now_ms: int) -> int:
    """Return day_obs of a board time: the date at UTC-12 h."""
    return int((datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(hours=12)).strftime("%Y%m%d"))
