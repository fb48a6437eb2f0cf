"""Read what the server-side functions answer into models."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from rapid.dispatch.models import (
    BatchKey,
    BatchState,
    BoardStatus,
    DeadLetter,
    Event,
    EventKind,
    GatherJob,
    Job,
    PostReceipt,
    Priority,
    QueueDepth,
    WorkerState,
)
from rapid.results.models import DetectorState, DetectorStatus, GatherReason


@lru_cache(maxsize=64)
def _parse_spec(text: bytes) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(text)
    return spec


@lru_cache(maxsize=256)
def parse_key(batch_id: str) -> BatchKey:
    """Read a batch id, remembered."""
    return BatchKey.parse(batch_id)


def decode_job(message: bytes) -> Job:
    """Read the message a worker gets: facts of the job, a newline, the spec of its batch."""
    head, _, spec_text = message.partition(b"\n")
    facts = json.loads(head)
    spec = _parse_spec(spec_text)
    batch = parse_key(facts["batch"])
    return Job(
        job_id=batch.job_id(facts["detector"]),
        batch=batch,
        detector=facts["detector"],
        raw_uri=facts["raw_uri"],
        camera=spec["camera"],
        image_type=spec["image_type"],
        priority=Priority(facts["priority"]),
        attempt=facts["attempt"],
        token=int(facts["token"]),
        lease_ms=facts["lease_ms"],
        time_limit_ms=spec["time_limit_ms"],
        posted_ms=facts["posted_ms"],
        claimed_ms=facts["claimed_ms"],
        config=spec["config"],
        inputs=tuple(spec["inputs"]),
    )


def _numbers(items: Iterable[bytes]) -> frozenset[int]:
    return frozenset(int(item) for item in items)


def _pairs(flat: list[bytes]) -> Iterable[tuple[int, bytes]]:
    return ((int(flat[i]), flat[i + 1]) for i in range(0, len(flat), 2))


def _optional_int(text: bytes) -> int | None:
    return int(text) if text else None


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
            status = DetectorStatus(state=DetectorState.FINISHED)
        elif detector in running:
            status = DetectorStatus(state=DetectorState.RUNNING)
        elif detector in reasons:
            word, _, reason = reasons[detector]
            status = DetectorStatus(state=DetectorState(word), reason=reason or None)
        elif detector in waiting:
            status = DetectorStatus(state=DetectorState.WAITING, reason="its raw has not arrived")
        else:
            status = DetectorStatus(state=DetectorState.QUEUED, reason="waits for a worker")
        statuses[detector] = status
    return statuses


def decode_state(reply: list[Any]) -> BatchState:
    """Read the reply of ``state``."""
    batch_id, fields, expected, waiting, running, finished, reasons, metrics = reply
    spec_text, info, pool, posted, first, last, version, gathering, final, gathered_n, _, _, priority = fields
    spec = _parse_spec(spec_text)
    expected_set, finished_set = _numbers(expected), _numbers(finished)
    return BatchState(
        key=parse_key(batch_id.decode()),
        camera=spec["camera"],
        image_type=spec["image_type"],
        priority=Priority(priority.decode()),
        pool=pool.decode(),
        version=int(version),
        gathering=gathering == b"1",
        changed=len(finished_set) != int(gathered_n),
        expected=expected_set,
        is_expected_final=final == b"1",
        finished=finished_set,
        detectors=_statuses(expected_set, _numbers(waiting), _numbers(running), finished_set, reasons),
        metrics={detector: json.loads(text) for detector, text in _pairs(metrics)},
        info=json.loads(info),
        control=spec["control"],
        posted_ms=int(posted),
        first_result_ms=_optional_int(first),
        last_result_ms=_optional_int(last),
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


def decode_event(event_id: bytes, flat: list[bytes]) -> Event:
    """Read one entry of the event stream."""
    facts = {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
    batch_id = facts["batch"] or None
    return Event(
        event_id=event_id.decode(),
        kind=EventKind(facts["kind"]),
        at_ms=int(facts["at_ms"]),
        batch_id=batch_id,
        exposure_id=parse_key(batch_id).exposure_id if batch_id else None,
        detector=int(facts["detector"]) if facts["detector"] else None,
        data=json.loads(facts["data"]),
    )


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


def decode_gather(reply: list[Any], lease_ms: int) -> GatherJob:
    """Read a gather from the reply of ``claim_gather``."""
    _, token, reason, due_ms, state_reply = reply
    state = decode_state(state_reply)
    return GatherJob(
        batch=state.key,
        camera=state.camera,
        image_type=state.image_type,
        reason=GatherReason(reason.decode()),
        version=state.version + 1,
        token=int(token),
        lease_ms=lease_ms,
        expected=state.expected,
        finished=state.finished,
        detectors=state.detectors,
        results=state.metrics,
        info=state.info,
        posted_ms=state.posted_ms,
        first_result_ms=state.first_result_ms,
        last_result_ms=state.last_result_ms,
        due_ms=due_ms,
    )
