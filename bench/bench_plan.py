"""The planner's prediction beside a real run of the same size on this machine.

    python bench/bench_plan.py [--workers N] [--exposures N] [--cadence S]

A night of the 205-detector test camera is taken into a directory at a steady cadence; head, workers and gather run as
`rapid up` runs them, without a display. Costs are then read from its results store, as `rapid cluster plan --measured`
does, and the same number of workers is simulated; what the workers' time does not explain is told beside it. Raws are rendered beforehand, so that rendering takes no cores.
Prints percentiles of the time from an exposure's first raw to its whole summary: measured, predicted, their ratio.
"""

import argparse
import asyncio
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rapid.cluster.costs import costs_of
from rapid.cluster.plan import Demand, simulate_latency, with_measured
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import EventKind
from rapid.results.store import open_results
from rapid.wiring.camera import adopt_camera
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor
from replay.plan import NightPlan
from replay.simulate import NightSimulator

CAMERA = "TestCam205"
WAIT_S = 300.0
N_NIGHTS = 50


def prepare(folder: Path, n_exposures: int, camera: str = CAMERA) -> list[list[tuple[Path, Path]]]:
    """Render all raws aside; return, by exposure, where each is and where it is to appear."""
    plan = NightPlan.model_validate(
        {
            "camera": camera, "day_obs": 20261120, "seed": 3, "stars_per_detector": 20,
            "blocks": [{"kind": "science", "n": n_exposures, "physical_filter": "r_57"}],
        }
    )  # fmt: skip
    moves: list[list[tuple[Path, Path]]] = []
    simulator = NightSimulator(plan, lambda _key, _data: None)
    try:
        for exposure in simulator.exposures:
            of_exposure = []
            for key, data in simulator.raws(exposure):
                aside = folder / "aside" / key
                aside.parent.mkdir(parents=True, exist_ok=True)
                aside.write_bytes(data)
                of_exposure.append((aside, folder / "raws" / key))
            moves.append(of_exposure)
    finally:
        simulator.close()
    return moves


async def take(
    supervisor: Supervisor,
    moves: list[list[tuple[Path, Path]]],
    n_workers: int,
    cadence_s: float,
    *,
    camera: str = CAMERA,
    on_ready: Callable[[], object] = lambda: None,
) -> list[float]:
    """Let exposures appear at a steady cadence; return how long each took to its whole summary [s]."""
    board = AsyncBoard(supervisor.redis_url, camera)
    begun: dict[int, float] = {}
    took: dict[int, float] = {}
    last, n_joined, next_s = "0", 0, 0.0
    deadline = time.monotonic() + WAIT_S + cadence_s * len(moves)
    waiting = list(moves)
    try:
        while len(took) < len(moves) and time.monotonic() < deadline:
            pause_s = min(max(next_s - time.monotonic(), 0.001), 1.0) if waiting and next_s else 1.0
            for event in await board.events(last, timeout_s=pause_s):
                last = event.event_id
                n_joined += event.kind is EventKind.WORKER_JOINED
                if event.kind is EventKind.SUMMARY_READY and event.data.get("is_complete"):
                    number = int(event.exposure_id or 0) % 100_000
                    took.setdefault(number, time.monotonic() - begun[number])
            if n_joined >= n_workers and not next_s:
                on_ready()
                next_s = time.monotonic()
            if waiting and next_s and time.monotonic() >= next_s:
                begun[len(begun) + 1] = time.monotonic()
                for aside, final in waiting.pop(0):
                    final.parent.mkdir(parents=True, exist_ok=True)
                    aside.rename(final)
                next_s += cadence_s
    finally:
        await board.close()
    return [took[number] for number in sorted(took)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--exposures", type=int, default=12)
    parser.add_argument("--cadence", type=float, default=20.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    camera = adopt_camera(CAMERA)
    with tempfile.TemporaryDirectory(prefix="rapid-plan-") as name:
        folder = Path(name)
        moves = prepare(folder, arguments.exposures)
        (folder / "raws").mkdir()
        settings = make_settings(camera=CAMERA, raws=str(folder / "raws"), data=folder / "data", build_calibs=False)
        supervisor = Supervisor(settings, n_workers=arguments.workers, pool_workers={}, with_display=False)
        supervisor.start()
        try:
            measured = asyncio.run(take(supervisor, moves, arguments.workers, arguments.cadence))
        finally:
            supervisor.stop()
        costs = costs_of("quicklook", str(folder / "data" / "results.sqlite"), camera)
        results = open_results(str(folder / "data" / "results.sqlite"))
        gathers = [one.timings.get("total_s", 0.0) for one in results.summaries(CAMERA, limit=100)]
        # Without the first exposure, as the latencies below: it meets cold caches.
        numbers = sorted({one.exposure for one in results.summaries(CAMERA, limit=100)})[1:]
        found = [job for one in numbers for job in results.results(one, camera=CAMERA)]
        jobs = [job.timings for job in found]
        costs = with_measured(costs, jobs, [], source=costs.source, exposures=[job.exposure for job in found])
        results.close()
    costs = costs.model_copy(update={"gather_s": float(np.median(gathers)) if gathers else 0.0})
    demand = Demand(detectors=len(moves[0]) - 1, cadence_s=arguments.cadence, arrival_s=0.0)
    # As many nights as this one as make a median: the 99th percentile of six exposures is their longest.
    nights = [
        simulate_latency(demand, costs, arguments.workers, n_exposures=len(measured), seed=seed)
        for seed in range(N_NIGHTS)
    ]
    print(f"{demand.detectors} detectors, {arguments.workers} workers, {costs.core_s * 1e3:.1f} ms CPU and "
          f"{costs.fixed_s * 1e3:.1f} ms beside it a job, gather {costs.gather_s * 1e3:.0f} ms, {len(measured)} exposures")  # fmt: skip
    whole_s = float(np.mean(measured[1:]))
    work_s = sum(job["worker_s"] for job in jobs) / max(len(numbers), 1) / arguments.workers
    print(f"mean {whole_s:.2f} s: workers at work {work_s:.2f} s, gather {costs.gather_s:.2f} s, "
          f"else (head, board, a worker without a job) {whole_s - work_s - costs.gather_s:.2f} s")  # fmt: skip
    for label, share, values in (
        ("p50", 50, [night.p50_s for night in nights]),
        ("p90", 90, [night.p90_s for night in nights]),
        ("p99", 99, [night.p99_s for night in nights]),
    ):
        value = float(np.median(values))
        took = float(np.percentile(measured[1:], share))
        print(f"{label}  measured {took:6.2f} s  predicted {value:6.2f} s  ratio {value / took:.2f}")


if __name__ == "__main__":
    main()
