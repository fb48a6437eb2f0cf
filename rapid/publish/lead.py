"""The right to publish: of several publish roles of a camera one sends, the others stand by.

A lease on the board, renewed three times in its life. Who cannot renew it stops sending before it ends, by its own
monotonic clock, so that what the next holder sends is not overwritten later by an older version. One PUT that is under way at that
moment cannot be called back: the next holder therefore compares with the bucket once more after the longest time that
one takes (`rapid.publish.role`).
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from rapid.dispatch.board import AsyncBoard
from rapid.errors import RapidError, StoreError
from rapid.publish.store import resign_lead, take_lead, wait_for_lead

log = structlog.get_logger()

TTL_S = 15.0
"""A role that was killed is replaced after so long; a pause of the process or of the board may last two thirds of it."""

RETRY_S = 1.0

MARGIN = 0.9
"""Part of a lease's time after which its holder counts it as over: clocks differ, a send begins a moment later."""


class Lead:
    """The right to publish to a camera's destinations.

    Parameters
    ----------
    name
        Of the process, for people; made unique, as two processes may have the same.
    ttl_s
        How long it lasts without being renewed [s].
    """

    def __init__(self, board: AsyncBoard, name: str, *, ttl_s: float = TTL_S) -> None:
        self._board = board
        self._who = f"{name}/{secrets.token_hex(4)}"
        self._ttl_s = ttl_s
        self._until = 0.0

    def is_held(self) -> bool:
        """Whether it is ours at this moment. From any thread."""
        return time.monotonic() < self._until

    async def try_to_take(self) -> float:
        """Take or renew it; return 0 if it is ours then, else for how long at most it is another's [s].

        Raises
        ------
        StoreError
            Raised if the board does not answer.
        """
        # From before the question: the answer may have been under way for long.
        begin = time.monotonic()
        ttl_ms = int(self._ttl_s * 1000)
        is_ours, lasts_s = await self._board.connection.run(take_lead(self._board.prefix, self._who, ttl_ms))
        self._until = begin + MARGIN * lasts_s if is_ours else 0.0
        return 0.0 if is_ours else lasts_s

    async def wait_until_free(self, timeout_s: float) -> None:
        """Wait until whoever has it gives it up, at most so long."""
        await self._board.connection.run(wait_for_lead(self._board.prefix, timeout_s))

    async def keep(self) -> None:
        """Renew it in time; return once it is lost."""
        while True:
            await _pause(self._ttl_s / 3 if self.is_held() else RETRY_S)
            try:
                if await self.try_to_take() > 0.0:
                    return
            except StoreError as error:
                # While the board is away nobody else can take it either. Sending pauses when its time is over.
                log.warning("cannot renew the right to publish", error=error.message)

    async def resign(self) -> None:
        """Give it up, so that the next one need not wait; a board that is away is no error."""
        self._until = 0.0
        with contextlib.suppress(RapidError):
            await self._board.connection.run(resign_lead(self._board.prefix, self._who))


class Turns:
    """What a role does while the right is its own, begun anew each time.

    Parameters
    ----------
    begin
        Returns what to run side by side: none of it ends by itself.
    on_standby
        Called when the right is another's.
    """

    def __init__(
        self, lead: Lead, begin: Callable[[], list[Coroutine[Any, Any, None]]], *, on_standby: Callable[[], None]
    ) -> None:
        self._lead = lead
        self._begin = begin
        self._on_standby = on_standby
        self._steps: list[asyncio.Task[None]] = []
        self._is_stopping = False

    async def run(self) -> None:
        """Take turns until cancelled; raise what a step raises."""
        while True:
            try:
                wait_s = await self._lead.try_to_take()
                if wait_s > 0.0:
                    log.info("another role publishes: standing by")
                    self._on_standby()
                    await self._lead.wait_until_free(wait_s)
                    continue
            except StoreError as error:
                log.warning("cannot ask for the right to publish", error=error.message)
                await _pause(RETRY_S)
                continue
            await self._take_turn()

    async def stop_steps(self) -> None:
        """End what runs, and go on renewing the right: what waits is still to be sent."""
        self._is_stopping = True
        await _end(*self._steps)

    async def _take_turn(self) -> None:
        log.info("publishing")
        keeping = asyncio.create_task(self._lead.keep())
        self._steps = [asyncio.create_task(step) for step in self._begin()]
        try:
            done, _ = await asyncio.wait({keeping, *self._steps}, return_when=asyncio.FIRST_COMPLETED)
            if self._is_stopping:
                await keeping
            for task in done - {keeping}:
                task.result()
        finally:
            await _end(keeping, *self._steps)
        log.warning("the right to publish was lost")


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pause(seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
