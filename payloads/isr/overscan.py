"""Measure overscan levels, compiled; `payloads.isr.steps` has the same in numpy, to be read first.

The overscan of 64 rows is sorted at once (`payloads.isr.sorting`); then medians, quartiles and what clipping leaves are
read off the sorted values.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from payloads.isr.sorting import sort_columns, sorting_network
from payloads.isr.steps import (
    MAX_DEVIATION_ADU,
    MAX_RESIDUAL_ADU,
    N_FILL_ROWS,
    SIGMA_PER_IQR,
    clipped_moments_of_histogram,
)

N_HISTOGRAMS = 4
"""Neighbouring rows have the same residual at the same rank; counted in one histogram, each would wait for the last."""

BEYOND = 1e15
"""A level whose residuals are in no histogram."""

_clipped_moments = njit(nogil=True, cache=True)(clipped_moments_of_histogram)


@njit(nogil=True, cache=True)
def _quantile(column, first, last, quarter):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return a quartile (1, 2, 3) of ascending ``column[first:last]``, linearly interpolated as numpy does."""
    place = (last - first - 1) * quarter
    rank = place // 4
    below = column[first + rank]
    above = column[min(first + rank + 1, last - 1)]
    return below + (place / 4.0 - rank) * (above - below)


@njit(nogil=True, cache=True)
def _sigma(column, first, last):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    return SIGMA_PER_IQR * (_quantile(column, first, last, 3) - _quantile(column, first, last, 1))


@njit(nogil=True, cache=True)
def _narrow(column, first, last, centre, reach):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the range of an ascending column within reach of a centre."""
    while first < last and abs(column[first] - centre) > reach:
        first += 1
    while first < last and abs(column[last - 1] - centre) > reach:
        last -= 1
    return first, last


@njit(nogil=True, cache=True)
def measure_serial(serial, network, y0, y1, levels, noise):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Measure every row's level and every amp's overscan noise; see `payloads.isr.steps.serial_levels`.

    Parameters
    ----------
    serial : ndarray of shape (n_amps, n_blocks, n_columns, LANES), int32, ADU
        As in `payloads.isr.readout.ReadOut`. Each row comes back sorted.
    network : ndarray of shape (n_pairs, 2), int64
        `payloads.isr.sorting.sorting_network` of ``n_columns``.
    y0, y1 : int
        Rows over which the noise is measured: the imaging rows.
    levels : ndarray of shape (n_amps, raw_height), float32, ADU
        Written. NaN where neither a row nor its neighbours have a good pixel.
    noise : ndarray of shape (n_amps,), float64, ADU
        Written.
    """
    n_amps, n_blocks, n, lanes = serial.shape
    height = levels.shape[1]
    medians = np.empty(height, dtype=np.float64)
    sigmas = np.empty(height, dtype=np.float64)
    nearby = np.empty(2 * N_FILL_ROWS + 1, dtype=np.float64)
    twice = np.empty(lanes, dtype=np.float64)
    residuals = np.zeros((N_HISTOGRAMS, 4 * MAX_RESIDUAL_ADU + 1), dtype=np.int64)
    for amp in range(n_amps):
        for block in range(n_blocks):
            sort_columns(serial[amp, block], network)
        for y in range(height):
            column = serial[amp, y // lanes, :, y % lanes]
            medians[y] = _quantile(column, 0, n, 2)
            sigmas[y] = _sigma(column, 0, n)
        overall = np.median(medians)
        for y in range(height):
            column = serial[amp, y // lanes, :, y % lanes]
            if column[0] < overall - MAX_DEVIATION_ADU or column[n - 1] > overall + MAX_DEVIATION_ADU:
                first, last = _narrow(column, 0, n, overall, MAX_DEVIATION_ADU)
                medians[y] = _quantile(column, first, last, 2) if first < last else np.nan
                sigmas[y] = _sigma(column, first, last) if first < last else np.nan
        usual = np.nanmedian(sigmas)
        for y in range(height):
            column = serial[amp, y // lanes, :, y % lanes]
            median = medians[y]
            levels[amp, y] = median
            if np.isnan(median):
                continue
            reach = 3.0 * (usual if sigmas[y] > 2.0 * usual else sigmas[y])
            if column[0] < median - reach or column[n - 1] > median + reach:
                first, last = _narrow(column, 0, n, overall, MAX_DEVIATION_ADU)
                first, last = _narrow(column, first, last, median, reach)
                if first < last:
                    levels[amp, y] = _quantile(column, first, last, 2)
        for y in range(height):
            if np.isnan(medians[y]):
                total = 0
                for other in range(max(0, y - N_FILL_ROWS), min(height, y + N_FILL_ROWS + 1)):
                    if not np.isnan(medians[other]):
                        nearby[total] = levels[amp, other]
                        total += 1
                if total > 0:
                    levels[amp, y] = np.median(nearby[:total])
        residuals[:] = 0
        for block in range(n_blocks):
            for lane in range(lanes):
                y = block * lanes + lane
                is_counted = y0 <= y < y1 and not np.isnan(levels[amp, y])
                twice[lane] = 2.0 * levels[amp, y] if is_counted else BEYOND
            for x in range(n):
                values = serial[amp, block, x]
                for lane in range(lanes):
                    # Levels are multiples of a half, so twice a residual is whole.
                    place = np.int64(np.rint(2.0 * values[lane] - twice[lane])) + 2 * MAX_RESIDUAL_ADU
                    if 0 <= place < residuals.shape[1]:
                        residuals[lane % N_HISTOGRAMS, place] += 1
        for other in range(1, N_HISTOGRAMS):
            residuals[0] += residuals[other]
        noise[amp] = 0.5 * _clipped_moments(residuals[0])[1]


def unmixing(crosstalk: NDArray[np.float32] | None, quadratic: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return what turns the amps' signals into those without crosstalk, one less its fractions; empty for none.

    A product with it is twice as fast in BLAS as in loops of ours. With quadratic crosstalk it is twice as wide: the
    squares of the signals follow the signals.
    """
    if crosstalk is None and quadratic is None:
        return np.empty((0, 0), dtype=np.float32)
    n_amps = len(quadratic if crosstalk is None else crosstalk)  # type: ignore[arg-type] # one of them is there
    linear = np.eye(n_amps) - (0.0 if crosstalk is None else crosstalk)
    both = linear if quadratic is None else np.hstack([linear, -quadratic])
    return np.ascontiguousarray(both, dtype=np.float32)


@njit(nogil=True, cache=True)
def unmix_row(unmix, signal, levels, corrected):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Take crosstalk off one row of all amps.

    Parameters
    ----------
    unmix : ndarray of shape (n_amps, n_amps or 2 n_amps), float32
        As from `unmixing`.
    signal : ndarray of shape (n_amps or 2 n_amps, width), float32
        The amps' signals; changed.
    levels : ndarray of shape (n_amps,), float32
        Of this row; NaN where unknown: that amp's signal is, too, and the others' must not become so.
    corrected : ndarray of shape (n_amps, width), float32
        Written.
    """
    n_amps = corrected.shape[0]
    for amp in range(n_amps):
        if np.isnan(levels[amp]):
            signal[amp, :] = np.float32(0)
        if unmix.shape[1] > n_amps:
            line, square = signal[amp], signal[n_amps + amp]
            for x in range(line.shape[0]):
                square[x] = line[x] * line[x]
    np.dot(unmix, signal, corrected)
    for amp in range(n_amps):
        if np.isnan(levels[amp]):
            corrected[amp, :] = np.float32(np.nan)


@njit(nogil=True, cache=True)
def level_parallel_rows(parallel, levels, gain, unmix, rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Fill ``rows[amp, y, x]`` with the parallel overscan, levelled, in the image's unit, free of crosstalk.

    Parameters
    ----------
    parallel : ndarray of shape (n_amps, n_rows, width), int32, ADU
    levels : ndarray of shape (n_amps, n_rows), float32, ADU
    unmix : ndarray of shape (n_amps, n_amps or 2 n_amps), float32
        As from `unmixing`; of shape (0, 0) for no crosstalk.
    """
    n_amps, n_rows, width = rows.shape
    signal = np.empty((max(n_amps, unmix.shape[1]), width), dtype=np.float32)
    corrected = np.empty((n_amps, width), dtype=np.float32)
    for y in range(n_rows):
        for amp in range(n_amps):
            line, counts = signal[amp], parallel[amp, y]
            level, scale = levels[amp, y], gain[amp]
            for x in range(width):
                line[x] = (np.float32(counts[x]) - level) * scale
        if unmix.shape[0] > 0:
            unmix_row(unmix, signal, levels[:, y], corrected)
            rows[:, y] = corrected
        else:
            rows[:, y] = signal


def column_medians(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median of every column; NaN for a column with a pixel that is not finite.

    Parameters
    ----------
    pixels : ndarray of shape (n_rows, width), float32
        Not modified.
    """
    n = len(pixels)
    ordered = pixels.copy()
    sort_columns(ordered, sorting_network(n))
    median = ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) * np.float32(0.5)
    median[~np.isfinite(pixels).all(axis=0)] = np.nan
    return np.asarray(median, dtype=np.float32)
