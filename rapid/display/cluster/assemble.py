"""Put together what the board tells of its workers. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from rapid.camera.models import Camera
from rapid.dispatch.models import BatchKey, BoardStatus, DeadLetter, WorkerState
from rapid.dispatch.worker_facts import WorkerFacts
from rapid.display.cluster.models import (
    ClusterView,
    DeadLetterView,
    DetectorWork,
    JobInHand,
    PublishView,
    QueueView,
    Spread,
    WorkerCondition,
    WorkerView,
)
from rapid.operations.models import ClusterOrder, SupervisorRecord
from rapid.publish.status import PublishStatus

_ORDER = (
    WorkerCondition.MISSING,
    WorkerCondition.RESTARTING,
    WorkerCondition.BUSY,
    WorkerCondition.QUEUED,
    WorkerCondition.FREE,
)
"""Of several workers of a detector the one that an operator should see."""


def cluster_view(
    camera: Camera,
    status: BoardStatus,
    facts: Mapping[str, WorkerFacts],
    letters: Iterable[DeadLetter],
    *,
    latencies: list[Spread],
    supervisors: list[SupervisorRecord],
    orders: list[ClusterOrder],
    viewers: int,
    publish: PublishStatus | None = None,
) -> ClusterView:
    """Return the cluster at one moment."""
    workers = [
        _worker(worker, facts.get(worker.worker_id, WorkerFacts()), camera, now_ms=status.now_ms)
        for worker in sorted(status.workers, key=lambda worker: _natural(worker.worker_id))
    ]
    return ClusterView(
        as_of=datetime.fromtimestamp(status.now_ms / 1000, tz=UTC),
        mode=status.mode.value,
        leader=status.leader,
        running=status.running,
        delayed=status.delayed,
        gathers_due=status.gathers_due,
        gathers_running=status.gathers_running,
        n_dead_letters=status.dead_letters,
        viewers=viewers,
        workers=workers,
        detectors=_detectors(workers, camera),
        queues=[
            QueueView(
                pool=queue.pool,
                current=queue.current,
                backlog=queue.backlog,
                free_workers=queue.parked,
                oldest_exposure=queue.oldest,
            )
            for queue in status.queues
        ],
        latencies=latencies,
        dead_letters=[_letter(letter, camera) for letter in letters],
        publish=None
        if publish is None
        else PublishView(status=publish, age_s=max(status.now_ms - publish.at_ms, 0) / 1000),
        counters=status.counters,
        supervisors=supervisors,
        orders=orders,
    )


def condition_of(worker: WorkerState, facts: WorkerFacts) -> WorkerCondition:
    """Return what an operator is told of a worker."""
    if worker.state == "silent":
        return WorkerCondition.MISSING
    if facts.is_restarting:
        return WorkerCondition.RESTARTING
    if worker.jobs:
        return WorkerCondition.BUSY
    return WorkerCondition.QUEUED if facts.n_own else WorkerCondition.FREE


def _worker(worker: WorkerState, facts: WorkerFacts, camera: Camera, *, now_ms: int) -> WorkerView:
    return WorkerView(
        worker_id=worker.worker_id,
        condition=condition_of(worker, facts),
        jobs=[_job(job_id, camera) for job_id in worker.jobs],
        pools=[pool for pool in worker.pools.split(",") if pool],
        pinned=sorted(int(part) for part in worker.pinned.replace(",", " ").split() if part.isdigit()),
        host=worker.host,
        heartbeat_age_s=max(now_ms - worker.seen_ms, 0) / 1000,
        memory_mb=facts.memory_mb,
        since_s=None if facts.since_ms is None or not worker.jobs else max(now_ms - facts.since_ms, 0) / 1000,
    )


def _job(job_id: str, camera: Camera) -> JobInHand:
    batch_id, _, detector = job_id.rpartition(".")
    key, number = BatchKey.parse(batch_id), int(detector)
    return JobInHand(
        job_id=job_id,
        run=key.run,
        exposure_id=key.exposure_id,
        detector=number,
        detector_name=_name(camera, number),
        pipeline=key.pipeline,
    )


def _name(camera: Camera, detector: int) -> str:
    place = camera.by_id.get(detector)
    return f"detector {detector}" if place is None else place.name


def _detectors(workers: list[WorkerView], camera: Camera) -> list[DetectorWork]:
    """Return detectors that somebody is pinned to or works on; the worker to worry about first.

    Where all workers are pinned, a science detector that none is pinned to would never be processed: it is missing.
    """
    found: dict[int, list[tuple[WorkerView, str | None]]] = {}
    for worker in workers:
        at_work = {job.detector: job.job_id for job in worker.jobs}
        for detector in {*worker.pinned, *at_work}:
            found.setdefault(detector, []).append((worker, at_work.get(detector)))
    work = []
    for detector, theirs in sorted(found.items()):
        # A worker pinned to several detectors is busy with one of them only.
        conditions = [
            WorkerCondition.QUEUED if worker.condition is WorkerCondition.BUSY and job is None else worker.condition
            for worker, job in theirs
        ]
        work.append(
            DetectorWork(
                detector=detector,
                condition=min(conditions, key=_ORDER.index),
                workers=[worker.worker_id for worker, _ in theirs],
                job_id=next((job for _, job in theirs if job), None),
            )
        )
    if workers and all(worker.pinned for worker in workers):
        work += [
            DetectorWork(detector=detector, condition=WorkerCondition.MISSING, workers=[])
            for detector in sorted(camera.science_ids - found.keys())
        ]
    return work


def _letter(letter: DeadLetter, camera: Camera) -> DeadLetterView:
    detector = letter.detector
    return DeadLetterView(
        job_id=letter.job_id,
        exposure_id=letter.batch.exposure_id,
        detector=detector,
        detector_name=None if detector is None else _name(camera, detector),
        pipeline=letter.batch.pipeline,
        code=str(letter.error.get("code", "")),
        message=str(letter.error.get("message", "")),
        traceback=letter.error.get("traceback"),
        attempts=letter.attempts,
        at=datetime.fromtimestamp(letter.at_ms / 1000, tz=UTC),
    )


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return what sorts worker-2 before worker-10."""
    parts = "".join(c if c.isdigit() else f" {c} " for c in name).split()
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
