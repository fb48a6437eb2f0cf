"""Compare what came of a night with what should: a recording, or a golden set, and a replay of it.

Pure: two recordings in, findings out. Latencies are compared as multiples of a loop that was measured on the machine of
each, in the same run, so that a slow or busy machine does not fail a night that was right.
"""

import fnmatch
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rapid.errors import ConfigurationError
from rapid.requests.models import PROMPT
from rapid.results.models import Scalar
from replay.asked import AskedTwice, Runs, comparable_runs, pair_requests
from replay.dead_letters import not_again
from replay.recording import Recording, ResultTable, SummaryFacts


class Tolerance(BaseModel):
    """How far a metric may be off: the wider of the two counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rel: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Of the expected value.")
    abs: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="In the metric's unit.")

    def covers(self, expected: float, found: float) -> bool:
        """Whether a value is near enough."""
        return abs(found - expected) <= max(self.abs, self.rel * abs(expected))

    def excess(self, expected: float, found: float) -> float:
        """Return a difference as a multiple of what is allowed."""
        allowed = max(self.abs, self.rel * abs(expected))
        off = abs(found - expected)
        return off / allowed if allowed else (math.inf if off else 0.0)


class LatencyBudget(BaseModel):
    """How long summaries may take, as multiples of what they took then, both in units of the calibration loop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float = Field(default=3.0, gt=0, description="Of the median over the night.")
    worst: float = Field(default=5.0, gt=0, description="Of the slowest exposure.")
    slack_s: float = Field(default=2.0, ge=0, description="That is always granted [s].")


class Tolerances(BaseModel):
    """What a comparison allows; the keys of metrics may hold ``*``, the longest key that matches counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: Tolerance = Tolerance(rel=1e-3, abs=1e-6)
    metrics: dict[str, Tolerance] = Field(default_factory=dict)
    ignore: tuple[str, ...] = Field(default=("*_s",), description="Metrics that are not compared: times, by default.")
    pipelines: tuple[str, ...] = Field(default=(), description="Only these; all if empty.")
    latency: LatencyBudget | None = LatencyBudget()
    control: tuple[str, ...] = Field(
        default=(), description="Facts of the control state that exposures must have been dispatched under as then."
    )
    versions: bool = Field(default=False, description="Whether exposures must have as many summaries as then.")
    extra: bool = Field(default=False, description="Whether exposures and detectors may come that did not then.")

    def of(self, metric: str) -> Tolerance | None:
        """Return what is allowed for a metric, None if it is not compared."""
        if any(fnmatch.fnmatchcase(metric, pattern) for pattern in self.ignore):
            return None
        matching = [key for key in self.metrics if fnmatch.fnmatchcase(metric, key)]
        return self.metrics[max(matching, key=len)] if matching else self.default


def load_tolerances(path: Path) -> Tolerances:
    """Read tolerances from YAML.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a file that is not valid.
    """
    try:
        return Tolerances.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise ConfigurationError("tolerances", f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError("tolerances", f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(".".join(str(part) for part in first["loc"]) or "tolerances", first["msg"]) from error


class Kind(StrEnum):
    """What is wrong."""

    MISSING_EXPOSURE = "missing exposure"
    EXTRA_EXPOSURE = "extra exposure"
    MISSING_DETECTOR = "missing detector"
    EXTRA_DETECTOR = "extra detector"
    INCOMPLETE = "incomplete"
    STATE = "other state"
    CONTROL = "other control"
    MISSING_METRIC = "missing metric"
    METRIC = "other value"
    VERSIONS = "versions"
    REQUEST = "request"
    FAILURE = "other failure"
    LATENCY = "latency"
    INVARIANT = "invariant"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    where: str
    message: str
    excess: float = 0.0
    """Difference over what is allowed, of a value."""


@dataclass
class MetricDifferences:
    """All values of one metric: as they were and as they are."""

    metric: str
    tolerance: Tolerance
    expected: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    n_outside: int = 0

    @property
    def worst(self) -> float:
        """Largest difference over what is allowed."""
        pairs = zip(self.expected, self.found, strict=True)
        return max((self.tolerance.excess(one, other) for one, other in pairs), default=0.0)


@dataclass
class CheckReport:
    """What a comparison found."""

    expected: Recording
    found: Recording
    has_numbers: bool = True
    """Whether metrics were compared."""

    unused: tuple[str, ...] = ()
    """Names of metrics in the tolerances that match none."""

    findings: list[Finding] = field(default_factory=list)
    differences: dict[str, MetricDifferences] = field(default_factory=dict)
    runs: Runs = field(default_factory=lambda: comparable_runs(()))
    n_values: int = 0
    latencies: list[tuple[str, float, float]] = field(default_factory=list)
    """By exposure, seconds from the last raw to the summary, then and now."""
    invariants: dict[str, list[str]] = field(default_factory=dict)

    @property
    def has_budget(self) -> bool:
        """Whether the speed of both machines is known, so that latencies can be compared."""
        return self.expected.manifest.loop_s is not None and self.found.manifest.loop_s is not None

    @property
    def is_good(self) -> bool:
        """Whether everything is as it should be."""
        return not self.findings

    def count(self) -> dict[str, int]:
        """Return how many findings of each kind there are."""
        counts: dict[str, int] = {}
        for finding in self.findings:
            counts[finding.kind.value] = counts.get(finding.kind.value, 0) + 1
        return counts


Batch = tuple[int, str, str]
"""Exposure, name of the run, pipeline."""

T = TypeVar("T", SummaryFacts, ResultTable)


def check(expected: Recording, found: Recording, tolerances: Tolerances | None = None) -> CheckReport:
    """Compare what came of a night with what should.

    Raises
    ------
    ConfigurationError
        Raised if they are of two cameras, or the expected one has no results, or none that the tolerances ask for.
    """
    if expected.manifest.camera != found.manifest.camera:
        raise ConfigurationError("camera", f"{expected.manifest.camera} and {found.manifest.camera} cannot be compared")
    if not expected.summaries and not expected.results:
        raise ConfigurationError("results.jsonl", "the expected recording has no results to compare with")
    rules = tolerances or Tolerances()
    _check_names(expected, rules)
    # Other pixels give other numbers: by how much they may be off only the user can say.
    is_numeric = tolerances is not None or expected.manifest.is_exact
    report = CheckReport(expected, found, has_numbers=is_numeric, unused=_unused(expected, rules))
    pairs = pair_requests(expected.events, found.events)
    report.runs = comparable_runs(pairs)
    report.findings += _compare_exposures(report, rules)
    _compare_summaries(report, rules)
    _compare_results(report, rules)
    report.findings += _compare_requests(pairs)
    report.findings += _compare_incidents(expected, found)
    _compare_latencies(report, rules)
    report.invariants = dict(found.manifest.invariants)
    report.findings += [
        Finding(Kind.INVARIANT, name, problem) for name, problems in report.invariants.items() for problem in problems
    ]
    return report


def _check_names(expected: Recording, rules: Tolerances) -> None:
    """Refuse tolerances that ask for what is not there: nothing would be compared, and all be well."""
    known = {one.pipeline for one in expected.summaries} | {one.pipeline for one in expected.results}
    for name in rules.pipelines:
        if name not in known:
            raise ConfigurationError("pipelines", f"nothing of {name} is expected, but of {', '.join(sorted(known))}")
    told = {name for summary in expected.summaries for name in summary.control}
    for name in rules.control:
        if name not in told:
            raise ConfigurationError(
                "control", f"no summary tells its {name}, but {', '.join(sorted(told)) or 'nothing'}"
            )


def _unused(expected: Recording, rules: Tolerances) -> tuple[str, ...]:
    """Return the names of metrics in the tolerances that match none: misspelt, perhaps."""
    metrics = {metric for one in expected.summaries for metric in one.metrics}
    metrics |= {metric for one in expected.results for metric in one.metrics}
    return tuple(key for key in rules.metrics if not fnmatch.filter(metrics, key))


def _summaries(report: CheckReport, rules: Tolerances) -> tuple[dict[Batch, SummaryFacts], dict[Batch, SummaryFacts]]:
    """Return the summaries that are compared, then and now."""
    then = _by_batch(report.expected.summaries, report.runs.then, rules)
    return then, _by_batch(report.found.summaries, report.runs.now, rules)


def _tables(report: CheckReport, rules: Tolerances) -> tuple[dict[Batch, ResultTable], dict[Batch, ResultTable]]:
    """Return the tables of results that are compared, then and now."""
    then = _by_batch(report.expected.results, report.runs.then, rules)
    return then, _by_batch(report.found.results, report.runs.now, rules)


def _by_batch(found: Iterable[T], runs: Mapping[str, str], rules: Tolerances) -> dict[Batch, T]:
    return {
        (one.exposure, runs[one.run], one.pipeline): one
        for one in found
        if one.run in runs and (not rules.pipelines or one.pipeline in rules.pipelines)
    }


def _name(batch: Batch) -> str:
    exposure, run, pipeline = batch
    return f"{exposure} {pipeline}" if run == PROMPT else f"{exposure} {pipeline} of {run}"


def _compare_exposures(report: CheckReport, rules: Tolerances) -> Iterator[Finding]:
    then, now = _summaries(report, rules)
    for batch in sorted(then.keys() - now.keys()):
        yield Finding(Kind.MISSING_EXPOSURE, _name(batch), "has no summary")
    # Of an incident only what it is about was kept.
    if not rules.extra and report.expected.manifest.incident is None:
        for batch in sorted(now.keys() - then.keys()):
            yield Finding(Kind.EXTRA_EXPOSURE, _name(batch), "had no summary then")


def _compare_summaries(report: CheckReport, rules: Tolerances) -> None:
    then, now = _summaries(report, rules)
    for batch in sorted(then.keys() & now.keys()):
        old, new = then[batch], now[batch]
        where = _name(batch)
        if old.is_complete and not new.is_complete:
            report.findings.append(Finding(Kind.INCOMPLETE, where, f"{new.n_finished} of {new.n_expected} detectors"))
        for state in sorted({*old.not_finished, *new.not_finished}):
            before, after = set(old.not_finished.get(state, ())), set(new.not_finished.get(state, ()))
            if before != after:
                report.findings.append(
                    Finding(Kind.STATE, where, f"{state}: {_listed(after)} instead of {_listed(before)}")
                )
        for name in rules.control:
            if old.control.get(name) != new.control.get(name):
                message = f"{name}: {new.control.get(name)!r} instead of {old.control.get(name)!r}"
                report.findings.append(Finding(Kind.CONTROL, where, message))
        if rules.versions and old.n_versions != new.n_versions:
            message = f"{new.n_versions} summaries instead of {old.n_versions}"
            report.findings.append(Finding(Kind.VERSIONS, where, message))
        _compare_values(report, rules, where, old.metrics, new.metrics)


def _listed(detectors: Iterable[int]) -> str:
    numbers = sorted(detectors)
    text = ", ".join(str(number) for number in numbers[:12])
    return (f"{text} and {len(numbers) - 12} more" if len(numbers) > 12 else text) or "none"


def _compare_results(report: CheckReport, rules: Tolerances) -> None:
    then, now = _tables(report, rules)
    for batch in sorted(then):
        old, new = then[batch], now.get(batch)
        where = _name(batch)
        here = set(new.detectors) if new is not None else set()
        if missing := set(old.detectors) - here:
            report.findings.append(Finding(Kind.MISSING_DETECTOR, where, f"no result of {_listed(missing)}"))
        if new is None:
            continue
        if not rules.extra and (extra := here - set(old.detectors)):
            report.findings.append(Finding(Kind.EXTRA_DETECTOR, where, f"results of {_listed(extra)}"))
        rows = {detector: _row(new, place) for place, detector in enumerate(new.detectors)}
        for place, detector in enumerate(old.detectors):
            if detector in rows:
                _compare_values(report, rules, f"{where} detector {detector}", _row(old, place), rows[detector])


def _row(table: ResultTable, place: int) -> dict[str, Scalar]:
    return {name: values[place] for name, values in table.metrics.items()}


def _compare_values(
    report: CheckReport, rules: Tolerances, where: str, old: Mapping[str, Scalar], new: Mapping[str, Scalar]
) -> None:
    for metric, expected in old.items() if report.has_numbers else ():
        tolerance = rules.of(metric)
        if tolerance is None:
            continue
        report.n_values += 1
        found = new.get(metric)
        if expected is None and found is None:
            continue
        if not _is_number(expected) or not _is_number(found):
            if type(expected) is not type(found) or expected != found:
                kind = Kind.MISSING_METRIC if found is None else Kind.METRIC
                report.findings.append(Finding(kind, where, f"{metric}: {found!r} instead of {expected!r}", math.inf))
            continue
        before, after = float(expected or 0), float(found or 0)
        seen = report.differences.setdefault(metric, MetricDifferences(metric, tolerance))
        seen.expected.append(before)
        seen.found.append(after)
        seen.where.append(where)
        if not tolerance.covers(before, after):
            seen.n_outside += 1
            excess = tolerance.excess(before, after)
            message = f"{metric}: {after:.6g} instead of {before:.6g}, {_times(excess)} what is allowed"
            report.findings.append(Finding(Kind.METRIC, where, message, excess))


def _times(excess: float) -> str:
    return f"{excess:.3g} times" if math.isfinite(excess) else "more than"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compare_requests(pairs: Iterable[AskedTwice]) -> Iterator[Finding]:
    for then, now in pairs:
        after = now.ended if now is not None else ""
        if then.ended and after != then.ended:
            message = f"ended as {after or 'nothing'} instead of {then.ended}"
            yield Finding(Kind.REQUEST, then.request_id, message)


def _compare_incidents(expected: Recording, found: Recording) -> Iterator[Finding]:
    then, now = expected.manifest.incident, found.manifest.incident
    if then is not None and now is not None and then.subject == now.subject:
        for job, problem in not_again(then.errors, now.errors):
            yield Finding(Kind.FAILURE, job, problem)


def _compare_latencies(report: CheckReport, rules: Tolerances) -> None:
    then, now = _summaries(report, rules)
    pairs = [
        (_name(batch), old, new)
        for batch in sorted(then.keys() & now.keys())
        # A request's may come long after the raws.
        if batch[1] == PROMPT
        and (old := then[batch].latency_s) is not None
        and (new := now[batch].latency_s) is not None
    ]
    report.latencies = pairs
    loop_then, loop_now = report.expected.manifest.loop_s, report.found.manifest.loop_s
    if rules.latency is None or not pairs or loop_then is None or loop_now is None:
        return
    speed = loop_now / loop_then
    for name, over, factor in (
        ("the median", statistics.median, rules.latency.median),
        ("the slowest", max, rules.latency.worst),
    ):
        before, after = over([old for _, old, _ in pairs]), over([new for _, _, new in pairs])
        budget_s = before * speed * factor + rules.latency.slack_s * max(speed, 1.0)
        if after > budget_s:
            message = (
                f"{after:.2f} s, {after / loop_now:.0f} loops; then {before:.2f} s, {before / loop_then:.0f} loops; "
                f"the budget is {budget_s:.2f} s"
            )
            report.findings.append(Finding(Kind.LATENCY, name, message, after / budget_s))
