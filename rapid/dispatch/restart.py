"""Tell workers to start their payload processes anew: said by an operator, heard by every worker at any time."""

import time

from rapid.dispatch.commands import SLICE_S, Command, Talk
from rapid.dispatch.library import function_name


def order_restart(prefix: str, pool: str = "", *, worker_id: str | None = None) -> Talk[int]:
    """Tell the workers that serve a pool, or all if it is empty, or one alone; ends in how many were told.

    A worker that runs a job finishes it first, or gives it back after its drain time.
    """
    one = () if worker_id is None else (worker_id,)
    n_told = yield Command(("FCALL", function_name("restart_workers"), 1, prefix, pool, *one))
    return int(n_told)


def wait_for_restart(prefix: str, worker_id: str, timeout_s: float) -> Talk[bool]:
    """Wait, as a worker, to be told; ends in whether it was."""
    deadline = time.monotonic() + timeout_s
    while (remaining := deadline - time.monotonic()) > 0:
        block_s = min(max(remaining, 0.001), SLICE_S)
        reply = yield Command(("BLPOP", f"{prefix}restart:{worker_id}", f"{block_s:.3f}"), block_s)
        if reply is not None:
            return True
    return False
