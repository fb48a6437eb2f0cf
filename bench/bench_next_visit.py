"""What an announcement gains: from the first raw of a new filter to the calibs of its detector in memory.

Full-size calibs (bias, dark and flat with their variances, 4004 x 4096) as they lie on disk after their certification;
the system's copies of the files are dropped before each trial. Once as an exposure without an announcement finds them,
once after the steps of a preload. Run: python bench/bench_next_visit.py [N_TRIALS]
"""

import json
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rapid.calibs.store import PAGE_PIXELS, CalibCache, CalibStore
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.results.store import open_results
from rapid.worker.messages import Preload
from rapid.worker.preparing import Preloads

SHAPE = (4004, 4096)
DAY = datetime.fromisoformat("2026-11-20T20:00:00")
KINDS = ("bias", "dark", "flat")


def info_of(detector: int) -> ExposureInfo:
    return ExposureInfo(
        camera="LSSTCam", exposure_id=2026112000100, obs_id="MC_O_20261120_000100", controller="O", day_obs=20261120,
        seq_num=100, detector=detector, detector_name="R22_S11", image_type=ImageType.SCIENCE, begin=DAY,
        physical_filter="r_57",
    )  # fmt: skip


def forget_files(root: Path) -> None:
    """Have the system drop its copies of files: the first exposure of a night finds them on disk."""
    os.sync()
    for path in root.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def first_exposure_s(cache: CalibCache, detector: int) -> float:
    """Return how long it takes until every pixel of the calibs can be worked with [s]."""
    begin = time.perf_counter()
    cache.refresh()
    for kind in KINDS:
        plane = cache.get(info_of(detector), kind)
        for pixels in (plane.image, plane.variance):
            pixels.reshape(-1)[::PAGE_PIXELS].max()
    return time.perf_counter() - begin


def main() -> None:
    n_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, list[float]] = {"not announced": [], "announced": [], "the preload itself": []}
    for trial in range(n_trials):
        for is_announced in (False, True):
            with tempfile.TemporaryDirectory(prefix="rapid-bench-visit-", dir=os.environ.get("BENCH_DIR")) as folder:
                results = open_results(f"{folder}/results.sqlite")
                store = CalibStore(Path(folder) / "calibs", results)
                pixels = np.random.default_rng(trial).normal(1.0, 0.1, SHAPE).astype(np.float32)
                for kind in KINDS:
                    store.certify(
                        kind=kind, camera="LSSTCam", detector=94, image=pixels, variance=pixels, valid_from=DAY,
                        physical_filter="r_57" if kind == "flat" else None, inputs=[1],
                    )  # fmt: skip
                forget_files(Path(folder))
                cache = CalibCache(store, results)
                if is_announced:
                    preloads = Preloads(results, cache, list)
                    begin, step = time.perf_counter(), 0
                    while preloads.take(
                        Preload(group_id="g", camera="LSSTCam", detector=94, filters=("r_57",), begin=DAY, step=step)
                    ):
                        step += 1
                    found["the preload itself"].append(time.perf_counter() - begin)
                found["announced" if is_announced else "not announced"].append(first_exposure_s(cache, 94))
                results.close()
    medians = {f"{name} [s]": round(statistics.median(times), 4) for name, times in found.items()}
    medians["gained [s]"] = round(medians["not announced [s]"] - medians["announced [s]"], 4)
    print(json.dumps({"n_trials": n_trials, "calibs": len(KINDS), "median": medians}, indent=2))


if __name__ == "__main__":
    main()
