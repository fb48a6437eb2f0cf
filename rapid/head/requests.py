"""The head's desk for requests: have them taken in and fulfilled, tell those who wait.

A task of the leading head. What it remembers can be lost: accepted requests are in the results store and on the board,
and the next lead goes on with them (I1). It waits for four things, each by a blocking read: posts in the inbox, pushes of
observing scripts, events of the board, and the next time that a request has to be looked at though nothing happened.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from rapid.camera.models import Camera
from rapid.campaign.plan import Listing
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import Event, EventKind
from rapid.errors import RefusedError, StoreError
from rapid.exposure.models import ExposureInfo
from rapid.head.assemble import Exposures
from rapid.head.building import Means
from rapid.head.events import OUTAGE_PAUSE_S, follow_events
from rapid.head.exclusions import Exclusions
from rapid.head.fulfilment import Fulfilment
from rapid.head.intake import RequestIntake
from rapid.head.known import KnownExposures
from rapid.head.open_requests import OpenRequests
from rapid.pause import pause
from rapid.pipeline.models import PipelineBook
from rapid.requests.archive import KEEP_MS as ARCHIVE_KEEP_MS
from rapid.requests.archive import RequestArchive
from rapid.requests.decide import ExposureFacts, may_belong
from rapid.requests.models import RequestFault, RequestState
from rapid.requests.pushed import PUSHED
from rapid.requests.store import AsyncRequestBoard
from rapid.results.store import ResultsStore

log = structlog.get_logger()

MAX_OPEN = 500
"""Requests that have not ended; more are refused. Each is looked at whenever something happens to one of its batches."""

FOLLOWED = frozenset({EventKind.SUMMARY_READY, EventKind.JOB_FINISHED, EventKind.JOB_FAILED})


class RequestDesk:
    """Takes in requests and has them fulfilled, as long as its head leads.

    Parameters
    ----------
    exposures
        What the head sees arrive.
    lead_token
        The lead under which it posts.
    max_open
        Requests at a time.
    """

    def __init__(
        self,
        camera: Camera,
        board: AsyncBoard,
        results: ResultsStore,
        book: PipelineBook,
        exposures: Exposures,
        *,
        lead_token: int,
        max_open: int = MAX_OPEN,
        thresholds: Path | None = None,
        listing: Listing | None = None,
    ) -> None:
        self._camera = camera
        self._board = board
        self._requests = AsyncRequestBoard(board.connection, camera.name)
        self._archive = RequestArchive(results.engine)
        self._means = Means(
            camera,
            board,
            results,
            book,
            KnownExposures(camera, results, exposures),
            Exclusions(camera, results),
            lead_token,
            thresholds=thresholds,
            listing=listing,
        )
        self._open = OpenRequests(board, self._requests, self._archive, lead_token=lead_token)
        self._max_open = max_open
        self._intake = self._make_intake()
        self._noted: set[int] = set()

    def _make_intake(self) -> RequestIntake:
        return RequestIntake(self._means, self._requests, self._archive, self._open, max_open=self._max_open)

    # What the head tells, and asks

    def note(self, exposure_id: int) -> None:
        """Tell that an exposure, or more of its raws, has come and was posted. Never waits."""
        if self._open:
            self._noted.add(exposure_id)
            self._open.wake.set()

    def guarantees(self, info: ExposureInfo) -> bool:
        """Whether a request wants an exposure processed on every detector."""
        facts = ExposureFacts(info.exposure_id, info.image_type.value, info.group_id, info.group_index, info.group_size)
        return any(
            one.spec.guaranteed
            and may_belong(one.spec.select, facts, after=one.record.after, chosen=one.record.members)
            for one in self._open
        )

    async def prepare(self) -> None:
        """Go on with what was accepted before: to be called before the first exposure is looked at."""
        now_ms = await self._board.now_ms()
        self._means = dataclasses.replace(self._means, began_ms=now_ms)
        self._intake = self._make_intake()
        await self._requests.open_inbox()
        await self._means.known.look_up_newest()
        await asyncio.to_thread(self._archive.forget_before, self._camera.name, now_ms - ARCHIVE_KEEP_MS)
        await self._intake.restore()

    async def run(self) -> None:
        """Take in and fulfil requests until cancelled.

        Raises
        ------
        RefusedError
            Raised when another head leads.
        """
        last = await self._board.last_event_id()
        self._open.set_dirty(*(one.record.request_id for one in self._open))
        tasks = [
            asyncio.create_task(self._again(self._intake.watch_inbox)),
            asyncio.create_task(self._watch_events(last)),
            asyncio.create_task(self._again(self._keep_going)),
            *(asyncio.create_task(self._again(partial(self._intake.watch_pushed, pushed))) for pushed in PUSHED),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _again(watch: Callable[[], Awaitable[None]]) -> None:
        """Do something over and over; pause while the board is away."""
        while True:
            try:
                await watch()
            except StoreError as error:
                log.warning("requests cannot be served", error=error.message)
                await pause(OUTAGE_PAUSE_S)

    # Fulfilling

    async def _watch_events(self, last: str) -> None:
        async for events in follow_events(self._board, last, on_gap=self._note_gap):
            for event in events:
                if event.kind in FOLLOWED:
                    self._note_event(event)

    def _note_gap(self) -> None:
        """Have everything looked at anew: what was missed meanwhile is in the results store."""
        for fulfilment in self._open:
            fulfilment.note_gap()
            self._open.set_dirty(fulfilment.record.request_id)

    def _note_event(self, event: Event) -> None:
        has_summary = event.kind is EventKind.SUMMARY_READY
        # Only a failure for good settles a detector, and that is told by the summary.
        detector = event.detector if event.kind is EventKind.JOB_FINISHED else None
        for fulfilment in self._open:
            if event.batch_id and fulfilment.note_event(event.batch_id, detector, has_summary=has_summary):
                self._open.set_dirty(fulfilment.record.request_id)

    async def _keep_going(self) -> None:
        """Look at the requests that something happened to, and at those whose time has come."""
        while True:
            wake_ms = min((t for one in self._open if (t := one.next_wake_ms) is not None), default=None)
            if not self._open.wake.is_set():
                timeout_s = None
                if wake_ms is not None:
                    board = await self._board.time()
                    # A clock that stands is moved by somebody who plays a night: look again soon.
                    timeout_s = max((wake_ms - board.now_ms) / 1000, 0.0) / (board.rate or 1.0) + 0.005
                    timeout_s = timeout_s if board.rate else max(timeout_s, 1.0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._open.wake.wait(), timeout_s)
            self._open.wake.clear()
            now_ms = await self._board.now_ms()
            due = self._open.take_dirty() | {
                one.record.request_id
                for one in self._open
                if (one.next_wake_ms or now_ms + 1) <= now_ms or self._concerns(one)
            }
            self._noted = set()
            try:
                while due:
                    await self._look_at(next(iter(sorted(due))), due)
            except StoreError:
                self._open.set_dirty(*due)  # they are looked at again
                raise

    def _concerns(self, fulfilment: Fulfilment) -> bool:
        return bool(self._noted) and fulfilment.may_concern(self._noted)

    async def _look_at(self, request_id: str, due: set[str]) -> None:
        async with self._open.lock:
            fulfilment = self._open.get(request_id)
            if fulfilment is not None:
                now_ms = await self._board.now_ms()
                try:
                    deadline_ms = fulfilment.record.deadline_ms
                    if deadline_ms is not None and now_ms >= deadline_ms:
                        message = f"not done within {fulfilment.spec.deadline_s:g} s"
                        if lacks := fulfilment.record.progress.lacks:
                            message += f"; not there: {lacks}"
                        fault = RequestFault(code="deadline_passed", message=message)
                        await fulfilment.end(RequestState.EXPIRED, fault, reason=message)
                    else:
                        await fulfilment.advance(now_ms)
                except (StoreError, RefusedError):
                    raise
                except Exception as error:  # one request ends here as failed; the others go on
                    log.exception("request failed", request_id=request_id)
                    message = f"{type(error).__name__}: {error}"[:1000]
                    await fulfilment.end(RequestState.FAILED, RequestFault(code="internal_error", message=message))
                await self._open.tell(fulfilment, now_ms)
                if fulfilment.has_more:
                    self._open.set_dirty(request_id)
            due.discard(request_id)
