"""Decide how much of an exposure to process now: stay with the newest image, leave a gap rather than fall behind.

Pure: what lies ahead and how fast images come are given, the level of the ladder is answered.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rapid.control.models import SheddingPolicy
from rapid.dispatch.models import Load

INTERVALS = 9
"""Intervals between exposures whose median is the cadence."""

LONGEST_INTERVAL_S = 600.0
"""A longer pause between exposures says nothing about the cadence."""

HALF = 0.5
"""What is left of a running job, on average."""


@dataclass(frozen=True)
class Shedding:
    """What was decided, and on which numbers; recorded on the exposure.

    Attributes
    ----------
    level
        Steps down the ladder: 0 for the whole pattern.
    predicted_s
        When the exposure would be done with the whole pattern [s]; None if nothing is known yet.
    cadence_s
        Time until the next exposure [s]; None if nothing is known yet.
    """

    level: int
    predicted_s: float | None = None
    cadence_s: float | None = None


def predict_finish_s(load: Load, n_detectors: int) -> float | None:
    """Return how long until an exposure of so many detectors is done [s].

    Its jobs wait for the current ones before it; a worker that runs backlog is free when that job is done.
    None without workers or without a job that has ever run.
    """
    if load.workers == 0 or load.job_s is None:
        return None
    jobs = n_detectors + load.queued_current + HALF * (load.running_current + load.running_backlog)
    # Fewer jobs than workers take as long as one.
    return max(jobs / load.workers, 1.0 if n_detectors else 0.0) * load.job_s


class Cadence:
    """Measures how far apart exposures come."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._intervals: deque[float] = deque(maxlen=INTERVALS)

    def note(self, at_s: float) -> None:
        """Tell when an exposure began to arrive [s, the board's clock]."""
        if self._last_s is not None and 0 < at_s - self._last_s <= LONGEST_INTERVAL_S:
            self._intervals.append(at_s - self._last_s)
        self._last_s = at_s if self._last_s is None else max(at_s, self._last_s)

    @property
    def seconds(self) -> float | None:
        """Median interval [s]; None until there are two."""
        return statistics.median(self._intervals) if len(self._intervals) >= 2 else None


class Shedder:
    """Remembers the level of the ladder from exposure to exposure.

    Parameters
    ----------
    level
        Where to begin: the level of the exposure before, if there was one.
    """

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self._calm = 0

    def decide(self, policy: SheddingPolicy, sizes: Sequence[int], load: Load, cadence_s: float | None) -> Shedding:
        """Return the level for the next exposure.

        Parameters
        ----------
        sizes
            Detectors the exposure has at each level, level 0 (the whole pattern) first.
        cadence_s
            Measured; the policy's own goes first.
        """
        deepest = len(sizes) - 1
        level = min(self.level, deepest)
        cadence_s = policy.cadence_s or cadence_s
        whole_s = predict_finish_s(load, sizes[0])
        if not policy.enabled:
            self.level, self._calm = 0, 0
            return Shedding(0, whole_s, cadence_s)
        if whole_s is None or cadence_s is None:
            self.level = level
            return Shedding(level, whole_s, cadence_s)
        ratios = [(predict_finish_s(load, size) or 0.0) / cadence_s for size in sizes]
        if ratios[level] > policy.step_down_at:
            # Down as far as needed at once: every exposure too many makes the next one later still.
            fits = (deeper for deeper in range(level + 1, deepest + 1) if ratios[deeper] <= policy.step_down_at)
            level, self._calm = next(fits, deepest), 0
        elif level and ratios[level - 1] <= policy.step_up_at:
            self._calm += 1
            if self._calm >= policy.calm_exposures:
                level, self._calm = level - 1, 0
        else:
            self._calm = 0
        self.level = level
        return Shedding(level, whole_s, cadence_s)
