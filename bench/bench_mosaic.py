"""A focal-plane mosaic of LSSTCam's 189 science CCDs from their binned images, on one core; the peers beside it.

    python bench/bench_mosaic.py [--repeat N] [--without-matplotlib]

Ours: read the pieces as the products store has them, choose the stretch, draw at 8x8, cut the tile pyramid, encode the
picture; and once more without sky. Peers do a part of that: the same pieces read by astropy, placed by numpy, stretched
by numpy or astropy, encoded by PIL or matplotlib, one picture and no tiles. Times are CPU seconds of this process, the
median of the runs and their range.
"""

import argparse
import io
import os
import statistics
import time
from itertools import pairwise

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import cv2  # noqa: E402 - the threads are bounded first
import numpy as np  # noqa: E402
from astropy.io import fits  # noqa: E402
from astropy.visualization import AsinhStretch, ImageNormalize, ZScaleInterval  # noqa: E402
from PIL import Image  # noqa: E402

from rapid.camera.geometry import extent_mm, rotate_to_focal_plane  # noqa: E402
from rapid.camera.store import load_camera  # noqa: E402
from rapid.gather.mosaic import draw_mosaic  # noqa: E402
from rapid.gather.pieces import read_binned, without_sky  # noqa: E402
from rapid.gather.pyramid import draw_pyramid  # noqa: E402
from rapid.gather.stretch import choose_stretch  # noqa: E402

CAMERA = load_camera("LSSTCam")


def make_pieces() -> dict[int, bytes]:
    """Return noisy binned images with stars, as FITS files, by detector."""
    rng = np.random.default_rng(1)
    pieces = {}
    for number in sorted(CAMERA.science_ids):
        detector = CAMERA.by_id[number]
        image = rng.normal(900 + number % 7, 4, (detector.height // 8, detector.width // 8)).astype(np.float32)
        y, x = rng.integers(2, image.shape[0] - 2, 200), rng.integers(2, image.shape[1] - 2, 200)
        image[y, x] += rng.exponential(800, 200).astype(np.float32)
        buffer = io.BytesIO()
        fits.PrimaryHDU(image).writeto(buffer)
        pieces[number] = buffer.getvalue()
    return pieces


def ours(pieces: dict[int, bytes]) -> dict[str, float]:
    """Return the CPU seconds of each step."""
    marks = [("", time.process_time())]

    def mark(name: str) -> None:
        marks.append((name, time.process_time()))

    images = {number: read_binned(data) for number, data in pieces.items()}
    mark("read 189 pieces")
    stretch = choose_stretch(images.values(), sky=True)
    mosaic = draw_mosaic(CAMERA, images, stretch)
    mark("post-ISR mosaic at 8x8")
    drawn = draw_pyramid(CAMERA, mosaic, stretch)
    mark("its JPEG and all tiles")
    images = {number: without_sky(image, factor=1.5) for number, image in images.items()}
    mark("sky taken out, scaled")
    stretch = choose_stretch(images.values(), sky=True)
    draw_pyramid(CAMERA, draw_mosaic(CAMERA, images, stretch), stretch)
    mark("calibrated mosaic, JPEG and tiles")
    found = {name: after - before for (_, before), (name, after) in pairwise(marks)}
    found["all of it"] = marks[-1][1] - marks[0][1]
    print(
        f"  {mosaic.shape[1]} x {mosaic.shape[0]} px, JPEG {len(drawn.picture) / 1e6:.1f} MB, tiles {len(drawn.tiles) / 1e6:.1f} MB"
    )
    return found


def placed_by_numpy(pieces: dict[int, bytes]) -> np.ndarray:
    """Return the mosaic of floats as a script would make it."""
    x0, x1, y0, y1 = extent_mm(CAMERA)
    mosaic = np.full((int((y1 - y0) * 12.5) + 1, int((x1 - x0) * 12.5) + 1), np.nan, np.float32)
    for number, data in pieces.items():
        detector = CAMERA.by_id[number]
        with fits.open(io.BytesIO(data)) as hdus:
            image = rotate_to_focal_plane(np.asarray(hdus[0].data, np.float32), detector)[::-1]
        w, h = detector.focal_plane_size_mm
        left, top = round((detector.x_mm - w / 2 - x0) * 12.5), round((y1 - detector.y_mm - h / 2) * 12.5)
        mosaic[top : top + image.shape[0], left : left + image.shape[1]] = image
    return mosaic


def by_pillow(pieces: dict[int, bytes]) -> dict[str, float]:
    """Numpy for the pixels, PIL for the file: half-size JPEG."""
    begin = time.process_time()
    mosaic = placed_by_numpy(pieces)
    low, high = np.nanpercentile(mosaic[::8, ::8], (2, 99.5))
    levels = np.nan_to_num(np.clip(np.arcsinh((mosaic - low) / (high - low) * 10) / np.arcsinh(10), 0, 1) * 255).astype(
        np.uint8
    )
    Image.fromarray(levels).reduce(2).save(io.BytesIO(), "JPEG", quality=88)
    return {"astropy + numpy + PIL, one JPEG of half size": time.process_time() - begin}


def by_matplotlib(pieces: dict[int, bytes]) -> dict[str, float]:
    """As scripts at telescopes do: astropy's stretch, imshow and savefig of 1600 px."""
    from matplotlib.figure import Figure

    begin = time.process_time()
    mosaic = placed_by_numpy(pieces)
    norm = ImageNormalize(mosaic[::8, ::8], interval=ZScaleInterval(), stretch=AsinhStretch())
    figure = Figure(figsize=(16, 16), dpi=100)
    figure.add_axes((0, 0, 1, 1)).imshow(mosaic, norm=norm, cmap="gray")
    figure.savefig(io.BytesIO(), format="png")
    return {"astropy + matplotlib, one PNG of 1600 px": time.process_time() - begin}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--without-matplotlib", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    pieces = make_pieces()
    ours(pieces)  # compiles
    runs: dict[str, list[float]] = {}
    for _ in range(options.repeat):
        for contender in (ours, by_pillow, *(() if options.without_matplotlib else (by_matplotlib,))):
            for name, seconds in contender(pieces).items():
                runs.setdefault(name, []).append(seconds)
    for name, seconds in runs.items():
        print(
            f"{name:48s} {statistics.median(seconds) * 1000:7.0f} ms   [{min(seconds) * 1000:.0f}-{max(seconds) * 1000:.0f}]"
        )


if __name__ == "__main__":
    main()
