"""How soon a current job runs on a worker that is busy with backlog, mode preempting, one real worker process.

    python bench/bench_preemption.py --rounds 20

A full-size CCD is looked at as backlog; while it is, the newest exposure comes. Told are the time from its post to the
start of its job (the child that ran the backlog is dead, the spare one takes over) and to its result, beside the
same on an idle worker in the same run. Each round begins when the worker has a warm spare again.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, Event, EventKind, Priority, WorkerMode
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.wiring.camera import adopt_camera
from replay.plan import NightPlan
from replay.simulate import NightSimulator, directory_sink

CAMERA = "name: OneCCD\nbase: LSSTCam\nonly: R22_S11\ncode: OC\n"
DETECTOR = 94


def take_two(folder: Path) -> list[tuple[int, str]]:
    """Write two full-size raws; return exposure ids and paths."""
    plan = NightPlan.model_validate(
        {"camera": "OneCCD", "day_obs": 20261120, "seed": 3, "stars_per_detector": 2000,
         "blocks": [{"kind": "science", "n": 2, "physical_filter": "r_57"}]}
    )  # fmt: skip
    simulator = NightSimulator(plan, directory_sink(folder))
    for exposure in simulator.exposures:
        for _ in simulator.take(exposure):
            pass
    ids = [exposure.exposure_id for exposure in simulator.exposures]
    simulator.close()
    return list(zip(ids, sorted(str(path) for path in folder.rglob("*.fits*")), strict=True))


class Follower:
    """Waits for events of the board."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.last = board.last_event_id()
        self.seen: list[Event] = []

    def wait_for(self, kind: EventKind, batch_id: str) -> int:
        """Return when it happened, ms of the board's clock."""
        while True:
            for place, event in enumerate(self.seen):
                if event.kind is kind and event.batch_id == batch_id:
                    del self.seen[: place + 1]
                    return event.at_ms
            events = self.board.events(self.last, timeout_s=120)
            if not events:
                raise TimeoutError(f"no {kind} of {batch_id}")
            self.last = events[-1].event_id
            self.seen += events


@contextmanager
def worker_of(url: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    environment = dict(os.environ) | {
        "RAPID_CAMERA": "OneCCD", "RAPID_REDIS_URL": url, "RAPID_DATA": str(folder / "data"), "RAPID_NAME": "w0",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "rapid", "worker"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def wait_for_line(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise RuntimeError(f"the worker ended before it said {text!r}")


def report(name: str, values: list[float]) -> None:
    values = sorted(values)
    p99 = values[min(int(0.99 * len(values)), len(values) - 1)]
    print(f"{name:44} p50 {statistics.median(values):7.1f} ms  p99 {p99:7.1f} ms  n = {len(values)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name, EmbeddedValkey(Path(name) / "valkey") as server:
        folder = Path(name)
        (folder / "OneCCD.yaml").write_text(CAMERA)
        adopt_camera(str(folder / "OneCCD.yaml"))
        (old, old_raw), (new, new_raw) = take_two(folder / "raws")
        with Board(server.url, "OneCCD") as board:
            board.load()
            board.set_mode(WorkerMode.PREEMPTING)
            follow = Follower(board)

            def post(exposure_id: int, raw: str, run: str, priority: Priority) -> str:
                key = BatchKey(run=run, exposure_id=exposure_id, pipeline="quicklook")
                board.post(
                    BatchSpec(
                        key=key, camera="OneCCD", image_type="science", expected=frozenset({DETECTOR}),
                        raws={DETECTOR: raw}, priority=priority,
                    )
                )  # fmt: skip
                return key.id

            def look(run: str) -> tuple[int, int, int]:
                begin = board.now_ms()
                batch = post(new, new_raw, run, Priority.CURRENT)
                started = follow.wait_for(EventKind.JOB_STARTED, batch)
                return begin, started, follow.wait_for(EventKind.JOB_FINISHED, batch)

            with worker_of(server.url, folder) as process:
                wait_for_line(process, "worker ready")
                look("warm-up")
                wait_for_line(process, "spare child ready")
                idle = [look(f"idle{n}") for n in range(rounds)]
                busy = []
                for n in range(rounds):
                    backlog = post(old, old_raw, f"redo{n}", Priority.BACKLOG)
                    follow.wait_for(EventKind.JOB_STARTED, backlog)
                    busy.append(look(f"busy{n}"))
                    follow.wait_for(EventKind.JOB_FINISHED, backlog)
                    wait_for_line(process, "spare child ready")
            preemptions = board.status().counters.get("preemptions", 0)
    print(f"{preemptions} pre-emptions in {rounds} rounds")
    report("idle worker: post to start", [float(s - b) for b, s, _ in idle])
    report("busy worker: post to start (the switch)", [float(s - b) for b, s, _ in busy])
    report("idle worker: post to result", [float(f - b) for b, _, f in idle])
    report("busy worker: post to result", [float(f - b) for b, _, f in busy])


if __name__ == "__main__":
    main()
