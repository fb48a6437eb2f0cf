"""What the desk asks of a request, whatever it is about.

A fulfilment can be thrown away and made anew from its record at any time: posting twice is posting once, and what is
finished is in the results store. It acts when it is told to `advance`: by the desk, when something happened.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection

from rapid.errors import RapidError
from rapid.head.building import Means
from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestFault, RequestRecord, RequestSpec, RequestState


class RequestFailedError(RapidError):
    """A request cannot be fulfilled."""

    code = "request_failed"


class NothingFinishedError(RequestFailedError):
    """Not one detector of the wanted exposures has a result."""

    code = "nothing_finished"


class CombineFailedError(RequestFailedError):
    """The exposures were processed, but what was to be made of them together was not."""

    code = "combine_failed"


class Fulfilment(ABC):
    """One accepted request on its way to an answer.

    Parameters
    ----------
    record
        As it was accepted, or as it was when another head had it.

    Attributes
    ----------
    ending
        How it ended, None until it has.
    has_more
        Whether it stopped so that others have their turn, and is to be advanced again soon.
    """

    def __init__(self, record: RequestRecord, means: Means) -> None:
        if record.spec is None:
            raise BadRequestError("request", "cannot be read")
        self.record = record
        self.spec: RequestSpec = record.spec
        self.ending: tuple[RequestState, RequestFault | None] | None = None
        self.has_more = False
        self._means = means

    @property
    def author(self) -> str:
        """In whose name it acts."""
        return self.record.asked_by or f"request {self.record.request_id}"

    @property
    def next_wake_ms(self) -> int | None:
        """Board time when it has to look again though nothing happened."""
        return self.record.deadline_ms

    async def find_members(self, now_ms: int) -> None:  # noqa: B027 - most find nothing
        """Find the exposures of the request that are there; nothing to do where it is not about exposures to come.

        Raises
        ------
        BadRequestError
            Raised, naming the field, if it asks for what cannot be.
        """

    def may_concern(self, exposure_ids: Collection[int]) -> bool:  # noqa: ARG002 - for those that wait for exposures
        """Whether exposures that have just come, or more of their raws, matter to it."""
        return False

    def note_event(self, batch_id: str, detector: int | None, *, has_summary: bool) -> bool:  # noqa: ARG002 - for those with batches
        """Take in that something happened to a batch; whether it is one of this request's."""
        return False

    def note_gap(self) -> None:  # noqa: B027 - as note_event
        """Take in that events may have been missed: what is under way is to be looked at anew."""

    @abstractmethod
    async def advance(self, now_ms: int) -> None:
        """Do whatever can be done now; never waits for anything to happen.

        Raises
        ------
        StoreError
            Raised if a store does not answer: advance again later.
        RefusedError
            Raised if another head leads.
        """

    async def end(self, state: RequestState, fault: RequestFault | None, *, reason: str = "") -> None:  # noqa: ARG002 - for those with jobs
        """End the request; what of it has not started is taken off the board, for that reason."""
        self.ending = (state, fault)

    @abstractmethod
    def as_record(self, now_ms: int) -> RequestRecord:
        """Return the record as it stands now; the version is the caller's."""
