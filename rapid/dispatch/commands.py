"""What is sent to the server-side functions and how their answers are read.

Shared by the sync and the asyncio board: a command is a function name, its arguments, and a reader of
the answer. No policy, no I/O.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rapid.dispatch.models import (
    BatchKey,
    BatchSpec,
    BatchState,
    BoardStatus,
    DeadLetter,
    Event,
    EventKind,
    GatherJob,
    Heartbeat,
    Job,
    Order,
    PostReceipt,
    WorkerMode,
    WorkerSpec,
)
from rapid.errors import LeaseLostError, NotFoundError, RapidError, RefusedError
from rapid.results.models import DetectorState, DetectorStatus, Scalar

T = TypeVar("T")
LIBRARY = "rapid_v1"


def library_source() -> str:
    """Return the source of the server-side library, its parts put together."""
    folder = Path(__file__).parent / "lua"
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.lua")))


@dataclass(frozen=True)
class Command(Generic[T]):
    """One call of a server-side function."""

    function: str
    arguments: tuple[str | int, ...]
    read: Callable[[Any], T]


@dataclass(frozen=True)
class Wait:
    """Nothing to do now; ask again after ``wait_ms`` at the latest (0: when woken)."""

    wait_ms: int
    order: Order = Order.WAIT


def error_of(message: str) -> RapidError | None:
    """Return the error that a function's refusal stands for, or None for another server error."""
    head, _, rest = message.partition(" ")
    if head != "RAPID":
        return None
    code, _, what = rest.partition(" ")
    if code == "lease_lost":
        return LeaseLostError(f"the lease on {what} was given to another", what=what)
    if code == "not_found":
        return NotFoundError("dead letter", what)
    return RefusedError(f"{code}: {what}", what=what)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _loads(value: Any) -> Any:
    return json.loads(_text(value))


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def read_job(message: Mapping[str, Any]) -> Job:
    """Return the job of a message from the board."""
    spec = json.loads(message["spec"])
    return Job(
        job_id=message["job_id"],
        batch=BatchKey.parse(message["batch"]),
        detector=message["detector"],
        raw_uri=message["raw_uri"],
        camera=spec["camera"],
        image_type=spec["image_type"],
        priority=message["priority"],
        attempt=message["attempt"],
        token=message["token"],
        lease_ms=message["lease_ms"],
        time_limit_ms=spec["time_limit_ms"],
        posted_ms=message["posted_ms"],
        claimed_ms=message["claimed_ms"],
        config=spec["config"],
        inputs=tuple(spec["inputs"]),
    )


def read_wake(message: Any) -> Job | Wait:
    """Return what a worker was woken with: a leased job, or an order."""
    content = _loads(message)
    if "job_id" in content:
        return read_job(content)
    return Wait(int(content.get("wait_ms", 0)), Order(content["order"]))


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _numbers(values: Any) -> frozenset[int]:
    # Lua cannot tell an empty list from an empty mapping.
    return frozenset(int(value) for value in values)


def _metrics(flat: Any) -> dict[int, dict[str, Scalar]]:
    return {int(detector): json.loads(text) for detector, text in _pairs(list(flat)).items()}


def _statuses(state: Mapping[str, Any]) -> dict[int, DetectorStatus]:
    finished, waiting = _numbers(state["finished"]), _numbers(state["waiting"])
    reasons = {int(detector): text for detector, text in _pairs(list(state["reasons"])).items()}
    running = {int(detector): worker for detector, worker in dict(state["running"] or {}).items()}
    statuses = {}
    for detector in sorted(_numbers(state["expected"]) | set(reasons)):
        if detector in finished:
            status = DetectorStatus(state=DetectorState.FINISHED)
        elif detector in running:
            status = DetectorStatus(state=DetectorState.RUNNING, reason=f"on {running[detector]}")
        elif detector in reasons:
            word, _, reason = reasons[detector].partition("|")
            status = DetectorStatus(state=DetectorState(word), reason=reason or None)
        elif detector in waiting:
            status = DetectorStatus(state=DetectorState.WAITING, reason="its raw has not arrived")
        else:
            status = DetectorStatus(state=DetectorState.QUEUED, reason="waits for a worker")
        statuses[detector] = status
    return statuses


def _state(batch_id: str, state: Mapping[str, Any]) -> BatchState:
    spec = json.loads(state["spec"])
    return BatchState(
        key=BatchKey.parse(batch_id),
        camera=spec["camera"],
        image_type=spec["image_type"],
        priority=state["class"],
        pool=state["pool"],
        version=state["version"],
        gathering=state["gathering"],
        changed=state["changed"],
        expected=_numbers(state["expected"]),
        finished=_numbers(state["finished"]),
        detectors=_statuses(state),
        metrics=_metrics(state["metrics"]),
        info=json.loads(state["info"]),
        posted_ms=state["posted_ms"],
        first_result_ms=state["first_ms"] or None,
        last_result_ms=state["last_ms"] or None,
    )


def post(spec: BatchSpec) -> Command[PostReceipt]:
    """Post a batch: the whole fan-out in one call."""
    order = spec.order if spec.order is not None else spec.key.exposure_id
    facts = {
        "order": order,
        "pool": spec.pool,
        "class": spec.priority.value,
        "gather_ms": spec.gather_timeout_ms,
        "regather_ms": spec.regather_timeout_ms,
        "deadline_ms": spec.deadline_ms,
        "max_attempts": spec.max_attempts,
        "ttl_ms": spec.ttl_ms,
        "version": spec.version,
    }
    job_facts = {
        "camera": spec.camera,
        "image_type": spec.image_type,
        "time_limit_ms": spec.time_limit_ms,
        "config": spec.config,
        "inputs": list(spec.inputs),
        "control": spec.control,
    }

    def read(answer: Any) -> PostReceipt:
        content = _loads(answer)
        return PostReceipt(created=content["created"], queued=content["queued"], priority=content["class"])

    return Command(
        "post",
        (
            spec.key.id,
            _dump(job_facts),
            _dump(spec.info),
            _dump(facts),
            _dump(sorted(spec.expected)),
            _dump({str(d): uri for d, uri in spec.raws.items()}),
            _dump({str(d): reason for d, reason in spec.excluded.items()}),
            _dump(sorted(spec.superseded)),
            _dump({str(d): _dump(metrics) for d, metrics in spec.finished.items()}),
        ),
        read,
    )


def arrive(key: BatchKey, raws: Mapping[int, str]) -> Command[int]:
    """Add raws that arrived after the post."""
    return Command("arrive", (key.id, _dump({str(d): uri for d, uri in raws.items()})), int)


def settle(key: BatchKey, state: DetectorState, reasons: Mapping[int, str]) -> Command[int]:
    """Settle detectors that will have no result: quarantined or excluded."""
    return Command("settle", (key.id, state.value, _dump({str(d): r for d, r in reasons.items()})), int)


def expect(key: BatchKey, expected: frozenset[int]) -> Command[int]:
    """Replace the expected set."""
    return Command("expect", (key.id, _dump(sorted(expected))), int)


def claim(worker: WorkerSpec, *, lease_ms: int, grace_ms: int, backlog_age_ms: int) -> Command[Job | Wait]:
    """Ask for a job."""
    return Command(
        "claim",
        (
            worker.worker_id,
            ",".join(worker.pools),
            ",".join(str(detector) for detector in sorted(worker.pinned)),
            worker.host,
            lease_ms,
            grace_ms,
            backlog_age_ms,
        ),
        read_wake,
    )


def heartbeat(worker_id: str, job: Job | None, *, lease_ms: int) -> Command[Heartbeat]:
    """Give a sign of life and renew the lease."""
    return Command(
        "heartbeat",
        (worker_id, job.job_id if job else "", job.token if job else "", lease_ms),
        lambda answer: Heartbeat.model_validate(_loads(answer)),
    )


def complete(job: Job, metrics: Mapping[str, Scalar], *, claim_next: bool) -> Command[Job | None]:
    """End a job with its result; optionally take the next one in the same call."""

    def read(answer: Any) -> Job | None:
        text = _text(answer)
        return read_job(json.loads(text)) if text else None

    return Command("complete", (job.job_id, job.token, _dump(dict(metrics)), int(claim_next)), read)


def fail(job: Job, error: Mapping[str, Any]) -> Command[str]:
    """End an attempt with an error, whose ``retry`` says what may follow."""
    return Command(
        "fail", (job.job_id, job.token, json.dumps(error, default=str), str(error.get("retry", "never"))), _text
    )


def release(job: Job, *, count_attempt: bool, reason: str) -> Command[str]:
    """Give a job back."""
    return Command("release", (job.job_id, job.token, int(count_attempt), reason), _text)


def tick(*, worker_timeout_ms: int) -> Command[int]:
    """Expire leases and bring back delayed jobs; returns ms until the next is due, -1 if none."""
    return Command("tick", (worker_timeout_ms,), int)


def leave(worker_id: str) -> Command[int]:
    """Take a worker off the board."""
    return Command("leave", (worker_id,), int)


def claim_gather(gatherer_id: str, *, lease_ms: int) -> Command[GatherJob | Wait]:
    """Ask for a due gather."""

    def read(answer: Any) -> GatherJob | Wait:
        content = _loads(answer)
        if "batch" not in content:
            return Wait(int(content["wait_ms"]))
        state = _state(content["batch"], content["state"])
        return GatherJob(
            batch=state.key,
            camera=state.camera,
            image_type=state.image_type,
            reason=content["reason"],
            version=state.version + 1,
            token=content["token"],
            lease_ms=content["lease_ms"],
            expected=state.expected,
            finished=state.finished,
            detectors=state.detectors,
            results=state.metrics,
            info=state.info,
            posted_ms=state.posted_ms,
            first_result_ms=state.first_result_ms,
            last_result_ms=state.last_result_ms,
            due_ms=content["due_ms"],
        )

    return Command("claim_gather", (gatherer_id, lease_ms), read)


def renew_gather(gather: GatherJob) -> Command[int]:
    """Keep the lease on a gather."""
    return Command("renew_gather", (gather.batch.id, gather.token, gather.lease_ms), int)


def complete_gather(gather: GatherJob, data: Mapping[str, Any]) -> Command[int]:
    """End a gather; returns its version."""
    return Command("complete_gather", (gather.batch.id, gather.token, json.dumps(data, default=str)), int)


def fail_gather(gather: GatherJob, *, wait_ms: int, max_failures: int) -> Command[str]:
    """Give a failed gather back, or give it up."""
    return Command("fail_gather", (gather.batch.id, gather.token, wait_ms, max_failures), _text)


def state(key: BatchKey) -> Command[BatchState | None]:
    """Read a batch."""

    def read(answer: Any) -> BatchState | None:
        text = _text(answer)
        return _state(key.id, json.loads(text)) if text else None

    return Command("state", (key.id,), read)


def lead(head_id: str, *, ttl_ms: int) -> Command[tuple[int, int]]:
    """Take or keep the lead; token (0 if another leads) and ms until it may change."""
    return Command("lead", (head_id, ttl_ms), lambda answer: (int(answer[0]), int(answer[1])))


def resign(head_id: str, token: int) -> Command[int]:
    """Give up the lead."""
    return Command("resign", (head_id, token), int)


def set_mode(mode: WorkerMode) -> Command[WorkerMode]:
    """Switch the worker mode."""
    return Command("mode", (mode.value,), lambda answer: WorkerMode(_text(answer)))


def dead_letters(limit: int) -> Command[list[DeadLetter]]:
    """List dead letters, newest first."""

    def read(answer: Any) -> list[DeadLetter]:
        return [
            DeadLetter.model_validate({**letter, "error": json.loads(letter["error"])}) for letter in _loads(answer)
        ]

    return Command("dead", (limit,), read)


def retry_dead_letter(job_id: str) -> Command[int]:
    """Queue a dead letter's job again."""
    return Command("retry_dead", (job_id,), int)


def discard_dead_letter(job_id: str) -> Command[int]:
    """Drop a dead letter."""
    return Command("discard_dead", (job_id,), int)


def status() -> Command[BoardStatus]:
    """Look at the whole board."""

    def read(answer: Any) -> BoardStatus:
        content = _loads(answer)
        for name in ("queues", "workers"):
            content[name] = list(content[name]) if content[name] else []
        content["counters"] = content["counters"] or {}
        return BoardStatus.model_validate(content)

    return Command("status", (), read)


def publish(
    kind: EventKind, *, batch_id: str = "", detector: int | None = None, data: Mapping[str, Any]
) -> Command[int]:
    """Put an event on the stream."""
    where = "" if detector is None else str(detector)
    return Command("publish", (kind.value, batch_id, where, json.dumps(data, default=str)), int)


def read_event(event_id: Any, entry: Mapping[Any, Any]) -> Event:
    """Return one entry of the event stream."""
    fields = {_text(key): _text(value) for key, value in entry.items()}
    batch = fields.get("batch") or None
    return Event(
        event_id=_text(event_id),
        kind=EventKind(fields["kind"]),
        at_ms=int(fields["at_ms"]),
        batch_id=batch,
        exposure_id=BatchKey.parse(batch).exposure_id if batch else None,
        detector=int(fields["detector"]) if fields.get("detector") else None,
        data=json.loads(fields["data"]),
    )
