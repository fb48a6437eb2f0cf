"""A year of LSSTCam's index of uses: how fast "what has this flat touched?" is answered.

    .venv/bin/python bench/bench_affected.py                    # 365 days, of which one with 600 exposures
    .venv/bin/python bench/bench_affected.py --postgres         # on a server of its own
    .venv/bin/python bench/bench_affected.py --per-day 60       # a fuller year, ten minutes to write

Only the index is written (`rapid.results.uses`), not the documents: `affected` does not read those. Of the other days a few
exposures stand for all, as what is asked for is found by an index: what an answer costs is what is in it. On local disk.
"""

import argparse
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rapid.provenance.store import ProvenanceStore
from rapid.results.store import open_results
from tests.support.postgres import serve_postgres

Write = Callable[[str, str, Iterable[tuple[Any, ...]]], None]
"""Takes a table's name, its columns with commas between, and rows."""

CAMERA, N_DETECTORS = "LSSTCam", 189
KINDS = ("bias", "dark", "flat-r_57")
FIRST = date(2025, 11, 21)


def day_of(place: int) -> int:
    return int(f"{FIRST + timedelta(days=place):%Y%m%d}")


def calib_id(kind: str, detector: int, day: int) -> str:
    return f"{CAMERA}-{detector:03d}-{kind}-{day}T200000-v1"


def into_sqlite(connection: sqlite3.Connection) -> Write:
    def write(table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(columns.split(",")))
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - our own names
        connection.commit()

    return write


def into_postgres(url: str) -> Write:
    import psycopg

    def write(table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.execute(f"ANALYZE {table}")

    return write


def fill(write: Write, n_days: int, per_day: int, busy_day: int, busy: int) -> tuple[int, int]:
    """Write results and their uses; return how many of each."""
    number = {}
    for place in range(n_days):
        for kind in KINDS:
            for detector in range(N_DETECTORS):
                number[calib_id(kind, detector, day_of(place))] = len(number) + 1
    write("calib_name", "id, calib_id", ((n, name) for name, n in number.items()))
    # A flat is built with bias and dark, a dark with the bias.
    parents = (
        (number[calib_id(parent, detector, day_of(place))], number[calib_id(kind, detector, day_of(place))])
        for place in range(n_days)
        for detector in range(N_DETECTORS)
        for kind, parent in (("dark", "bias"), ("flat-r_57", "bias"), ("flat-r_57", "dark"))
    )
    write("calib_parent", "parent, child", sorted(parents))
    results, uses = [], []
    for place in range(n_days):
        day = day_of(place)
        for seq_num in range(1, (busy if place == busy_day else per_day) + 1):
            for detector in range(N_DETECTORS):
                results.append((len(results) + 1, day, seq_num, day * 100_000 + seq_num, detector))
                uses += [(number[calib_id(kind, detector, day)], len(results)) for kind in KINDS]
    rows = ((n, "prompt", CAMERA, d, s, e, "quicklook", ccd, "science", "{}") for n, d, s, e, ccd in results)
    columns = "id, run, camera, day_obs, seq_num, exposure, pipeline, detector, image_type, document"
    write("detector_result", columns, rows)
    uses.sort()
    write("result_calib", "calib, result", uses)
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
    options.add_argument("--postgres", action="store_true", help="on a PostgreSQL server, started for it")
    chosen = options.parse_args()
    if chosen.postgres:
        with serve_postgres() as url:
            measure(chosen, url, into_postgres(url))
        return
    with tempfile.TemporaryDirectory(prefix="rapid-affected-") as folder:
        path = Path(folder) / "results.sqlite"
        open_results(str(path)).close()
        with sqlite3.connect(path) as connection:
            measure(chosen, str(path), into_sqlite(connection))


def measure(chosen: argparse.Namespace, url: str, write: Write) -> None:
    results = open_results(url)
    begin = time.perf_counter()
    n_results, n_uses = fill(write, chosen.days, chosen.per_day, chosen.days // 2, chosen.busy)
    n_calibs = len(KINDS) * chosen.days * N_DETECTORS
    print(
        f"{results.engine.dialect.name}: {n_results} results, {n_uses} uses, {n_calibs} calibs, "
        f"written in {time.perf_counter() - begin:.0f} s; load {os.getloadavg()[0]:.0f}"
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
