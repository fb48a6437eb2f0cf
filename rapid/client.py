"""Ask for work and wait for the answer, from a script or a notebook.

Three lines::

    client = RapidClient("redis://localhost:6379/0", "LSSTCam")
    answer = client.request(exposures=[2026112000012], pipeline="quicklook").wait(timeout_s=60)
    print(answer.exposures[0].metrics["psf_fwhm_arcsec_median"])

`AsyncRapidClient` is the same for asyncio: observing scripts are coroutines. Both talk to Redis and to nothing else, and
wait by blocking reads: no polling. What the pages show comes as tables from `rapid.client_tables`, over HTTP.
"""

import getpass
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Self

from rapid.dispatch.connection import AsyncConnection, BlockingConnection
from rapid.errors import NotFoundError, RapidError
from rapid.requests.answers import RequestAnswer
from rapid.requests.models import RequestChange, RequestRecord, RequestSpec, RequestState
from rapid.requests.reading import read_spec
from rapid.requests.store import AsyncRequestBoard, RequestBoard

ACCEPT_S = 5.0
"""How long a new request waits to hear whether it was accepted; without a head it is taken in later."""

OUTAGE_S = 10.0
"""How long a call goes on trying to reach a server that does not answer."""


class RequestNotDoneError(RapidError):
    """A request was refused, failed, was cancelled or expired.

    Attributes
    ----------
    record
        The request as it ended; its ``answer`` has what was finished, its ``error`` the reason.
    """

    code = "request_not_done"

    def __init__(self, record: RequestRecord) -> None:
        self.record = record
        fault = record.error
        reason = f": {fault.message}" if fault else ""
        super().__init__(
            f"request {record.request_id} {record.state.value}{reason}",
            request_id=record.request_id,
            state=record.state.value,
            field=fault.field if fault else None,
            reason=fault.code if fault else None,
        )


class NoAnswerError(RapidError, TimeoutError):
    """A request did not end within the time one was ready to wait; it goes on."""

    code = "no_answer_yet"


def make_spec(
    *,
    select: Mapping[str, Any] | None = None,
    exposures: int | str | Iterable[Any] | None = None,
    group: str | Mapping[str, Any] | None = None,
    next: int | Mapping[str, Any] | None = None,  # noqa: A002 - the schema's word
    sequence: int | None = None,
    client_key: str | None = None,
    **others: Any,
) -> RequestSpec:
    """Return a request from keyword arguments, short forms written out.

    Parameters
    ----------
    exposures
        An id, a range (``"2026112000012-2026112000020"``), or a list of them.
    group
        GROUPID.
    next
        How many, or ``{"n": 3, "image_type": "bias"}``.
    sequence
        Any exposure of the sequence.
    **others
        Further fields of `RequestSpec`: ``pipeline``, ``detectors``, ``config``, ``combine``, ``priority``, ``deadline_s``,
        ``guaranteed``, ``reuse``, ``run``, ``label``.

    Raises
    ------
    BadRequestError
        Raised, naming the field, for what is not valid.

    Examples
    --------
    >>> make_spec(exposures=2026112000012, pipeline="quicklook").select.listed()
    (2026112000012,)
    """
    chosen: dict[str, Any] = dict(select or {})
    if exposures is not None:
        chosen["exposures"] = [exposures] if isinstance(exposures, int | str) else list(exposures)
    if group is not None:
        chosen["group"] = {"group_id": group} if isinstance(group, str) else dict(group)
    if next is not None:
        chosen["next"] = {"n": next} if isinstance(next, int) else dict(next)
    if sequence is not None:
        chosen["sequence"] = {"of": sequence}
    # A key of our own: a post that is sent again because its answer was lost must not be done twice.
    return read_spec({**others, "select": chosen, "client_key": client_key or f"auto-{uuid.uuid4().hex}"})


def _answer_of(record: RequestRecord | None, ticket: str, timeout_s: float) -> RequestAnswer:
    if record is None:
        raise NoAnswerError(f"request {ticket} has not ended within {timeout_s:g} s", request_id=ticket)
    if record.state is not RequestState.DONE or record.answer is None:
        raise RequestNotDoneError(record)
    return record.answer


def _whoever() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


class Request:
    """A request that was posted.

    Attributes
    ----------
    ticket
        Its id; if it repeats an earlier one, `record` has that one's.
    """

    def __init__(self, board: RequestBoard, ticket: str, *, by: str) -> None:
        self.ticket = ticket
        self._board = board
        self._by = by

    def record(self) -> RequestRecord:
        """Return the request as it stands.

        Raises
        ------
        NotFoundError
            Raised if it was never posted, or is forgotten.
        """
        return self._board.read(self.ticket)

    def wait(self, timeout_s: float = 600.0) -> RequestAnswer:
        """Wait for the answer.

        Raises
        ------
        RequestNotDoneError
            Raised if it was refused, failed, was cancelled or expired.
        NoAnswerError
            Raised, as a `TimeoutError`, if it has not ended in time; it goes on.
        """
        return _answer_of(self._board.wait(self.ticket, timeout_s=timeout_s), self.ticket, timeout_s)

    def wait_accepted(self, timeout_s: float = ACCEPT_S) -> bool:
        """Wait until a head has looked at it; whether one has.

        Raises
        ------
        RequestNotDoneError
            Raised if it was refused.
        """
        record = self._board.wait(self.ticket, timeout_s=timeout_s, after_version=0)
        if record is not None and record.state is RequestState.REFUSED:
            raise RequestNotDoneError(record)
        return record is not None

    def follow(self, timeout_s: float = 600.0) -> Iterator[RequestChange]:
        """Yield every change up to the end, or until nothing changes for so long."""
        ticket, last = self.ticket, "0"
        while changes := self._board.changes(ticket, last, timeout_s=timeout_s):
            for entry, change in changes:
                if change.request_id != ticket:
                    ticket, last = change.request_id, "0"
                    break
                last = entry
                yield change
                if change.state.is_final:
                    return

    def cancel(self) -> None:
        """Ask for its end: jobs that have not started leave the board. `wait` tells when it has ended."""
        self._board.cancel(self.ticket, by=self._by)


class RapidClient:
    """Ask for work and wait for it.

    Parameters
    ----------
    redis_url
        Redis that holds the board.
    camera
        Name of the camera.
    by
        Who asks, for the record; the user's name if left out.
    """

    def __init__(self, redis_url: str, camera: str, *, by: str | None = None, outage_s: float = OUTAGE_S) -> None:
        self._connection = BlockingConnection(redis_url, outage_s=outage_s)
        self._board = RequestBoard(self._connection, camera)
        self._by = _whoever() if by is None else by

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def request(self, *, accept_s: float = ACCEPT_S, **fields: Any) -> Request:
        """Post a request; see `make_spec` for the fields.

        Parameters
        ----------
        accept_s
            How long to wait to hear that it was accepted; 0 to go on at once.

        Raises
        ------
        BadRequestError
            Raised, naming the field, for what is not valid.
        RequestNotDoneError
            Raised if it was refused.
        """
        return self.submit(make_spec(**fields), accept_s=accept_s)

    def submit(self, spec: RequestSpec, *, accept_s: float = ACCEPT_S) -> Request:
        """Post a request that is written out; as `request`."""
        request = self.find(self._board.post(spec, by=self._by))
        if accept_s > 0:
            request.wait_accepted(accept_s)
        return request

    def find(self, request_id: str) -> Request:
        """Return the handle of a request that was posted before."""
        return Request(self._board, request_id, by=self._by)

    def recent(self, limit: int = 50, *, refused: bool = False) -> list[RequestRecord]:
        """Return requests, newest first: accepted ones, or refused ones."""
        return self._board.recent(limit, refused=refused)


class AsyncRequest:
    """A request that was posted; `Request` for asyncio."""

    def __init__(self, board: AsyncRequestBoard, ticket: str, *, by: str) -> None:
        self.ticket = ticket
        self._board = board
        self._by = by

    async def record(self) -> RequestRecord:
        """See `Request.record`."""
        return await self._board.read(self.ticket)

    async def wait(self, timeout_s: float = 600.0) -> RequestAnswer:
        """See `Request.wait`."""
        return _answer_of(await self._board.wait(self.ticket, timeout_s=timeout_s), self.ticket, timeout_s)

    async def wait_accepted(self, timeout_s: float = ACCEPT_S) -> bool:
        """See `Request.wait_accepted`."""
        record = await self._board.wait(self.ticket, timeout_s=timeout_s, after_version=0)
        if record is not None and record.state is RequestState.REFUSED:
            raise RequestNotDoneError(record)
        return record is not None

    async def follow(self, timeout_s: float = 600.0) -> AsyncIterator[RequestChange]:
        """See `Request.follow`."""
        ticket, last = self.ticket, "0"
        while changes := await self._board.changes(ticket, last, timeout_s=timeout_s):
            for entry, change in changes:
                if change.request_id != ticket:
                    ticket, last = change.request_id, "0"
                    break
                last = entry
                yield change
                if change.state.is_final:
                    return

    async def cancel(self) -> None:
        """See `Request.cancel`."""
        await self._board.cancel(self.ticket, by=self._by)


class AsyncRapidClient:
    """`RapidClient` for asyncio.

    Examples
    --------
    >>> async with AsyncRapidClient(url, "LSSTCam") as client:  # doctest: +SKIP
    ...     sweep = await client.request(group="20261120-004", combine="focus_sweep")
    ...     answer = await sweep.wait(timeout_s=120)
    """

    def __init__(self, redis_url: str, camera: str, *, by: str | None = None, outage_s: float = OUTAGE_S) -> None:
        self._connection = AsyncConnection(redis_url, outage_s=outage_s)
        self._board = AsyncRequestBoard(self._connection, camera)
        self._by = _whoever() if by is None else by

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def request(self, *, accept_s: float = ACCEPT_S, **fields: Any) -> AsyncRequest:
        """See `RapidClient.request`."""
        return await self.submit(make_spec(**fields), accept_s=accept_s)

    async def submit(self, spec: RequestSpec, *, accept_s: float = ACCEPT_S) -> AsyncRequest:
        """See `RapidClient.submit`."""
        request = self.find(await self._board.post(spec, by=self._by))
        if accept_s > 0:
            await request.wait_accepted(accept_s)
        return request

    def find(self, request_id: str) -> AsyncRequest:
        """See `RapidClient.find`."""
        return AsyncRequest(self._board, request_id, by=self._by)

    async def recent(self, limit: int = 50, *, refused: bool = False) -> list[RequestRecord]:
        """See `RapidClient.recent`."""
        return await self._board.recent(limit, refused=refused)


def wait_for_record(client: RapidClient, request_id: str, *, timeout_s: float) -> RequestRecord | None:
    """Return a request once it has ended, however; None if it has not in time.

    Raises
    ------
    NotFoundError
        Raised if nobody has heard of it within a moment.
    """
    begin = time.monotonic()
    request = client.find(request_id)
    if not _is_heard_of(request, min(ACCEPT_S, timeout_s)):
        raise NotFoundError("request", request_id)
    try:
        request.wait(max(timeout_s - (time.monotonic() - begin), 0.001))
    except RequestNotDoneError as error:
        return error.record
    except NoAnswerError:
        return None
    return request.record()


def _is_heard_of(request: Request, timeout_s: float) -> bool:
    try:
        return request.wait_accepted(timeout_s)
    except RequestNotDoneError:
        return True
