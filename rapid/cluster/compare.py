"""Is a new version as good as the one before? Compare a few detectors that have it with all that have not: pure.

Sky and cadence change from exposure to exposure, detectors differ from one another; so what is compared is how the
canary's detectors stand to the others in the same exposure, before and after: the difference of differences.
"""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MAD_TO_SIGMA = 1.4826
MOST_SIGMA = 5.0
LEAST_CHANGE = 0.05
"""Relative changes below are of no concern however significant."""

SLOWEST = 1.5
"""Run time, relative to before."""


@dataclass(frozen=True)
class Row:
    """One detector of one exposure.

    Attributes
    ----------
    run_s
        What its pipeline took [s]; None if it failed.
    metrics
        Numbers to compare.
    """

    exposure: int
    detector: int
    run_s: float | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """Whether to go on, and why not."""

    is_good: bool
    findings: tuple[str, ...]
    n_before: int
    n_after: int


def compare_versions(
    before: Sequence[Row], after: Sequence[Row], canary: Collection[int], *, least_exposures: int = 3
) -> Comparison:
    """Return how detectors under a new version do, against before and against the others.

    Parameters
    ----------
    before, after
        Rows of all detectors, failed ones too, of exposures under the old and the new version.
    canary
        Detectors that have the new version.
    """
    n_before, n_after = len({row.exposure for row in before}), len({row.exposure for row in after})
    findings: list[str] = []
    if n_after < least_exposures:
        findings.append(f"{n_after} exposures since; {least_exposures} are needed to tell")
    new = [row for row in after if row.detector in canary]
    old = [row for row in before if row.detector in canary]
    failed, failed_before = _share_failed(new), _share_failed(old)
    others_failed = _share_failed([row for row in after if row.detector not in canary])
    if failed > max(failed_before, others_failed) + 1.0 / max(len(new), 1):
        findings.append(f"{failed:.0%} of jobs failed; before {failed_before:.0%}, elsewhere {others_failed:.0%}")
    slowdown = _slowdown(before, after, canary)
    if slowdown is not None and slowdown > SLOWEST:
        findings.append(f"jobs take {slowdown:.2f} times as long")
    for name in sorted({name for row in new for name in row.metrics}):
        finding = _finding(name, before, after, canary)
        if finding:
            findings.append(finding)
    return Comparison(not findings, tuple(findings), n_before, n_after)


def _share_failed(rows: Sequence[Row]) -> float:
    return sum(row.run_s is None for row in rows) / len(rows) if rows else 0.0


def _slowdown(before: Sequence[Row], after: Sequence[Row], canary: Collection[int]) -> float | None:
    def ratio(rows: Sequence[Row]) -> float | None:
        new = [row.run_s for row in rows if row.detector in canary and row.run_s is not None]
        others = [row.run_s for row in rows if row.detector not in canary and row.run_s is not None]
        return statistics.median(new) / statistics.median(others) if new and others else None

    now, then = ratio(after), ratio(before)
    return now / then if now is not None and then else None


def _finding(name: str, before: Sequence[Row], after: Sequence[Row], canary: Collection[int]) -> str:
    then, now = _offsets(name, before, canary), _offsets(name, after, canary)
    if len(then) < 2 or not now:
        return ""
    spread = max(_mad_sigma(then), 1e-3)
    change = statistics.median(now) - statistics.median(then)
    sigma = spread * math.sqrt(1 / len(then) + 1 / len(now))
    if abs(change) > LEAST_CHANGE and abs(change) > MOST_SIGMA * sigma:
        return f"{name} is {change:+.1%} off ({abs(change) / sigma:.0f} sigma)"
    return ""


def _offsets(name: str, rows: Sequence[Row], canary: Collection[int]) -> list[float]:
    """Return, for each exposure, how far the canary's median is from the others', relative to theirs."""
    groups: dict[int, tuple[list[float], list[float]]] = {}
    for row in rows:
        value = row.metrics.get(name)
        if value is not None and math.isfinite(value):
            groups.setdefault(row.exposure, ([], []))[row.detector not in canary].append(value)
    found = []
    for new, others in groups.values():
        if new and others:
            level = statistics.median(others)
            found.append((statistics.median(new) - level) / max(abs(level), 1e-12))
    return found


def _mad_sigma(values: Sequence[float]) -> float:
    centre = statistics.median(values)
    return MAD_TO_SIGMA * statistics.median(abs(value - centre) for value in values)
