"""What head, workers and gather say to the board, without saying how it is sent.

Each operation is a conversation (`rapid.dispatch.talk`) that ends in a model; both boards hold the same ones, so that they
speak one protocol. All waiting is a blocking pop on a list that the server-side functions push to; nothing polls.
"""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rapid.dispatch import keys
from rapid.dispatch.library import function_name
from rapid.dispatch.models import (
    BatchKey,
    BatchSpec,
    BatchState,
    BoardStatus,
    BoardTime,
    Completion,
    DeadLetter,
    Event,
    EventKind,
    GatherJob,
    Heartbeat,
    Job,
    Load,
    Order,
    PostReceipt,
    Priority,
    WorkerMode,
    WorkerOrder,
    WorkerSpec,
)
from rapid.dispatch.replies import (
    decode_events,
    decode_gather,
    decode_jobs,
    decode_letter,
    decode_receipt,
    decode_state,
    decode_status,
    parse_key,
)
from rapid.dispatch.talk import SLICE_S, Command, Talk, to_json
from rapid.errors import ConfigurationError, Retry
from rapid.exposure.pairs import awaits_partner
from rapid.results.models import DetectorState, Scalar

MAX_CLOCK_RATE = 1000.0
"""Of the board's clock: a night in half a minute. Beyond it every wait is a matter of processes, not of the night."""


def order_of(exposure_id: int) -> int:
    """Return the place of an exposure in time, for newest-first.

    Simulated exposures carry a thousand years or more in their day; they are not newer for that.

    Examples
    --------
    >>> order_of(3025111500226) == order_of(2025111500226)
    True
    """
    return exposure_id % 1_000_000_000_000


class BoardCommands:
    """The operations of one instrument's board, as conversations.

    Parameters
    ----------
    instrument
        Name of the camera; part of every key.
    boot
        Identity of this process, so that a worker that starts anew under its old name is told from one
        that did not hear an answer.
    lease_ms
        How long a worker may be silent before its job goes to another.
    grace_ms
        How long a job is kept for the busy worker that has its detector's calibs.
    backlog_age_ms
        From the arrival of the last raw until unprocessed jobs leave the backlog.
    memory_ms
        From the last change of a batch until it is forgotten, unless it says otherwise itself.
    """

    def __init__(
        self, instrument: str, *, boot: str, lease_ms: int, grace_ms: int, backlog_age_ms: int, memory_ms: int
    ) -> None:
        self.prefix = keys.prefix(instrument)
        self.boot = boot
        self.lease_ms = lease_ms
        self.grace_ms = grace_ms
        self.backlog_age_ms = backlog_age_ms
        self.memory_ms = memory_ms

    def _fcall(self, name: str, *args: Any) -> Command:
        return Command(("FCALL", function_name(name), 1, self.prefix, *args))

    def _wait(self, seconds: float, *lists: str) -> Talk[tuple[str, bytes] | None]:
        """Wait for a push to one of some lists, for at most one slice; ends in which list, and what was pushed."""
        seconds = min(max(seconds, 0.001), SLICE_S)
        names = [self.prefix + name for name in lists]
        reply = yield Command(("BLPOP", *names, f"{seconds:.3f}"), block_s=seconds)
        return None if reply is None else (reply[0].decode().removeprefix(self.prefix), bytes(reply[1]))

    def _wait_whole(self, timeout_s: float, *lists: str) -> Talk[tuple[str, bytes] | None]:
        """Wait for a push to one of some lists, for the whole time."""
        deadline = time.monotonic() + timeout_s
        while True:
            pushed = yield from self._wait(deadline - time.monotonic(), *lists)
            if pushed is not None or time.monotonic() >= deadline:
                return pushed

    # Head -----------------------------------------------------------------

    def post(self, spec: BatchSpec, *, lead_token: int | None = None) -> Talk[PostReceipt]:
        """Fan out a batch."""
        work = {
            "camera": spec.camera,
            "image_type": spec.image_type,
            "time_limit_ms": spec.time_limit_ms,
            "config": spec.config,
            "inputs": list(spec.inputs),
            "control": spec.control,
        }
        gathered_n = spec.summary_finished
        if gathered_n is None:
            gathered_n = len(spec.finished) if spec.version else 0
        facts = {
            "order": order_of(spec.key.exposure_id) if spec.order is None else spec.order,
            "pool": spec.pool,
            "forced": int(spec.priority is Priority.BACKLOG),
            "gather_ms": spec.gather_timeout_ms,
            "regather_ms": spec.regather_timeout_ms,
            "deadline_ms": spec.deadline_ms,
            "max_attempts": spec.max_attempts,
            "ttl_ms": spec.ttl_ms or self.memory_ms,
            "grace_ms": self.grace_ms,
            "backoff_ms": spec.retry_backoff_ms,
            "backlog_age_ms": self.backlog_age_ms,
            "version": spec.version,
            "gathered_n": gathered_n,
            "final": int(spec.is_expected_final),
            "choice": to_json(spec.control),
            "pair": int(awaits_partner({**spec.info, "image_type": spec.image_type})),
        }
        reply = yield self._fcall(
            "post",
            spec.key.id,
            to_json(work),
            to_json(spec.info),
            to_json(facts),
            to_json(sorted(spec.expected)),
            to_json(spec.raws),
            to_json(spec.excluded),
            to_json(spec.superseded),
            to_json({detector: to_json(metrics) for detector, metrics in spec.finished.items()}),
            "" if lead_token is None else lead_token,
        )
        return decode_receipt(reply)

    def arrive(self, key: BatchKey, raws: Mapping[int, str]) -> Talk[int]:
        """Add raws that came after the post."""
        queued = yield self._fcall("arrive", key.id, to_json(dict(raws)))
        return int(queued)

    def settle(self, key: BatchKey, state: DetectorState, reasons: Mapping[int, str]) -> Talk[int]:
        """Settle detectors that will have no result, or none in time."""
        settled = yield self._fcall("settle", key.id, state.value, to_json(dict(reasons)))
        return int(settled)

    def expect(self, key: BatchKey, expected: Iterable[int]) -> Talk[int]:
        """Say finally which detectors are expected."""
        n_expected = yield self._fcall("expect", key.id, to_json(sorted(expected)))
        return int(n_expected)

    def lead(self, head_id: str, ttl_ms: int) -> Talk[tuple[int, float]]:
        """Take or keep the lead."""
        token, wait_ms = yield self._fcall("lead", head_id, ttl_ms)
        return int(token), wait_ms / 1000

    def wait_for_lead(self, timeout_s: float) -> Talk[None]:
        """Wait for the leader to resign."""
        yield from self._wait_whole(timeout_s, "leader_wake")

    def resign(self, head_id: str, token: int) -> Talk[None]:
        """Give up the lead."""
        yield self._fcall("resign", head_id, token)

    # Worker ---------------------------------------------------------------

    def claim(self, worker: WorkerSpec, limit: int, timeout_s: float) -> Talk[tuple[Job, ...]]:
        """Take the newest job, or several of its exposure, waiting for one."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = yield self._fcall(
                "claim",
                worker.worker_id,
                self.boot,
                ",".join(worker.pools),
                ",".join(str(detector) for detector in sorted(worker.pinned)),
                worker.host,
                self.lease_ms,
                limit,
            )
            if isinstance(message, bytes):
                return decode_jobs(message)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return ()
            # Asking again is the sign of life of a worker that waits.
            woken = yield from self._wait(min(remaining, message / 1000), f"wake:{worker.worker_id}")
            if woken is not None and woken[1]:  # an empty message: ask again, something is different
                return decode_jobs(woken[1])

    def wait_for_order(self, worker_id: str, timeout_s: float) -> Talk[WorkerOrder | None]:
        """Wait for an order to a worker."""
        restart = f"restart:{worker_id}"
        told = yield from self._wait_whole(timeout_s, restart, f"orders:{worker_id}")
        if told is None:
            return None
        return WorkerOrder(order=Order.RESTART) if told[0] == restart else WorkerOrder.model_validate_json(told[1])

    def heartbeat(self, worker_id: str, jobs: Iterable[Job]) -> Talk[Heartbeat]:
        """Renew the leases of the jobs in hand."""
        named = [word for job in jobs for word in (job.job_id, job.token)]
        preempt, mode, lease_ms, *lost = yield self._fcall("heartbeat", worker_id, *named)
        return Heartbeat(
            lost=frozenset(job_id.decode() for job_id in lost),
            preempt=bool(preempt),
            mode=WorkerMode(mode.decode()),
            lease_ms=lease_ms,
        )

    def complete(self, results: Iterable[tuple[Job, Mapping[str, Scalar]]], *, claim_limit: int) -> Talk[Completion]:
        """End jobs with their results."""
        done = {job.job_id: (job.token, to_json(dict(metrics))) for job, metrics in results}
        words = [word for job_id, said in done.items() for word in (job_id, *said)]
        message, *refused = yield self._fcall("complete", claim_limit, *words)
        return Completion(
            following=decode_jobs(message) if message else (),
            refused=frozenset(job_id.decode() for job_id in refused),
        )

    def fail(self, job: Job, error: Mapping[str, Any]) -> Talk[str]:
        """End an attempt with an error."""
        retry = Retry(error.get("retry", Retry.NEVER))
        outcome = yield self._fcall("fail", job.job_id, job.token, to_json(dict(error)), retry.value)
        return str(outcome.decode())

    def release(
        self, job: Job, *, count_attempt: bool, reason: str, claim_next: bool = False
    ) -> Talk[tuple[str, Job | None]]:
        """Give a job back."""
        outcome, message = yield self._fcall(
            "release", job.job_id, job.token, int(count_attempt), reason, int(claim_next)
        )
        return outcome.decode(), decode_jobs(message)[0] if message else None

    def leave(self, worker_id: str) -> Talk[None]:
        """Take a worker off the board."""
        yield self._fcall("leave", worker_id, self.boot)

    # Gather ---------------------------------------------------------------

    def next_gather(self, gatherer_id: str, timeout_s: float, lease_ms: int) -> Talk[GatherJob | None]:
        """Take a due gather, waiting for one."""
        deadline = time.monotonic() + timeout_s
        while True:
            reply = yield self._fcall("claim_gather", gatherer_id, lease_ms)
            if reply[0] == 0:
                return decode_gather(reply)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            due_s = reply[0] / 1000 if reply[0] > 0 else remaining
            yield from self._wait(min(due_s, remaining), "gather_wake", "keeper_wake")

    def renew_gather(self, job: GatherJob) -> Talk[None]:
        """Keep the lease of a gather."""
        yield self._fcall("renew_gather", job.batch.id, job.token, job.lease_ms)

    def complete_gather(self, job: GatherJob, data: Mapping[str, Any]) -> Talk[int]:
        """End a gather with a summary."""
        facts = {
            "version": job.version,
            "reason": job.reason.value,
            "n_finished": len(job.finished),
            "n_expected": len(job.expected),
            **data,
        }
        version = yield self._fcall("complete_gather", job.batch.id, job.token, to_json(facts))
        return int(version)

    def fail_gather(self, job: GatherJob, error: Mapping[str, Any], *, wait_ms: int, max_failures: int) -> Talk[str]:
        """Give a failed gather back."""
        outcome = yield self._fcall("fail_gather", job.batch.id, job.token, to_json(dict(error)), wait_ms, max_failures)
        return str(outcome.decode())

    # Timers ---------------------------------------------------------------

    def tick(self, worker_timeout_ms: int | None = None) -> Talk[float | None]:
        """Run the timers that are due."""
        wait_ms = yield self._fcall("tick", "" if worker_timeout_ms is None else worker_timeout_ms)
        return None if wait_ms < 0 else wait_ms / 1000

    def keep_leases(self, timeout_s: float) -> Talk[None]:
        """Run timers as they fall due, for so long."""
        deadline = time.monotonic() + timeout_s
        while True:
            wait_s = yield from self.tick()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            yield from self._wait(remaining if wait_s is None else min(wait_s, remaining), "keeper_wake")

    # Control, events, looking ----------------------------------------------

    def load(self, pool: str, pipeline: str) -> Talk[Load]:
        """Tell what lies ahead of a new exposure."""
        workers, current, backlog, waiting, cost = yield self._fcall("load", pool, pipeline)
        return Load(
            workers=workers,
            running_current=current,
            running_backlog=backlog,
            queued_current=waiting,
            job_s=float(cost) / 1000 if cost else None,
        )

    def set_mode(self, mode: WorkerMode) -> Talk[WorkerMode]:
        """Switch the worker mode."""
        reply = yield self._fcall("mode", mode.value)
        return WorkerMode(reply.decode())

    def advance_clock(self, delta_ms: int) -> Talk[int]:
        """Move the board's clock forward."""
        now_ms = yield self._fcall("clock", delta_ms)
        return int(now_ms)

    def freeze_clock(self) -> Talk[int]:
        """Stop the board's clock."""
        now_ms = yield self._fcall("freeze_clock")
        return int(now_ms)

    def set_clock_rate(self, rate: float) -> Talk[int]:
        """Let the board's clock run faster, or stand."""
        if not 0 <= rate <= MAX_CLOCK_RATE:
            raise ConfigurationError("rate", f"{rate:g} is not between 0 and {MAX_CLOCK_RATE:g}")
        now_ms = yield self._fcall("clock_rate", f"{rate:.6g}")
        return int(now_ms)

    def time(self) -> Talk[BoardTime]:
        """Tell the board's time and how fast it runs."""
        now_ms, rate = yield self._fcall("time")
        return BoardTime(now_ms=now_ms, rate=float(rate))

    def now_ms(self) -> Talk[int]:
        """Tell the board's time."""
        now_ms = yield self._fcall("now")
        return int(now_ms)

    def publish(
        self, kind: EventKind, *, batch: BatchKey | None, detector: int | None, data: Mapping[str, Any]
    ) -> Talk[None]:
        """Put an event on the stream."""
        place = "" if detector is None else detector
        yield self._fcall("publish", kind.value, batch.id if batch else "", place, to_json(dict(data)))

    def last_event_id(self) -> Talk[str]:
        """Tell the newest event's id."""
        reply = yield Command(("XREVRANGE", self.prefix + "events", "+", "-", "COUNT", 1))
        return reply[0][0].decode() if reply else "0-0"

    def events(self, after_id: str, timeout_s: float, limit: int) -> Talk[list[Event]]:
        """Wait for events."""
        if after_id == "$":
            after_id = yield from self.last_event_id()
        deadline = time.monotonic() + timeout_s
        while True:
            block_s = min(max(deadline - time.monotonic(), 0.001), SLICE_S)
            reply = yield Command(
                (
                    "XREAD",
                    "COUNT",
                    limit,
                    "BLOCK",
                    max(round(block_s * 1000), 1),
                    "STREAMS",
                    self.prefix + "events",
                    after_id,
                ),
                block_s=block_s,
            )
            if reply:
                return [event for event_id, flat in reply[0][1] for event in decode_events(event_id, flat)]
            if time.monotonic() >= deadline:
                return []

    def state(self, key: BatchKey) -> Talk[BatchState | None]:
        """Read a batch."""
        reply = yield self._fcall("state", key.id)
        return decode_state(reply) if reply else None

    def recent(self, n: int) -> Talk[list[BatchKey]]:
        """List batches."""
        reply = yield self._fcall("batches", n)
        return [parse_key(batch_id.decode()) for batch_id in reply]

    def status(self) -> Talk[BoardStatus]:
        """Look at the whole board."""
        reply = yield self._fcall("status")
        return decode_status(reply)

    def dead_letters(self, limit: int) -> Talk[list[DeadLetter]]:
        """List dead letters."""
        reply = yield self._fcall("dead", limit)
        return [decode_letter(fields) for fields in reply]

    def retry_dead_letter(self, job_id: str) -> Talk[None]:
        """Queue a dead letter's job again."""
        yield self._fcall("retry_dead", job_id)

    def discard_dead_letter(self, job_id: str) -> Talk[bool]:
        """Drop a dead letter."""
        removed = yield self._fcall("discard_dead", job_id)
        return bool(removed)

    def ping(self) -> Talk[None]:
        """Ask for an answer."""
        yield Command(("PING",))

    def server_id(self) -> Talk[str]:
        """Tell which run of the server this is."""
        reply = yield Command(("INFO", "server"))
        found = re.search(rb"run_id:(\w+)", reply if isinstance(reply, bytes) else str(reply).encode())
        return found.group(1).decode() if found else ""
