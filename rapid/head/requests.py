"""The head's desk for requests: take them in, have them fulfilled, tell those who wait.

A task of the leading head. What it remembers can be lost: accepted requests are in the results store and on the board,
and the next lead goes on with them (I1). It waits for four things, each by a blocking read: posts in the inbox, pushes of
observing scripts, events of the board, and the next time that a request has to be looked at though nothing happened.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from rapid.camera.models import Camera
from rapid.campaign.plan import Listing
from rapid.control.store import AsyncControlStore
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import Event, EventKind
from rapid.errors import RapidError, RefusedError, StoreError
from rapid.exposure.models import ExposureInfo
from rapid.head.assemble import Exposures
from rapid.head.building import Means
from rapid.head.exclusions import Exclusions
from rapid.head.known import KnownExposures
from rapid.head.redoing import AnyFulfilment, make_fulfilment
from rapid.pipeline.models import PipelineBook
from rapid.requests.archive import KEEP_MS as ARCHIVE_KEEP_MS
from rapid.requests.archive import RequestArchive
from rapid.requests.checks import check_run, check_spec
from rapid.requests.commands import KEEP_MS, Post
from rapid.requests.decide import ExposureFacts, may_belong
from rapid.requests.faults import BadRequestError, QueueFullError, fault_of
from rapid.requests.models import RequestFault, RequestRecord, RequestSpec, RequestState
from rapid.requests.pushed import PUSHED, PushedList, read_pushed
from rapid.requests.reading import read_json, read_request
from rapid.requests.store import AsyncRequestBoard
from rapid.results.store import ResultsStore

log = structlog.get_logger()

MAX_OPEN = 500
"""Requests that have not ended; more are refused. Each is looked at whenever something happens to one of its batches."""

MAX_TICKETS = 50
"""Repeated posts that are answered on their own; of more, whoever posted them finds the first."""

OUTAGE_PAUSE_S = 1.0
"""Before the next attempt to reach a board that is away."""

RESTORED = 200
"""Ended requests that are put back on an empty board."""

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
        self._control = AsyncControlStore(board.connection, camera, book)
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
        self._max_open = max_open
        self._open: dict[str, AnyFulfilment] = {}
        self._dirty: set[str] = set()
        self._noted: set[int] = set()
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()

    # What the head tells, and asks

    def note(self, exposure_id: int) -> None:
        """Tell that an exposure, or more of its raws, has come and was posted. Never waits."""
        if self._open:
            self._noted.add(exposure_id)
            self._wake.set()

    def guarantees(self, info: ExposureInfo) -> bool:
        """Whether a request wants an exposure processed on every detector."""
        facts = ExposureFacts(info.exposure_id, info.image_type.value, info.group_id, info.group_index, info.group_size)
        return any(
            one.spec.guaranteed
            and may_belong(one.spec.select, facts, after=one.record.after, chosen=one.record.members)
            for one in self._open.values()
        )

    async def prepare(self) -> None:
        """Go on with what was accepted before: to be called before the first exposure is looked at."""
        now_ms = await self._board.now_ms()
        self._means = Means(**{**vars(self._means), "began_ms": now_ms})
        await self._requests.open_inbox()
        await self._means.known.look_up_newest()
        await asyncio.to_thread(self._archive.forget_before, self._camera.name, now_ms - ARCHIVE_KEEP_MS)
        await self._restore()

    async def run(self) -> None:
        """Take in and fulfil requests until cancelled.

        Raises
        ------
        RefusedError
            Raised when another head leads.
        """
        last = await self._board.last_event_id()
        self._dirty |= set(self._open)
        self._wake.set()
        tasks = [
            asyncio.create_task(self._again(self._watch_inbox)),
            asyncio.create_task(self._watch_events(last)),
            asyncio.create_task(self._again(self._keep_going)),
            *(asyncio.create_task(self._again(partial(self._watch_pushed, pushed))) for pushed in PUSHED),
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
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), OUTAGE_PAUSE_S)

    # Taking in

    async def _restore(self) -> None:
        """Put back what the board has lost, and go on with what has not ended."""
        open_records = await asyncio.to_thread(self._archive.open_records, self._camera.name)
        on_board = set(await self._requests.open_ids())
        is_empty = not await self._requests.recent(1)
        for stored in open_records:
            record = await self._read_or_none(stored.request_id)
            if record is not None and record.state.is_final:
                await asyncio.to_thread(self._archive.put, record)  # it ended; the last word did not reach the store
                continue
            if record is None or record.spec is None:
                record = stored  # lost, or still in the inbox: its head died before it could say so
            await self._resume(record)
            if stored.request_id not in on_board:
                await self._requests.put(record, lead_token=self._means.lead_token)
        if is_empty:
            ended = await asyncio.to_thread(self._archive.recent, self._camera.name, RESTORED)
            for record in reversed(ended):
                if record.state.is_final:
                    await self._requests.put(record, lead_token=self._means.lead_token)
        if open_records:
            log.info("requests resumed", n_open=len(self._open))

    async def _read_or_none(self, request_id: str) -> RequestRecord | None:
        with contextlib.suppress(RapidError):
            return await self._requests.read(request_id)
        return None

    async def _resume(self, record: RequestRecord) -> None:
        try:
            detectors = await self._check(record.spec) if record.spec else None
            self._open[record.request_id] = make_fulfilment(record, detectors, self._means)
        except BadRequestError as error:
            # What it asks for was there when it was accepted: a pipeline or pattern has gone since.
            failed = record.model_copy(
                update={
                    "state": RequestState.FAILED,
                    "error": fault_of(error),
                    "finished_ms": await self._board.now_ms(),
                }
            )
            await self._publish(failed)

    async def _check(self, spec: RequestSpec) -> frozenset[int] | None:
        named = {}
        if isinstance(spec.detectors, str):
            named = dict((await self._control.read()).state.patterns)
        return await asyncio.to_thread(lambda: check_spec(spec, self._camera, self._means.book, named=named))

    async def _watch_inbox(self) -> None:
        await self._requests.open_inbox()
        while True:
            # Also what was given to us and never heard of: an answer may be lost with its connection.
            while posts := await self._requests.next_posts(again=True):
                await self._take_all(posts)
            await self._take_all(await self._requests.next_posts())

    async def _watch_pushed(self, pushed: PushedList) -> None:
        while True:
            taken = await self._requests.take_pushed(pushed.key(self._camera.name), door="ocs", kind=pushed.kind)
            if taken:
                log.info("requests pushed by a script", kind=pushed.kind, n=taken)

    async def _take_all(self, posts: list[Post]) -> None:
        for post in posts:
            async with self._lock:
                if "cancel" in post.fields:
                    await self._cancel(post)
                else:
                    await self._take(post)

    async def _take(self, post: Post) -> None:
        """Accept or refuse one post."""
        now_ms = await self._board.now_ms()
        door = "ocs" if "value" in post.fields else post.text("door", 20) or "redis"
        draft = RequestRecord(
            request_id=post.entry_id,
            camera=self._camera.name,
            state=RequestState.REFUSED,
            source=door,
            asked_by=post.text("by"),
            created_ms=int(post.entry_id.partition("-")[0]),
            finished_ms=now_ms,
        )
        try:
            if "value" in post.fields:
                spec = read_pushed(post.text("kind"), post.fields["value"])
            else:
                spec = read_request(post.fields.get("request", b""))
            draft = draft.model_copy(update={"spec": spec, "outside": _outside(post)})
            if await self._is_known(post, spec, now_ms):
                return
            await self._accept(draft, spec, post, now_ms)
        except (BadRequestError, QueueFullError) as error:
            log.warning("request refused", request_id=post.entry_id, code=error.code, reason=error.message)
            refused = draft.model_copy(update={"error": fault_of(error)})
            await self._requests.put(
                refused, lead_token=self._means.lead_token, counter="requests_refused", dealt_with=(post.entry_id,)
            )
        except (StoreError, RefusedError):
            raise
        except Exception as error:  # one request ends here as refused; the desk goes on with the next
            log.exception("request cannot be taken in", request_id=post.entry_id)
            fault = RequestFault(code="internal_error", message=f"{type(error).__name__}: {error}"[:1000])
            await self._requests.put(
                draft.model_copy(update={"error": fault}),
                lead_token=self._means.lead_token,
                counter="requests_refused",
                dealt_with=(post.entry_id,),
            )

    async def _is_known(self, post: Post, spec: RequestSpec, now_ms: int) -> bool:
        """Whether a post was accepted before, under its own id or its client key; then say so."""
        name, token = self._camera.name, self._means.lead_token
        same = await asyncio.to_thread(self._archive.get, name, post.entry_id)
        if same is not None:  # the head died between writing it down and saying so
            if not same.state.is_final and post.entry_id not in self._open:
                await self._resume(same)
                self._set_dirty(post.entry_id)
            current = self._open[post.entry_id].record if post.entry_id in self._open else same
            await self._requests.put(current, lead_token=token, dealt_with=(post.entry_id,))
            return True
        if spec.client_key is None:
            return False
        first = await asyncio.to_thread(
            lambda: self._archive.by_client_key(name, spec.client_key or "", since_ms=now_ms - KEEP_MS)
        )
        if first is None:
            return False
        if first.spec != spec:
            raise BadRequestError(
                "client_key", f"was used for another request ({first.request_id})", request_id=first.request_id
            )
        fulfilment = self._open.get(first.request_id)
        current = fulfilment.record if fulfilment else first
        if fulfilment is not None and len(current.tickets) < MAX_TICKETS:
            fulfilment.record = current = current.model_copy(update={"tickets": (*current.tickets, post.entry_id)})
        await self._requests.repeat(post.entry_id, current, lead_token=token)
        log.info("request repeated", request_id=first.request_id, ticket=post.entry_id)
        return True

    async def _accept(self, draft: RequestRecord, spec: RequestSpec, post: Post, now_ms: int) -> None:
        if len(self._open) >= self._max_open:
            raise QueueFullError(f"{len(self._open)} requests are under way; {self._max_open} at most, try later")
        detectors = await self._check(spec)
        if spec.run is not None:
            other = await asyncio.to_thread(self._archive.by_run, self._camera.name, spec.run)
            check_run(spec, other, is_open=other is not None and other.request_id in self._open)
        record = draft.model_copy(
            update={
                "state": RequestState.ACCEPTED,
                "run": spec.run or f"request-{post.entry_id}",
                "accepted_ms": now_ms,
                "finished_ms": None,
                "deadline_ms": now_ms + round(spec.deadline_s * 1000),
                "after": self._means.known.newest or 0,
            }
        )
        fulfilment = make_fulfilment(record, detectors, self._means)
        await fulfilment.find_members(now_ms)
        await asyncio.to_thread(self._archive.put, record)
        self._open[record.request_id] = fulfilment
        await self._requests.put(
            record, lead_token=self._means.lead_token, counter="requests_accepted", dealt_with=(post.entry_id,)
        )
        log.info("request accepted", request_id=record.request_id, source=record.source, label=spec.label)
        self._set_dirty(record.request_id)

    async def _cancel(self, post: Post) -> None:
        request_id = post.text("cancel")
        fulfilment = self._open.get(request_id)
        if fulfilment is None:
            record = await self._read_or_none(request_id)  # a ticket of a repeated post stands for the first one
            fulfilment = self._open.get(record.request_id) if record else None
        if fulfilment is not None:
            by = post.text("by")
            message = f"cancelled by {by}" if by else "cancelled"
            fault = RequestFault(code="cancelled", message=message)
            await fulfilment.end(
                RequestState.CANCELLED, fault, reason=f"request {fulfilment.record.request_id} {message}"
            )
            await self._tell(fulfilment, await self._board.now_ms())
        else:
            log.warning("no such request to cancel", request_id=request_id[:60])
        await self._requests.dealt_with([post.entry_id])

    # Fulfilling

    async def _watch_events(self, last: str) -> None:
        while True:
            try:
                events = await self._board.events(last, timeout_s=30.0)
            except StoreError as error:
                log.warning("events cannot be followed", error=error.message)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), OUTAGE_PAUSE_S)
                # What was missed meanwhile is in the results store.
                for fulfilment in self._open.values():
                    for target in fulfilment.targets.values():
                        target.is_stale = True
                    self._set_dirty(fulfilment.record.request_id)
                continue
            if events:
                last = events[-1].event_id
            for event in events:
                if event.kind in FOLLOWED:
                    self._note_event(event)

    def _note_event(self, event: Event) -> None:
        has_summary = event.kind is EventKind.SUMMARY_READY
        # Only a failure for good settles a detector, and that is told by the summary.
        detector = event.detector if event.kind is EventKind.JOB_FINISHED else None
        for request_id, fulfilment in self._open.items():
            if event.batch_id and fulfilment.note_event(event.batch_id, detector, has_summary=has_summary):
                self._set_dirty(request_id)

    def _set_dirty(self, request_id: str) -> None:
        self._dirty.add(request_id)
        self._wake.set()

    async def _keep_going(self) -> None:
        """Look at the requests that something happened to, and at those whose time has come."""
        while True:
            wake_ms = min((t for one in self._open.values() if (t := one.next_wake_ms) is not None), default=None)
            if not self._wake.is_set():
                timeout_s = None
                if wake_ms is not None:
                    board = await self._board.time()
                    # A clock that stands is moved by somebody who plays a night: look again soon.
                    timeout_s = max((wake_ms - board.now_ms) / 1000, 0.0) / (board.rate or 1.0) + 0.005
                    timeout_s = timeout_s if board.rate else max(timeout_s, 1.0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), timeout_s)
            self._wake.clear()
            now_ms = await self._board.now_ms()
            due = self._dirty | {
                request_id
                for request_id, one in self._open.items()
                if (one.next_wake_ms or now_ms + 1) <= now_ms or self._concerns(one)
            }
            self._dirty, self._noted = set(), set()
            try:
                while due:
                    await self._look_at(next(iter(sorted(due))), due)
            except StoreError:
                self._dirty |= due  # they are looked at again
                self._wake.set()
                raise

    def _concerns(self, fulfilment: AnyFulfilment) -> bool:
        return bool(self._noted) and fulfilment.may_concern(self._noted)

    async def _look_at(self, request_id: str, due: set[str]) -> None:
        async with self._lock:
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
                await self._tell(fulfilment, now_ms)
                if fulfilment.has_more:
                    self._set_dirty(request_id)
            due.discard(request_id)

    async def _tell(self, fulfilment: AnyFulfilment, now_ms: int) -> None:
        """Publish a record if it changed."""
        before = fulfilment.record
        after = fulfilment.as_record(now_ms)
        if after == before:
            return
        fulfilment.record = after.model_copy(update={"version": before.version + 1})
        await self._publish(fulfilment.record)
        if fulfilment.record.state.is_final:
            self._open.pop(before.request_id, None)
            log.info("request ended", request_id=before.request_id, state=fulfilment.record.state.value)

    async def _publish(self, record: RequestRecord) -> None:
        counter = ""
        if record.state.is_final:
            # First to the results store: an end that was told must outlive a flush.
            await asyncio.to_thread(self._archive.put, record)
            counter = f"requests_{record.state.value}"
        await self._requests.put(record, lead_token=self._means.lead_token, counter=counter)


def _outside(post: Post) -> dict[str, str]:
    text = post.fields.get("outside")
    if not text:
        return {}
    document = read_json(text, what="outside")
    if not isinstance(document, dict):
        return {}
    return {str(name)[:60]: str(value)[:4000] for name, value in list(document.items())[:30]}
