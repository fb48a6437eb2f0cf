"""Calls that may hang: a bucket that accepts a connection and says nothing must not hold up a stop.

`asyncio.to_thread` would: Python waits for the threads of its pools before it ends. These are not waited for; at the end of
the process a call that hangs is left behind, and what it did or did not write the next start finds out.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Return what a call returns, made in a thread of its own; raise what it raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def tell(set_it: Callable[[], None]) -> None:
        # The loop may have ended meanwhile: nobody is left to hear of it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else set_it())

    def run() -> None:
        try:
            result = context.run(call)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the call is waited for
            problem = error
            tell(lambda: future.set_exception(problem))
        else:
            tell(lambda: future.set_result(result))

    threading.Thread(target=run, daemon=True, name="publish-call").start()
    return await future
