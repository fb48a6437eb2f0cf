"""A pause between two attempts, or between two signs of life: a wait that nothing but its time or a cancellation ends.

The one place that has it. Whatever can be waited for is waited for by its event, and `asyncio.sleep` is a banned call,
so that nobody polls for what could be told.
"""

import asyncio
import contextlib


async def pause(seconds: float) -> None:
    """Wait for so long [s]; a time that has passed already is no wait."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0.0)):
            await asyncio.Event().wait()
