"""Hear of keys that are set in Redis, by its keyspace events: no polling.

The server sends such events only if ``notify-keyspace-events`` has the flags ``K`` (channel by key) and ``$``
(string commands). They are switched on where that is allowed, and looked for where it is not. Events are not
kept for listeners that are away: after each connection whoever listens has to look at the keys themselves.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rapid.pause import pause

log = structlog.get_logger()

NEEDED = "K$"

SLICE_S = 5.0
"""Longest single wait: a connection that died without a word is noticed by the ping after it."""

RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 5.0

HOW_TO = "set 'notify-keyspace-events K$' in the server's configuration file, or by CONFIG SET as its administrator"

_GONE = {b"del", b"unlink", b"expired", b"evicted", b"expire", b"persist"}


@dataclass(frozen=True, slots=True)
class Connected:
    """The listener has just (re)connected: what was set meanwhile has to be looked for."""

    switched_on: bool | None
    """Whether the server sends events; None if it does not say."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """A key was written."""

    key: str


class KeyspaceListener:
    """Listens for keys being set.

    Parameters
    ----------
    url
        Of the Redis or Valkey. Its database number is part of the events' channel.
    pattern
        Glob pattern of keys.
    """

    def __init__(self, url: str, pattern: str) -> None:
        # No socket_timeout: with one the client sends within `asyncio.wait_for`, which may lose a cancellation.
        self._client: Any = redis.asyncio.Redis.from_url(
            url, protocol=2, socket_timeout=None, socket_connect_timeout=SLICE_S, retry=Retry(NoBackoff(), 0)
        )
        database = self._client.connection_pool.connection_kwargs.get("db") or 0
        self._channels = f"__keyspace@{database}__:{pattern}"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def listen(self) -> AsyncGenerator[Connected | KeySet, None]:
        """Yield what happens, without end: `Connected` first and after each lost connection, then keys that are set."""
        wait_s = RETRY_FIRST_S
        while True:
            subscription = self._client.pubsub()
            try:
                async with contextlib.aclosing(subscription):
                    await subscription.psubscribe(self._channels)
                    yield Connected(await self._switch_on())
                    wait_s = RETRY_FIRST_S
                    async for key in self._messages(subscription):
                        yield KeySet(key)
            except (RedisError, TimeoutError) as error:
                log.warning("keyspace events cannot be heard, trying again", error=str(error), wait_s=wait_s)
                await pause(wait_s)
                wait_s = min(2 * wait_s, RETRY_LONGEST_S)

    async def _messages(self, subscription: Any) -> AsyncIterator[str]:
        while True:
            message = await subscription.get_message(ignore_subscribe_messages=True, timeout=SLICE_S)
            if message is None:
                async with asyncio.timeout(SLICE_S):
                    await subscription.ping()  # finds out a connection that is dead
                continue
            if message["type"] == "pmessage" and message["data"] not in _GONE:
                yield message["channel"].decode(errors="replace").split(":", 1)[1]

    async def _switch_on(self) -> bool | None:
        try:
            flags = await self._client.config_get("notify-keyspace-events")
            now = str(flags.get("notify-keyspace-events", ""))
            if "K" in now and ("$" in now or "A" in now):
                return True
            await self._client.config_set("notify-keyspace-events", "".join(dict.fromkeys(now + NEEDED)))
        except RedisError as error:
            log.info("the server's keyspace events cannot be configured from here", error=str(error))
            return None
        return True
