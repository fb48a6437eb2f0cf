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
LEVEL_STEP_ADU = 0.5
"""Levels are medians of whole counts."""
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


def find_bias_shifts(levels: NDArray[np.float32], *, window: int = WINDOW) -> list[list[BiasShift]]:
    """Find the rows at which the amps' levels jumped.

    Parameters
    ----------
    levels : ndarray of shape (n_amps, n_rows), float32, ADU
        Overscan level of every row, in the order of the read-out; those that are not finite end an amp's search before
        them, as nothing is known of their rows.
    window
        Rows on either side that are compared; fewer in a short amp.

    Returns
    -------
    shifts
        Of every amp, in the order of rows, at least a window apart.
    """
    n_known = np.logical_and.accumulate(np.isfinite(levels), axis=1).sum(axis=1)
    shifts: list[list[BiasShift]] = [[] for _ in levels]
    for n in np.unique(n_known):
        together = np.flatnonzero(n_known == n)
        for amp, found in zip(together, _find_shifts(levels[together, :n], window), strict=True):
            shifts[amp] = found
    return shifts


def _find_shifts(levels: NDArray[np.float32], window: int) -> list[list[BiasShift]]:
    """Find the shifts of amps all of whose levels are finite."""
    values = levels.astype(np.float64)
    n_amps, n = values.shape
    width = min(window, n // 6)
    if width < MIN_WINDOW:
        return [[] for _ in range(n_amps)]
    # Rows scatter about each other by their noise, whatever the level does slowly. Levels come in half counts, and so would
    # the median of what they differ by: it only tells what to leave out.
    change = np.diff(values, axis=1)
    usual = 1.4826 * np.median(np.abs(change), axis=1, keepdims=True)
    is_noise = np.abs(change) <= 4.0 * np.maximum(usual, LEVEL_STEP_ADU)
    n_noise = np.maximum(is_noise.sum(axis=1, keepdims=True), 1)
    noise = np.sqrt((change**2 * is_noise).sum(axis=1, keepdims=True) / n_noise / 2.0)
    noise = np.maximum(noise, 1e-3)
    near = median_filter(values, (1, 5), mode="nearest")
    values = np.where(np.abs(values - near) > OUTLIER_SIGMA * noise, near, values)
    error = (noise * np.sqrt(2.0 / width))[:, 0]
    total = np.concatenate((np.zeros((n_amps, 1)), np.cumsum(values, axis=1)), axis=1)
    means = (total[:, width:] - total[:, :-width]) / width
    # means[y] is of the rows from y on, one window long.
    highest = np.abs(means[:, width:] - means[:, :-width]).max(axis=1)
    least = np.maximum(N_SIGMA * error, MIN_STEP_ADU)
    return [
        _pick_steps(means[amp], width, float(error[amp]), float(least[amp])) if highest[amp] > least[amp] else []
        for amp in range(n_amps)
    ]


def _pick_steps(means: NDArray[np.float64], width: int, error: float, least_height: float) -> list[BiasShift]:
    """Return the steps of one amp that are no slopes, from its running means of so many rows."""
    n = len(means) + width - 1
    at = np.arange(width, n - width + 1)
    step = means[at] - means[at - width]
    height = np.abs(step)
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
