"""Cluster status as RubinTV's page reads it: streams of JSON documents in Redis.

Formats: ``background/clusterstatushandler.py`` of lsst-ts/rubintv. A stream ``stream:CLUSTER_STATUS_*`` has entries with
one field ``data``: by the id of a cell, ``{"type": "worker_status", "status": "free|busy|missing|restarting|guest"}``
or a queue's length as text; ``worker_count`` tells how many cells there are, ``text_status`` fills the table of other
queues. The page reads the last entry, so that two are enough.

The names have no camera in them: of several cameras on one Redis database one may write them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rapid.camera.models import Camera, Purpose
from rapid.dispatch.models import BatchKey, BatchState, BoardStatus, WorkerState
from rapid.dispatch.talk import Command, Talk
from rapid.publish.status import DestinationStatus
from rapid.results.models import DetectorState

STREAM = "stream:CLUSTER_STATUS_"
MAXLEN = 2
"""As the page expects: the last entry counts."""

EXPIRE_S = 900
"""Written anew whenever something changes, and every few seconds: a status that nobody keeps goes away."""

SILENT = "silent"


Document = dict[str, dict[str, str]]


@dataclass(frozen=True)
class ClusterView:
    """One reading of the board."""

    status: BoardStatus
    batches: Sequence[BatchState] = ()
    """The newest few, newest first."""

    destinations: Sequence[DestinationStatus] = ()
    restarting: frozenset[str] = field(default_factory=frozenset)
    """Workers that were told to start anew, and have not been heard of since."""


def decide_streams(camera: Camera, view: ClusterView) -> dict[str, Document]:
    """Return the document of every stream, by what follows ``CLUSTER_STATUS_``. Pure."""
    corners = [detector.id for detector in camera.detectors if detector.purpose is Purpose.WAVEFRONT]
    imaging = [
        detector.id for detector in camera.detectors if detector.purpose not in {Purpose.WAVEFRONT, Purpose.GUIDER}
    ]
    workers = view.status.workers
    science = [worker for worker in workers if _serves(worker, "science")]
    wavefront = [worker for worker in workers if _serves(worker, "wavefront")]
    loose = [worker for worker in workers if not worker.pinned]
    streams = {
        "SFM_SET_0": _cells(imaging, science, view),
        "SPAREWORKERS_SET_0": _numbered(loose, view),
        "SFM_STEP1B_SET_0": _gathers(view),
        "OTHER_QUEUES": _queues(view),
    }
    if corners:
        streams["AOS_SET_0"] = _cells(corners, wavefront or science, view)
    return streams


def _serves(worker: WorkerState, pool: str) -> bool:
    return pool in worker.pools.replace(",", " ").split()


def _cells(detectors: Sequence[int], workers: Sequence[WorkerState], view: ClusterView) -> Document:
    """Return the state of each detector's place.

    A detector with a worker of its own (pinned) has that worker's state; any other is busy while a worker runs it, has a
    number while jobs of it wait, is free while somebody could take it, and is missing if nobody could.
    """
    running: dict[int, str] = {}
    pinned: dict[int, list[WorkerState]] = {}
    newest = max((batch.key.exposure_id for batch in view.batches), default=0)
    for worker in workers:
        for word in worker.pinned.replace(",", " ").split():
            if word.isdigit():
                pinned.setdefault(int(word), []).append(worker)
        for job in worker.jobs if worker.state != SILENT else ():
            last = job.rpartition(".")[2]
            if last.isdigit():
                # RubinTV's word for a worker that runs something else than what its place is for.
                running[int(last)] = "busy" if _is_of(job, newest) else "guest"
    queued = Counter(
        detector
        for batch in view.batches
        for detector, status in batch.detectors.items()
        if status.state is DetectorState.QUEUED
    )
    anyone = any(worker.state != SILENT and not worker.pinned for worker in workers)
    document: Document = {}
    for detector in detectors:
        own = [worker for worker in pinned.get(detector, ()) if worker.state != SILENT]
        if detector in running:
            state = running[detector]
        elif queued[detector]:
            state = str(queued[detector])
        elif any(worker.worker_id in view.restarting for worker in pinned.get(detector, ())):
            state = "restarting"
        else:
            state = "free" if own or (anyone and detector not in pinned) else "missing"
        document[str(detector)] = _worker_status(state)
    return document


def _numbered(workers: Sequence[WorkerState], view: ClusterView) -> Document:
    """Return the workers that belong to no detector, in order of their names."""
    newest = max((batch.key.exposure_id for batch in view.batches), default=0)
    document: Document = {}
    for number, worker in enumerate(sorted(workers, key=lambda worker: worker.worker_id)):
        if worker.worker_id in view.restarting:
            state = "restarting"
        elif worker.state == SILENT:
            state = "missing"
        elif worker.jobs:
            state = "busy" if _is_of(worker.jobs[0], newest) else "guest"
        else:
            state = "free"
        document[str(number)] = _worker_status(state)
    document["numWorkers"] = {"type": "worker_count", "status": str(len(workers))}
    return document


def _is_of(job: str, exposure: int) -> bool:
    try:
        return BatchKey.parse(job.rpartition(".")[0]).exposure_id >= exposure
    except ValueError:
        return True


def _gathers(view: ClusterView) -> Document:
    busy = view.status.gathers_running
    due = view.status.gathers_due
    n = max(busy + (1 if due else 0), 1)
    document = {str(number): _worker_status("busy" if number < busy else "free") for number in range(n)}
    if due > busy:
        document[str(n - 1)] = _worker_status(str(due - busy))
    document["numWorkers"] = {"type": "worker_count", "status": str(n)}
    return document


def _queues(view: ClusterView) -> Document:
    status = view.status
    texts: dict[str, int | str] = {}
    for queue in status.queues:
        texts[f"{queue.pool}: current"] = queue.current
        texts[f"{queue.pool}: backlog"] = queue.backlog
    texts["gathers due"] = status.gathers_due
    texts["retries waiting"] = status.delayed
    texts["dead letters"] = status.dead_letters
    texts["worker mode"] = status.mode.value
    for destination in view.destinations:
        down = "" if destination.is_up else " (no answer)"
        dead = f", {destination.n_dead} given up" if destination.n_dead else ""
        texts[f"publish to {destination.name}"] = f"{destination.n_waiting}{down}{dead}"
    return {name: {"type": "text_status", "status": str(value)} for name, value in texts.items()}


def _worker_status(state: str) -> dict[str, str]:
    return {"type": "worker_status", "status": state}


def put_streams(streams: Mapping[str, Document]) -> Talk[None]:
    """Write the documents."""
    for name, document in streams.items():
        key = f"{STREAM}{name}"
        yield Command(("XADD", key, "MAXLEN", MAXLEN, "*", "data", json.dumps(document, ensure_ascii=False)))
        yield Command(("EXPIRE", key, EXPIRE_S))
