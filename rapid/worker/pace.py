"""How many jobs a worker takes at once, and how long each keeps it.

A job of a CCD takes half a second, and is asked for singly: the next free worker gets the next. A job of
a millisecond is worth less than the round trip that fetches it; such jobs are taken, and their results
given, several at a time, as many as fit into a window too short for anybody to notice.
"""

import time

from rapid.worker.messages import ChildAnswer

SMOOTHING = 0.25
"""Weight of the newest job in the running mean."""


class Pace:
    """Learns how long jobs take; says how many to ask for.

    Parameters
    ----------
    window_s
        Work that may wait in a worker's hands [s].
    most
        Jobs at once at most.
    """

    def __init__(self, window_s: float = 0.02, most: int = 256) -> None:
        self._window_s = window_s
        self._most = most
        self._mean_s: float | None = None

    @property
    def window_s(self) -> float:
        """Work that may wait in a worker's hands [s]."""
        return self._window_s

    @property
    def limit(self) -> int:
        """How many jobs to ask for: one until it is known that they are short."""
        if self._mean_s is None:
            return 1
        return max(1, min(self._most, int(self._window_s / max(self._mean_s, 1e-6))))

    def observe(self, run_s: float, n_jobs: int = 1) -> None:
        """Tell how long jobs took together [s]. One slow job ends the taking of several at once."""
        each_s = run_s / n_jobs
        if self._mean_s is None or each_s > self._mean_s:
            self._mean_s = each_s
        else:
            self._mean_s += SMOOTHING * (each_s - self._mean_s)


class Turn:
    """Notes how long each job keeps its worker: what a planner needs beside the pipeline's own time.

    From answer to answer where one job follows another, so that the storing and completing of the one before, the
    way to the board, the raw and the products all count; from the claim, where the worker had been waiting.
    """

    def __init__(self) -> None:
        self._since_s = time.monotonic()

    def begin(self) -> None:
        """Begin to count: a job was claimed after a wait."""
        self._since_s = time.monotonic()

    def end(self, answer: ChildAnswer | None) -> None:
        """Note it as ``worker_s`` in the timings of the job's result, if it has one of its own; begin anew."""
        now_s = time.monotonic()
        if answer is not None and answer.result is not None and answer.joins is None:
            answer.result.timings["worker_s"] = round(now_s - self._since_s, 6)
        self._since_s = now_s
