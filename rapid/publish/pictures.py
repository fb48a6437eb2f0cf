"""Pictures the role makes itself, off everybody's way: the witness detector, and an exposure's time line."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from rapid.results.models import DetectorResult, ExposureSummary

JPEG_QUALITY = 85

MAX_SIDE = 2000
"""Longest side of the witness's picture [px]: more is no use on a screen."""


def witness_picture(binned: bytes, *, title: str) -> bytes:
    """Return a JPEG of a detector's binned image.

    Parameters
    ----------
    binned
        A FITS file with the image in its first unit.

    Raises
    ------
    ValueError
        Raised if there is no image in it.
    """
    with fits.open(io.BytesIO(binned), memmap=False) as hdus:
        image = hdus[0].data
    if image is None or image.ndim != 2 or not image.size:
        raise ValueError("no image")
    grey = _stretch(np.ascontiguousarray(image, dtype=np.float32))
    scale = min(max(800 / max(grey.shape), 1.0), MAX_SIDE / max(grey.shape))
    if scale != 1.0:
        method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
        grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=method), np.uint8)
    # The first row is the lowest on the sky; a JPEG begins at the top.
    canvas = cv2.copyMakeBorder(np.flipud(grey), 28, 0, 0, 0, cv2.BORDER_CONSTANT, value=0)
    cv2.putText(canvas, title, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 230, 1, cv2.LINE_AA)
    _, data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(data)


def _stretch(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 8-bit grey: from just below the middle to where only stars are, by the square root."""
    good = image[np.isfinite(image)]
    if not good.size:
        return np.zeros(image.shape, np.uint8)
    low, middle, high = np.percentile(good, (1.0, 50.0, 99.7))
    low = max(low, 2 * middle - high) if high > middle else low
    span = max(float(high - low), 1e-6)
    scaled = np.clip((np.nan_to_num(image, nan=low) - low) / span, 0.0, 1.0)
    return np.asarray(np.sqrt(scaled) * 255, np.uint8)


def timeline_picture(summary: ExposureSummary, results: Sequence[DetectorResult]) -> bytes | None:
    """Return a PNG of what happened when to an exposure: one bar a detector, from taking it up to its result.

    Returns
    -------
    bytes or None
        None if no result says when it was finished.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = [(r, r.finished_at) for r in results if r.finished_at is not None and "total_s" in r.timings]
    if not timed:
        return None
    zero = _shutter_closed(summary)
    first = min(at - timedelta(seconds=r.timings["total_s"]) for r, at in timed)
    # A night that is played back was taken long ago, or will be: then from the first detector on.
    is_live = zero is not None and abs((first - zero).total_seconds()) < 3600
    origin = zero if is_live and zero is not None else first
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    order = sorted(timed, key=lambda entry: entry[1])
    begins = [(at - origin).total_seconds() - r.timings["total_s"] for r, at in order]
    axes.barh(range(len(order)), [r.timings["total_s"] for r, _ in order], left=begins, height=0.9, color="#2a9fb0")
    if summary.gathered_at is not None:
        gathered = (summary.gathered_at - origin).total_seconds()
        axes.axvline(gathered, color="#d07a1f", label=f"summary version {summary.version}: {gathered:.1f} s")
        axes.legend(loc="lower right")
    axes.set_xlabel("s after the shutter closed" if is_live else "s after the first detector was taken up")
    axes.set_ylabel("detectors, by the time of their result")
    axes.set_title(
        f"{summary.camera} {summary.day_obs} {summary.seq_num}: {summary.pipeline}, "
        f"{summary.n_finished} of {summary.n_expected} detectors"
    )
    axes.margins(y=0.01)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return out.getvalue()


TAI_AHEAD = timedelta(seconds=37)
"""TAI less UTC, since 2017."""


def _shutter_closed(summary: ExposureSummary) -> datetime | None:
    """Return when an exposure ended, UTC."""
    text = summary.info.get("end")
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC) - TAI_AHEAD if text else None
    except ValueError:
        return None
