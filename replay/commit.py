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
    Slow,
    parse_fault,
)
from replay.witness import Heard, Milestone, Witness

START_TIMEOUT_S = 120.0
"""How long a process may take to be there again before the night has failed."""

PATIENCE_S = 120.0
"""How long to wait for a worker to take a job, or for a summary."""


class Bucket(Protocol):
    """A bucket that can be out of reach."""

    def cut(self, for_s: float) -> None:
        """Answer nothing for so long."""
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
    _ends: list[Callable[[], None]] = field(default_factory=list)

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
        elif isinstance(fault, Outage) and fault.target == "bucket":
            if self.bucket is None:
                raise ConfigurationError("target", "the raws of this system are in no bucket")
            self.bucket.cut(fault.for_s)
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
                    processes.cut_newest_log(self.supervisor.data / VALKEY / "appendonlydir", fault.lost_bytes)

    def _join(self, thread: threading.Thread) -> None:
        self._ends.append(lambda: thread.join(self.timeout_s))

    def _await_job(self, worker: str) -> None:
        if not self.witness.wait_until(lambda: has_job(self.witness.heard, worker), timeout_s=self.patience_s):
            self.problems.append(f"{worker} took no job in {self.patience_s:.0f} s")

    def _await(self, awaited: Await) -> None:
        milestone = Milestone(awaited.until, awaited.exposure, awaited.pipeline)
        if not self.witness.wait_until(lambda: milestone in self.witness.heard.milestones, timeout_s=self.patience_s):
            what = f"{awaited.exposure} {awaited.pipeline}".strip()
            self.problems.append(f"exposure {what} was not {awaited.until} in {self.patience_s:.0f} s")


def has_job(heard: Heard, worker: str) -> bool:
    """Whether a worker has begun a job that has not ended."""
    return any(
        starts[-1][1] == worker and heard.ends.get(job, -1) < starts[-1][0] for job, starts in heard.starts.items()
    )
