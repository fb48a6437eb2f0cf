"""Requests over HTTP: post one, read it, wait for it, follow it, cancel it.

Waiting is a request that is answered late (``?wait_s=30``), or a stream of server-sent events; both block on the stream of
the request's changes, so that nobody polls. Who may change things is told by `rapid.access`.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, StreamingResponse

from rapid import access as access_module
from rapid.access import CHANGE_ERRORS, Access, ErrorAnswer, Principal, error_document
from rapid.camera.models import Camera
from rapid.errors import NotFoundError, RapidError
from rapid.pipeline.models import PipelineBook
from rapid.requests.checks import check_spec
from rapid.requests.faults import BadRequestError, QueueFullError
from rapid.requests.models import (
    KEY,
    REQUEST_ID,
    RequestChange,
    RequestRecord,
    RequestSpec,
    RequestState,
    request_schema,
)
from rapid.requests.reading import read_request
from rapid.requests.store import AsyncRequestBoard

ACCEPT_S = 2.0
"""How long a post waits to hear whether it was accepted; without a head the answer is that it lies in the inbox."""

MAX_WAIT_S = 300.0
MAX_WAITERS = 200
"""Calls that wait at a time: each has a connection to Redis of its own."""

SIGN_OF_LIFE_S = 15.0
"""Between two comments of a stream in which nothing happens, so that proxies keep it open."""

RETRY_AFTER_S = 30

NamedPatterns = Callable[[], Awaitable[Mapping[str, str]]]
RequestId = Annotated[str, PathParameter(pattern=REQUEST_ID, description="As the post was answered.")]

ERRORS: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorAnswer, "description": "Something is not valid; `field` says what."},
    503: {"model": ErrorAnswer, "description": "The board does not answer, or too many are waiting."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such request."}}
FULL: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body cannot be read."},
    429: {"model": ErrorAnswer, "description": "There are as many requests as are taken at a time."},
}


class RequestView(BaseModel):
    """A request, and where it is."""

    self_url: str = Field(description="Where to read it again; add ?wait_s=30 to wait for its end.")
    request: RequestRecord


class RequestList(BaseModel):
    """Requests, newest first, their answers left out."""

    requests: list[RequestView]


class Waiters:
    """Bounds how many calls wait at a time."""

    def __init__(self, limit: int = MAX_WAITERS) -> None:
        self._free = limit

    async def __aenter__(self) -> None:
        if self._free <= 0:
            raise TooManyWaitersError
        self._free -= 1

    async def __aexit__(self, *_: object) -> None:
        self._free += 1


class TooManyWaitersError(Exception):
    """As many calls wait as may."""


def bad_request(error: BadRequestError) -> access_module.BadRequestError:
    """Return a fault of a request as HTTP answers it."""
    reason = error.message.removeprefix(f"{error.field}: ")
    return access_module.BadRequestError(error.field, reason)


def queue_full(error: QueueFullError) -> Response:
    """Return the answer of an inbox that is full."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return JSONResponse(error_document(error.code, error.message), status_code=429, headers=headers)


def too_many_waiters() -> Response:
    """Return the answer to one waiter too many."""
    message = f"{MAX_WAITERS} calls are waiting already"
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return JSONResponse(error_document("too_many_waiters", message), status_code=503, headers=headers)


async def post_and_hear(
    board: AsyncRequestBoard, spec: RequestSpec, *, by: str, door: str, outside: dict[str, str] | None = None
) -> RequestRecord:
    """Post a request and return what is heard of it within a moment."""
    ticket = await board.post(spec, by=by, door=door, outside=outside)
    record = await board.wait(ticket, timeout_s=ACCEPT_S, after_version=0)
    return record or await board.read(ticket)


def request_routes(
    board: AsyncRequestBoard,
    camera: Camera,
    book: PipelineBook,
    access: Access,
    *,
    named: NamedPatterns | None = None,
    waiters: Waiters | None = None,
) -> APIRouter:
    """Return the routes below ``/api/requests``.

    Parameters
    ----------
    named
        Gives the patterns saved by name.
    """
    router = APIRouter(tags=["requests"], responses=ERRORS)
    waiting = waiters or Waiters()

    def url_of(request: Request, request_id: str) -> str:
        return str(request.url_for("show_request", request_id=request_id).path)

    def view(request: Request, record: RequestRecord) -> RequestView:
        return RequestView(self_url=url_of(request, record.request_id), request=record)

    @router.post(
        "/api/requests",
        summary="Post a request",
        status_code=202,
        response_model=RequestView,
        responses=CHANGE_ERRORS | FULL,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schema_for_openapi(RequestSpec)}},
            }
        },
    )
    async def post_request(
        request: Request,
        response: Response,
        who: Annotated[Principal, Depends(access.may_change)],
        idempotency_key: Annotated[
            str | None, Header(pattern=KEY, description="As client_key: asking twice with one key is asking once.")
        ] = None,
    ) -> Any:
        """Answer with the request as it was accepted, and where to follow it."""
        try:
            spec = read_request(await request.body())
            if spec.client_key is None:
                # One of our own otherwise: Redis may get a post twice if its first answer was lost.
                spec = spec.model_copy(update={"client_key": idempotency_key or f"auto-{uuid.uuid4().hex}"})
            patterns = await named() if named is not None and isinstance(spec.detectors, str) else {}
            await asyncio.to_thread(lambda: check_spec(spec, camera, book, named=patterns))
            record = await post_and_hear(board, spec, by=who.name, door="http")
        except BadRequestError as error:
            with contextlib.suppress(RapidError):
                await board.tell_refused(await request.body(), by=who.name, door="http")
            raise bad_request(error) from error
        except QueueFullError as error:
            return queue_full(error)
        if record.state is RequestState.REFUSED and record.error is not None:
            status = 429 if record.error.code == "queue_full" else 422
            fault = record.error
            return JSONResponse(error_document(fault.code, fault.message, fault.field), status_code=status)
        response.headers["Location"] = url_of(request, record.request_id)
        return view(request, record)

    @router.get("/api/requests", summary="Requests, newest first")
    async def list_requests(
        request: Request,
        state: Annotated[RequestState | None, Query(description="Only those in this state.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="How many to look through.")] = 100,
    ) -> RequestList:
        """Return accepted requests; with ``state=refused`` those that were not."""
        records = await board.recent(limit, refused=state is RequestState.REFUSED)
        return RequestList(
            requests=[
                view(request, record.model_copy(update={"answer": None}))
                for record in records
                if state in {None, record.state}
            ]
        )

    @router.get("/api/requests/schema", summary="The JSON schema of a request")
    async def show_schema() -> dict[str, Any]:
        """Return the schema, version 1."""
        return request_schema()

    @router.get("/api/requests/{request_id}", summary="One request", responses=NOT_FOUND, response_model=RequestView)
    async def show_request(
        request: Request,
        request_id: RequestId,
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Wait up to so long for its end [s].")] = 0.0,
        after_version: Annotated[
            int | None, Query(ge=0, le=2**53, description="With wait_s: be content with any change after this version.")
        ] = None,
    ) -> Any:
        """Return the request as it stands, with its answer once it has ended."""
        record = await board.read(request_id)
        has_changed = after_version is not None and record.version > after_version
        if wait_s > 0 and not record.state.is_final and not has_changed:
            try:
                async with waiting:
                    changed = await board.wait(record.request_id, timeout_s=wait_s, after_version=after_version)
            except TooManyWaitersError:
                return too_many_waiters()
            record = changed or await board.read(request_id)
        return view(request, record)

    @router.get(
        "/api/requests/{request_id}/events",
        summary="Changes of a request, as server-sent events",
        responses=NOT_FOUND | {200: {"content": {"text/event-stream": {}}}},
        response_class=StreamingResponse,
    )
    async def follow_request(request_id: RequestId) -> Response:
        """Stream every change, from acceptance to the end; the stream ends with the request."""
        record = await board.read(request_id)
        try:
            await waiting.__aenter__()
        except TooManyWaitersError:
            return too_many_waiters()
        return StreamingResponse(
            _changes(board, record.request_id, waiting),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @router.delete(
        "/api/requests/{request_id}",
        summary="Cancel a request",
        status_code=202,
        responses=CHANGE_ERRORS | NOT_FOUND,
        response_model=RequestView,
    )
    async def cancel_request(
        request: Request, request_id: RequestId, who: Annotated[Principal, Depends(access.may_change)]
    ) -> Any:
        """Answer with the request; jobs that have not started leave the board. One that has ended stays as it is."""
        record = await board.read(request_id)
        if not record.state.is_final:
            await board.cancel(record.request_id, by=who.name)
            record = await board.wait(record.request_id, timeout_s=ACCEPT_S) or await board.read(request_id)
        return view(request, record)

    return router


async def _changes(board: AsyncRequestBoard, request_id: str, waiting: Waiters) -> AsyncIterator[str]:
    last = "0"
    try:
        while True:
            changes = await board.changes(request_id, last, timeout_s=SIGN_OF_LIFE_S)
            if not changes:
                try:
                    await board.read(request_id)
                except NotFoundError:
                    return
                yield ": still here\n\n"
            for entry, change in changes:
                last = entry
                yield _event(entry, change)
                if change.state.is_final:
                    return
    finally:
        await waiting.__aexit__()


def _event(entry: str, change: RequestChange) -> str:
    return f"id: {entry}\nevent: {change.state.value}\ndata: {change.model_dump_json()}\n\n"


def schema_for_openapi(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a body with its definitions in place: OpenAPI has another place for them."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            reference = node.get("$ref", "")
            if reference.startswith("#/$defs/"):
                return resolve(
                    {
                        **definitions[reference.removeprefix("#/$defs/")],
                        **{k: v for k, v in node.items() if k != "$ref"},
                    }
                )
            return {name: resolve(value) for name, value in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    found: dict[str, Any] = resolve(schema)
    return found
