"""189 no-op detector jobs and one gather, two worker processes: the board beside other queues, in one run.

    python bench/bench_dispatch.py --rounds 9
    python bench/bench_dispatch.py --only rapid,bare

Time runs from the start of the enqueueing to the end of the gather, workers up and warm. The peers are those of
`bench/requirements.txt` that are installed. ``bare`` is the floor: the same work by hand with plain Redis commands, one
round trip a job and nothing kept (no leases, no attempts, no events, no order). The board keeps all of these, on the same
server, with the append-only file on for everybody.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import dispatch_peers
from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, Job, WorkerSpec
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.worker.pace import Pace

N_JOBS = 189
N_WORKERS = 2
DAY = 20261120 * 100_000
SPAWN = multiprocessing.get_context("spawn")


class System(Protocol):
    """One way to run the jobs."""

    def run_round(self, number: int) -> float:
        """Run 189 jobs and the gather; return seconds."""
        ...


def key_of(number: int) -> BatchKey:
    return BatchKey(exposure_id=DAY + number, pipeline="quicklook")


def spec_of(number: int, detectors: range) -> BatchSpec:
    raws = {detector: f"s3://rubin/LSSTCam/20261120/{number:06d}/{detector:03d}.fits" for detector in detectors}
    return BatchSpec(
        key=key_of(number), camera="LSSTCam", image_type="science", expected=frozenset(detectors), raws=raws
    )


def rapid_worker(url: str, name: str) -> None:
    """Complete every job at once, as many at a time as a worker's pace says; tell when each of a ping began."""
    worker, pace = WorkerSpec(worker_id=name), Pace()
    with Board(url, "LSSTCam") as board, redis.Redis.from_url(url) as client:
        while True:
            jobs = board.claim_many(worker, pace.limit, timeout_s=60)
            if jobs and jobs[0].image_type == "ping":
                client.lpush("started", time.monotonic_ns())
            while jobs:
                begin = time.perf_counter()
                results = [(job, no_op(job)) for job in jobs]
                pace.observe(time.perf_counter() - begin, len(jobs))
                jobs = board.complete_many(results, claim_limit=pace.limit).following


def no_op(_job: Job) -> dict[str, float]:
    return {"sky_level_adu": 812.5, "psf_fwhm_arcsec": 0.71}


def bare_worker(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        while True:
            popped = client.blpop(["bare:queue"], 60)
            job = popped[1] if popped else None
            while job is not None:
                with client.pipeline(transaction=False) as pipe:
                    pipe.sadd("bare:finished", job)
                    pipe.hset("bare:metrics", job, '{"sky_level_adu":812.5,"psf_fwhm_arcsec":0.71}')
                    pipe.scard("bare:finished")
                    pipe.lpop("bare:queue")
                    _, _, n_finished, job = pipe.execute()
                if n_finished == N_JOBS and job is None:
                    client.lpush("bare:gather", 1)


@contextlib.contextmanager
def processes(target: Any, *argument_lists: tuple[Any, ...]) -> Iterator[None]:
    started = [SPAWN.Process(target=target, args=arguments, daemon=True) for arguments in argument_lists]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.join(10)


class RapidSystem:
    """The board."""

    def __init__(self, url: str) -> None:
        self.board = Board(url, "LSSTCam")

    def run_round(self, number: int) -> float:
        begin = time.perf_counter()
        self.board.post(spec_of(number, range(N_JOBS)))
        gather = self.board.next_gather("g0", timeout_s=60)
        assert gather is not None
        assert len(gather.finished) == N_JOBS
        self.board.complete_gather(gather)
        return time.perf_counter() - begin


class BareSystem:
    """Plain commands, nothing kept."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def run_round(self, number: int) -> float:
        self.client.delete("bare:finished", "bare:metrics", "bare:gather")
        begin = time.perf_counter()
        self.client.rpush("bare:queue", *[json.dumps({"exposure": number, "detector": d}) for d in range(N_JOBS)])
        assert self.client.blpop(["bare:gather"], 60)
        assert len(self.client.hgetall("bare:metrics")) == N_JOBS
        return time.perf_counter() - begin


def measure(name: str, system: System, rounds: int) -> list[float]:
    """Return ms per round, three warm-up rounds left out."""
    times = [system.run_round(number) * 1000 for number in range(1, rounds + 4)][3:]
    print(
        f"{name:20} {statistics.median(times):8.1f} ms  [{min(times):.1f}-{max(times):.1f}], n = {len(times)}",
        flush=True,
    )
    return times


def client_commands(client: redis.Redis) -> int:
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("fcall", "blpop"))


def measure_idle(board: Board, client: redis.Redis, rounds: int) -> None:
    """Arrival to worker start, and last detector to gather start, with nothing else to do."""
    starts, gathers = [], []
    for number in range(rounds):
        spec = spec_of(10_000 + number, range(1)).model_copy(update={"image_type": "ping"})
        begin = time.monotonic_ns()
        board.post(spec)
        _, started = client.blpop(["started"], 60)
        starts.append((int(started) - begin) / 1e6)
        gather = board.next_gather("g0", timeout_s=60)
        assert gather is not None
        gathers.append(board.now_ms() - (gather.last_result_ms or 0))
        board.complete_gather(gather)
    for name, values in (("post to worker start", starts), ("last result to gather", gathers)):
        values.sort()
        p99 = values[int(0.99 * len(values))]
        print(f"{name:22} p50 {statistics.median(values):.2f} ms  p99 {p99:.2f} ms  n = {len(values)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="comma list: rapid, bare, or peers")
    wanted = {name for name in parser.parse_args().only.split(",") if name}
    rounds = parser.parse_args().rounds
    medians: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as server:
        client = redis.Redis.from_url(server.url)
        if not wanted or "bare" in wanted:
            with processes(bare_worker, *[(server.url,)] * N_WORKERS):
                medians["bare"] = statistics.median(measure("bare commands", BareSystem(server.url), rounds))
        if not wanted or "rapid" in wanted:
            with processes(rapid_worker, *[(server.url, f"w{i}") for i in range(N_WORKERS)]):
                system = RapidSystem(server.url)
                before = client_commands(client)
                medians["rapid"] = statistics.median(measure("rapid", system, rounds))
                per_round = (client_commands(client) - before) / (rounds + 3)
                print(f"{'':20} {per_round:.0f} round trips an exposure of {N_JOBS} jobs, one of them the fan-out")
                measure_idle(system.board, client, 300)
        for name, peer in dispatch_peers.PEERS.items():
            if (wanted and name not in wanted) or importlib.util.find_spec(peer.module) is None:
                continue
            client.flushall()
            try:
                with peer.serve(server.url) as system:
                    medians[name] = statistics.median(measure(name, system, rounds))
            except Exception as error:  # noqa: BLE001 - a peer that breaks must not hide the others
                print(f"{name:20} failed: {type(error).__name__}: {error}")
    peers = {name: value for name, value in medians.items() if name not in {"rapid", "bare"}}
    if "rapid" in medians and peers:
        best = min(peers, key=lambda name: peers[name])
        print(f"\nbest peer {best}: {peers[best] / medians['rapid']:.1f} x the board's time")
        print("all peers: " + ", ".join(f"{name} {value / medians['rapid']:.1f} x" for name, value in peers.items()))
    if {"rapid", "bare"} <= set(medians):
        print(f"the board takes {medians['rapid'] / medians['bare']:.2f} x the bare commands")


if __name__ == "__main__":
    main()
