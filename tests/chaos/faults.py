"""Commit a fault: signals to processes of a supervised installation."""

import os
import signal
import threading
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from rapid.wiring.supervisor import Supervisor
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
                _send(pid, signal.SIGKILL)
            case FaultKind.KILL_ALL:
                _send_all(pid, signal.SIGKILL)
            case FaultKind.KILL_PAYLOAD:
                self._kill_payload(pid)
            case FaultKind.OUTAGE:
                self._supervisor.leave_down(fault.target, fault.for_s)
                _send(pid, signal.SIGKILL)
            case FaultKind.POWER_CUT:
                self._cut_power(fault, pid)
            case FaultKind.FREEZE:
                _send_all(pid, signal.SIGSTOP)
                thaw = threading.Timer(fault.for_s, _send_all, (pid, signal.SIGCONT))
                thaw.start()
                self._thaws.append(thaw)
        if fault.kind in {FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.OUTAGE}:
            # Gone before the next fault looks for it.
            self._supervisor.wait_for_end(fault.target, pid, timeout_s=START_TIMEOUT_S)

    def finish(self) -> None:
        """Wait until everything is thawed."""
        for thaw in self._thaws:
            thaw.join()

    def _cut_power(self, fault: Fault, pid: int) -> None:
        self._supervisor.leave_down(fault.target, fault.for_s)
        _send(pid, signal.SIGKILL)
        self._supervisor.wait_for_end(fault.target, pid, timeout_s=START_TIMEOUT_S)
        # The newest part of the file; it is down for long enough.
        folder = self._supervisor.data / fault.target / "appendonlydir"
        newest = max(folder.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)
        os.truncate(newest, max(newest.stat().st_size - fault.lost_bytes, 0))

    @staticmethod
    def _kill_payload(pid: int) -> None:
        try:
            children = psutil.Process(pid).children()
        except psutil.NoSuchProcess:
            return
        # A worker that is still starting has none yet: then it is the one to go.
        for child in children or [psutil.Process(pid)]:
            _send(child.pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # ended by itself in between


def _send_all(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
