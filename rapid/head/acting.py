"""Do with calibs what a request asks: verify them anew, certify or reject them. No jobs; the registry is told at once."""

import asyncio
from collections.abc import Collection

import structlog

from rapid.dispatch.models import EventKind
from rapid.errors import RapidError, StoreError
from rapid.head.building import Means
from rapid.head.targets import Target
from rapid.requests.answers import RequestAnswer
from rapid.requests.calibs import CalibStanding, act_on_calibs
from rapid.requests.faults import BadRequestError, fault_of
from rapid.requests.models import Progress, RequestFault, RequestRecord, RequestSpec, RequestState

log = structlog.get_logger()


class CalibFulfilment:
    """One request about calibs that are there; see `rapid.head.fulfil.Fulfilment` for its part towards the desk.

    Parameters
    ----------
    record
        As it was accepted, or as it was when another head had it: what was done already is not done again.
    """

    def __init__(self, record: RequestRecord, means: Means) -> None:
        if record.spec is None or record.spec.select.calibs is None:
            raise BadRequestError("request", "cannot be read")
        self.record = record
        self.spec: RequestSpec = record.spec
        self.targets: dict[str, Target] = {}
        self.ending: tuple[RequestState, RequestFault | None] | None = None
        self.has_more = False
        self._what = record.spec.select.calibs
        self._means = means
        self._standings: tuple[CalibStanding, ...] = ()

    @property
    def next_wake_ms(self) -> int | None:
        """Board time when it has to look again though nothing happened."""
        return self.record.deadline_ms

    async def find_members(self, now_ms: int) -> None:
        """Nothing to find: the calibs are named."""

    def may_concern(self, exposure_ids: Collection[int]) -> bool:  # noqa: ARG002 - as of every fulfilment
        """Whether exposures that have just come matter: they do not."""
        return False

    def note_event(self, batch_id: str, detector: int | None, *, has_summary: bool) -> bool:  # noqa: ARG002 - as above
        """Whether a batch is one of this request's: it has none."""
        return False

    async def advance(self, now_ms: int) -> None:  # noqa: ARG002 - as of every fulfilment
        """Do it."""
        what, means = self._what, self._means
        author = self.record.asked_by or f"request {self.record.request_id}"
        try:
            self._standings = tuple(
                await asyncio.to_thread(
                    lambda: act_on_calibs(
                        means.results,
                        means.camera,
                        what.ids,
                        what.action,
                        author=author,
                        reason=what.reason,
                        override=what.override,
                        thresholds=means.thresholds,
                    )
                )
            )
        except RapidError as error:
            if error.code in {"store_failed", "refused"}:
                raise
            await self.end(RequestState.FAILED, fault_of(error))
            return
        log.info("calibs changed by a request", action=what.action, n=len(self._standings), author=author)
        try:
            await means.board.publish(
                EventKind.CALIB_CERTIFIED, data={"what": what.action, "calibs": list(what.ids)[:20]}
            )
        except StoreError as error:
            log.warning("displays could not be told", error=error.message)
        await self.end(RequestState.DONE, None)

    async def end(self, state: RequestState, fault: RequestFault | None, *, reason: str = "") -> None:  # noqa: ARG002 - as of every fulfilment
        """End the request."""
        self.ending = (state, fault)

    def as_record(self, now_ms: int) -> RequestRecord:
        """Return the record as it stands now; the version is the caller's."""
        state, fault = self.ending or (RequestState.RUNNING, None)
        n = len(self._what.ids)
        changes: dict[str, object] = {
            "state": state,
            "error": fault,
            "progress": Progress(done=n if state is RequestState.DONE else 0, of=n),
            "started_ms": self.record.started_ms or now_ms,
        }
        if state.is_final:
            done = state is RequestState.DONE
            changes |= {"finished_ms": now_ms, "answer": RequestAnswer(is_complete=done, calibs=self._standings)}
        return self.record.model_copy(update=changes)
