"""What each role takes: what the resource requests of k8s/ are made of.

    python bench/bench_roles.py [--camera NAME] [--workers N] [--exposures N] [--cadence S]

A night of the 205-detector test camera, as `bench_plan.py` takes it, with a display that nobody looks at and a publish role that
fills a RubinTV bucket in a folder. Of each role's processes, children included: memory after the start and at its peak,
CPU time of the start, and of each exposure from then on, plots after the summary included. The test camera's raws are small,
and what workers take goes with them; what the others take goes with the number of detectors. `--camera LATISS` has one CCD of
the real size; the difference between its workers' CPU time and that of the pipeline is what the planner calls the fixed part.
"""

import argparse
import asyncio
import tempfile
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil
from bench_plan import CAMERA, prepare, take

from rapid.dispatch.board import AsyncBoard
from rapid.results.store import open_results
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor

QUIET_S = 10.0
"""So long without an event: the plots of the last exposure are drawn."""


@dataclass
class Taken:
    """What the processes of a role have taken so far."""

    rss_mb: float = 0.0
    peak_mb: float = 0.0
    cpu_s: float = 0.0
    processes: int = 0


def peak_mb(process: psutil.Process) -> float:
    """Return the largest resident size a process has had [MB]."""
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return float(line.split()[1]) / 1024
    return 0.0


def look() -> dict[str, Taken]:
    """Return what each role below this process has taken, its children counted with it."""
    found: dict[str, Taken] = defaultdict(Taken)
    for parent in psutil.Process().children():
        words = parent.cmdline()
        if "rapid" in words:
            role = words[words.index("rapid") + 1]
        elif words and "valkey-server" in words[0]:
            role = "valkey"
        else:
            continue
        for process in (parent, *parent.children(recursive=True)):
            try:
                times, taken = process.cpu_times(), found[role]
                taken.rss_mb += process.memory_info().rss / 2**20
                taken.peak_mb += peak_mb(process)
                taken.cpu_s += times.user + times.system + times.children_user + times.children_system
                taken.processes += 1
            except (psutil.NoSuchProcess, OSError):
                continue
    return dict(found)


async def wait_until_quiet(redis_url: str, camera: str) -> None:
    """Return when nothing has happened for `QUIET_S`."""
    board = AsyncBoard(redis_url, camera)
    try:
        last = await board.last_event_id()
        while events := await board.events(last, timeout_s=QUIET_S):
            last = events[-1].event_id
    finally:
        await board.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camera", default=CAMERA)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--exposures", type=int, default=4)
    parser.add_argument("--cadence", type=float, default=30.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    started: dict[str, Taken] = {}
    with tempfile.TemporaryDirectory(prefix="rapid-roles-") as name:
        folder = Path(name)
        moves = prepare(folder, arguments.exposures, arguments.camera)
        for place in ("raws", "bucket"):
            (folder / place).mkdir()
        settings = make_settings(
            camera=arguments.camera, raws=str(folder / "raws"), data=folder / "data", build_calibs=False, port=0,
            publish_rubintv=str(folder / "bucket"),
        )  # fmt: skip
        supervisor = Supervisor(settings, n_workers=arguments.workers, pool_workers={})
        supervisor.start()
        try:
            asyncio.run(
                take(
                    supervisor,
                    moves,
                    arguments.workers,
                    arguments.cadence,
                    camera=arguments.camera,
                    on_ready=lambda: started.update(look()),
                )
            )
            asyncio.run(wait_until_quiet(supervisor.redis_url, arguments.camera))
            ended = look()
        finally:
            supervisor.stop()
        results = open_results(settings.results)
        jobs = [
            one.timings
            for exposure in {one.exposure for one in results.summaries(arguments.camera, limit=1000)}
            for one in results.results(exposure, camera=arguments.camera)
        ]
        results.close()
    print(f"{len(moves)} exposures of {len(moves[0])} raws, {arguments.workers} workers (their sum is shown)")
    print(f"{'role':8} {'processes':>9} {'rest MiB':>9} {'peak MiB':>9} {'start cpu-s':>12} {'cpu-s an exposure':>18}")
    for role, taken in sorted(ended.items()):
        before = started.get(role, Taken())
        each = (taken.cpu_s - before.cpu_s) / len(moves)
        print(
            f"{role:8} {taken.processes:9} {before.rss_mb:9.0f} {taken.peak_mb:9.0f} {before.cpu_s:12.1f} {each:18.2f}"
        )
    n = max(len(jobs), 1)
    busy = (ended["worker"].cpu_s - started["worker"].cpu_s) / n
    print(
        f"{len(jobs)} jobs: {sum(job['cpu_s'] for job in jobs) / n:.3f} core-s of the pipeline, {busy:.3f} core-s of the worker; "
        f"{sum(job['total_s'] for job in jobs) / n:.3f} s of the pipeline, {sum(job['worker_s'] for job in jobs) / n:.3f} s of the worker"
    )


if __name__ == "__main__":
    main()
