"""Decide what becomes of a file that could not be ingested, and when to try again.

Pure: `rapid.ingest.role` has clock and repository.
"""

from dataclasses import dataclass
from enum import StrEnum


class Failure(StrEnum):
    """Why a file was not ingested."""

    BAD_FILE = "bad_file"
    """It cannot be read, or is nothing this repository holds: it fails the same way for ever."""

    REFUSED = "refused"
    """The repository did not take it; that may pass (a file not yet visible, another process at the same exposure)."""

    UNREACHABLE = "unreachable"
    """The store that the file is in does not answer for it: no fault of the file, and no reason for others to wait."""

    OUTAGE = "outage"
    """The repository does not answer: nothing can be ingested."""


class Step(StrEnum):
    """What to do with it."""

    RETRY = "retry"
    SET_ASIDE = "set_aside"


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try.

    Attributes
    ----------
    max_attempts
        A file that was refused so often is set aside.
    max_age_s
        One that has waited so long is too, whatever the reason.
    pause_s, pause_max_s
        First and longest pause before another attempt; it doubles.
    """

    max_attempts: int = 5
    max_age_s: float = 86_400.0
    pause_s: float = 0.5
    pause_max_s: float = 30.0


def decide_retry(failure: Failure, *, attempts: int, age_s: float, policy: RetryPolicy) -> tuple[Step, float]:
    """Return what to do with a file that failed, and after what pause [s].

    Parameters
    ----------
    attempts
        How often it failed in this way, this time included: only what was refused counts towards being set aside.
    age_s
        Since it came.

    Examples
    --------
    >>> decide_retry(Failure.REFUSED, attempts=3, age_s=4.0, policy=RetryPolicy())
    (<Step.RETRY: 'retry'>, 2.0)
    """
    if failure is Failure.BAD_FILE or age_s > policy.max_age_s:
        return Step.SET_ASIDE, 0.0
    if failure is Failure.REFUSED and attempts >= policy.max_attempts:
        return Step.SET_ASIDE, 0.0
    return Step.RETRY, pause_of(attempts, policy)


def pause_of(n_failures: int, policy: RetryPolicy) -> float:
    """Return the pause after so many failures in a row [s]: doubling up to the longest."""
    return min(policy.pause_s * 2.0 ** min(max(n_failures - 1, 0), 16), policy.pause_max_s)
