"""A long night of 205 detectors at compressed cadence: does an exposure cost the same at its end, does any role grow?

Example: python bench/bench_long_night.py --exposures 1000 --out build/long_night

Pipelines only assemble (``--science`` runs the packaged ones): what is asked is what the system around them takes. Writes
``long_night.json`` and ``long_night.png``: CPU time of each exposure in all roles (and its wall time, which whatever else runs
on the machine moves), and the memory of every role, over the night.

Judged from 50 exposures on: the first fifth, in which processes start and caches fill, is left out, and the second fifth is
compared with the last. Status 1, with a sentence each, if an exposure is not complete, an invariant is broken, an exposure
costs more at the end, or a role has grown. Raws are removed some exposures after they came, or a night takes 30 GB.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import psutil

from rapid.camera.store import load_camera
from replay.events import ControlEvent
from replay.nightbook import LIGHT
from replay.plan import make_plan
from replay.planned import recording_of_plan
from replay.play import PlayProgress
from replay.recording import SummaryFacts
from replay.system import SystemOptions, replay_night
from replay.targets import RawTarget

MB = 1 << 20
LEAST_EXPOSURES = 50
RAWS_KEPT = 300
"""Exposures, 9 GB. A job that a busy machine's worker lost waits until no newer one does: that may be many exposures later."""

GROWTH_SHARE, GROWTH_MB = 0.10, 15.0
"""Allocators and caches move the memory of a role by some per cent; a leak of 100 kB an exposure is 60 MB in a long night."""

COST_SHARE = 0.25
"""What else runs on the machine moves even the CPU time of an exposure; a cost that grows with the night doubles it."""

IN_A_BOX = 10
"""Exposures over whose mean the cost is judged: roles work on several at once, so one exposure's CPU time lands in its neighbours."""


class Sampler:
    """Notes, at each exposure's first raw, when it was and what every role takes of memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin_s = 0.0
        self.seconds: list[float] = []
        self.cpu_s: dict[str, list[float]] = {}
        self.memory: dict[str, list[float]] = {}
        self._system = None
        self._exposure = ""

    def around(self, system, target):
        self._system, self.begin_s = system, time.monotonic()
        return Pruned(target, system.raws)

    def step(self, progress: PlayProgress) -> None:
        words = progress.last.split()
        if len(words) < 3 or words[1] == self._exposure:
            return
        self._exposure = words[1]
        self.seconds.append(time.monotonic() - self.begin_s)
        for name, pid in self._system.supervisor.processes().items():
            self.memory.setdefault(name, []).append(memory_mb(pid))
            self.cpu_s.setdefault(name, []).append(cpu_s(pid))
        if len(self.seconds) % 10 == 0:
            print(f"exposure {len(self.seconds)}: {self.seconds[-1]:.0f} s", flush=True)


def memory_mb(pid: int) -> float:
    """Return the resident memory of a role and what it started [MB]."""
    try:
        process = psutil.Process(pid)
        return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / MB
    except psutil.Error:
        return math.nan


def cpu_s(pid: int) -> float:
    """Return the CPU time that a role, what it started, and what has ended of that, have taken [s]."""
    total_s = 0.0
    try:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    except psutil.Error:
        return math.nan
    return total_s


def each_cost(cpu: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return what each exposure took in each role: means over boxes of exposures [core-s]."""
    return {
        name: [(values[at] - values[at - IN_A_BOX]) / IN_A_BOX for at in range(IN_A_BOX, len(values), IN_A_BOX)]
        for name, values in cpu.items()
    }


@dataclass(frozen=True)
class Trend:
    """How a quantity went over a night: medians of the second fifth and of the last."""

    early: float
    late: float

    @classmethod
    def of(cls, values: list[float]) -> "Trend":
        """Compare; NaN for a night that is too short."""
        fifth = len(values) // 5
        if fifth < 2:
            return cls(math.nan, math.nan)
        return cls(float(np.nanmedian(values[fifth : 2 * fifth])), float(np.nanmedian(values[-fifth:])))

    @property
    def rise(self) -> float:
        return self.late - self.early

    def has_risen(self, *, share: float, least: float) -> bool:
        """Whether it rose by more than a share of what it was, and by more than so much."""
        return self.rise > max(share * self.early, least)


def judge(cost: Trend, memory: dict[str, Trend], n_exposures: int) -> list[str]:
    """Return what is not flat."""
    if n_exposures < LEAST_EXPOSURES:
        return []
    found = [
        f"{name} has grown from {trend.early:.0f} to {trend.late:.0f} MB"
        for name, trend in sorted(memory.items())
        if trend.has_risen(share=GROWTH_SHARE, least=GROWTH_MB)
    ]
    if cost.has_risen(share=COST_SHARE, least=0.0):
        found.append(f"an exposure took {cost.early:.2f} core-s in the beginning and {cost.late:.2f} core-s in the end")
    return found


class Pruned:
    """A target that removes raws long after they came: nobody reads them again."""

    def __init__(self, target: RawTarget, root: Path) -> None:
        self._target, self._root = target, root
        self._folders: OrderedDict[Path, None] = OrderedDict()

    def put(self, key: str, data: bytes) -> None:
        self._target.put(key, data)
        self._folders[(self._root / key.split("/", 1)[1]).parent] = None
        while len(self._folders) > RAWS_KEPT:
            shutil.rmtree(self._folders.popitem(last=False)[0], ignore_errors=True)


def plot(out: Path, wall_s: list[float], cost: dict[str, list[float]], memory: dict[str, list[float]]) -> None:
    """Draw cost and memory over the night."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 8), sharex=True)
    above.plot(wall_s, ".", markersize=2, color="0.8", label="wall time [s]")
    for name, values in sorted(cost.items()):
        above.plot(np.arange(1, len(values) + 1) * IN_A_BOX, values, label=f"{name} [core-s]")
    above.plot(np.arange(1, len(values) + 1) * IN_A_BOX, total(cost), "k", label="all roles [core-s]")
    above.set_ylabel("an exposure")
    above.set_ylim(0, float(np.nanpercentile(wall_s, 98)) * 1.2)
    above.legend(ncol=3)
    for name, values in sorted(memory.items()):
        below.plot(values, label=name)
    below.set_ylabel("resident memory [MB]")
    below.set_xlabel("exposure")
    below.set_ylim(bottom=0)
    below.legend()
    figure.tight_layout()
    figure.savefig(out / "long_night.png", dpi=110)


def total(cost: dict[str, list[float]]) -> list[float]:
    """Return what an exposure took in all roles [core-s]."""
    return [float(sum(values)) for values in zip(*cost.values(), strict=True)]


def incomplete(summaries: Iterable[SummaryFacts], n_detectors: int) -> dict[int, list[str]]:
    """Return what is told of exposures of which not every detector is finished; each pipeline has a summary of its own."""
    finished: Counter[int] = Counter()
    told: dict[int, list[str]] = {}
    for one in summaries:
        finished[one.exposure] += one.n_finished if one.is_complete else 0
        states = ", ".join(f"{len(detectors)} {state}" for state, detectors in one.not_finished.items())
        told.setdefault(one.exposure, []).append(
            f"{one.pipeline} v{one.n_versions}: {one.n_finished} of {one.n_expected} finished, {states or 'none open'}"
        )
    return {exposure: told[exposure] for exposure, n in finished.items() if n != n_detectors}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=1000)
    parser.add_argument("--camera", default="TestCam205")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--detectors", type=int, default=205, help="of each exposure, by number")
    parser.add_argument(
        "--board-memory",
        type=float,
        default=300.0,
        help="seconds after which the board forgets an exposure: days in service, fewer here so that the night sees it",
    )
    parser.add_argument("--science", action="store_true", help="the packaged pipelines")
    parser.add_argument("--out", type=Path, default=Path("build/long_night"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    plan = make_plan(
        {
            "camera": arguments.camera,
            "day_obs": 20261120,
            "seed": 8,
            "stars_per_detector": 12,
            "detectors": sorted(load_camera(arguments.camera).by_id)[: arguments.detectors],
            "blocks": [{"kind": "science", "n": arguments.exposures, "physical_filter": "r_57"}],
        }
    )
    settings = {"build_calibs": False, "backlog_age_s": 86_400.0, "board_memory_s": arguments.board_memory}
    system = {"settings": settings, "pipelines": "" if arguments.science else LIGHT}
    # Every detector of every exposure, however fast they come.
    calm = ControlEvent(at_s=0.0, change={"shedding": {"enabled": False}}, by="bench", reason="all detectors")
    night = recording_of_plan(plan, title="a long night", extra=[calm]).with_manifest(system=system)
    folder = Path(tempfile.mkdtemp(prefix="rapid-long-night-"))
    sampler = Sampler(folder)
    begin_s = time.monotonic()
    try:
        found = replay_night(
            night,
            folder / "system",
            options=SystemOptions(n_workers=arguments.workers, with_display=True),
            around=sampler.around,
            on_step=sampler.step,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    total_s = time.monotonic() - begin_s
    n_detectors = len(plan.exposures()[0].detectors)
    wall_s = [float(cost) for cost in np.diff(sampler.seconds)]
    each = each_cost(sampler.cpu_s)
    cost = Trend.of(total(each))
    memory = {name: Trend.of(values) for name, values in sampler.memory.items()}
    open_ = incomplete(found.summaries, n_detectors)
    report = {
        "exposures": arguments.exposures,
        "detectors": n_detectors,
        "workers": arguments.workers,
        "cores": os.cpu_count(),
        "pipelines": "packaged" if arguments.science else "light",
        "total_s": round(total_s, 1),
        "n_complete": arguments.exposures - len(open_),
        "incomplete": open_,
        "exposure_core_s": {"early": round(cost.early, 3), "late": round(cost.late, 3)},
        "exposure_wall_s": round(float(np.median(wall_s)), 3),
        "memory_mb": {
            name: {"early": round(trend.early, 1), "late": round(trend.late, 1)} for name, trend in memory.items()
        },
        "not_flat": judge(cost, memory, arguments.exposures),
        "broken": {name: problems for name, problems in found.manifest.invariants.items() if problems},
    }
    (arguments.out / "long_night.json").write_text(
        json.dumps(report | {"wall_s": wall_s, "core_s": each, "memory": sampler.memory}, allow_nan=True),
        encoding="utf-8",
    )
    plot(arguments.out, wall_s, each, sampler.memory)
    print(json.dumps(report, indent=1))
    wrong = list(report["not_flat"])
    wrong += [f"{name}: {problem}" for name, problems in report["broken"].items() for problem in problems]
    if report["n_complete"] != arguments.exposures:
        wrong.append(f"{report['n_complete']} of {arguments.exposures} exposures are complete")
    for problem in wrong:
        print(f"long night: {problem}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
