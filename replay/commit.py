"""Commit the faults of a night on a system of ours: on its processes, its server, its bucket."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from rapid.dispatch.board import Board
from rapid.errors import ConfigurationError, StoreError
from rapid.wiring.supervisor import Supervisor
from replay import processes
from replay.events import FaultEvent
from replay.faults import (
    AWAIT,
    VALKEY,
    Await,
    ClockSkew,
    Freeze,
    FullDisk,
    Kill,
    Outage,
    PowerCut,
    ProcessFault,
    S3Outage,
    Slow,
    parse_fault,
)
from replay.witness import Heard, Milestone, Witness

START_TIMEOUT_S = 120.0
"""How long a process may take to be there again before the night has failed."""

PATIENCE_S = 120.0
"""How long to wait for a worker to take a job, or for a summary."""

ZOMBIE_TRIES = 5
"""A worker may end its job in the moment in which it is to be frozen: then its next one counts."""


class Bucket(Protocol):
    """A bucket that can be out of reach."""

    def cut(self, for_s: float) -> None:
        """Answer nothing for so long."""
        ...

    def wait_until_open(self, timeout_s: float) -> bool:
        """Wait until it answers; return whether it does."""
        ...


@dataclass
class Committer:
    """Commits faults one after the other; thaws what it froze.

    Attributes
    ----------
    bucket
        Where raws arrive, if it is one that can be cut off.
    timeout_s, patience_s
        How long a process may take to be there; how long to wait for what a fault waits for [s].
    problems
        What could not be done.
    """

    supervisor: Supervisor
    board: Board
    witness: Witness
    bucket: Bucket | None = None
    timeout_s: float = START_TIMEOUT_S
    patience_s: float = PATIENCE_S
    committed: list[tuple[datetime, ProcessFault]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _ends: list[Callable[[], object]] = field(default_factory=list)

    def __call__(self, event: FaultEvent) -> None:
        """Commit what an event says; what cannot be done is a problem, not the end of the night."""
        if event.fault.get("kind") == AWAIT:
            self._await(Await.model_validate(event.fault))
            return
        fault = parse_fault(event.fault)
        if not isinstance(fault, ProcessFault):
            return  # part of the night itself, or of its payloads
        try:
            self.commit(fault)
        except (StoreError, ConfigurationError, OSError, ValueError) as error:
            self.problems.append(f"fault {fault.kind} at {event.at_s:g} s: {error}")

    def commit(self, fault: ProcessFault) -> None:
        """Commit a fault, once its process runs.

        Raises
        ------
        StoreError
            Raised if it does not run in time: something that was killed does not come back.
        ConfigurationError
            Raised if the system has no such role, or no bucket.
        """
        if isinstance(fault, ClockSkew):
            self.board.advance_clock(round(fault.by_s * 1000))
        elif isinstance(fault, S3Outage):
            self._cut_off(fault)
        else:
            self._commit_on_process(fault)
        self.committed.append((datetime.now(UTC), fault))

    def finish(self) -> None:
        """Wait until everything is thawed."""
        for end in self._ends:
            end()
        self._ends.clear()

    def _commit_on_process(self, fault: Kill | Freeze | Slow | Outage | PowerCut | FullDisk) -> None:
        name = VALKEY if isinstance(fault, PowerCut) else fault.target
        if isinstance(fault, Freeze) and fault.given_away:
            self._make_zombie(fault)
            return
        if isinstance(fault, Kill | Freeze) and fault.busy:
            self._await_job(name)
        pid = self.supervisor.wait_for_process(name, timeout_s=self.timeout_s)
        match fault:
            case Kill(what="payload"):
                processes.kill_payload(pid)
            case Kill(what=what):
                send = processes.signal_group if what == "all" and name != VALKEY else processes.signal_one
                send(pid, signal.SIGKILL)
                self.supervisor.wait_for_end(name, pid, timeout_s=self.timeout_s)
            case Freeze(for_s=for_s, what=what):
                self._join(processes.freeze(pid, for_s, alone=what == "role"))
            case Slow(for_s=for_s, share=share):
                self._join(processes.slow_down(pid, share, for_s))
            case FullDisk(for_s=for_s):
                self._join(processes.fill_disk(pid, for_s))
            case Outage(for_s=for_s) | PowerCut(for_s=for_s):
                self.supervisor.leave_down(name, for_s)
                processes.signal_one(pid, signal.SIGKILL)
                self.supervisor.wait_for_end(name, pid, timeout_s=self.timeout_s)
                if isinstance(fault, PowerCut):
                    # It is down for long enough.
                    since = f".{fault.lost_since}.".encode() if fault.lost_since else b""
                    log = self.supervisor.data / VALKEY / "appendonlydir"
                    processes.cut_newest_log(log, lost_bytes=fault.lost_bytes, since=since)

    def _cut_off(self, fault: S3Outage) -> None:
        bucket = self.bucket
        if bucket is None:
            raise ConfigurationError("s3_outage", "the raws of this system are in no bucket that can be cut off")
        bucket.cut(fault.for_s)
        self._ends.append(lambda: bucket.wait_until_open(fault.for_s + self.timeout_s))

    def _make_zombie(self, fault: Freeze) -> None:
        """Freeze a worker with a job in hand until another was given the job, and thaw it: its report comes late."""
        send = processes.signal_one if fault.what == "role" else processes.signal_group
        for _ in range(ZOMBIE_TRIES):
            self._await_job(fault.target)
            pid = self.supervisor.wait_for_process(fault.target, timeout_s=self.timeout_s)
            send(pid, signal.SIGSTOP)
            try:
                if self._wait_until_another_has(jobs_of(self.witness.heard, fault.target), fault):
                    return
            finally:
                processes.signal_group(pid, signal.SIGCONT)
        raise StoreError(f"{fault.target} ended its job before it was frozen, {ZOMBIE_TRIES} times")

    def _wait_until_another_has(self, held: frozenset[tuple[str, int]], fault: Freeze) -> bool:
        """Return whether it was given away; False if it had ended: what a worker said last may still be on its way."""
        heard = self.witness.heard

        def is_given_away() -> bool:
            return any(heard.starts[job][-1][1] != fault.target for job in held)

        def is_decided() -> bool:
            return is_given_away() or not held & jobs_of(heard, fault.target)

        if not self.witness.wait_until(is_decided, timeout_s=min(fault.for_s, self.patience_s)):
            raise StoreError(f"the job of {fault.target} was given to nobody in {fault.for_s:g} s")
        return is_given_away()

    def _join(self, thread: threading.Thread) -> None:
        self._ends.append(lambda: thread.join(self.timeout_s))

    def _await_job(self, worker: str) -> None:
        if not self.witness.wait_until(lambda: has_job(self.witness.heard, worker), timeout_s=self.patience_s):
            self.problems.append(f"{worker} took no job in {self.patience_s:.0f} s")

    def _await(self, awaited: Await) -> None:
        milestone = Milestone(awaited.until, awaited.exposure, awaited.of)
        if not self.witness.wait_until(lambda: milestone in self.witness.heard.milestones, timeout_s=self.patience_s):
            what = f"{awaited.exposure} {awaited.of}".strip()
            self.problems.append(f"exposure {what} was not {awaited.until} in {self.patience_s:.0f} s")


def jobs_of(heard: Heard, worker: str) -> frozenset[tuple[str, int]]:
    """Return the jobs that a worker has begun and that have not ended, by batch and detector."""
    return frozenset(
        job
        for job, starts in heard.starts.items()
        if starts[-1][1] == worker and heard.ends.get(job, -1) < starts[-1][0]
    )


def has_job(heard: Heard, worker: str) -> bool:
    """Whether a worker has begun a job that has not ended."""
    return bool(jobs_of(heard, worker))
