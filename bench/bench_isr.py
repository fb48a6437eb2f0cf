"""How long one raw takes from Rice bytes to a calibrated image, beside astropy + ccdproc in the same run.

    python bench/bench_isr.py

Both do per-row serial overscan, trim, gain, bias, dark and flat; `payloads.isr` also masks, makes a variance plane,
assembles, interpolates, bins and measures. The images are compared before anything is timed. One thread.
"""

import argparse
import io
import statistics
import sys
import time
import warnings

import ccdproc
import numpy as np
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData
from bench_decode import make_raw

from payloads.isr.payload import Isr, IsrConfig
from payloads.plugin import CalibPlane, Frame
from rapid.camera.store import load_camera
from rapid.exposure.models import ExposureInfo, ImageType

CAMERA = load_camera("LSSTCam")
DETECTOR = CAMERA.by_id[94]
SIZE = (DETECTOR.height, DETECTOR.width)


class Calibs:
    """Bias, dark and flat; crosstalk if asked."""

    def __init__(self, *, crosstalk: bool = False, linearity: bool = False) -> None:
        rng = np.random.default_rng(2)
        normal = rng.standard_normal(SIZE, dtype=np.float32)
        self.planes = {
            "bias": CalibPlane("bias", normal * np.float32(2)),
            "dark": CalibPlane("dark", np.float32(0.02) + np.float32(0.005) * normal),
            "flat": CalibPlane("flat", np.float32(1) + np.float32(0.01) * normal),
        }
        empty = np.empty((0, 0), np.float32)
        if crosstalk:
            table = {a.name: {b.name: 1e-4 for b in DETECTOR.amps} for a in DETECTOR.amps}
            self.planes["crosstalk"] = CalibPlane("crosstalk", empty, table=table)
        if linearity:
            table = {a.name: {"1e3": 1.0, "3e4": 20.0, "1e5": 150.0} for a in DETECTOR.amps}
            self.planes["linearity"] = CalibPlane("linearity", empty, table=table)

    def get(self, kind: str) -> CalibPlane | None:
        return self.planes.get(kind)


def make_frame(raw: bytes, calibs: Calibs) -> Frame:
    info = ExposureInfo(
        camera="LSSTCam", exposure_id=2026112000001, obs_id="MC_O_20261120_000001", controller="O", day_obs=20261120,
        seq_num=1, detector=94, detector_name="R22_S11", image_type=ImageType.SCIENCE, exposure_time_s=30.0,
        dark_time_s=30.0,
    )  # fmt: skip
    return Frame(raw=raw, info=info, header={}, camera=CAMERA, detector=DETECTOR, calibs=calibs)


def by_ccdproc(raw: bytes, calibs: Calibs) -> dict[str, np.ndarray]:
    """Return each amp's calibrated pixels, in the order they are read."""
    images = {}
    with fits.open(io.BytesIO(raw), memmap=False) as hdus:
        for amp in DETECTOR.amps:
            ccd = CCDData(np.asarray(hdus[f"Segment{amp.name[1:]}"].data, dtype=np.float32), unit="adu")
            part = amp.trimmed.slices
            planes = {
                kind: calibs.planes[kind].image[part][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
                for kind in ("bias", "dark", "flat")
            }
            ccd = ccdproc.subtract_overscan(
                ccd,
                overscan=ccd[:, amp.serial_overscan.x0 + 3 : amp.serial_overscan.x1 - 3],
                median=True,
                overscan_axis=1,
            )
            ccd = ccdproc.trim_image(ccd[amp.data.slices])
            ccd = ccdproc.gain_correct(ccd, amp.gain * units.electron / units.adu)
            ccd = ccdproc.subtract_bias(ccd, CCDData(planes["bias"], unit="electron"))
            ccd = ccdproc.subtract_dark(
                ccd,
                CCDData(planes["dark"], unit="electron"),
                dark_exposure=1 * units.s,
                data_exposure=30 * units.s,
                scale=True,
            )
            ccd = ccdproc.flat_correct(ccd, CCDData(planes["flat"], unit=units.dimensionless_unscaled), norm_value=1.0)
            images[amp.name] = ccd.data
    return images


def measure(action, n):
    times = []
    for _ in range(n):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times), max(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    raw = make_raw(compressed=True)
    calibs = Calibs()
    alike = Isr(IsrConfig(parallel_overscan=False, interpolate=False))
    start = time.perf_counter()
    alike.warm_up()
    print(f"warm-up {time.perf_counter() - start:.1f} s (kernels compiled, or loaded from their cache)")
    frame = make_frame(raw, calibs)
    alike.run(frame)
    theirs = by_ccdproc(raw, calibs)
    for amp in DETECTOR.amps:
        mine = frame.image[amp.trimmed.slices][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        off = np.abs(mine - theirs[amp.name])
        # Rows whose overscan has an outlier differ by the clipping of it.
        if np.median(off) > 0.01 or off.max() > 2.0:
            sys.exit(f"{amp.name}: differs from ccdproc by {np.median(off):.3f} (median), {off.max():.3f} electron")
    print("calibrated pixels agree with ccdproc's")

    def run(payload, source):
        payload.run(make_frame(raw, source))

    peer, low, high = measure(lambda: by_ccdproc(raw, calibs), 3)
    print(f"  astropy + ccdproc              {peer:7.1f} ms [{low:.1f}-{high:.1f}]")
    everything = Calibs(crosstalk=True, linearity=True)
    for label, payload, source in (
        ("rapid, the same steps", alike, calibs),
        ("rapid, all but crosstalk and linearity", Isr(IsrConfig()), calibs),
        ("rapid, everything", Isr(IsrConfig()), everything),
        ("rapid, no calibs", Isr(IsrConfig(bias=False, dark=False, flat=False)), calibs),
    ):
        run(payload, source)
        median, low, high = measure(lambda payload=payload, source=source: run(payload, source), arguments.repeats)
        print(f"  {label:38} {median:7.1f} ms [{low:.1f}-{high:.1f}]  {peer / median:.1f} x")


if __name__ == "__main__":
    main()
