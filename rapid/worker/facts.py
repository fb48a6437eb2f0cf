"""Tell the board what a worker and its payload processes take of memory: for people, no decision rests on it."""

import contextlib

import psutil
import structlog

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.worker_facts import tell_worker
from rapid.errors import StoreError
from rapid.pause import pause

log = structlog.get_logger()

EVERY_S = 10.0
"""Memory grows over minutes; a hundred workers are ten short calls a second."""


def memory_mb() -> float:
    """Return the resident memory of this process and all below it [MB].

    Pages that they share count more than once: it is what one sees of them in a list of processes.
    """
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            total += process.memory_info().rss
    return total / 1e6


async def tell_memory(board: AsyncBoard, worker_id: str, *, every_s: float = EVERY_S) -> None:
    """Tell it again and again until cancelled."""
    while True:
        try:
            await board.connection.run(tell_worker(board.prefix, worker_id, memory_mb=memory_mb()))
        except StoreError as error:
            log.warning("memory cannot be told", error=error.message)
        await pause(every_s)
