"""A year of LSSTCam in the trends: 3216 amps, daily, 40 numbers; how fast its questions are answered, on both databases.

    .venv/bin/python bench/bench_trends.py                  # SQLite and PostgreSQL, a year of 40 numbers
    .venv/bin/python bench/bench_trends.py --metrics 8      # a smaller one
    .venv/bin/python bench/bench_trends.py --per-day 20     # twenty exposures a day of the numbers asked for

Reported are the first answer of a new connection (the file's pages may be in the system's cache: it was just written)
and the median of five more.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from rapid.camera.store import load_camera
from rapid.results.store import open_results
from rapid.trends.channels import Channels
from rapid.trends.models import date_of
from rapid.trends.simulate import METRICS, load_arrays, simulate
from rapid.trends.store import TrendStore
from rapid.trends.watch import TrendWatch
from tests.support.postgres import serve_postgres

FIRST = date(2025, 11, 21)


def all_channels(camera):
    channels = Channels()
    for detector in camera.detectors:
        for amp in sorted(amp.name for amp in detector.amps):
            channels.add(detector.id, detector.name, amp)
    return channels


def timed(label, ask, limit_s=None):
    begin = time.perf_counter()
    answer = ask()
    first = time.perf_counter() - begin
    more = []
    for _ in range(5):
        begin = time.perf_counter()
        ask()
        more.append(time.perf_counter() - begin)
    wanted = f"   wanted < {limit_s:g} s" if limit_s else ""
    print(f"  {label:58} first {first:7.3f} s   median {statistics.median(more):7.3f} s{wanted}", flush=True)
    return answer


@contextmanager
def sqlite():
    with tempfile.TemporaryDirectory(prefix="rapid-trends-") as folder:
        yield f"sqlite:///{folder}/results.sqlite", lambda: Path(folder, "results.sqlite").stat().st_size


@contextmanager
def postgresql():
    with serve_postgres() as url:
        import psycopg

        def size():
            with psycopg.connect(url) as connection:
                return connection.execute("SELECT pg_database_size(current_database())").fetchone()[0]

        yield url, size


def run(name, opened, args):
    camera = load_camera("LSSTCam")
    channels = all_channels(camera)
    rng = np.random.default_rng(6)
    with opened() as (url, size):
        results = open_results(url)
        store = TrendStore(results.engine)
        metrics = METRICS[: args.metrics]
        begin = time.perf_counter()
        n = 0
        for seq_num in range(1, args.per_day + 1):
            # A few numbers are simulated; the others repeat them: the database cannot tell.
            made: dict[int, np.ndarray] = {}

            def numbers(metric, made=made):
                index = METRICS.index(metric) % 8
                if index not in made:
                    made[index] = simulate(METRICS[index], args.days, len(channels), rng).astype(np.float32)
                return made[index]

            chosen = metrics if seq_num == 1 else metrics[:1]
            n += load_arrays(results.engine, camera.name, channels, chosen, numbers, FIRST, seq_num=seq_num)
        took = time.perf_counter() - begin
        print(
            f"{name}: {n / 1e6:.1f} million values in {took:.1f} s ({n / took / 1e6:.2f} million/s), {size() / 1e6:.0f} MB"
        )
        results.close()
        results = open_results(url)
        store = TrendStore(results.engine)
        metric, image_type = metrics[0].name, metrics[0].image_type
        facts = {"metric": metric, "image_type": image_type}
        answer = timed(
            f"{metric} of one detector, {args.days} days, 16 amps",
            lambda: store.history(camera.name, metric, detector=94, image_type=image_type),
            1,
        )
        assert len(answer[0].exposures) == args.days * args.per_day, len(answer[0].exposures)
        timed(
            "  the same as the display's JSON",
            lambda: [
                one.model_dump_json() for one in store.history(camera.name, metric, detector=94, image_type=image_type)
            ],
            1,
        )
        drift = timed(
            f"drift of {metric}, {len(channels)} amps, {args.days} days",
            lambda: store.drift_map(camera.name, **facts),
            5,
        )
        assert sum(len(amps) for amps in drift.amps.values()) == len(channels)
        timed("  the same as the display's JSON", lambda: store.drift_map(camera.name, **facts).model_dump_json(), 5)
        timed("list of all series", lambda: store.metrics(camera.name))
        watch = TrendWatch(results.engine)
        key_of = store.keys(camera.name)
        last = FIRST + timedelta(days=args.days - 1)
        day = last.year * 10_000 + last.month * 100 + last.day
        first_day = date_of(day) - timedelta(days=180)
        first = first_day.year * 10_000 + first_day.month * 100 + first_day.day
        names = store.channels(camera.name)
        policy = watch._policy

        def look():
            series, key = next((s, k) for s, k in key_of.items() if k.metric == metric and k.image_type == image_type)
            found = store.numbers(series, key, first_day=first, n_channels=len(names))
            return watch.look(found, names, policy.of(metric, image_type), day, datetime.now(UTC))

        timed("search of one number's last 180 days after a new exposure", look)
        results.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", type=int, default=40)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--per-day", type=int, default=1)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if args.only != "postgresql":
        run("SQLite", sqlite, args)
    if args.only != "sqlite":
        run("PostgreSQL", postgresql, args)


if __name__ == "__main__":
    main()
