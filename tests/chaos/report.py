"""What a night of faults came to: figures as data, and as text."""

import json
import re
import statistics
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from replay.witness import Heard
from tests.chaos.faults import Committed
from tests.chaos.schedule import FaultKind

READY = {"worker": "worker ready", "gather": "gather ready", "head": "head leads"}
"""What a role logs once it does its work again."""

KILLS = frozenset({FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.KILL_PAYLOAD, FaultKind.POWER_CUT, FaultKind.OUTAGE})


class Spread(BaseModel):
    """Distribution of times, in seconds."""

    model_config = ConfigDict(frozen=True)

    n: int
    median_s: float
    p90_s: float
    longest_s: float

    @classmethod
    def of(cls, times: list[float]) -> "Spread | None":
        """Return the distribution, None without any time."""
        if not times:
            return None
        ordered = sorted(times)
        p90 = ordered[min(int(0.9 * len(ordered)), len(ordered) - 1)]
        return cls(
            n=len(ordered),
            median_s=round(statistics.median(ordered), 2),
            p90_s=round(p90, 2),
            longest_s=round(ordered[-1], 2),
        )


class Report(BaseModel):
    """The report of one night."""

    model_config = ConfigDict(extra="forbid")

    seed: int
    exposures: int
    raws: int
    duplicates: int
    late: int
    truncated: int
    mended: int
    duration_s: float
    faults: dict[str, int] = Field(description="By kind and role.")
    kills: int = Field(description="SIGKILLs.")
    freezes: int
    outages: int
    fates: dict[str, int] = Field(default_factory=dict)
    summary_versions: int = 0
    leases_lost: int = 0
    jobs_redone: int = 0
    late_completions_refused: int = 0
    dead_letters: int = 0
    recovery: dict[str, Spread] = Field(default_factory=dict, description="By what had to recover.")
    memory_peak_bytes: int = 0
    memory_end_bytes: int = Field(default=0, description="After everything has expired.")
    keys_end: list[str] = Field(default_factory=list, description="Keys left after everything has expired.")
    problems: list[str] = Field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether everything is accounted for."""
        return not self.problems

    def text(self) -> str:
        """Return the report for a reader."""
        fates = ", ".join(f"{n} {fate}" for fate, n in sorted(self.fates.items()))
        lines = [
            f"seed {self.seed}: {self.exposures} exposures, {self.raws} raws in {self.duration_s:.0f} s",
            f"{self.duplicates} came twice, {self.late} late, {self.truncated} cut off, {self.mended} cut off and mended",
            f"{self.kills} kills, {self.freezes} freezes, {self.outages} outages of the Valkey",
            ", ".join(f"{what} {n}" for what, n in sorted(self.faults.items())),
            f"raws: {fates}; {self.summary_versions} versions of summaries",
            f"{self.leases_lost} leases lost, {self.jobs_redone} jobs begun again",
            f"{self.late_completions_refused} late calls refused, {self.dead_letters} dead letters",
        ]
        lines += [
            f"recovery of {what}: median {spread.median_s:.1f} s, 90 % within {spread.p90_s:.1f} s, "
            f"longest {spread.longest_s:.1f} s ({spread.n})"
            for what, spread in sorted(self.recovery.items())
        ]
        lines.append(
            f"Valkey: {self.memory_peak_bytes / 1e6:.1f} MB at most, {self.memory_end_bytes / 1e6:.1f} MB and "
            f"{len(self.keys_end)} keys once all has expired"
        )
        lines += ["everything is accounted for"] if self.is_good else ["PROBLEMS", *self.problems]
        return "\n".join(lines)


def role_of(name: str) -> str:
    """Return the role of a process's name.

    Examples
    --------
    >>> role_of("worker-3"), role_of("valkey")
    ('worker', 'valkey')
    """
    return name.partition("-")[0]


def count_faults(committed: list[Committed]) -> dict[str, int]:
    """Return how often each kind of fault hit each role."""
    counts = Counter(f"{fault.fault.kind.value} {role_of(fault.fault.target)}" for fault in committed)
    return dict(sorted(counts.items()))


def recoveries(committed: list[Committed], heard: Heard, logs: Path) -> dict[str, Spread]:
    """Return how long it took until what was hit worked again.

    A worker or gather: until it is ready again. A head that led: until a head leads. A job in the hands of a worker that was
    killed or frozen: until it is started again, by whomever, or ends.
    """
    ready = {name: _times_of(logs / f"{name}.log", READY[role_of(name)]) for name in _names(committed)}
    leads = sorted((when, name) for name, times in ready.items() if role_of(name) == "head" for when in times)
    times: dict[str, list[float]] = {}
    for event in committed:
        name, role = event.fault.target, role_of(event.fault.target)
        if event.fault.kind is FaultKind.FREEZE or role not in READY:
            continue
        if role == "head":
            before = [who for when, who in leads if when <= event.at]
            after = [when for when, _ in leads if when > event.at]
            if before and before[-1] == name and after:
                times.setdefault("the lead", []).append((after[0] - event.at).total_seconds())
        elif event.fault.kind is not FaultKind.KILL_PAYLOAD:
            later = [when for when in ready[name] if when > event.at]
            if later:
                times.setdefault(f"a {role}", []).append((later[0] - event.at).total_seconds())
    times["jobs"] = _job_recoveries(committed, heard)
    return {what: spread for what, found in times.items() if (spread := Spread.of(found)) is not None}


def _job_recoveries(committed: list[Committed], heard: Heard) -> list[float]:
    hits = [
        (event.at.timestamp() * 1000, event.fault.target)
        for event in committed
        if role_of(event.fault.target) == "worker"
    ]
    times = []
    for job, starts in heard.starts.items():
        for place, (start_ms, worker) in enumerate(starts):
            next_ms = starts[place + 1][0] if place + 1 < len(starts) else heard.ends.get(job)
            if next_ms is None:
                continue
            hit = [at_ms for at_ms, target in hits if target == worker and start_ms <= at_ms < next_ms]
            if hit:
                times.append((next_ms - hit[0]) / 1000)
    return times


def _names(committed: list[Committed]) -> set[str]:
    return {event.fault.target for event in committed if role_of(event.fault.target) in READY}


def _times_of(log: Path, sentence: str) -> list[datetime]:
    """Return when a role logged a sentence."""
    if not log.exists():
        return []
    times = []
    for line in log.read_text(errors="replace").splitlines():
        if f'"event": "{sentence}"' in line and (found := re.search(r'"timestamp": "([^"]+)"', line)):
            times.append(datetime.fromisoformat(json.loads(f'"{found.group(1)}"')).astimezone(UTC))
    return times
