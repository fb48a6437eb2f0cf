"""What the board knows that sizes are decided on."""

import statistics
from itertools import pairwise

from rapid.cluster.elastic import Facts, SizePolicy
from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey

N_RECENT = 12
"""Batches looked at for what jobs take, and how far apart exposures come."""

LONGEST_INTERVAL_S = 600.0
"""A longer pause between exposures says nothing about the cadence."""


def facts_of(board: Board, policy: SizePolicy) -> Facts:
    """Ask the board for what a group's size is decided on.

    Raises
    ------
    StoreError
        Raised if the board does not answer.
    """
    status = board.status()
    recent = board.recent(N_RECENT)
    pools = set(policy.pools)
    queues = [queue for queue in status.queues if queue.pool in pools]
    pipelines = list(dict.fromkeys(key.pipeline for key in recent)) or [""]
    loads = {pool: [board.load_of(pool, pipeline) for pipeline in pipelines] for pool in policy.pools}
    # Of pipelines that differ, the slowest: better a worker too many than an exposure too late.
    known = [load.job_s for of_pool in loads.values() for load in of_pool if load.job_s is not None]
    living = [worker for worker in status.workers if worker.state != "silent" and pools & set(worker.pools.split(","))]
    running = sum(of_pool[0].running_current for of_pool in loads.values())
    return Facts(
        backlog=sum(queue.backlog for queue in queues),
        current=sum(queue.current for queue in queues) + running,
        workers=len(living),
        job_s=max(known, default=None),
        cadence_s=_cadence_s(board, recent),
    )


def _cadence_s(board: Board, recent: list[BatchKey]) -> float | None:
    """Return the median time between the last exposures [s]; None with fewer than three."""
    posted: dict[int, int] = {}
    for key in recent:
        state = board.state(key)
        if state is not None and key.run == "prompt":
            posted[key.exposure_id] = min(state.posted_ms, posted.get(key.exposure_id, state.posted_ms))
    gaps = [(after - before) / 1000 for before, after in pairwise(sorted(posted.values()))]
    gaps = [gap for gap in gaps if 0 < gap <= LONGEST_INTERVAL_S]
    return statistics.median(gaps) if len(gaps) >= 2 else None
