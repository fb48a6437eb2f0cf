"""Follow the board's events through outages, for the tasks of the leading head that act on them."""

from collections.abc import AsyncIterator, Callable

import structlog

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import Event
from rapid.errors import StoreError
from rapid.pause import pause

log = structlog.get_logger()

WAIT_S = 30.0
"""How long one wait for events lasts, if nothing else is due."""

OUTAGE_PAUSE_S = 1.0
"""Before the next attempt to reach a board that is away."""


async def follow_events(
    board: AsyncBoard,
    last_id: str,
    *,
    wait_s: Callable[[], float] = lambda: WAIT_S,
    on_gap: Callable[[], None] = lambda: None,
) -> AsyncIterator[list[Event]]:
    """Yield the events after one, as they come, until cancelled.

    Parameters
    ----------
    last_id
        The newest event that is known; taken before whatever was looked at first, so that nothing falls between.
    wait_s
        Asked before every wait: how long it may last [s]. After a wait without events an empty list is yielded.
    on_gap
        Called when the board was away: of a board that comes back without its stream the events are lost.
    """
    while True:
        try:
            events = await board.events(last_id, timeout_s=wait_s())
        except StoreError as error:
            log.warning("events cannot be followed", error=error.message)
            await pause(OUTAGE_PAUSE_S)
            on_gap()
            continue
        if events:
            last_id = events[-1].event_id
        yield events
