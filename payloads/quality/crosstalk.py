"""How much of each amp's light shows up in the others: measured on any image with bright stars or spots.

On an image whose crosstalk was corrected, what is measured is the residual: a verification of the coefficients.
"""

from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray

from payloads.isr.inputs import AmpLayout
from payloads.isr.statistics import clipped_statistics
from payloads.mask import CR, NOT_FOR_STATISTICS

THRESHOLD_ELECTRON = 10_000.0
"""Sources are pixels brighter than this: a part in ten thousand of it is an electron."""
BACKGROUND_PX = 64
N_CLIP = 4.0
MIN_PIXELS = 10


@dataclass(frozen=True)
class Crosstalk:
    """Coefficients ``[target, source]`` with their errors, arrays of shape (n_amps, n_amps), float64.

    NaN on the diagonal, and where too few bright pixels face usable ones.
    """

    coefficient: NDArray[np.float64]
    error: NDArray[np.float64]
    n_pixels: NDArray[np.int64]


def as_read(plane: NDArray[np.generic], layout: AmpLayout) -> NDArray[np.generic]:
    """Return the amps' pixels in the order they were read.

    Returns
    -------
    stack : ndarray of shape (n_amps, height, width)
    """
    parts = []
    for x0, y0, flip_x, flip_y in layout.place:
        part = plane[y0 : y0 + layout.data.height, x0 : x0 + layout.data.width]
        parts.append(part[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
    return np.stack(parts)


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[int(np.searchsorted(total, 0.5 * total[-1]))]])


def measure_crosstalk(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    layout: AmpLayout,
    *,
    threshold_electron: float = THRESHOLD_ELECTRON,
) -> Crosstalk:
    """Regress every amp's pixels on the bright pixels read at the same moment in the others.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32, electron
        Assembled; a sky without steep gradients. Not modified.
    mask : ndarray of the same shape, int32
        Bad and saturated pixels and cosmic rays are left out on either side.
    layout
        Where the amps are and how they were read.
    threshold_electron
        Least height of a source pixel above its amp's sky.

    Returns
    -------
    Crosstalk

    Notes
    -----
    Through the origin, above each amp's background; the target's own stars, and whatever else is more than four
    standard deviations from the fit, are clipped three times.
    """
    stack = as_read(image, layout).astype(np.float64)
    useful = (as_read(mask, layout).astype(np.int64) & (NOT_FOR_STATISTICS | CR)) == 0
    n_amps = len(stack)
    sigma = np.full(n_amps, np.nan)
    for amp in range(n_amps):
        if useful[amp].any():
            stack[amp] -= np.median(stack[amp][useful[amp]])
    # Levels come from where no amp has light: the ghosts of all the others together would lift them.
    dark = ~(stack > threshold_electron).any(axis=0)
    for amp in range(n_amps):
        quiet = useful[amp] & dark
        if np.count_nonzero(quiet) < MIN_PIXELS:
            continue
        stack[amp] -= sep.Background(stack[amp], mask=~quiet, bw=BACKGROUND_PX, bh=BACKGROUND_PX).back()
        found = clipped_statistics(stack[amp][quiet])
        if found is not None:
            sigma[amp] = max(found[2], 1e-6)
            # The level that such pixels scatter about, stars' wings and all, clipped as below.
            near = quiet & (np.abs(stack[amp]) < N_CLIP * sigma[amp])
            stack[amp] -= stack[amp][near].mean()
    coefficient = np.full((n_amps, n_amps), np.nan)
    error = np.full((n_amps, n_amps), np.nan)
    n_pixels = np.zeros((n_amps, n_amps), dtype=np.int64)
    for source in range(n_amps):
        bright = useful[source] & (stack[source] > threshold_electron)
        s = stack[source][bright]
        for target in range(n_amps):
            if target == source or not np.isfinite(sigma[target]):
                continue
            t, good = stack[target][bright], useful[target][bright]
            if np.count_nonzero(good) < MIN_PIXELS:
                continue
            # Begin from a median: a bright star of the target's own opposite one of the source's is not crosstalk.
            value = _weighted_median(t[good] / s[good], s[good])
            keep = good
            for _ in range(3):
                keep = good & (np.abs(t - value * s) < N_CLIP * sigma[target])
                if np.count_nonzero(keep) < MIN_PIXELS:
                    break
                value = float(np.sum(s[keep] * t[keep]) / np.sum(s[keep] ** 2))
            n_pixels[target, source] = np.count_nonzero(keep)
            if n_pixels[target, source] >= MIN_PIXELS:
                coefficient[target, source] = value
                error[target, source] = sigma[target] / np.sqrt(np.sum(s[keep] ** 2))
    return Crosstalk(coefficient, error, n_pixels)
