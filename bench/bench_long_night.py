"""A long night of 205 detectors at compressed cadence: does an exposure cost the same at its end, does any role grow?

Example: python bench/bench_long_night.py --exposures 1000 --out build/long_night

Pipelines only assemble (``--science`` runs the packaged ones): what is asked is what the system around them takes. Writes
``long_night.json`` and ``long_night.png``: wall time of each exposure, and the memory of every role, over the night.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import psutil

from replay.nightbook import LIGHT
from replay.plan import make_plan
from replay.planned import recording_of_plan
from replay.play import PlayProgress
from replay.system import SystemOptions, replay_night

MB = 1 << 20


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
        return target

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


def growth_of(values: list[float]) -> tuple[float, float]:
    """Return the slope per 100 exposures over the second three quarters, and the level there."""
    late = np.asarray(values[len(values) // 4 :], float)
    late = late[np.isfinite(late)]
    if late.size < 3:
        return math.nan, math.nan
    return float(np.polyfit(np.arange(late.size), late, 1)[0] * 100), float(np.median(late))


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
    night = recording_of_plan(plan, title="a long night").with_manifest(system=system)
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
    slope_s, level_s = growth_of(cost_s)
    grown = {name: growth_of(values) for name, values in sampler.memory.items()}
    report = {
        "exposures": arguments.exposures,
        "detectors": len(plan.exposures()[0].detectors),
        "workers": arguments.workers,
        "cores": os.cpu_count(),
        "pipelines": "packaged" if arguments.science else "light",
        "total_s": round(total_s, 1),
        "n_complete": sum(one.is_complete for one in found.summaries),
        "exposure_s": round(level_s, 3),
        "exposure_slope_s_per_100": round(slope_s, 4),
        "memory_mb": {name: round(level, 1) for name, (_, level) in grown.items()},
        "memory_slope_mb_per_100": {name: round(slope, 2) for name, (slope, _) in grown.items()},
        "broken": {name: problems for name, problems in found.manifest.invariants.items() if problems},
    }
    (arguments.out / "long_night.json").write_text(
        json.dumps(report | {"cost_s": cost_s, "memory": sampler.memory}, allow_nan=True), encoding="utf-8"
    )
    plot(arguments.out, cost_s, sampler.memory)
    print(json.dumps(report, indent=1))
    return 1 if report["broken"] or report["n_complete"] != arguments.exposures else 0


if __name__ == "__main__":
    sys.exit(main())
