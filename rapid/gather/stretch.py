"""Turn pixel values into grey levels: an asinh curve from just below the sky, or a straight line for calibrations.

A stretch is chosen once for all detectors of an exposure and kept beside its pictures, so that what is drawn later (a
detector at full resolution) has the same greys.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import cached_property

import numba
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

BACKGROUND = 14
"""Grey level of the ground between detectors; the display's own ground."""
DARKEST, BRIGHTEST = 30, 255
"""Levels of the pixels; darker is the ground alone, so that a missing detector cannot pass for a faint sky."""
N_STEPS = 1 << 15
"""Entries of the table that the curve is drawn with: steps far below the noise, and it stays in the processor's cache."""
N_SAMPLE = 1 << 18
"""Pixels that the stretch is chosen from: percentiles of more would cost more than the drawing."""


class Curve(StrEnum):
    """Shape of a stretch."""

    ASINH = "asinh"
    LINEAR = "linear"


class Stretch(BaseModel):
    """How values become grey levels.

    Values up to ``low`` are `DARKEST`, from ``high`` on `BRIGHTEST`. An asinh curve is straight over about ``softening``
    from its foot and logarithmic above.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    curve: Curve
    low: float
    high: float
    softening: float = Field(default=1.0, gt=0)

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """Levels at `N_STEPS` equal steps from ``low`` to ``high``."""
        part = np.linspace(0.0, 1.0, N_STEPS)
        if self.curve is Curve.ASINH:
            reach = (self.high - self.low) / self.softening
            part = np.arcsinh(part * reach) / np.arcsinh(reach)
        return np.rint(DARKEST + part * (BRIGHTEST - DARKEST)).astype(np.uint8)

    def levels(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return an image as grey levels.

        Parameters
        ----------
        image : ndarray of shape (ny, nx), float32
            NaN becomes `BACKGROUND`.

        Returns
        -------
        levels : ndarray of shape (ny, nx), uint8
        """
        levels = np.empty(image.shape, dtype=np.uint8)
        scale = (N_STEPS - 1) / (self.high - self.low)
        _look_up(np.ascontiguousarray(image), self.table, self.low, scale, levels)
        return levels


@numba.njit(cache=True, nogil=True)
def _look_up(
    image: NDArray[np.float32], table: NDArray[np.uint8], low: float, scale: float, levels: NDArray[np.uint8]
) -> None:
    last = np.float32(len(table) - 1)
    low32, scale32 = np.float32(low), np.float32(scale)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            # Compared as a float: what is far off the scale fits no integer, and a comparison with NaN is false.
            step = (image[y, x] - low32) * scale32
            if step >= last:
                levels[y, x] = table[-1]
            elif step > 0:
                levels[y, x] = table[np.int32(step)]
            elif step <= 0:
                levels[y, x] = table[0]
            else:
                levels[y, x] = BACKGROUND


def choose_stretch(images: Iterable[NDArray[np.float32]], *, sky: bool) -> Stretch:
    """Choose a stretch for images that are shown together.

    Parameters
    ----------
    images : iterable of ndarray, float32
        NaN is passed over.
    sky
        An asinh curve, so that faint and bright show together; else a line between percentiles, so that the pattern
        of a flat or bias shows.
    """
    found = list(images)
    step = max(int(np.sqrt(sum(image.size for image in found) / N_SAMPLE)), 1)
    sample = np.concatenate([np.empty(0, np.float32), *(image[::step, ::step].ravel() for image in found)])
    good = sample[np.isfinite(sample)]
    if good.size == 0:
        return Stretch(curve=Curve.LINEAR, low=0.0, high=1.0)
    low, median, high = (float(value) for value in np.percentile(good, (2.0, 50.0, 99.5)))
    if not sky:
        return Stretch(curve=Curve.LINEAR, low=low, high=max(high, low + max(abs(low) * 1e-6, 1e-6)))
    noise = max(1.4826 * float(np.median(np.abs(good - median))), abs(median) * 1e-6, 1e-6)
    return Stretch(
        curve=Curve.ASINH,
        low=median - 2 * noise,
        high=max(high, median) + 12 * noise,
        softening=2 * noise,
    )
