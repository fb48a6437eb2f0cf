"""Keep the images to combine out of memory, and combine them a strip at a time.

Twenty calibrated images of one CCD are 1.3 GB. They are written to an unnamed temporary file (``TMPDIR``; it goes
with the process, however that ends) and read back in strips of rows, so that memory holds one image and one strip.
Half-precision in memory would lose a tenth of an electron at 200; calibrating every raw three times would cost
three times the decoding.
"""

import tempfile
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from payloads.combine.kernels import combine_clipped
from payloads.isr.inputs import AmpLayout

STRIP_ROWS = 64
"""Rows combined at a time: 21 MB for twenty images of an LSSTCam CCD."""


class ImageStack:
    """Images of one size, on disk.

    Parameters
    ----------
    shape
        Height and width of every image.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.n_images = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="rapid-combine-")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "ImageStack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, image: NDArray[np.float32]) -> None:
        """Add an image; it is copied."""
        if image.shape != self.shape:
            raise ValueError(f"image of shape {image.shape} in a stack of {self.shape}")
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(image, dtype=np.float32).data)
        self.n_images += 1

    def read_rows(self, first: int, last: int, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return rows ``first`` up to ``last`` of every image, shape (n_images, last - first, width)."""
        height, width = self.shape
        if out is None or out.shape != (self.n_images, last - first, width):
            out = np.empty((self.n_images, last - first, width), dtype=np.float32)
        for place in range(self.n_images):
            self._file.seek(4 * width * (place * height + first))
            wanted = memoryview(out[place]).cast("B")
            if self._file.readinto(wanted) != len(wanted):  # type: ignore[attr-defined] # every binary file has it
                raise OSError("the temporary file of a combination is shorter than what was written to it")
        return out

    def read_pair(self, first: int, row_step: int) -> NDArray[np.float32]:
        """Return every ``row_step``-th row of images ``first`` and ``first + 1``, shape (2, n_rows, width)."""
        height, width = self.shape
        pair = np.empty((2, -(-height // row_step), width), dtype=np.float32)
        for place in range(2):
            for row in range(pair.shape[1]):
                self._file.seek(4 * width * ((first + place) * height + row * row_step))
                wanted = memoryview(pair[place, row]).cast("B")
                self._file.readinto(wanted)  # type: ignore[attr-defined] # every binary file has it
        return pair

    def combine(
        self, layout: AmpLayout, noise: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Return the clipped mean of all images, its variance, and how many images each pixel used.

        Parameters
        ----------
        layout
            Where the amps are.
        noise : ndarray of shape (n_amps,)
            Expected standard deviation of a pixel of one image.
        """
        height = self.shape[0]
        mean = np.full(self.shape, np.nan, dtype=np.float32)
        variance = np.full(self.shape, np.nan, dtype=np.float32)
        counts = np.zeros(self.shape, dtype=np.int32)
        strip: NDArray[np.float32] | None = None
        for first in range(0, height, STRIP_ROWS):
            last = min(first + STRIP_ROWS, height)
            strip = self.read_rows(first, last, strip)
            for amp, (x0, y0, _, _) in enumerate(layout.place):
                low, high = max(first, int(y0)), min(last, int(y0) + layout.data.height)
                if low >= high:
                    continue
                box = (slice(low, high), slice(int(x0), int(x0) + layout.data.width))
                n_pixels = (high - low) * layout.data.width
                values = np.ascontiguousarray(strip[:, low - first : high - first, box[1]]).reshape(-1, n_pixels)
                results = (
                    np.empty(n_pixels, dtype=np.float32),
                    np.empty(n_pixels, dtype=np.float32),
                    np.empty(n_pixels, dtype=np.int32),
                )
                combine_clipped(values, float(noise[amp]), *results)
                size = (high - low, layout.data.width)
                mean[box], variance[box], counts[box] = (result.reshape(size) for result in results)
        return mean, variance, counts
