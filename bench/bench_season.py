"""Cost per exposure and the server's memory over a season, its idle time passed by the board's clock.

    python bench/bench_season.py --exposures 100000 --detectors 3

Every exposure is posted, each detector's job claimed and completed (one in 500 fails for good), gathered and forgotten in
its time. Prints a row for every twentieth of the season: the curve must be flat once the first batches are forgotten
(2.5 days, about 7000 exposures). ``--csv FILE`` keeps the curve, ``--plot FILE`` draws it.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, WorkerSpec
from rapid.dispatch.valkey import EmbeddedValkey

CADENCE_S = 30
PER_NIGHT = 1000
METRICS = {"psf_fwhm_arcsec": 0.71, "sky_level_adu": 812.5, "n_stars": 214}


def exposure_id(number: int) -> int:
    """Return ids that grow as a season's do: 1000 exposures a night, 28 nights a month."""
    night, seq_num = divmod(number, PER_NIGHT)
    month, day = divmod(night, 28)
    year, month = divmod(month, 12)
    return ((2026 + year) * 10_000 + (month + 1) * 100 + day + 1) * 100_000 + seq_num + 1


def run_exposure(board: Board, number: int, n_detectors: int) -> float:
    """Take one exposure through the board; return seconds."""
    detectors = range(n_detectors)
    spec = BatchSpec(
        key=BatchKey(exposure_id=exposure_id(number), pipeline="quicklook"),
        camera="LSSTCam",
        image_type="science",
        expected=frozenset(detectors),
        raws={d: f"s3://rubin/{number}/{d}.fits" for d in detectors},
    )
    begin = time.perf_counter()
    board.post(spec)
    job = board.claim(WorkerSpec(worker_id="w0"))
    if job is not None and number % 500 == 0:
        board.fail(job, {"code": "bad", "message": "no star", "retry": "never"})
        job = board.claim(WorkerSpec(worker_id="w0"))
    while job is not None:
        job = board.complete(job, METRICS, claim_next=True)
    gather = board.next_gather("g0", timeout_s=0)
    assert gather is not None
    board.complete_gather(gather)
    elapsed = time.perf_counter() - begin
    board.advance_clock(CADENCE_S * 1000 if (number + 1) % PER_NIGHT else 15 * 3600 * 1000)
    while board.tick() == 0:
        pass
    return elapsed


def draw(rows: list[tuple[float, ...]], path: Path) -> None:
    """Draw cost and memory over the season."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(7, 4.5), layout="constrained")
    exposures = [row[0] for row in rows]
    top.plot(exposures, [row[1] for row in rows], marker="o", markersize=3)
    top.set(ylabel="cost of an exposure [ms]", ylim=(0, None))
    bottom.plot(exposures, [row[2] for row in rows], marker="o", markersize=3, color="C1")
    bottom.set(ylabel="memory of the server [MB]", xlabel="exposures", ylim=(0, None))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exposures", type=int, default=100_000)
    parser.add_argument("--detectors", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    step = max(options.exposures // 20, 1)
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedValkey(Path(folder)) as server,
        Board(server.url, "LSSTCam") as board,
        redis.Redis.from_url(server.url) as client,
    ):
        times: list[float] = []
        print(f"{'exposures':>10} {'ms each':>8} {'memory MB':>10} {'keys':>8} {'events':>8} {'dead':>6}")
        for number in range(options.exposures):
            times.append(run_exposure(board, number, options.detectors) * 1000)
            if (number + 1) % step == 0:
                row = (
                    number + 1,
                    round(statistics.median(times), 3),
                    round(client.info("memory")["used_memory"] / 1e6, 2),
                    client.dbsize(),
                    client.xlen(board.prefix + "events"),
                    board.status().dead_letters,
                )
                print("{:>10} {:>8} {:>10} {:>8} {:>8} {:>6}".format(*row), flush=True)
                rows.append(row)
                times = []
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows([("exposures", "ms", "memory_mb", "keys", "events", "dead_letters"), *rows])
    if options.plot:
        draw(rows, options.plot)
    later = [row for row in rows if row[0] > 10_000]
    if len(later) > 2:
        print(f"after 10 000 exposures: cost {min(r[1] for r in later)}-{max(r[1] for r in later)} ms, "
              f"memory {min(r[2] for r in later)}-{max(r[2] for r in later)} MB")  # fmt: skip


if __name__ == "__main__":
    main()
