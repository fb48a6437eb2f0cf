"""Measure overscan levels, compiled; `payloads.isr.steps` has the same in numpy, to be read first.

Raw counts are integers, so a row's order statistics come from a small histogram: no sorting.
"""

import numpy as np
from numba import njit

from payloads.isr.steps import (
    MAX_DEVIATION_ADU,
    MAX_RESIDUAL_ADU,
    N_FILL_ROWS,
    SIGMA_PER_IQR,
    clipped_moments_of_histogram,
)

N_BINS = 1024
"""Widest spread of a row counted in the histogram [ADU]; wider rows are sorted."""

_clipped_moments = njit(nogil=True, cache=True)(clipped_moments_of_histogram)


@njit(nogil=True, cache=True)
def _ranked(values, n, histogram):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return median, lower and upper quartile of the first n integers, linearly interpolated as numpy does."""
    low = values[0]
    high = values[0]
    for i in range(1, n):
        low = min(low, values[i])
        high = max(high, values[i])
    order = np.empty(6, dtype=np.int64)
    ranks = np.empty(6, dtype=np.int64)
    for q in range(3):
        ranks[2 * q] = ((n - 1) * (q + 1)) // 4
        ranks[2 * q + 1] = min(n - 1, ranks[2 * q] + 1)
    if n >= 5 and high - low < N_BINS:
        for i in range(n):
            histogram[values[i] - low] += 1
        seen = 0
        rank = 0
        for place in range(high - low + 1):
            seen += histogram[place]
            histogram[place] = 0
            while rank < 6 and ranks[rank] < seen:
                order[rank] = low + place
                rank += 1
    else:
        for i in range(1, n):
            value = values[i]
            j = i - 1
            while j >= 0 and values[j] > value:
                values[j + 1] = values[j]
                j -= 1
            values[j + 1] = value
        for rank in range(6):
            order[rank] = values[ranks[rank]]
    quarter = (n - 1) / 4.0
    q1 = order[0] + (quarter - ranks[0]) * (order[1] - order[0])
    q2 = order[2] + (2 * quarter - ranks[2]) * (order[3] - order[2])
    q3 = order[4] + (3 * quarter - ranks[4]) * (order[5] - order[4])
    return q2, q1, q3


@njit(nogil=True, cache=True)
def _collect(row, x0, x1, centre, reach, values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Copy the pixels within reach of a centre; return how many."""
    n = 0
    for x in range(x0, x1):
        if abs(row[x] - centre) <= reach:
            values[n] = row[x]
            n += 1
    return n


@njit(nogil=True, cache=True)
def measure_serial(stack, x0, x1, y0, y1, levels, noise):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Measure every row's level and every amp's overscan noise; see `payloads.isr.steps.serial_levels`.

    Parameters
    ----------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
    x0, x1 : int
        Overscan columns used.
    y0, y1 : int
        Rows over which the noise is measured: the imaging rows.
    levels : ndarray of shape (n_amps, raw_height), float32, ADU
        Written. NaN where neither a row nor its neighbours have a good pixel.
    noise : ndarray of shape (n_amps,), float64, ADU
        Written.
    """
    n_amps, height, _ = stack.shape
    histogram = np.zeros(N_BINS, dtype=np.int64)
    values = np.empty(x1 - x0, dtype=np.int32)
    medians = np.empty(height, dtype=np.float64)
    sigmas = np.empty(height, dtype=np.float64)
    ends = np.empty((height, 2), dtype=np.int32)
    residuals = np.zeros(4 * MAX_RESIDUAL_ADU + 1, dtype=np.int64)
    for amp in range(n_amps):
        for y in range(height):
            row = stack[amp, y]
            low = row[x0]
            high = row[x0]
            for x in range(x0, x1):
                values[x - x0] = row[x]
                low = min(low, row[x])
                high = max(high, row[x])
            ends[y, 0] = low
            ends[y, 1] = high
            median, q1, q3 = _ranked(values, x1 - x0, histogram)
            medians[y] = median
            sigmas[y] = SIGMA_PER_IQR * (q3 - q1)
        overall = np.median(medians)
        for y in range(height):
            if ends[y, 0] < overall - MAX_DEVIATION_ADU or ends[y, 1] > overall + MAX_DEVIATION_ADU:
                n = _collect(stack[amp, y], x0, x1, overall, MAX_DEVIATION_ADU, values)
                if n == 0:
                    medians[y] = np.nan
                    sigmas[y] = np.nan
                else:
                    median, q1, q3 = _ranked(values, n, histogram)
                    medians[y] = median
                    sigmas[y] = SIGMA_PER_IQR * (q3 - q1)
        usual = np.nanmedian(sigmas)
        for y in range(height):
            median = medians[y]
            levels[amp, y] = median
            if np.isnan(median):
                continue
            sigma = usual if sigmas[y] > 2.0 * usual else sigmas[y]
            if ends[y, 0] < median - 3.0 * sigma or ends[y, 1] > median + 3.0 * sigma:
                # Pixels beyond the deviation are beyond three sigma too, unless sigma is absurd.
                reach = 3.0 * sigma
                n = 0
                for x in range(x0, x1):
                    value = stack[amp, y, x]
                    if abs(value - median) <= reach and abs(value - overall) <= MAX_DEVIATION_ADU:
                        values[n] = value
                        n += 1
                if n > 0:
                    levels[amp, y] = _ranked(values, n, histogram)[0]
        for y in range(height):
            if np.isnan(medians[y]):
                first = max(0, y - N_FILL_ROWS)
                last = min(height, y + N_FILL_ROWS + 1)
                total = 0
                nearby = np.empty(2 * N_FILL_ROWS + 1, dtype=np.float64)
                for other in range(first, last):
                    if not np.isnan(medians[other]):
                        nearby[total] = levels[amp, other]
                        total += 1
                if total > 0:
                    levels[amp, y] = np.median(nearby[:total])
        residuals[:] = 0
        for y in range(y0, y1):
            level = levels[amp, y]
            if np.isnan(level):
                continue
            for x in range(x0, x1):
                # Levels are multiples of a half, so twice a residual is whole.
                place = np.int64(np.rint(2.0 * (stack[amp, y, x] - level))) + 2 * MAX_RESIDUAL_ADU
                if 0 <= place < residuals.shape[0]:
                    residuals[place] += 1
        noise[amp] = 0.5 * _clipped_moments(residuals)[1]


@njit(nogil=True, cache=True, fastmath={"contract"})
def correct_crosstalk_row(signal, crosstalk, corrected):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Subtract from one row of every amp what the other amps' rows put there."""
    n_amps, width = signal.shape
    for target in range(n_amps):
        for x in range(width):
            corrected[target, x] = signal[target, x]
        for source in range(n_amps):
            fraction = crosstalk[target, source]
            if fraction != 0.0:
                for x in range(width):
                    corrected[target, x] -= fraction * signal[source, x]


@njit(nogil=True, cache=True)
def read_parallel_rows(stack, levels, gain, crosstalk, x0, y0, y1, rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Fill ``rows[amp, y - y0, x]`` with the parallel overscan, levelled, in the image's unit, free of crosstalk."""
    n_amps, _, width = rows.shape
    signal = np.empty((n_amps, width), dtype=np.float32)
    corrected = np.empty((n_amps, width), dtype=np.float32)
    for y in range(y0, y1):
        for amp in range(n_amps):
            level = levels[amp, y]
            for x in range(width):
                signal[amp, x] = (np.float32(stack[amp, y, x0 + x]) - level) * gain[amp]
        if crosstalk.shape[0] > 0:
            correct_crosstalk_row(signal, crosstalk, corrected)
            rows[:, y - y0, :] = corrected
        else:
            rows[:, y - y0, :] = signal
