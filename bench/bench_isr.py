"""What one raw costs from Rice bytes to a calibrated image, beside peers in the same run.

    python bench/bench_isr.py

astropy + ccdproc do per-row serial overscan, trim, gain, bias, dark and flat, per amp. fitsio + numpy do the same in
single precision into an assembled image, with saturation, mask and variance. Both are timed without and with crosstalk (a
matrix product) and linearity (scipy's Akima spline), which neither has by itself. `payloads.isr` always masks, makes a
variance plane, assembles, bins and measures per amp; the lines say what more. The images are compared before anything is
timed. One thread; CPU time of the process, so that a busy machine does not blur the ratios.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
import warnings

import ccdproc
import fitsio
import numpy as np
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData
from bench_decode import make_raw
from scipy.interpolate import Akima1DInterpolator

from payloads.isr.payload import Isr, IsrConfig
from payloads.plugin import CalibPlane, Frame, NoCalibs
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


def correct_electronics(amps: list[np.ndarray]) -> None:
    """Take crosstalk and non-linearity off all amps' pixels in the order they are read, in place [electron]."""
    signal = np.stack([pixels.ravel() for pixels in amps])
    fractions = np.full((len(amps), len(amps)), 1e-4, dtype=signal.dtype)
    np.fill_diagonal(fractions, 0.0)
    signal -= fractions @ signal
    spline = Akima1DInterpolator([0.0, 1e3, 3e4, 1e5], [0.0, 1.0, 20.0, 150.0])
    for pixels, values in zip(amps, signal, strict=True):
        pixels[...] = (values - spline(np.clip(values, 0.0, 1e5))).reshape(pixels.shape)


def by_ccdproc(raw: bytes, calibs: Calibs, *, electronics: bool = False) -> dict[str, np.ndarray]:
    """Return each amp's calibrated pixels, in the order they are read."""
    images = {}
    signals = []
    with fits.open(io.BytesIO(raw), memmap=False) as hdus:
        for amp in DETECTOR.amps:
            ccd = CCDData(np.asarray(hdus[f"Segment{amp.name[1:]}"].data, dtype=np.float32), unit="adu")
            ccd = ccdproc.subtract_overscan(
                ccd,
                overscan=ccd[:, amp.serial_overscan.x0 + 3 : amp.serial_overscan.x1 - 3],
                median=True,
                overscan_axis=1,
            )
            ccd = ccdproc.trim_image(ccd[amp.data.slices])
            signals.append(ccdproc.gain_correct(ccd, amp.gain * units.electron / units.adu))
        if electronics:
            correct_electronics([ccd.data for ccd in signals])
        for amp, signal in zip(DETECTOR.amps, signals, strict=True):
            part = amp.trimmed.slices
            planes = {
                kind: calibs.planes[kind].image[part][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
                for kind in ("bias", "dark", "flat")
            }
            ccd = ccdproc.subtract_bias(signal, CCDData(planes["bias"], unit="electron"))
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


def by_fitsio(path: str, calibs: Calibs, planes: dict[str, np.ndarray], *, electronics: bool = False) -> None:
    """Fill image, mask and variance of one raw with fitsio and numpy."""
    image, mask, variance = planes["image"], planes["mask"], planes["variance"]
    signals = []
    with fitsio.FITS(path) as hdus:
        for amp in DETECTOR.amps:
            counts = hdus[f"Segment{amp.name[1:]}"].read().astype(np.float32)
            overscan = counts[amp.data.y0 : amp.data.y1, amp.serial_overscan.x0 + 3 : amp.serial_overscan.x1 - 3]
            signal = counts[amp.data.slices] - np.median(overscan, axis=1)[:, None]
            saturated = signal >= amp.saturation
            signal *= np.float32(amp.gain)
            turned = (slice(None, None, -1 if amp.flip_y else 1), slice(None, None, -1 if amp.flip_x else 1))
            mask[amp.trimmed.slices] = saturated[turned].astype(np.int32) << 1
            variance[amp.trimmed.slices] = np.float32(amp.read_noise**2)
            if electronics:
                signals.append((amp, signal))
            else:
                image[amp.trimmed.slices] = signal[turned]
    if electronics:
        correct_electronics([signal for _, signal in signals])
    for amp, signal in signals:
        turned = (slice(None, None, -1 if amp.flip_y else 1), slice(None, None, -1 if amp.flip_x else 1))
        image[amp.trimmed.slices] = signal[turned]
    image -= calibs.planes["bias"].image
    image -= calibs.planes["dark"].image * np.float32(30)
    variance += image
    mask[~np.isfinite(image)] |= 1 << 11
    flat = calibs.planes["flat"].image
    image /= flat
    variance /= flat * flat


def measure(action, n):
    times = []
    for _ in range(n):
        start = time.process_time()
        action()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times), min(times), max(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    raw = make_raw(compressed=True)
    calibs = Calibs()
    quick = {"cosmic_rays": False}
    same = Isr(IsrConfig(parallel_overscan=False, interpolate=False, **quick))
    start = time.perf_counter()
    same.warm_up()
    print(f"warm-up {time.perf_counter() - start:.1f} s (kernels compiled, or loaded from their cache)")
    frame = make_frame(raw, calibs)
    same.run(frame)
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

    planes = {
        "image": np.empty(SIZE, np.float32), "mask": np.empty(SIZE, np.int32), "variance": np.empty(SIZE, np.float32)
    }  # fmt: skip
    everything = Calibs(crosstalk=True, linearity=True)
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:
        file.write(raw)
        file.flush()
        by_fitsio(file.name, calibs, planes)
        off = np.abs(planes["image"] - frame.image)
        if np.median(off) > 0.01 or off.max() > 2.0:
            sys.exit(f"differs from fitsio + numpy by {np.median(off):.3f} (median), {off.max():.3f} electron")
        peers: dict[bool, tuple[float, float]] = {}
        for electronics, more in ((False, ""), (True, ", crosstalk, linearity")):
            times = []
            for name, action in (
                ("astropy + ccdproc", lambda e=electronics: by_ccdproc(raw, calibs, electronics=e)),
                ("fitsio + numpy", lambda e=electronics: by_fitsio(file.name, calibs, planes, electronics=e)),
            ):
                median, low, high = measure(action, 5)
                print(f"  {name + more:42} {median:7.1f} ms [{low:.1f}-{high:.1f}]")
                times.append(median)
            peers[electronics] = times[0], times[1]
    for label, payload, source in (
        ("rapid, the same steps", same, calibs),
        ("  and crosstalk, linearity", same, everything),
        ("  and parallel overscan, interpolation", Isr(IsrConfig(**quick)), everything),
        ("  and cosmic rays: everything", Isr(IsrConfig()), everything),
        ("rapid, no calibs, no cosmic rays", Isr(IsrConfig(**quick)), NoCalibs()),
    ):
        run(payload, source)
        median, low, high = measure(lambda payload=payload, source=source: run(payload, source), arguments.repeats)
        ratios = [f"{peer / median:.1f} x, {other / median:.1f} x" for peer, other in peers.values()]
        alike = ratios[0] if source is not everything else f"{ratios[1]} (of peers without: {ratios[0]})"
        print(f"  {label:42} {median:7.1f} ms [{low:.1f}-{high:.1f}]  {alike}")


if __name__ == "__main__":
    main()
