"""Read what the server-side functions answer into models."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from rapid.dispatch.models import (
    BatchKey,
    BatchState,
    BoardStatus,
    Completion,
    DeadLetter,
    Event,
    EventKind,
    GatherJob,
    Job,
    PostReceipt,
    Priority,
    QueueDepth,
    WorkerMode,
    WorkerState,
)
from rapid.errors import LeaseLostError
from rapid.results.models import DetectorState, DetectorStatus, GatherReason


@lru_cache(maxsize=64)
def _parse_spec(text: bytes) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(text)
    return spec


@lru_cache(maxsize=256)
def parse_key(batch_id: str) -> BatchKey:
    """Read a batch id, remembered."""
    return BatchKey.parse(batch_id)


def decode_jobs(message: bytes) -> tuple[Job, ...]:
    """Read the message a worker gets: facts of the jobs, a newline, the spec of their batch."""
    head, _, spec_text = message.partition(b"\n")
    facts = json.loads(head)
    spec = _parse_spec(spec_text)
    batch = parse_key(facts["batch"])
    common = {
        "batch": batch,
        "camera": spec["camera"],
        "image_type": spec["image_type"],
        "priority": Priority(facts["priority"]),
        "lease_ms": facts["lease_ms"],
        "time_limit_ms": spec["time_limit_ms"],
        "posted_ms": facts["posted_ms"],
        "claimed_ms": facts["claimed_ms"],
        "config": spec["config"],
        "inputs": tuple(spec["inputs"]),
        "mode": WorkerMode(facts.get("mode", WorkerMode.CONSUMING)),
    }
    return tuple(
        Job(
            job_id=batch.job_id(detector),
            detector=detector,
            raw_uri=raw_uri,
            attempt=attempt,
            token=int(token),
            **common,
        )
        for detector, raw_uri, attempt, token in facts["jobs"]
    )


def next_of(completion: Completion) -> Job | None:
    """Return the next job after a single one was completed.

    Raises
    ------
    LeaseLostError
        Raised if its result was refused.
    """
    for job_id in completion.refused:
        raise LeaseLostError(f"the lease on {job_id} was given to another", what=job_id)
    return completion.following[0] if completion.following else None


def _numbers(items: Iterable[bytes]) -> frozenset[int]:
    return frozenset(int(item) for item in items)


def _pairs(flat: list[bytes]) -> Iterable[tuple[int, bytes]]:
    return ((int(flat[i]), flat[i + 1]) for i in range(0, len(flat), 2))


def _optional_int(text: bytes) -> int | None:
    return int(text) if text else None


_FINISHED = DetectorStatus(state=DetectorState.FINISHED)
_RUNNING = DetectorStatus(state=DetectorState.RUNNING)
_WAITING = DetectorStatus(state=DetectorState.WAITING, reason="its raw has not arrived")
_QUEUED = DetectorStatus(state=DetectorState.QUEUED, reason="waits for a worker")


def _statuses(
    expected: frozenset[int],
    waiting: frozenset[int],
    running: frozenset[int],
    finished: frozenset[int],
    told: list[bytes],
) -> dict[int, DetectorStatus]:
    reasons = {detector: text.decode().partition("|") for detector, text in _pairs(told)}
    statuses = {}
    for detector in sorted(expected):
        if detector in finished:
            status = _FINISHED
        elif detector in running:
            status = _RUNNING
        elif detector in reasons:
            word, _, reason = reasons[detector]
            status = DetectorStatus(state=DetectorState(word), reason=reason or None)
        elif detector in waiting:
            status = _WAITING
        else:
            status = _QUEUED
        statuses[detector] = status
    return statuses


def _state_facts(reply: list[Any]) -> dict[str, Any]:
    """Return what both readings of a batch have in common: what a gather is told of it."""
    batch_id, fields, expected, waiting, running, finished, reasons, metrics = reply
    spec_text, info, _, posted, first, last, *_ = fields
    spec = _parse_spec(spec_text)
    expected_set, finished_set = _numbers(expected), _numbers(finished)
    values = json.loads(b"[" + b",".join(metrics[1::2]) + b"]")
    return {
        "camera": spec["camera"],
        "image_type": spec["image_type"],
        "expected": expected_set,
        "finished": finished_set,
        "detectors": _statuses(expected_set, _numbers(waiting), _numbers(running), finished_set, reasons),
        "metrics": dict(zip(map(int, metrics[::2]), values, strict=True)),
        "info": json.loads(info),
        "control": spec["control"],
        "key": parse_key(batch_id.decode()),
        "posted_ms": int(posted),
        "first_result_ms": _optional_int(first),
        "last_result_ms": _optional_int(last),
    }


def decode_state(reply: list[Any]) -> BatchState:
    """Read the reply of ``state``."""
    facts = _state_facts(reply)
    _, _, pool, _, _, _, version, gathering, final, gathered_n, _, _, priority = reply[1]
    return BatchState(
        **facts,
        priority=Priority(priority.decode()),
        pool=pool.decode(),
        version=int(version),
        gathering=gathering == b"1",
        changed=len(facts["finished"]) != int(gathered_n),
        is_expected_final=final == b"1",
    )


def decode_status(reply: bytes) -> BoardStatus:
    """Read the reply of ``status``."""
    facts = json.loads(reply)
    # An empty Lua table is an empty object in JSON, whatever it was meant to be.
    workers = tuple(WorkerState(**worker) for worker in facts.pop("workers") or [])
    queues = tuple(
        QueueDepth(
            parked=sum(
                1 for worker in workers if worker.state == "parked" and queue["pool"] in worker.pools.split(",")
            ),
            **queue,
        )
        for queue in sorted(facts.pop("queues") or [], key=lambda queue: str(queue["pool"]))
    )
    return BoardStatus(queues=queues, workers=workers, **facts)


def decode_letter(fields: list[bytes]) -> DeadLetter:
    """Read one entry of the reply of ``dead``."""
    job_id, error, attempts, at_ms, raw_uri, spec = fields
    return DeadLetter(
        job_id=job_id.decode(),
        error=json.loads(error),
        attempts=int(attempts),
        at_ms=int(at_ms),
        raw_uri=raw_uri.decode(),
        spec=json.loads(spec),
    )


def decode_events(event_id: bytes, flat: list[bytes]) -> list[Event]:
    """Read one entry of the event stream: an event, or the like events of several detectors."""
    facts = {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
    batch_id = facts["batch"] or None
    detectors = facts["detector"].split(",")
    data = json.loads(facts["data"])
    return [
        Event(
            event_id=event_id.decode(),
            kind=EventKind(facts["kind"]),
            at_ms=int(facts["at_ms"]),
            batch_id=batch_id,
            exposure_id=parse_key(batch_id).exposure_id if batch_id else None,
            detector=int(detector) if detector else None,
            data=its_data,
        )
        for detector, its_data in zip(detectors, data if len(detectors) > 1 else [data], strict=True)
    ]


def decode_receipt(reply: list[Any]) -> PostReceipt:
    """Read the reply of ``post``."""
    created, started, queued, unexpected, priority = reply
    return PostReceipt(
        created=bool(created),
        started=started,
        queued=started + queued,
        unexpected=tuple(sorted(int(detector) for detector in unexpected)),
        priority=Priority(priority.decode()),
    )


def decode_gather(reply: list[Any]) -> GatherJob:
    """Read a gather from the reply of ``claim_gather``."""
    _, token, reason, due_ms, state_reply, lease_ms = reply
    facts = _state_facts(state_reply)
    return GatherJob(
        batch=facts.pop("key"),
        results=facts.pop("metrics"),
        reason=GatherReason(reason.decode()),
        version=int(state_reply[1][6]) + 1,
        token=int(token),
        lease_ms=lease_ms,
        due_ms=due_ms,
        **facts,
    )
