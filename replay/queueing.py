"""What an exposure waited for: the others that the workers were busy with, back to when they last stood idle.

Pure. An exposure that took long because its own jobs did is slow by itself, and is reproduced alone; one that took much
longer than its own jobs need waited, and what it waited for must be played with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOST = 40
"""Exposures that an incident takes along, the nearest ones: a backlog may go back to the beginning of the night."""

FACTOR, SLACK_S = 1.5, 2.0
"""An exposure waited if it took so many times longer than its own jobs, and so much longer [s]: starting takes a moment."""


@dataclass(frozen=True)
class Span:
    """When an exposure was in the system.

    Attributes
    ----------
    first_raw_s, last_raw_s, end_s
        When its raws arrived, and when the last of its jobs had ended [s since the epoch].
    """

    first_raw_s: float
    last_raw_s: float
    end_s: float

    @property
    def took_s(self) -> float:
        """From its last raw to the end of its last job [s]."""
        return max(self.end_s - self.last_raw_s, 0.0)


@dataclass(frozen=True)
class JobRun:
    """When a worker was busy with a job [s since the epoch]."""

    begin_s: float
    end_s: float


def count_workers(jobs: Iterable[JobRun]) -> int:
    """Return how many jobs ran at one time at most: so many workers there were; 1 if none ran."""
    edges = sorted(edge for job in jobs for edge in ((job.begin_s, 1), (job.end_s, -1)))
    busy = most = 0
    for _, change in edges:  # an end comes before a begin at the same moment
        busy += change
        most = max(most, busy)
    return max(most, 1)


def own_s(jobs: Iterable[JobRun], n_workers: int) -> float:
    """Return how long an exposure's jobs take on workers that have nothing else to do [s]."""
    took = [max(job.end_s - job.begin_s, 0.0) for job in jobs]
    return max(sum(took) / n_workers, max(took, default=0.0))


def has_waited(took_s: float, alone_s: float) -> bool:
    """Whether an exposure took much longer than its own jobs."""
    return took_s > FACTOR * alone_s + SLACK_S


def find_queue(subject: int, spans: Mapping[int, Span], *, most: int = MOST) -> tuple[int, ...]:
    """Return the other exposures of a busy period: those in the system with this one, those with them, and so on back.

    What came after the last of its jobs had ended is not of it.

    Parameters
    ----------
    most
        Of more, those that arrived last are returned.
    """
    begin_s, end_s = spans[subject].first_raw_s, spans[subject].end_s
    found: set[int] = set()
    while True:
        more = {
            exposure
            for exposure, span in spans.items()
            if exposure not in found and exposure != subject and span.first_raw_s < end_s and span.end_s > begin_s
        }
        if not more:
            break
        found |= more
        begin_s = min(begin_s, *(spans[exposure].first_raw_s for exposure in more))
    nearest = sorted(found, key=lambda exposure: spans[exposure].first_raw_s)[-most:]
    return tuple(sorted(nearest))
