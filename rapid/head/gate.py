"""Hold a request back until its exposures are there, and tell what is not: the head's side of group completion."""

from rapid.head.building import Means
from rapid.head.members import FRESH_LEAD_MS, Members
from rapid.requests.completion import Lacking, lacking_of, missing_raws
from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestRecord, RequestSpec

UNTOLD_S = 5.0
"""So long after its first raw an exposure of which the camera has not said what it read out may have more to come."""

UNTOLD = "not told which"


class Gate:
    """Whether a request may begin.

    Parameters
    ----------
    record
        The request, as it was accepted.
    detectors
        Detectors it asks for; None for all science detectors.

    Attributes
    ----------
    lacking
        What is not there, as of the last look.
    is_open
        Whether exposures that are there may be processed.
    is_late
        Whether it was waited for as long as was asked for, and something is lacking still.
    wake_ms
        Board times when to look again though nothing came.
    """

    def __init__(self, record: RequestRecord, detectors: frozenset[int] | None, means: Means) -> None:
        if record.spec is None:
            raise BadRequestError("request", "cannot be read")
        self.lacking = Lacking()
        self.is_open = not record.spec.when_whole
        self.is_late = False
        self.wake_ms: list[int] = []
        self._spec: RequestSpec = record.spec
        self._record = record
        self._detectors = detectors
        self._means = means
        self._whole: set[int] = set()

    def close(self, record: RequestRecord) -> None:
        """Take in that it was decided to do without what is lacking."""
        self._record = record
        self.is_late, self.is_open = False, True

    def look(self, members: Members, now_ms: int) -> None:
        """Look at what is there."""
        membership = members.membership
        self.wake_ms = []
        raws = {}
        if self._spec.when_whole or self._spec.arrival_s is not None:
            for item in membership.members:
                if item not in self._whole and not (names := self._missing_raws(item)):
                    self._whole.add(item)
                elif item not in self._whole:
                    raws[item] = names
                    if names == (UNTOLD,):
                        self.wake_ms.append(now_ms + round(UNTOLD_S * 1000))
        n_there, n_wanted = len(membership.members), membership.n_wanted
        if self._record.closed_ms is not None:
            # Nothing more is waited for, and what did not come is still told.
            n_named = max(len(membership.missing), len(membership.indices))
            n_wanted = max(n_there + n_named, self._n_counted)
        self.lacking = lacking_of(
            n_there=n_there, n_wanted=n_wanted, missing=membership.missing, indices=membership.indices, raws=raws
        )
        self.is_late = False
        if self._record.closed_ms is not None or self.lacking.is_nothing:
            self.is_open = True
            return
        if self._spec.arrival_s is None or self._record.accepted_ms is None:
            return
        until_ms = self._record.accepted_ms + round(self._spec.arrival_s * 1000)
        # A head that has just begun to lead may not have seen yet what is there.
        until_ms = max(until_ms, self._means.began_ms + FRESH_LEAD_MS)
        self.is_late = now_ms >= until_ms
        if not self.is_late:
            self.wake_ms.append(until_ms)

    @property
    def _n_counted(self) -> int:
        """How many exposures the request itself asks for by number; 0 if it does not."""
        select = self._spec.select
        if select.next is not None:
            return select.next.n
        return (select.group.n or 0) if select.group is not None else 0

    def _missing_raws(self, exposure_id: int) -> tuple[str, ...]:
        """Return the names of the detectors whose raw is still to come; of what is over nothing is."""
        known = self._means.known.live(exposure_id)
        if known is None:
            return ()
        if known.read_out is None and self._detectors is None:
            return (UNTOLD,) if self._means.known.age_s(exposure_id) < UNTOLD_S else ()
        camera = self._means.camera
        wanted = self._detectors if self._detectors is not None else camera.science_ids
        there = {*known.raws, *known.guiders, *known.quarantined}
        return missing_raws(
            [camera.by_id[number].name for number in wanted],
            read_out=known.read_out,
            there=[camera.by_id[number].name for number in there if number in camera.by_id],
            are_named=self._detectors is not None,
        )
