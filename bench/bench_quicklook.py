"""Core-seconds of a whole quick look of one CCD, beside astropy + ccdproc + sep + galsim in the same run.

    python bench/bench_quicklook.py

Rice bytes of 16 amps with 2000 stars to calibrated image, binned image, sky, sources, moments of the 200 brightest and
metrics. `rapid` runs its pipeline ``quicklook`` as a worker does, with crosstalk, linearity, bias, dark, flat, defects
and cosmic rays; the peer makes the steps ccdproc has, assembles, bins, and measures with sep and galsim.hsm. One
thread; CPU time of the process, so that a busy machine does not blur the ratio. Prints the worker's memory, and what
the first job of a fresh process costs.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import galsim
import numba
import numpy as np
import sep
from bench_isr import DETECTOR, Calibs, by_ccdproc, make_frame
from sky_raws import make_sky_raw

from rapid.pipeline.store import load_pipeline
from rapid.worker.registry import make_payloads

N_MOMENTS = 200
FIRST_JOB = """
import sys, time
begin = float(sys.argv[2])
from rapid.worker.child import PipelineRunner, RawInput, load_camera, load_pipeline
runner = PipelineRunner()
for payload in runner.payloads_of(load_pipeline("quicklook")):
    getattr(payload, "warm_up", lambda: None)()
ready = time.monotonic()
raw = RawInput(uri=sys.argv[1], data=open(sys.argv[1], "rb").read())
run = runner.run(raw, pipeline=load_pipeline("quicklook"), camera=load_camera("LSSTCam"))
done = time.monotonic()
print(ready - begin, done - ready, run.result.timings["total_s"], run.result.resources["max_rss_mb"])
"""


def by_peers(raw: bytes, calibs: Calibs) -> tuple[float, float, int]:
    """Return sky, median moments sigma [px] and the number of sources."""
    image = np.empty((DETECTOR.height, DETECTOR.width))
    amps = by_ccdproc(raw, calibs)
    for amp in DETECTOR.amps:
        image[amp.trimmed.slices] = amps[amp.name][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
    rows, columns = DETECTOR.height // 8, DETECTOR.width // 8
    image[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8).mean(axis=(1, 3))
    image = np.ascontiguousarray(image, dtype=np.float32)
    background = sep.Background(image, bw=128, bh=128)
    image -= background.back(dtype=np.float32)
    found = sep.extract(image, 5.0, err=background.globalrms, deblend_cont=1.0, filter_kernel=None)
    found = found[np.argsort(-found["flux"])]
    sep.sum_circle(image, found["x"], found["y"], 10.0)
    sigmas = []
    for star in found:
        x, y = round(float(star["x"])), round(float(star["y"]))
        if not (16 <= x < image.shape[1] - 16 and 16 <= y < image.shape[0] - 16):
            continue
        stamp = galsim.Image(image[y - 16 : y + 17, x - 16 : x + 17])
        moments = galsim.hsm.FindAdaptiveMom(stamp, guess_sig=2.0, strict=False)
        sigmas.append(moments.moments_sigma)
        if len(sigmas) == N_MOMENTS:
            break
    return background.globalback, float(np.median(sigmas)), len(found)


def core_ms(action, n):
    """Return median and least CPU time of n runs [ms]."""
    times = []
    for _ in range(n):
        start = time.process_time()
        action()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times), min(times)


def own_memory_mb() -> dict[str, float]:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    facts = dict(line.split(":", 1) for line in text.splitlines())
    return {name: float(facts[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--stars", type=int, default=2000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    numba.set_num_threads(1)
    raw = make_sky_raw(DETECTOR.id, stars_per_detector=arguments.stars)
    calibs = Calibs(crosstalk=True, linearity=True)
    payloads = make_payloads(load_pipeline("quicklook"))

    def run():
        frame = make_frame(raw, calibs)
        parts = []
        for payload in payloads:
            start = time.process_time()
            payload.run(frame)
            parts.append(1e3 * (time.process_time() - start))
        return frame, parts

    frame, _ = run()
    sky, sigma, n_sources = by_peers(raw, calibs)
    ours = frame.metrics
    print(f"{len(raw) / 1e6:.1f} MB, {arguments.stars} stars       rapid    peers")
    print(f"  sky [electron]            {ours['sky_level_e']:8.1f} {sky:8.1f}")
    print(f"  sigma of moments [px]     {ours['psf_sigma_px']:8.3f} {sigma:8.3f}")
    print(f"  sources                   {ours['n_sources']:8d} {n_sources:8d}")
    del frame
    parts: list[list[float]] = []
    base, least = core_ms(lambda: parts.append(run()[1]), arguments.repeats)
    shares = ", ".join(
        f"{payload.name} {statistics.median(row):.0f}"
        for payload, row in zip(payloads, zip(*parts, strict=True), strict=True)
    )
    peer, peer_least = core_ms(lambda: by_peers(raw, calibs), max(3, arguments.repeats // 3))
    print(f"rapid                         {base / 1e3:6.3f} core-s [least {least / 1e3:.3f}]  ({shares} ms)")
    print(f"astropy, ccdproc, sep, galsim {peer / 1e3:6.3f} core-s [least {peer_least / 1e3:.3f}]  {peer / base:.1f} x")
    path = Path(tempfile.gettempdir()) / f"bench-quicklook-{time.monotonic_ns()}.fits"
    try:
        path.write_bytes(raw)
        for label in ("first process", "second process"):
            done = subprocess.run(
                [sys.executable, "-c", FIRST_JOB, str(path), str(time.monotonic())],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            start, job, total, memory = (float(word) for word in done.stdout.split())
            print(
                f"{label}: ready after {start:.2f} s, first job {job:.2f} s (payloads {total:.2f}), peak {memory:.0f} MB"
            )
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
