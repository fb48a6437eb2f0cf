"""The stamps of a guider as a movie."""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT_PX = 400
"""About: stamps are enlarged by a whole number, so that a pixel stays a square."""
FRAMES_PER_S = 10
MAX_FRAMES = 600
"""A minute. Longer series are shown with gaps between their frames."""


def stretch_stamps(stamps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return stamps as grey levels, one scale for all of them, so that a change of light is seen as one.

    Parameters
    ----------
    stamps : ndarray of shape (n, ny, nx), float32, ADU

    Returns
    -------
    grey : ndarray of shape (n, ny, nx), uint8
    """
    low = float(np.median(stamps))
    scatter = 1.4826 * float(np.median(np.abs(stamps - low)))
    low -= 2.0 * scatter
    high = max(float(stamps.max()), low + max(10.0 * scatter, 1.0))
    shown = np.arcsinh(np.clip((stamps - low) / (high - low), 0.0, 1.0) * 20.0) / np.arcsinh(20.0)
    return np.asarray(np.round(255.0 * shown), dtype=np.uint8)


def make_movie(stamps: NDArray[np.float32], path: NDArray[np.float64] | None = None) -> bytes:
    """Return the stamps as a movie: H.264 in an MP4 that plays before it has been loaded whole.

    Parameters
    ----------
    stamps : ndarray of shape (n, ny, nx), float32, ADU
        At least one.
    path : ndarray of shape (n, 2), float64, px
        Centroid of each stamp, marked in it; NaN where there is none.
    """
    step = -(-len(stamps) // MAX_FRAMES)
    grey = stretch_stamps(stamps[::step])
    marks = path[::step] if path is not None else np.full((len(grey), 2), np.nan)
    zoom = max(1, HEIGHT_PX // grey.shape[1])
    height, width = (2 * ((zoom * size + 1) // 2) for size in grey.shape[1:])
    # A file: to put the index in front, FFmpeg reads again what it has written.
    with tempfile.TemporaryDirectory(prefix="rapid-guider-") as folder:
        file = Path(folder) / "movie.mp4"
        with av.open(str(file), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=FRAMES_PER_S, options={"crf": "22", "preset": "veryfast"})
            stream.pix_fmt = "yuv420p"
            stream.width, stream.height = width, height
            stream.codec_context.time_base = Fraction(1, FRAMES_PER_S)
            stream.gop_size = FRAMES_PER_S
            stream.thread_count = 1
            for at, (stamp, mark) in enumerate(zip(grey, marks, strict=True)):
                picture = np.zeros((height, width), dtype=np.uint8)
                # Up is the direction of growing rows.
                large = np.kron(stamp[::-1], np.ones((zoom, zoom), dtype=np.uint8))
                picture[: large.shape[0], : large.shape[1]] = large
                if np.isfinite(mark).all():
                    centre = (round((mark[0] + 0.5) * zoom), round((grey.shape[1] - 0.5 - mark[1]) * zoom))
                    cv2.drawMarker(picture, centre, 255, cv2.MARKER_CROSS, 3 * zoom, 1)
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
                frame.pts = at
                frame.time_base = Fraction(1, FRAMES_PER_S)
                for packet in stream.encode(frame):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
        return file.read_bytes()
