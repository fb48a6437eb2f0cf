"""Compiled searches through many series at once: a focal plane of amps, day by day.

Series are columns of a matrix ``[day, channel]``; NaN where there is no number.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

HAMPEL_HALF = 3
"""Days on either side that a number is held against: a single bad one never counts as a change of level."""

HAMPEL_SIGMA = 4.0
BLOCK = 5
"""Days in a block mean: how much slow wander a series has shows in the scatter of these."""


@njit(cache=True, nogil=True)
def _median(buffer: NDArray[np.float64], n: int) -> float:
    """Return the median of the first ``n`` numbers of a buffer, which is sorted in doing so."""
    part = buffer[:n]
    part.sort()
    if n % 2:
        return float(part[n // 2])
    return float(0.5 * (part[n // 2 - 1] + part[n // 2]))


@njit(cache=True, nogil=True)
def column_medians(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of each column's finite numbers.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns), float64

    Returns
    -------
    medians : ndarray of shape (n_columns,), float64
        NaN for a column without any.
    """
    n_rows, n_columns = values.shape
    out = np.full(n_columns, np.nan)
    buffer = np.empty(n_rows)
    for column in range(n_columns):
        n = 0
        for row in range(n_rows):
            if np.isfinite(values[row, column]):
                buffer[n] = values[row, column]
                n += 1
        if n:
            out[column] = _median(buffer, n)
    return out


@njit(cache=True, nogil=True)
def group_medians(values: NDArray[np.float64], groups: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    """Return each row's median of the finite numbers of every group of columns.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns), float64
    groups : ndarray of shape (n_columns,), int64
        Group of each column, grouped in order; negative for none.

    Returns
    -------
    medians : ndarray of shape (n_rows, n_groups), float64
    """
    n_rows, n_columns = values.shape
    out = np.full((n_rows, n_groups), np.nan)
    size = np.zeros(n_groups, np.int64)
    for column in range(n_columns):
        if groups[column] >= 0:
            size[groups[column]] += 1
    start = np.zeros(n_groups + 1, np.int64)
    for group in range(n_groups):
        start[group + 1] = start[group] + size[group]
    place = start[:n_groups].copy()
    order = np.empty(start[n_groups], np.int64)
    for column in range(n_columns):
        group = groups[column]
        if group >= 0:
            order[place[group]] = column
            place[group] += 1
    buffer = np.empty(n_columns)
    for row in range(n_rows):
        for group in range(n_groups):
            n = 0
            for k in range(start[group], start[group + 1]):
                value = values[row, order[k]]
                if np.isfinite(value):
                    buffer[n] = value
                    n += 1
            if n:
                out[row, group] = _median(buffer, n)
    return out


@njit(cache=True, nogil=True)
def _spread(buffer: NDArray[np.float64], n: int, scratch: NDArray[np.float64]) -> float:
    """Return 1.4826 times the median distance of ``n`` numbers from their median; their plain scatter if that is 0."""
    for i in range(n):
        scratch[i] = buffer[i]
    centre = _median(scratch, n)
    for i in range(n):
        scratch[i] = abs(buffer[i] - centre)
    spread = 1.4826 * _median(scratch, n)
    if spread > 0.0:
        return spread
    # More than half are alike: whole numbers that seldom change.
    total = 0.0
    for i in range(n):
        total += (buffer[i] - centre) ** 2
    return float(np.sqrt(total / n))


@njit(cache=True, nogil=True)
def clean_columns(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Take lone bad numbers out of every column, and measure its noise.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns), float64
        A series in each column, in the order of time; NaN where there is no number.

    Returns
    -------
    cleaned : ndarray of the same shape, float64
        NaN where a number is more than four times the noise from the median of its neighbours.
    sigma : ndarray of shape (n_columns,), float64
        Scatter from one number to the next, over sqrt(2): blind to steps and drifts. NaN with fewer than 5 numbers.
    wander : ndarray of shape (n_columns,), float64
        Scatter of the means of five over what white noise would give: above 1 for a series that wanders.

    Notes
    -----
    The filter is Hampel's: median and median distance of a running window.
    """
    n_rows, n_columns = values.shape
    cleaned = values.copy()
    sigma = np.full(n_columns, np.nan)
    wander = np.full(n_columns, np.nan)
    compact = np.empty(n_rows)
    place = np.empty(n_rows, np.int64)
    steps = np.empty(n_rows)
    scratch = np.empty(max(n_rows, 2 * HAMPEL_HALF + 1))
    for column in range(n_columns):
        n = 0
        for row in range(n_rows):
            if np.isfinite(values[row, column]):
                compact[n] = values[row, column]
                place[n] = row
                n += 1
        if n < 5:
            continue
        for i in range(n - 1):
            steps[i] = compact[i + 1] - compact[i]
        noise = _spread(steps, n - 1, scratch) / np.sqrt(2.0)
        kept = 0
        for i in range(n):
            # Near an end the window moves in, so that the newest number has neighbours too.
            low = min(max(i - HAMPEL_HALF, 0), max(n - 2 * HAMPEL_HALF - 1, 0))
            high = min(low + 2 * HAMPEL_HALF + 1, n)
            for k in range(low, high):
                scratch[k - low] = compact[k]
            centre = _median(scratch, high - low)
            for k in range(low, high):
                scratch[k - low] = abs(compact[k] - centre)
            # Beside a step the neighbours are of two levels: their own spread keeps the step's edge whole.
            own = 1.4826 * _median(scratch, high - low)
            # The last ones may be a new level that has only begun: that is not for a filter to decide.
            if abs(compact[i] - centre) > HAMPEL_SIGMA * max(noise, own) and i < n - HAMPEL_HALF:
                cleaned[place[i], column] = np.nan
            else:
                steps[kept] = compact[i]
                kept += 1
        if kept < 5:
            continue
        for i in range(kept):
            compact[i] = steps[i]
        for i in range(kept - 1):
            steps[i] = compact[i + 1] - compact[i]
        noise = _spread(steps, kept - 1, scratch) / np.sqrt(2.0)
        sigma[column] = noise
        n_blocks = kept // BLOCK
        if n_blocks >= 6 and noise > 0.0:
            for block in range(n_blocks):
                total = 0.0
                for i in range(BLOCK):
                    total += compact[block * BLOCK + i]
                steps[block] = total / BLOCK
            for block in range(n_blocks - 1):
                steps[block] = steps[block + 1] - steps[block]
            block_noise = _spread(steps, n_blocks - 1, scratch) / np.sqrt(2.0)
            wander[column] = block_noise * np.sqrt(float(BLOCK)) / noise
    return cleaned, sigma, wander


@njit(cache=True, nogil=True)
def scan_columns(
    cleaned: NDArray[np.float64], times: NDArray[np.float64], min_before: int, min_after: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much a step, and how much a slope, would explain of every column.

    Parameters
    ----------
    cleaned : ndarray of shape (n_rows, n_columns), float64
    times : ndarray of shape (n_rows,), float64
        Days, growing.
    min_before, min_after
        Numbers that a step must have on its sides.

    Returns
    -------
    step : ndarray of shape (n_columns,), float64
        Square root of the drop in the sum of squares for the best step anywhere; 0 where there are too few numbers.
    slope : ndarray of shape (n_columns,), float64
        The same for a straight line through all, through the last 60 and the last 30 numbers; the largest.
    """
    n_rows, n_columns = cleaned.shape
    step = np.zeros(n_columns)
    slope = np.zeros(n_columns)
    y = np.empty(n_rows)
    x = np.empty(n_rows)
    for column in range(n_columns):
        n = 0
        total = 0.0
        for row in range(n_rows):
            if np.isfinite(cleaned[row, column]):
                y[n] = cleaned[row, column]
                x[n] = times[row]
                total += y[n]
                n += 1
        if n < min_before + min_after:
            continue
        mean = total / n
        left = 0.0
        best = 0.0
        for i in range(1, n):
            left += y[i - 1] - mean
            if i >= min_before and n - i >= min_after:
                best = max(best, left * left * n / (float(i) * float(n - i)))
        step[column] = np.sqrt(best)
        for wanted in (n, 60, 30):
            if wanted > n:
                continue
            first = n - wanted
            mean_x = 0.0
            mean_y = 0.0
            for i in range(first, n):
                mean_x += x[i]
                mean_y += y[i]
            mean_x /= wanted
            mean_y /= wanted
            sxx = 0.0
            sxy = 0.0
            for i in range(first, n):
                sxx += (x[i] - mean_x) ** 2
                sxy += (x[i] - mean_x) * (y[i] - mean_y)
            if sxx > 0.0:
                slope[column] = max(slope[column], abs(sxy) / np.sqrt(sxx))
    return step, slope
