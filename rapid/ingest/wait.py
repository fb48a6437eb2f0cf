"""Wait until raws are in the repository: for whoever wants to begin then, and no sooner."""

import asyncio

from rapid.dispatch.board import AsyncBoard
from rapid.ingest import store


async def wait_for_ingested(
    board: AsyncBoard, exposure_id: int, detectors: frozenset[int] | None = None, *, timeout_s: float
) -> frozenset[int]:
    """Wait for raws of an exposure.

    Parameters
    ----------
    detectors
        Which to wait for; None for one, whichever.
    timeout_s
        How long to wait at most [s].

    Returns
    -------
    detectors : frozenset of int
        Those of the exposure that are in, of the last three days; perhaps fewer than were waited for.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    # The stream's end is taken before the set is read: what comes in between is seen twice, never not at all.
    after = await board.connection.run(store.last_ingested_id(board.prefix))
    told = await board.connection.run(store.get_told(board.prefix, exposure_id))
    while True:
        if (told if detectors is None else told >= detectors) or loop.time() >= deadline:
            return told
        wait_s = min(max(deadline - loop.time(), 0.001), store.BLOCK_S)
        messages = await board.connection.run(store.follow_ingested(board.prefix, after, timeout_s=wait_s))
        for after, message in messages:  # noqa: B007 - the last one's is where the next read goes on
            if message.exposure_id == exposure_id and message.dataset_type == "raw":
                told |= frozenset(message.detectors)
