"""How soon things happen on an idle system of real processes: head, one worker, gather, a directory of raws.

    python bench/bench_latency.py --rounds 200

A small raw is renamed into the directory; told are the times to the start of its job, and from its result to the start and
the end of its gather. Then nothing happens for a while: told are the commands that the roles send and the CPU they use.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag

import psutil
import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.bench_preemption import Follower, report
from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.wiring.camera import adopt_camera
from replay.plan import NightPlan
from replay.simulate import NightSimulator

CAMERA = "name: OneChip\nbase: TestCam205\nonly: R22_S11\ncode: OC\n"
ROLES = ("head", "worker", "gather")


def simulate(n: int) -> dict[str, bytes]:
    """Return n exposures of one small detector by key."""
    raws: dict[str, bytes] = {}
    plan = NightPlan.model_validate(
        {"camera": "OneChip", "day_obs": 20261120, "seed": 3, "stars_per_detector": 20,
         "blocks": [{"kind": "science", "n": n, "physical_filter": "r_57"}]}
    )  # fmt: skip
    simulator = NightSimulator(plan, raws.__setitem__)
    for exposure in simulator.exposures:
        for _ in simulator.take(exposure):
            pass
    simulator.close()
    return {key: data for key, data in raws.items() if key.endswith((".fits", ".fits.fz"))}


@contextmanager
def roles_of(url: str, folder: Path) -> Iterator[list[psutil.Process]]:
    environment = dict(os.environ) | {
        "RAPID_CAMERA": "OneChip", "RAPID_REDIS_URL": url, "RAPID_DATA": str(folder / "data"),
        "RAPID_RAWS": str(folder / "raws"),
    }  # fmt: skip
    with (folder / "roles.log").open("w") as log:
        started = [
            subprocess.Popen([sys.executable, "-m", "rapid", role], env=environment, stderr=log, stdout=log)
            for role in ROLES
        ]
    try:
        yield [psutil.Process(process.pid) for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def cpu_s(processes: list[psutil.Process]) -> float:
    """CPU time of processes and their children."""
    every = [*processes, *(child for process in processes for child in process.children(recursive=True))]
    return sum(sum(process.cpu_times()[:2]) for process in every)


def sent(client: redis.Redis) -> int:
    """Commands that clients sent so far; what functions call is left out."""
    stats = client.info("commandstats")
    names = ("fcall", "blpop", "xread", "hgetall", "xrevrange", "info", "ping", "psubscribe", "blmove")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedValkey(Path(name) / "valkey") as server:
        folder = Path(name)
        (folder / "OneChip.yaml").write_text(CAMERA)
        (folder / "raws").mkdir()
        (folder / "aside").mkdir()
        adopt_camera(str(folder / "OneChip.yaml"))
        raws = simulate(options.rounds + 3)
        starts, gathers = [], []
        with Board(server.url, "OneChip") as board, roles_of(server.url, folder) as processes:
            board.load()
            follow = Follower(board)
            for number, (key, data) in enumerate(sorted(raws.items())):
                aside, target = folder / "aside" / Path(key).name, folder / "raws" / key
                aside.write_bytes(data)
                target.parent.mkdir(parents=True, exist_ok=True)
                begin = board.now_ms()
                aside.replace(target)
                batch = f"prompt.{2026112000001 + number}.quicklook"
                started = follow.wait_for(EventKind.JOB_STARTED, batch)
                finished = follow.wait_for(EventKind.JOB_FINISHED, batch)
                ready = follow.wait_for(EventKind.SUMMARY_READY, batch)
                if number >= 3:
                    starts.append(float(started - begin))
                    gathers.append(float(ready - finished))
            with redis.Redis.from_url(server.url) as client:
                before, used = sent(client), cpu_s(processes)
                Flag().wait(options.idle)
                n_sent, cpu = sent(client) - before, cpu_s(processes) - used
    report("raw in the directory to job started", starts)
    report("last result to summary ready", gathers)
    print(f"idle: {n_sent / options.idle:.2f} commands a second, {100 * cpu / options.idle:.2f} % of a core, "
          f"over {options.idle:.0f} s, head + worker + gather")  # fmt: skip


if __name__ == "__main__":
    main()
