"""Do to processes what a bad night does: kill, freeze, slow them, take their disk away. Signals and limits, no policy."""

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

SLICE_S = 0.1
"""Of a process that is slowed: how long it runs and stands in turn."""


def signal_one(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process; nothing happens if it has ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a role and all that it started: it leads a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def children_of(pid: int) -> list[int]:
    """Return what a process started itself."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def kill_payload(pid: int) -> None:
    """Kill a worker's payload processes; a worker that is still starting has none yet, and goes itself."""
    for child in children_of(pid) or [pid]:
        signal_one(child, signal.SIGKILL)


def freeze(pid: int, for_s: float, *, alone: bool = False) -> threading.Timer:
    """Stop a role, and what it started unless it alone, and let it go on after a while; the timer runs."""
    (signal_one if alone else signal_group)(pid, signal.SIGSTOP)
    thaw = threading.Timer(for_s, signal_group, (pid, signal.SIGCONT))
    thaw.daemon = True
    thaw.start()
    return thaw


def slow_down(pid: int, share: float, for_s: float) -> threading.Thread:
    """Let a role run only a share of the time, for a while; the thread that sees to it runs."""
    over = threading.Event()

    def take_turns() -> None:
        end_s = time.monotonic() + for_s
        try:
            while time.monotonic() < end_s and psutil.pid_exists(pid):
                signal_group(pid, signal.SIGSTOP)
                over.wait(SLICE_S * (1 - share))
                signal_group(pid, signal.SIGCONT)
                over.wait(SLICE_S * share)
        finally:
            signal_group(pid, signal.SIGCONT)

    thread = threading.Thread(target=take_turns, name=f"slows {pid}", daemon=True)
    thread.start()
    return thread


def _family(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)


def fill_disk(pid: int, for_s: float) -> threading.Timer:
    """Let a role and what it started write nothing, for a while: a file that grows is an error, as on a full disk."""
    before: dict[int, tuple[int, int]] = {}
    for process in _family(pid):
        with contextlib.suppress(psutil.Error, OSError):
            limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            before[process.pid] = limits
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))

    def make_room() -> None:
        # Those that were started meanwhile have inherited it.
        for process in _family(pid):
            with contextlib.suppress(psutil.Error, OSError, ProcessLookupError):
                hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
                soft = before.get(process.pid, (hard, hard))[0]
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    timer = threading.Timer(for_s, make_room)
    timer.daemon = True
    timer.start()
    return timer


def cut_newest_log(folder: Path, *, lost_bytes: int = 0, since: bytes = b"") -> None:
    """Take the end from a Valkey's append-only file: what had not reached the disk when the power went.

    Parameters
    ----------
    lost_bytes
        From its end.
    since
        Or all from the first place on where it says this.

    Raises
    ------
    ValueError
        Raised if it does not say that.
    """
    newest = max(folder.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)
    size = newest.stat().st_size - lost_bytes
    if since and (size := newest.read_bytes().find(since)) < 0:
        raise ValueError(f"{newest.name} says nothing of {since.decode()}")
    os.truncate(newest, max(size, 0))
