"""Join what Kubernetes says of pods with what the board says of workers: pure."""

from collections.abc import Collection, Sequence

from rapid.cluster.models import ClusterStatus, Group, Pod, PodRow
from rapid.dispatch.models import BoardStatus, WorkerState

GONE = frozenset({"silent"})


def join_status(
    namespace: str,
    camera: str,
    groups: Sequence[Group],
    pods: Sequence[Pod],
    board: BoardStatus | None,
    wanted: Collection[int],
    *,
    pool: str = "science",
    board_error: str = "",
) -> ClusterStatus:
    """Return the whole picture.

    Parameters
    ----------
    board
        None if it does not answer.
    wanted
        Detectors that should have a worker.
    pool
        Pool whose workers process them.
    """
    workers = {worker.worker_id: worker for worker in board.workers} if board else {}
    rows = tuple(_row(pod, workers.get(pod.name), board) for pod in pods)
    living = [worker for worker in workers.values() if worker.state not in GONE and pool in worker.pools.split(",")]
    is_open = any(not worker.pinned for worker in living)
    owned = {detector for worker in living for detector in _numbers(worker.pinned)}
    names = {pod.name for pod in pods}
    return ClusterStatus(
        namespace=namespace,
        camera=camera,
        groups=tuple(groups),
        pods=rows,
        strangers=tuple(sorted(set(workers) - names)),
        unowned=() if is_open or board is None else tuple(sorted(set(wanted) - owned)),
        board_error=board_error,
    )


def _row(pod: Pod, worker: WorkerState | None, board: BoardStatus | None) -> PodRow:
    if worker is None or board is None:
        return PodRow(pod=pod)
    return PodRow(
        pod=pod,
        worker_state=worker.state,
        jobs=worker.jobs,
        pinned=tuple(sorted(_numbers(worker.pinned))),
        heartbeat_age_s=(board.now_ms - worker.seen_ms) / 1000,
    )


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.replace(",", " ").split()]
