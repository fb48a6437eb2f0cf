"""How steady the amps' bias levels were while a raw was read: sudden shifts, and what amps do in common.

Both are seen in the serial overscan's level of every row. Shifts follow the reference's step filter (ip_isr,
isrStatistics BIASSHIFT), with the threshold on the step's own error; the correlations stand for its AMPCORR.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d

WINDOW = 30
"""Rows on either side of a step whose means are compared."""
MIN_WINDOW = 8
N_SIGMA = 5.0
"""A step this many standard errors high is one: of noise alone one amp in a thousand shows one."""
MIN_STEP_ADU = 0.25
"""Smaller steps change nothing: the row's level takes them off."""
MIN_KEPT = 0.6
"""Part of a step that must be left once the slope within the windows is taken off: a slope or a decay is no step."""
KEPT_SIGMA = 5.0
"""What is left must be this many of its standard errors, too."""
OUTLIER_SIGMA = 6.0
"""A single row this far from its neighbours has something in its overscan, and is no level."""


@dataclass(frozen=True)
class BiasShift:
    """A sudden change of level: the first row at the new one, and by how much it rose [ADU]."""

    row: int
    size_adu: float


def find_bias_shifts(levels: NDArray[np.float32], *, window: int = WINDOW) -> list[BiasShift]:
    """Find the rows at which an amp's level jumped.

    Parameters
    ----------
    levels : ndarray of shape (n_rows,), float32, ADU
        Overscan level of every row, in the order of the read-out; those that are not finite end the search before
        them, as nothing is known of their rows.
    window
        Rows on either side that are compared; fewer in a short amp.

    Returns
    -------
    shifts
        In the order of rows, at least a window apart.
    """
    values = levels.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        values = values[: bad[0]]
    n, width = len(values), min(window, len(values) // 6)
    if width < MIN_WINDOW:
        return []
    # Rows scatter about each other by their noise, whatever the level does slowly.
    noise = 1.4826 * float(np.median(np.abs(np.diff(values)))) / np.sqrt(2.0)
    near = median_filter(values, 5, mode="nearest")
    values = np.where(np.abs(values - near) > OUTLIER_SIGMA * max(noise, 1e-3), near, values)
    error = max(noise, 1e-3) * np.sqrt(2.0 / width)
    total = np.concatenate(([0.0], np.cumsum(values)))
    means = (total[width:] - total[:-width]) / width
    # means[y] is of the rows from y on, one window long.
    at = np.arange(width, n - width + 1)
    step = means[at] - means[at - width]
    height = np.abs(step)
    least_height = max(N_SIGMA * error, MIN_STEP_ADU)
    if not height.max() > least_height:
        return []
    # The slope, per window, from the next window out on either side; at the ends from one of them.
    has_before, has_after = at >= 2 * width, at <= n - 2 * width
    before = np.where(has_before, means[at - width] - means[np.maximum(at - 2 * width, 0)], 0.0)
    after = np.where(has_after, means[np.minimum(at + width, n - width)] - means[np.minimum(at, n - width)], 0.0)
    n_sides = np.maximum(has_before.astype(int) + has_after, 1)
    kept = step - (before + after) / n_sides
    kept_error = error * np.sqrt(1.0 + 1.0 / n_sides)
    least = np.maximum(MIN_KEPT * height, KEPT_SIGMA * kept_error)
    is_step = (height > least_height) & (kept * np.sign(step) > least)
    shifts = []
    left = np.asarray(np.where(is_step, height, 0.0))
    while left.size and left.max() > 0.0:
        best = int(np.argmax(left))
        shifts.append(BiasShift(int(at[best]), float(step[best])))
        left[max(0, best - width) : best + width + 1] = 0.0
    return sorted(shifts, key=lambda shift: shift.row)


def correlate_levels(levels: NDArray[np.float32], *, window: int = WINDOW) -> NDArray[np.float64]:
    """Return how the amps' levels move together from row to row.

    Parameters
    ----------
    levels : ndarray of shape (n_amps, n_rows), float32, ADU

    Returns
    -------
    correlation : ndarray of shape (n_amps, n_amps), float64
        Of the levels less their running mean; NaN with an amp that has no level or no noise. Independent amps give 0
        within one over the root of the number of rows.
    """
    n_amps, n_rows = levels.shape
    known = np.asarray(np.isfinite(levels).all(axis=1))
    result = np.full((n_amps, n_amps), np.nan)
    if n_rows < 2 * MIN_WINDOW:
        return result
    values = np.where(known[:, None], levels, 0.0).astype(np.float64)
    values -= uniform_filter1d(values, min(2 * window + 1, n_rows), axis=1, mode="nearest")
    values -= values.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.sum(values**2, axis=1))
    good = known & (norm > 1e-6 * np.sqrt(n_rows))
    unit = values[good] / norm[good, None]
    result[np.ix_(good, good)] = unit @ unit.T
    return result
