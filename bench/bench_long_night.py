"""A long night of 205 detectors at compressed cadence: does an exposure cost the same at its end, does any role grow?

Example: python bench/bench_long_night.py --exposures 1000 --out build/long_night

Pipelines only assemble (``--science`` runs the packaged ones): what is asked is what the system around them takes. Writes
``long_night.json`` and ``long_night.png``: wall time of each exposure, and the memory of every role, over the night.

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
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import psutil

from replay.events import ControlEvent
from replay.nightbook import LIGHT
from replay.plan import make_plan
from replay.planned import recording_of_plan
from replay.play import PlayProgress
from replay.system import SystemOptions, replay_night
from replay.targets import RawTarget

MB = 1 << 20
LEAST_EXPOSURES = 50
RAWS_KEPT = 30
"""Exposures; ten times as many as are in flight."""

GROWTH_SHARE, GROWTH_MB = 0.10, 15.0
"""Allocators and caches move the memory of a role by some per cent; a leak of 100 kB an exposure is 60 MB in a long night."""

COST_SHARE = 0.25
"""What else runs on the machine moves the cost of an exposure; a cost that grows with the night doubles it."""


class Sampler:
    """Notes, at each exposure's first raw, when it was and what every role takes of memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin_s = 0.0
        self.seconds: list[float] = []
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
        if len(self.seconds) % 10 == 0:
            print(f"exposure {len(self.seconds)}: {self.seconds[-1]:.0f} s", flush=True)


def memory_mb(pid: int) -> float:
    """Return the resident memory of a role and what it started [MB]."""
    try:
        process = psutil.Process(pid)
        return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / MB
    except psutil.Error:
        return math.nan


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
        found.append(f"an exposure took {cost.early:.2f} s in the beginning and {cost.late:.2f} s in the end")
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


def plot(out: Path, cost_s: list[float], memory: dict[str, list[float]]) -> None:
    """Draw cost and memory over the night."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 7), sharex=True)
    above.plot(cost_s, ".-", linewidth=0.6)
    above.set_ylabel("wall time of an exposure [s]")
    above.set_ylim(bottom=0)
    for name, values in sorted(memory.items()):
        below.plot(values, label=name)
    below.set_ylabel("resident memory [MB]")
    below.set_xlabel("exposure")
    below.set_ylim(bottom=0)
    below.legend()
    figure.tight_layout()
    figure.savefig(out / "long_night.png", dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=1000)
    parser.add_argument("--camera", default="TestCam205")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--science", action="store_true", help="the packaged pipelines")
    parser.add_argument("--out", type=Path, default=Path("build/long_night"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    blocks = [{"kind": "science", "n": arguments.exposures, "physical_filter": "r_57"}]
    plan = make_plan(
        {"camera": arguments.camera, "day_obs": 20261120, "seed": 8, "stars_per_detector": 12, "blocks": blocks}
    )
    settings = {"build_calibs": False, "backlog_age_s": 86_400.0}
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
            options=SystemOptions(n_workers=arguments.workers),
            around=sampler.around,
            on_step=sampler.step,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    total_s = time.monotonic() - begin_s
    cost_s = [float(cost) for cost in np.diff(sampler.seconds)]
    cost = Trend.of(cost_s)
    memory = {name: Trend.of(values) for name, values in sampler.memory.items()}
    report = {
        "exposures": arguments.exposures,
        "detectors": len(plan.exposures()[0].detectors),
        "workers": arguments.workers,
        "cores": os.cpu_count(),
        "pipelines": "packaged" if arguments.science else "light",
        "total_s": round(total_s, 1),
        "n_complete": sum(one.is_complete for one in found.summaries),
        "exposure_s": {"early": round(cost.early, 3), "late": round(cost.late, 3)},
        "memory_mb": {
            name: {"early": round(trend.early, 1), "late": round(trend.late, 1)} for name, trend in memory.items()
        },
        "not_flat": judge(cost, memory, arguments.exposures),
        "broken": {name: problems for name, problems in found.manifest.invariants.items() if problems},
    }
    (arguments.out / "long_night.json").write_text(
        json.dumps(report | {"cost_s": cost_s, "memory": sampler.memory}, allow_nan=True), encoding="utf-8"
    )
    plot(arguments.out, cost_s, sampler.memory)
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
