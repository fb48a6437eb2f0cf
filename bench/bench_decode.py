"""How long one raw takes to decode, beside astropy and fitsio in the same run.

    python bench/bench_decode.py [RAW...]

Without a raw, one of 16 segments of 2048 x 576 is made: sky of 600 electron, read noise 6. Every reader's pixels are
compared with the first one's before anything is timed. One thread; CPU time, so that a busy machine does not blur the ratios.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import fitsio
import numpy as np
from astropy.io import fits

from payloads.raw.segments import SegmentReader
from rapid.camera.store import load_camera
from rapid.exposure.fits_header import scan


def make_raw(*, compressed: bool) -> bytes:
    """Return a full-size E2V raw."""
    rng = np.random.default_rng(1)
    amps = load_camera("LSSTCam").by_id[94].amps
    hdus = [fits.PrimaryHDU()]
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    for amp in amps:
        electrons = rng.standard_normal((amp.raw_height, amp.raw_width), dtype=np.float32) * 6.0
        sky = electrons[amp.data.slices]
        sky += 600.0 + np.sqrt(600.0) * rng.standard_normal(sky.shape, dtype=np.float32)
        pixels = np.rint(electrons / amp.gain + 23_000.0).astype(np.int32)
        hdus.append(
            kind(pixels, name=f"Segment{amp.name[1:]}", **({"compression_type": "RICE_1"} if compressed else {}))
        )
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def measure(action, n):
    """Return median, least and greatest CPU time of n runs [ms]."""
    times = []
    for _ in range(n):
        start = time.process_time()
        action()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times), min(times), max(times)


def compare(label: str, data: bytes, n: int) -> None:
    amps = load_camera("LSSTCam").by_id[94].amps
    names = [f"Segment{amp.name[1:]}" for amp in amps]
    detector = load_camera("LSSTCam").by_id[94]
    reader = SegmentReader()
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:
        file.write(data)
        file.flush()

        def ours():
            return reader.read(scan(data), detector).pixels

        def by_astropy():
            with fits.open(io.BytesIO(data), memmap=False) as hdus:
                return [np.asarray(hdus[name].data).astype(np.int32, copy=False) for name in names]

        def by_fitsio():
            with fitsio.FITS(file.name) as hdus:
                return [hdus[name].read() for name in names]

        reference = ours().copy()
        for other in (by_astropy, by_fitsio):
            for mine, theirs in zip(reference, other(), strict=True):
                if not np.array_equal(mine, theirs):
                    sys.exit(f"{label}: {other.__name__} read other pixels")
        print(f"{label}: {len(data) / 1e6:.1f} MB, equal pixels from all readers")
        base, low, high = measure(ours, n)
        print(f"  rapid    {base:7.1f} ms [{low:.1f}-{high:.1f}]")
        for name, action in (("astropy", by_astropy), ("fitsio", by_fitsio)):
            median, low, high = measure(action, max(3, n // 3))
            print(f"  {name:8} {median:7.1f} ms [{low:.1f}-{high:.1f}]  {median / base:.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raws", nargs="*", type=Path, help="E2V raws of LSSTCam to time instead of a made one")
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    if arguments.raws:
        for path in arguments.raws:
            compare(path.name, path.read_bytes(), arguments.repeats)
        return
    compare("Rice, 16 x 2048 x 576", make_raw(compressed=True), arguments.repeats)
    compare("plain, 16 x 2048 x 576", make_raw(compressed=False), arguments.repeats)


if __name__ == "__main__":
    main()
