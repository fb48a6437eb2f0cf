"""Take requests in: each post is accepted or refused, once, and said so to whoever posted it.

What was accepted is in the results store before it is told (I1): a head that takes over goes on with it, and a post whose
head died in between is found there and answered.
"""

import asyncio
import contextlib

import structlog

from rapid.control.store import AsyncControlStore
from rapid.dispatch.board import AsyncBoard
from rapid.errors import RapidError, RefusedError, StoreError
from rapid.head.acting import CalibFulfilment
from rapid.head.building import Means
from rapid.head.campaign import CampaignFulfilment
from rapid.head.fulfil import ExposureFulfilment
from rapid.head.fulfilment import Fulfilment
from rapid.head.open_requests import OpenRequests
from rapid.head.redoing import RedoFulfilment
from rapid.requests.archive import RequestArchive
from rapid.requests.checks import check_run, check_spec
from rapid.requests.commands import KEEP_MS, Post
from rapid.requests.faults import BadRequestError, QueueFullError, fault_of
from rapid.requests.models import RequestFault, RequestRecord, RequestSpec, RequestState
from rapid.requests.pushed import PushedList, read_pushed
from rapid.requests.reading import read_json, read_request
from rapid.requests.store import AsyncRequestBoard

log = structlog.get_logger()

MAX_TICKETS = 50
"""Repeated posts that are answered on their own; of more, whoever posted them finds the first."""

RESTORED = 200
"""Ended requests that are put back on an empty board."""


def make_fulfilment(record: RequestRecord, detectors: frozenset[int] | None, means: Means) -> Fulfilment:
    """Return what fulfils a request.

    Raises
    ------
    BadRequestError
        Raised if the record does not say what is asked for.
    """
    select = record.spec.select if record.spec is not None else None
    if select is not None and select.affected is not None:
        return RedoFulfilment(record, means)
    if select is not None and select.calibs is not None:
        return CalibFulfilment(record, means)
    if select is not None and select.campaign is not None:
        return CampaignFulfilment(record, detectors, means)
    return ExposureFulfilment(record, detectors, means)


class RequestIntake:
    """Accepts and refuses; cancels; restores what an earlier head had accepted.

    Parameters
    ----------
    open_requests
        Where what is accepted goes.
    max_open
        Requests at a time.
    """

    def __init__(
        self,
        means: Means,
        requests: AsyncRequestBoard,
        archive: RequestArchive,
        open_requests: OpenRequests,
        *,
        max_open: int,
    ) -> None:
        self._means = means
        self._board: AsyncBoard = means.board
        self._requests = requests
        self._archive = archive
        self._control = AsyncControlStore(means.board.connection, means.camera, means.book)
        self._open = open_requests
        self._max_open = max_open

    async def restore(self) -> None:
        """Put back what the board has lost, and go on with what has not ended."""
        open_records = await asyncio.to_thread(self._archive.open_records, self._means.camera.name)
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
            ended = await asyncio.to_thread(self._archive.recent, self._means.camera.name, RESTORED)
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
            self._open.add(make_fulfilment(record, detectors, self._means))
        except BadRequestError as error:
            # What it asks for was there when it was accepted: a pipeline or pattern has gone since.
            failed = record.model_copy(
                update={
                    "state": RequestState.FAILED,
                    "error": fault_of(error),
                    "finished_ms": await self._board.now_ms(),
                }
            )
            await self._open.publish(failed)

    async def _check(self, spec: RequestSpec) -> frozenset[int] | None:
        named = {}
        if isinstance(spec.detectors, str):
            named = dict((await self._control.read()).state.patterns)
        return await asyncio.to_thread(lambda: check_spec(spec, self._means.camera, self._means.book, named=named))

    async def watch_inbox(self) -> None:
        """Take posts from the inbox until cancelled."""
        await self._requests.open_inbox()
        while True:
            # Also what was given to us and never heard of: an answer may be lost with its connection.
            while posts := await self._requests.next_posts(again=True):
                await self._take_all(posts)
            await self._take_all(await self._requests.next_posts())

    async def watch_pushed(self, pushed: PushedList) -> None:
        """Take what a script pushes to one list until cancelled."""
        while True:
            taken = await self._requests.take_pushed(pushed.key(self._means.camera.name), door="ocs", kind=pushed.kind)
            if taken:
                log.info("requests pushed by a script", kind=pushed.kind, n=taken)

    async def _take_all(self, posts: list[Post]) -> None:
        for post in posts:
            async with self._open.lock:
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
            camera=self._means.camera.name,
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
        name, token = self._means.camera.name, self._means.lead_token
        same = await asyncio.to_thread(self._archive.get, name, post.entry_id)
        if same is not None:  # the head died between writing it down and saying so
            if not same.state.is_final and post.entry_id not in self._open:
                await self._resume(same)
                self._open.set_dirty(post.entry_id)
            resumed = self._open.get(post.entry_id)
            current = resumed.record if resumed is not None else same
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
            other = await asyncio.to_thread(self._archive.by_run, self._means.camera.name, spec.run)
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
        self._open.add(fulfilment)
        await self._requests.put(
            record, lead_token=self._means.lead_token, counter="requests_accepted", dealt_with=(post.entry_id,)
        )
        log.info("request accepted", request_id=record.request_id, source=record.source, label=spec.label)
        self._open.set_dirty(record.request_id)

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
            await self._open.tell(fulfilment, await self._board.now_ms())
        else:
            log.warning("no such request to cancel", request_id=request_id[:60])
        await self._requests.dealt_with([post.entry_id])


def _outside(post: Post) -> dict[str, str]:
    text = post.fields.get("outside")
    if not text:
        return {}
    document = read_json(text, what="outside")
    if not isinstance(document, dict):
        return {}
    return {str(name)[:60]: str(value)[:4000] for name, value in list(document.items())[:30]}
