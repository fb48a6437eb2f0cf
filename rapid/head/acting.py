"""Do with calibs what a request asks: verify them anew, certify or reject them. No jobs; the registry is told at once."""

import asyncio

import structlog

from rapid.dispatch.models import EventKind
from rapid.errors import RapidError, StoreError
from rapid.head.building import Means
from rapid.head.fulfilment import Fulfilment
from rapid.requests.answers import RequestAnswer
from rapid.requests.calibs import CalibStanding, act_on_calibs
from rapid.requests.faults import BadRequestError, fault_of
from rapid.requests.models import Progress, RequestRecord, RequestState

log = structlog.get_logger()


class CalibFulfilment(Fulfilment):
    """One request about calibs that are there.

    Parameters
    ----------
    record
        As it was accepted, or as it was when another head had it: what was done already is not done again.
    """

    def __init__(self, record: RequestRecord, means: Means) -> None:
        super().__init__(record, means)
        if self.spec.select.calibs is None:
            raise BadRequestError("select.calibs", "names no calibs")
        self._what = self.spec.select.calibs
        self._standings: tuple[CalibStanding, ...] = ()

    async def advance(self, now_ms: int) -> None:  # noqa: ARG002 - no time plays a part
        """Do it."""
        what, means = self._what, self._means
        try:
            self._standings = tuple(
                await asyncio.to_thread(
                    lambda: act_on_calibs(
                        means.results,
                        means.camera,
                        what.ids,
                        what.action,
                        author=self.author,
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
        log.info("calibs changed by a request", action=what.action, n=len(self._standings), author=self.author)
        try:
            await means.board.publish(
                EventKind.CALIB_CERTIFIED, data={"what": what.action, "calibs": list(what.ids)[:20]}
            )
        except StoreError as error:
            log.warning("displays could not be told", error=error.message)
        await self.end(RequestState.DONE, None)

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
