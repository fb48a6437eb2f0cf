"""False alarms and detections of the trend search on simulated years, day by day as a camera would bring them.

    .venv/bin/python bench/bench_trend_alarms.py                 # 5 rafts (720 amps), one quiet year and one with truth
    .venv/bin/python bench/bench_trend_alarms.py --years 4 --seed 100
    .venv/bin/python bench/bench_trend_alarms.py --rafts R22 --exposures 15    # afternoons of fifteen exposures of a type

Every day of the year the search sees what a control room would have had, and its alarms are reconciled with those of
the days before in a real store, as the watch does it. Quiet years hold noise, slow wander, what all amps share, and
lone bad numbers (one in ten thousand, by 10 to 30 times the noise); the rates are scaled to the 3216 amps of LSSTCam.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from payloads.trend.decompose import Scale
from payloads.trend.search import Kind
from rapid.camera.store import load_camera
from rapid.results.store import open_results
from rapid.trends.models import SeriesKey, SeriesNumbers, date_of, day_obs_of
from rapid.trends.policy import site_policy
from rapid.trends.simulate import METRICS, channels_of, simulate
from rapid.trends.watch import WINDOW_DAYS, TrendWatch

FIRST = date(2025, 11, 21).toordinal()
NOW = datetime(2026, 11, 21, tzinfo=UTC)
LASTING = {Kind.STEP, Kind.DRIFT, Kind.GROWTH, Kind.DEAD, Kind.MISSING}
N_AMPS_LSSTCAM = 3216


def follow(watch, series, metric, values, channels, per_day=1):
    """Show a year to the watch, day by day; return the alarms it ends with, all it ever raised, and the seconds."""
    days = np.array([day_obs_of(FIRST + i // per_day) for i in range(len(values))])
    exposures = days * 100_000 + 1 + np.arange(len(values)) % per_day
    key = SeriesKey(camera="LSSTCam", metric=metric.name, image_type=metric.image_type, condition=metric.condition,
                    pipeline=metric.image_type)  # fmt: skip
    policy = site_policy().of(metric.name, metric.image_type)
    raised, took = [], 0.0
    for today in range(per_day - 1, len(values), per_day):
        first = max(today + 1 - (WINDOW_DAYS + 1) * per_day, 0)
        rows = slice(first, today + 1)
        part = SeriesNumbers(series, key, exposures[rows], days[rows], values[rows].astype(np.float32))
        start = time.perf_counter()
        found = watch.look(part, channels, policy, int(days[today]), NOW)
        took += time.perf_counter() - start
        raised += watch.alarms.reconcile(
            series, found, window_first_day=int(days[first]), outliers_from=int(days[today]), watched=None
        )
    ends = [one for one in watch.alarms.alarms("LSSTCam", limit=100_000) if one.series == series]
    return ends, raised, took


def quiet_years(args, watch, channels):
    n_amps, counts, shown, took = len(channels), Counter(), [], 0.0
    n_bad = 0
    for year in range(args.years):
        for place, metric in enumerate(METRICS[: args.metrics]):
            rng = np.random.default_rng([args.seed, year, place])
            values = simulate(metric, args.days, n_amps, rng, per_day=args.exposures)
            n_bad += metric.bad * values.size
            ends, _, seconds = follow(watch, 1000 + year * 100 + place, metric, values, channels, args.exposures)
            took += seconds
            for one in ends:
                counts[one.scope.value, one.kind.value] += 1
                if one.kind in LASTING or one.scope.value != "amp":
                    shown.append(one)
    factor = N_AMPS_LSSTCAM / n_amps / args.years / (args.days / 365) * 40 / args.metrics
    n_tests = args.years * args.metrics
    print(f"quiet: {args.years} year(s) of {n_amps} amps, {args.metrics} numbers, {args.days} days of "
          f"{args.exposures}; {took / (n_tests * args.days) * 1000:.0f} ms a search")  # fmt: skip
    lasting = sum(n for (_, kind), n in counts.items() if Kind(kind) in LASTING)
    shared = sum(n for (scope, kind), n in counts.items() if scope != "amp" and Kind(kind) is Kind.OUTLIER)
    alone = counts["amp", Kind.OUTLIER.value]
    print(f"  false steps, drifts, growths, dead or missing amps: {lasting} "
          f"-> {lasting * factor:.1f} in a year of LSSTCam with 40 numbers")  # fmt: skip
    print(f"  bad exposures of a detector, raft or camera:        {shared} -> {shared * factor:.1f}")
    print(f"  lone bad numbers: {alone} noted (closed a day later), {n_bad:.0f} had been put in")
    for one in shown[:20]:
        print("   ", one.text, f"{one.significance:.1f} sigma")


def injected(metric, n_days, channels, rng, per_day=1):
    """Return numbers with truth: (kind, label, scope, channel or detector, day) of each change."""
    n = len(channels)
    values = simulate(metric, n_days, n, rng, per_day=per_day)
    places = rng.permutation(n)
    detectors = channels.detectors
    truth, used = [], set()
    t = np.arange(n_days * per_day) // per_day

    def amps(count):
        taken = 0
        while taken < count:
            place = int(places[len(used)])
            used.add(place)
            taken += 1
            yield place, int(rng.integers(60, 120))

    if metric.scale is Scale.COUNT:
        for slope in (0.5, 1.0, 2.0):
            for place, day in amps(8):
                values[:, place] += np.round(slope * np.maximum(t - day, 0))
                truth.append((Kind.GROWTH, f"growth {slope:g} px/day", "amp", place, day))
        return values, truth
    unit = metric.noise
    for size in (2.0, 3.0, 5.0, 10.0):
        for place, day in amps(8):
            change = np.where(t >= day, size * unit, 0.0)
            values[:, place] = (
                values[:, place] * np.exp(change) if metric.scale is Scale.RATIO else values[:, place] + change
            )
            truth.append((Kind.STEP, f"step {size:g} sigma", "amp", place, day))
    for slope in (0.05, 0.1, 0.3):
        for place, day in amps(8):
            change = slope * unit * np.maximum(t - day, 0)
            values[:, place] = (
                values[:, place] * np.exp(-change) if metric.scale is Scale.RATIO else values[:, place] - change
            )
            truth.append((Kind.DRIFT, f"drift {slope:g} sigma/day", "amp", place, day))
    if metric.scale is Scale.RATIO:
        for place, day in amps(4):
            values[t >= day, place] = 0.0
            truth.append((Kind.DEAD, "dead amp", "amp", place, day))
    for place, day in amps(4):
        values[t >= day, place] = np.nan
        truth.append((Kind.MISSING, "not measured any more", "amp", place, day))
    for detector in rng.choice(np.unique(detectors), 6, replace=False):
        day = int(rng.integers(60, 150))
        own = detectors == detector
        bad = day * per_day + int(rng.integers(per_day))
        values[bad, own] = values[bad, own] * 1.2 if metric.scale is Scale.RATIO else values[bad, own] + 20 * unit
        truth.append((Kind.OUTLIER, "one bad exposure", "detector", int(detector), day))
    if metric.name == "flat_level_e":
        values *= np.exp(-0.002 * np.maximum(t - 130, 0))[:, None]
        truth.append((Kind.DRIFT, "lamp fading 0.2 %/day", "camera", -1, 130))
    return values, truth


def years_with_truth(args, watch, channels):
    found = defaultdict(list)
    extra = []
    for year in range(args.years):
        for place, metric in enumerate(METRICS[: args.metrics]):
            rng = np.random.default_rng([args.seed + 1, year, place])
            values, truth = injected(metric, 200, channels, rng, args.exposures)
            ends, _, _ = follow(watch, 5000 + year * 100 + place, metric, values, channels, args.exposures)
            left = [one for one in ends if one.kind in LASTING or one.scope.value != "amp"]
            for kind, label, scope, where, day in truth:
                name = channels.rows[where] if scope == "amp" else None
                same = [
                    one for one in left
                    if one.scope.value == scope
                    and (scope != "amp" or (one.detector, one.amp) == (name.detector, name.amp))
                    and (scope != "detector" or one.detector == where)
                    and abs(date_of(one.onset_day).toordinal() - FIRST - day) <= 30
                ]  # fmt: skip
                best = min(same, key=lambda one: abs(date_of(one.onset_day).toordinal() - FIRST - day), default=None)
                if best is None:
                    found[kind, label].append(None)
                    continue
                left.remove(best)
                away = date_of(best.onset_day).toordinal() - FIRST - day
                delay = date_of(best.raised_day).toordinal() - FIRST - day
                found[kind, label].append((away, delay, best.kind is kind))
            extra += left
    print(f"with truth: {args.years} x {args.metrics} numbers, 200 days of {args.exposures}")
    print(
        f"  {'change':26} {'n':>4} {'found':>6} {'date within 1 d':>16} {'2 d':>5} {'median delay':>13} {'right kind':>11}"
    )
    for (_, label), answers in found.items():
        good = [one for one in answers if one is not None]
        n = max(len(good), 1)
        within = [sum(abs(one[0]) <= limit for one in good) / n for limit in (1, 2)]
        delay = float(np.median([one[1] for one in good])) if good else float("nan")
        kind = sum(one[2] for one in good) / n
        print(f"  {label:26} {len(answers):>4} {len(good) / len(answers):>6.0%} {within[0]:>16.0%} {within[1]:>5.0%} "
              f"{delay:>11.0f} d {kind:>11.0%}")  # fmt: skip
    print(f"  alarms that belong to no truth: {len(extra)}")
    for one in extra[:20]:
        print("   ", one.state.value, one.text, f"{one.significance:.1f} sigma")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=1)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--exposures", type=int, default=1, help="of a day")
    parser.add_argument("--metrics", type=int, default=8)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--rafts", default="R22,R21,R11,R12,R10")
    parser.add_argument("--only", choices=["quiet", "truth"])
    args = parser.parse_args()
    channels = channels_of(load_camera("LSSTCam"), rafts=args.rafts.split(","))
    with tempfile.TemporaryDirectory(prefix="rapid-alarms-") as folder:
        results = open_results(f"{folder}/results.sqlite")
        watch = TrendWatch(results.engine)
        if args.only != "truth":
            quiet_years(args, watch, channels)
        if args.only != "quiet":
            years_with_truth(args, watch, channels)
        results.close()


if __name__ == "__main__":
    main()
