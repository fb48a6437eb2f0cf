"""A year of LSSTCam's index of uses: how fast "what has this flat touched?" is answered.

    .venv/bin/python bench/bench_affected.py                    # 365 days, of which one with 600 exposures
    .venv/bin/python bench/bench_affected.py --per-day 60       # a fuller year, ten minutes to write

Only the index is written (`rapid.results.uses`), not the documents: `affected` does not read those. Of the other days a few
exposures stand for all, as what is asked for is found by an index: what an answer costs is what is in it. SQLite, on local disk.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from rapid.provenance.store import ProvenanceStore
from rapid.results.store import open_results

CAMERA, N_DETECTORS = "LSSTCam", 189
KINDS = ("bias", "dark", "flat-r_57")
FIRST = date(2025, 11, 21)


def day_of(place: int) -> int:
    return int(f"{FIRST + timedelta(days=place):%Y%m%d}")


def calib_id(kind: str, detector: int, day: int) -> str:
    return f"{CAMERA}-{detector:03d}-{kind}-{day}T200000-v1"


def fill(connection: sqlite3.Connection, n_days: int, per_day: int, busy_day: int, busy: int) -> tuple[int, int]:
    """Write results and their uses; return how many of each."""
    number = {}
    for place in range(n_days):
        for kind in KINDS:
            for detector in range(N_DETECTORS):
                number[calib_id(kind, detector, day_of(place))] = len(number) + 1
    connection.executemany(
        "INSERT INTO calib_name (id, calib_id) VALUES (?, ?)", ((n, name) for name, n in number.items())
    )
    # A flat is built with bias and dark, a dark with the bias.
    parents = (
        (number[calib_id(parent, detector, day_of(place))], number[calib_id(kind, detector, day_of(place))])
        for place in range(n_days)
        for detector in range(N_DETECTORS)
        for kind, parent in (("dark", "bias"), ("flat-r_57", "bias"), ("flat-r_57", "dark"))
    )
    connection.executemany("INSERT INTO calib_parent (parent, child) VALUES (?, ?)", sorted(parents))
    results, uses = [], []
    for place in range(n_days):
        day = day_of(place)
        for seq_num in range(1, (busy if place == busy_day else per_day) + 1):
            for detector in range(N_DETECTORS):
                results.append((len(results) + 1, day, seq_num, day * 100_000 + seq_num, detector))
                uses += [(number[calib_id(kind, detector, day)], len(results)) for kind in KINDS]
    connection.executemany(
        "INSERT INTO detector_result (id, run, camera, day_obs, seq_num, exposure, pipeline, detector, image_type, document)"
        " VALUES (?, 'prompt', 'LSSTCam', ?, ?, ?, 'quicklook', ?, 'science', '{}')",
        results,
    )
    uses.sort()
    connection.executemany("INSERT INTO result_calib (calib, result) VALUES (?, ?)", uses)
    connection.commit()
    return len(results), len(uses)


def timed(store: ProvenanceStore, label: str, pattern: str) -> None:
    took = []
    for _ in range(6):
        begin = time.perf_counter()
        found = store.affected(CAMERA, calib=pattern)
        took.append(time.perf_counter() - begin)
    print(
        f"  {label:46} {found.n_results:7} results of {found.n_exposures:4} exposures   "
        f"first {took[0]:6.3f} s   median {statistics.median(took[1:]):6.3f} s",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=365)
    options.add_argument("--per-day", type=int, default=6, help="exposures of each other day")
    options.add_argument("--busy", type=int, default=600, help="exposures of the day that is asked about")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="rapid-affected-") as folder:
        path = Path(folder) / "results.sqlite"
        results = open_results(str(path))
        begin = time.perf_counter()
        with sqlite3.connect(path) as connection:
            n_results, n_uses = fill(connection, chosen.days, chosen.per_day, chosen.days // 2, chosen.busy)
        print(
            f"{n_results} results, {n_uses} uses, {len(KINDS) * chosen.days * N_DETECTORS} calibs: "
            f"{path.stat().st_size / 1e6:.0f} MB, written in {time.perf_counter() - begin:.0f} s"
        )
        store = ProvenanceStore(results.engine)
        day = day_of(chosen.days // 2)
        timed(store, "a flat of one detector", calib_id("flat-r_57", 94, day))
        timed(store, "a bias of one detector, with what was built", calib_id("bias", 94, day))
        timed(store, "a flat of every detector", f"{CAMERA}-*-flat-r_57-{day}T200000-v1")
        timed(store, "a bias of every detector, with what was built", f"{CAMERA}-*-bias-{day}T200000-v1")
        results.close()


if __name__ == "__main__":
    main()
