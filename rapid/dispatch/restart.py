"""Tell workers to start their payload processes anew: said by an operator, heard by every worker at any time.

Workers hear of it by `Board.wait_for_order`.
"""

from rapid.dispatch.library import function_name
from rapid.dispatch.talk import Command, Talk


def order_restart(prefix: str, pool: str = "", *, worker_id: str | None = None) -> Talk[int]:
    """Tell the workers that serve a pool, or all if it is empty, or one alone; ends in how many were told.

    A worker that runs a job finishes it first, or gives it back after its drain time.
    """
    one = () if worker_id is None else (worker_id,)
    n_told = yield Command(("FCALL", function_name("restart_workers"), 1, prefix, pool, *one))
    return int(n_told)
