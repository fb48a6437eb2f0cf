"""Commit a fault: signals to processes of a supervised installation."""

import signal
import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from rapid.wiring.supervisor import Supervisor
from replay import processes
from tests.chaos.schedule import Fault, FaultKind

START_TIMEOUT_S = 120.0
"""How long a process may take to be there again before the night has failed."""


@dataclass(frozen=True)
class Committed:
    """A fault that was committed."""

    fault: Fault
    at: datetime
    pid: int


class Injector:
    """Commits faults one after the other; thaws what it froze."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.committed: list[Committed] = []
        self._supervisor = supervisor
        self._thaws: list[threading.Timer] = []

    def commit(self, fault: Fault) -> None:
        """Commit a fault on a process, once it runs.

        Raises
        ------
        StoreError
            Raised if it does not run in time: something that was killed does not come back.
        """
        pid = self._supervisor.wait_for_process(fault.target, timeout_s=START_TIMEOUT_S)
        self.committed.append(Committed(fault, datetime.now(UTC), pid))
        match fault.kind:
            case FaultKind.KILL:
                processes.signal_one(pid, signal.SIGKILL)
            case FaultKind.KILL_ALL:
                processes.signal_group(pid, signal.SIGKILL)
            case FaultKind.KILL_PAYLOAD:
                processes.kill_payload(pid)
            case FaultKind.OUTAGE:
                self._supervisor.leave_down(fault.target, fault.for_s)
                processes.signal_one(pid, signal.SIGKILL)
            case FaultKind.POWER_CUT:
                self._cut_power(fault, pid)
            case FaultKind.FREEZE:
                self._thaws.append(processes.freeze(pid, fault.for_s))
        if fault.kind in {FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.OUTAGE}:
            # Gone before the next fault looks for it.
            self._supervisor.wait_for_end(fault.target, pid, timeout_s=START_TIMEOUT_S)

    def finish(self) -> None:
        """Wait until everything is thawed."""
        for thaw in self._thaws:
            thaw.join()

    def _cut_power(self, fault: Fault, pid: int) -> None:
        self._supervisor.leave_down(fault.target, fault.for_s)
        processes.signal_one(pid, signal.SIGKILL)
        self._supervisor.wait_for_end(fault.target, pid, timeout_s=START_TIMEOUT_S)
        # It is down for long enough.
        processes.cut_newest_log(self._supervisor.data / fault.target / "appendonlydir", lost_bytes=fault.lost_bytes)
