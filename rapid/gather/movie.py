"""The movie of a night: one frame for each mosaic, in the order they were taken.

Made off the hot path, anew each time: H.264 in MP4 is what browsers and RubinTV play, and it cannot be appended to.
Frames are kept small in memory between two makings, so that a night's mosaics are decoded once.
"""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rapid.results.models import ExposureSummary

SIDE_PX = 720
"""Longest side of a frame: a movie of a thousand frames is then some 30 MB."""
FOOT_PX = 40
"""Height of the line of text below the mosaic."""
MAX_FRAMES = 3000
MAX_S = 100.0
"""A long night plays faster instead of longer."""
LEAST_RATE, MOST_RATE = 4, 20
BACKGROUND = 14


class MovieInfo(BaseModel):
    """What a player has to know beside the movie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames_per_s: int
    exposures: list[int] = Field(description="Exposure id of each frame.")
    width: int
    height: int


def make_frame(mosaic_jpeg: bytes, *, words: str) -> NDArray[np.uint8]:
    """Return one frame: a mosaic scaled down, with a line of words below it.

    Returns
    -------
    frame : ndarray of shape (SIDE_PX + FOOT_PX, SIDE_PX), uint8

    Raises
    ------
    ValueError
        Raised if the data are no picture.
    """
    encoded = np.frombuffer(mosaic_jpeg, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE) if encoded.size else None
    if image is None:
        raise ValueError("not a picture")
    frame = np.full((SIDE_PX + FOOT_PX, SIDE_PX), BACKGROUND, np.uint8)
    scale = SIDE_PX / max(image.shape)
    width, height = (max(round(side * scale), 1) for side in image.shape[::-1])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    top, left = (SIDE_PX - height) // 2, (SIDE_PX - width) // 2
    frame[top : top + height, left : left + width] = small
    place = (12, SIDE_PX + FOOT_PX - 13)
    ascii_words = words.encode("ascii", "replace").decode()  # all that OpenCV's font has
    cv2.putText(frame, ascii_words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 225, 1, cv2.LINE_AA)
    return frame


def words_of(summary: ExposureSummary) -> str:
    """Return the line below a frame."""
    fwhm = summary.metrics.get("psf_fwhm_arcsec_median")
    parts = [
        f"{summary.day_obs} {summary.seq_num:06d}",
        summary.image_type,
        str(summary.info.get("physical_filter") or ""),
        str(summary.info.get("object_name") or "")[:24],
        f"FWHM {fwhm:.2f} arcsec" if isinstance(fwhm, int | float) else "",
        f"{summary.n_finished}/{summary.n_expected}" if summary.n_finished < summary.n_expected else "",
    ]
    return "  ".join(part for part in parts if part)


def rate_of(n_frames: int) -> int:
    """Return the frames per second of a movie of so many frames."""
    return min(max(LEAST_RATE, round(n_frames / MAX_S)), MOST_RATE)


class FrameStore:
    """Frames that are kept between two makings of a movie.

    In a file without a name: a night of them would be 200 MB of memory, and nothing is left of it however its process ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="rapid-frames-")  # noqa: SIM115 - as long as the store
        self._places: dict[str, tuple[int, int]] = {}
        weakref.finalize(self, self._file.close)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def put(self, key: str, frame: bytes) -> None:
        """Keep a frame under a name."""
        self._places[key] = (self._file.seek(0, os.SEEK_END), len(frame))
        self._file.write(frame)

    def read(self, keys: Iterable[str]) -> Iterator[bytes]:
        """Yield frames, one in memory at a time.

        Raises
        ------
        KeyError
            Raised for a name that nothing is kept under.
        """
        for key in keys:
            begin, length = self._places[key]
            self._file.seek(begin)
            yield self._file.read(length)

    def keep_only(self, keys: Iterable[str]) -> None:
        """Let go of all frames but these; their room is free once none is left, as when a night is over."""
        kept = set(keys)
        self._places = {key: place for key, place in self._places.items() if key in kept}
        if not self._places:
            self._file.truncate(0)


def encode_movie(frames: Iterable[bytes], *, frames_per_s: int) -> bytes:
    """Return a movie of frames, an MP4 that plays before it has been loaded whole.

    Parameters
    ----------
    frames
        Encoded pictures of one size, as `keep_frame` returns them; taken one at a time.

    Raises
    ------
    ValueError
        Raised without frames.
    """
    # A file: to put the index in front, FFmpeg reads again what it has written.
    with tempfile.TemporaryDirectory(prefix="rapid-movie-") as folder:
        path = Path(folder) / "movie.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=frames_per_s, options={"crf": "24", "preset": "veryfast"})
            stream.pix_fmt = "yuv420p"
            stream.width, stream.height = SIDE_PX, SIDE_PX + FOOT_PX
            stream.codec_context.time_base = Fraction(1, frames_per_s)
            # A key frame each second: a click on the line of time shows its frame at once.
            stream.gop_size = frames_per_s
            stream.thread_count = 1
            at = -1
            for at, encoded in enumerate(frames):
                grey = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
                frame = av.VideoFrame.from_ndarray(np.asarray(grey, np.uint8), format="gray")
                frame.pts = at
                frame.time_base = Fraction(1, frames_per_s)
                for packet in stream.encode(frame):
                    container.mux(packet)
            if at < 0:
                raise ValueError("a movie needs frames")
            for packet in stream.encode(None):
                container.mux(packet)
        return path.read_bytes()


def keep_frame(frame: NDArray[np.uint8]) -> bytes:
    """Return a frame as it is kept between two makings: a tenth of its size in memory."""
    return bytes(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
