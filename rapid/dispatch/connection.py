"""Carry conversations with the board over a blocking or an asyncio connection.

Leaves what is said to `rapid.dispatch.commands`. Here are the connection's own worries: a server that
is away for a while (bounded retry with growing waits), a server without the functions (they are loaded),
and replies that are refusals (they become errors of ours). Every operation may be sent twice: the
server-side functions tell a repetition from a new call.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import redis
import redis.asyncio
import redis.connection
from redis.asyncio.retry import Retry as AsyncRedisRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.retry import Retry as RedisRetry

from rapid.dispatch.library import VERSION, is_loaded, library_source
from rapid.dispatch.talk import SLICE_S, Command, Talk
from rapid.errors import ConfigurationError, LeaseLostError, NotFoundError, RefusedError, StoreError

T = TypeVar("T")

ANSWER_S = 10.0
"""A server that takes longer than this over a command that does not wait is taken for dead."""

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0


def _waits(outage_s: float) -> Iterator[float]:
    """Yield the waits between attempts: doubling, one second at most, until the time is used up."""
    deadline = time.monotonic() + outage_s
    wait_s = FIRST_WAIT_S
    while (remaining := deadline - time.monotonic()) > 0:
        yield min(wait_s, remaining)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


def _checked(url: str) -> str:
    """Return a URL that the client can read; it may hold a password, so the words about it do not hold it."""
    try:
        redis.connection.parse_url(url)  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    except ValueError as error:
        raise ConfigurationError("redis", str(error)) from error
    return url


def _is_passing(error: RedisError) -> bool:
    """Whether the server may answer in a moment: away, starting, loading, or just lost its primary role."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return False
    if isinstance(error, RedisConnectionError | RedisTimeoutError | ReadOnlyError):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(
        ("LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")
    )


def _load() -> Talk[None]:
    listing = yield Command(("FUNCTION", "LIST", "LIBRARYNAME", f"rapid_{VERSION}"))
    if not is_loaded(listing):
        yield Command(("FUNCTION", "LOAD", "REPLACE", library_source()))


def _is_function_missing(error: RedisError) -> bool:
    return isinstance(error, ResponseError) and "Function not found" in str(error)


def _is_not_permitted(error: StoreError) -> bool:
    return error.facts.get("error") == NoPermissionError.__name__


def as_rapid_error(error: RedisError) -> Exception:
    """Return the error of ours that a refusal of the server stands for."""
    text = str(error)
    if text.startswith("RAPID "):
        _, code, what = text.split(" ", 2)
        if code == "lease_lost":
            return LeaseLostError(f"the lease on {what} was given to another", what=what)
        if code == "not_found":
            return NotFoundError("dead letter", what)
        if code == "expired":
            return RefusedError(f"{what}: its batch has left the board", reason=code)
        return RefusedError(what, reason=code)
    return StoreError(f"the board's server: {text}", error=type(error).__name__)


def _moved_to(error: RedisError) -> dict[str, Any] | None:
    """Return where in a cluster the board is, if that is what a node says.

    All keys of a board are in one slot, so one node has them all, and any node names it.
    """
    return {"host": error.host, "port": error.port} if isinstance(error, MovedError) else None


class BlockingConnection:
    """Drives conversations over a blocking client. Safe to share between threads."""

    def __init__(self, url: str, *, outage_s: float) -> None:
        self._url = url
        self._place: dict[str, Any] = {}
        self._client = self._open()
        self._outage_s = outage_s
        self._closing = threading.Event()

    def _open(self) -> Any:
        # Typed as Any: redis-py leaves its command methods without types.
        client: Any = redis.Redis.from_url(
            _checked(self._url),
            protocol=2,
            socket_timeout=SLICE_S + ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=RedisRetry(NoBackoff(), 0),
        )
        client.connection_pool.connection_kwargs.update(self._place)
        client.response_callbacks.clear()  # replies as they came: the commands' readers know them
        return client

    def _go_to(self, place: dict[str, Any]) -> None:
        """Talk to another node of the cluster from now on; nothing said: to the one of the URL."""
        if place != self._place:
            self._place, old = place, self._client
            self._client = self._open()
            old.close()

    def close(self) -> None:
        """Close the connections. A call that waits for the server to come back gives up."""
        self._closing.set()
        self._client.close()

    def run(self, talk: Talk[T]) -> T:
        """Hold a conversation and return what it ends in."""
        try:
            command = next(talk)
            while True:
                command = talk.send(self._send(command))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def load_library(self) -> None:
        """Make the server's functions those of this release; who may not waits for somebody who may."""
        waits = _waits(self._outage_s)
        while True:
            try:
                return self.run(_load())
            except StoreError as error:
                wait_s = next(waits, None) if _is_not_permitted(error) else None
                if wait_s is None or self._closing.wait(wait_s):
                    raise

    def _send(self, command: Command) -> Any:
        waits = _waits(self._outage_s)
        while True:
            try:
                return self._client.execute_command(*command.args)
            except RedisError as error:
                if _is_function_missing(error) and next(waits, None) is not None:
                    self.load_library()  # the server was restarted without its data (I2)
                    continue
                if (place := _moved_to(error)) and next(waits, None) is not None:
                    self._go_to(place)
                    continue
                wait_s = next(waits, None) if _is_passing(error) else None
                if wait_s is not None:
                    self._go_to({})  # another node may have taken over: the first one knows
                if wait_s is None or self._closing.wait(wait_s):
                    raise as_rapid_error(error) from error


class AsyncConnection:
    """Drives conversations over an asyncio client. Safe to share between tasks of one loop."""

    def __init__(self, url: str, *, outage_s: float) -> None:
        self._url = url
        self._place: dict[str, Any] = {}
        self._client = self._open()
        self._outage_s = outage_s
        self._closing = asyncio.Event()

    def _open(self) -> Any:
        client: Any = redis.asyncio.Redis.from_url(
            _checked(self._url),
            protocol=2,
            # Ours, see _send. The client's own sends within `asyncio.wait_for`, which before Python 3.12 loses a
            # cancellation that comes just as the command is on its way: a heartbeat would outlive its job.
            socket_timeout=None,
            socket_connect_timeout=ANSWER_S,
            retry=AsyncRedisRetry(NoBackoff(), 0),
        )
        client.connection_pool.connection_kwargs.update(self._place)
        client.response_callbacks.clear()  # replies as they came: the commands' readers know them
        return client

    async def _go_to(self, place: dict[str, Any]) -> None:
        """See `BlockingConnection`."""
        if place != self._place:
            self._place, old = place, self._client
            self._client = self._open()
            await old.aclose()

    async def close(self) -> None:
        """Close the connections. A call that waits for the server to come back gives up."""
        self._closing.set()
        await self._client.aclose()

    async def run(self, talk: Talk[T]) -> T:
        """Hold a conversation and return what it ends in."""
        try:
            command = next(talk)
            while True:
                command = talk.send(await self._send(command))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def load_library(self) -> None:
        """See `BlockingConnection`."""
        waits = _waits(self._outage_s)
        while True:
            try:
                return await self.run(_load())
            except StoreError as error:
                wait_s = next(waits, None) if _is_not_permitted(error) else None
                if wait_s is None or await self._is_closed_within(wait_s):
                    raise

    async def _send(self, command: Command) -> Any:
        waits = _waits(self._outage_s)
        while True:
            try:
                async with asyncio.timeout(command.block_s + ANSWER_S):
                    return await self._client.execute_command(*command.args)
            except TimeoutError as error:
                wait_s = next(waits, None)
                if wait_s is None or await self._is_closed_within(wait_s):
                    raise StoreError("the board's server: no answer in time", error="TimeoutError") from error
            except RedisError as error:
                if _is_function_missing(error) and next(waits, None) is not None:
                    await self.load_library()  # the server was restarted without its data (I2)
                    continue
                if (place := _moved_to(error)) and next(waits, None) is not None:
                    await self._go_to(place)
                    continue
                wait_s = next(waits, None) if _is_passing(error) else None
                if wait_s is not None:
                    await self._go_to({})  # another node may have taken over: the first one knows
                if wait_s is None or await self._is_closed_within(wait_s):
                    raise as_rapid_error(error) from error

    async def _is_closed_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._closing.wait()
        except TimeoutError:
            return False
