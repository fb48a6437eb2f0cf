"""Signature removal step by step in numpy: what each correction is.

The steps are in the order, and in the units, of the reference (lsst.ip.isr.IsrTaskLSST). `payloads.isr.kernels`
does the same in one pass; the tests hold the two together to rounding. This is also what runs on the rare
raws whose pixels are floating point.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from payloads.isr import linearity
from payloads.isr.inputs import AmpLayout, IsrInputs, IsrPlanes
from payloads.mask import BAD, INTRP, NO_DATA, SAT, SUSPECT, UNMASKEDNAN

Array = NDArray[np.float32]

SIGMA_PER_IQR = 0.74
"""Standard deviation of a Gaussian over its interquartile range, to two digits as in the reference."""
MAX_DEVIATION_ADU = 1000
"""An overscan pixel this far from its amp's level is no overscan."""
N_FILL_ROWS = 5
"""Rows on either side whose levels stand in for a row without a good overscan pixel."""
MAX_RESIDUAL_ADU = 1024
"""Residuals beyond this count for no noise."""
CLIPPED_SIGMA_BIAS = 0.98658
"""Standard deviation of a unit Gaussian cut at three sigma."""

SATURATED_OVERSCAN = 0.75
"""Fraction of saturation above which a column's parallel overscan holds a trail, not a level."""
GROW_SATURATED_PX = 7
PARALLEL_DEVIATION_ADU = 100.0
COLUMN_EXCESS_ADU = 5.0
GROW_COLUMNS_PX = 2
MAX_OVERSCAN_FRACTION = 0.5
BRIGHT_IMAGE = 10_000.0
"""In an image brighter than this [electron] whose overscan holds over half of it, the overscan is no overscan."""

MAX_INTERPOLATED_PX = 256
"""Longest run bridged between its neighbours; a longer one (a dead amp) takes the image's median."""
NO_DATA_VARIANCE = 1e10
WITHOUT_VALUE = BAD | SAT | UNMASKEDNAN | NO_DATA
"""Planes whose pixels need a value from elsewhere."""


def clipped_moments_of_histogram(counts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Return mean and standard deviation of a histogram's places, clipped three times at three sigma.

    The deviation is corrected for the tails that clipping takes from a Gaussian; NaN without counts.
    """
    total = counts.sum()
    if total == 0:
        return np.nan, np.nan
    n = counts.shape[0]
    cumulative = 0
    q1 = -1
    q2 = -1
    q3 = -1
    for place in range(n):
        cumulative += counts[place]
        if q1 < 0 and 4 * cumulative >= total:
            q1 = place
        if q2 < 0 and 2 * cumulative >= total:
            q2 = place
        if q3 < 0 and 4 * cumulative >= 3 * total:
            q3 = place
            break
    mean = float(q2)
    sigma = max(0.74 * (q3 - q1), 1.0)
    clipped = sigma
    for _ in range(3):
        weight = 0.0
        first = 0.0
        second = 0.0
        low = max(0, int(np.ceil(mean - 3.0 * sigma)))
        high = min(n - 1, int(np.floor(mean + 3.0 * sigma)))
        for place in range(low, high + 1):
            weight += counts[place]
            first += counts[place] * (place - mean)
            second += counts[place] * (place - mean) ** 2
        if weight == 0.0:
            return mean, 0.0
        shift = first / weight
        clipped = np.sqrt(max(0.0, second / weight - shift * shift))
        mean += shift
        sigma = max(clipped / 0.98658, 0.5)
    return mean, clipped / 0.98658


def serial_levels(stack: NDArray[Any], columns: tuple[int, int]) -> Array:
    """Measure the serial overscan level of every row.

    Pixels further than `MAX_DEVIATION_ADU` from the amp's level are left out, then those beyond three sigma of
    their row; the level is the median of the rest. A row without pixels takes the median of its neighbours'.

    Parameters
    ----------
    stack : ndarray of shape (n_amps, raw_height, raw_width), ADU
        NaN is ignored.
    columns
        Overscan columns used, first and one past the last.

    Returns
    -------
    levels : ndarray of shape (n_amps, raw_height), float32, ADU
        NaN where neither a row nor its neighbours have a good pixel.

    Notes
    -----
    Source: fit type ``MEDIAN_PER_ROW`` of lsst.ip.isr.OverscanCorrectionTask with its masking of outliers.
    """
    overscan = stack[:, :, columns[0] : columns[1]].astype(np.float64)
    levels = np.empty(overscan.shape[:2], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows without a pixel give NaN, which is meant
        for amp, rows in enumerate(overscan):
            overall = np.nanmedian(np.nanmedian(rows, axis=1))
            rows = np.where(np.abs(rows - overall) <= MAX_DEVIATION_ADU, rows, np.nan)
            q1, median, q3 = np.nanpercentile(rows, [25, 50, 75], axis=1)
            sigma = SIGMA_PER_IQR * (q3 - q1)
            usual = np.nanmedian(sigma)
            sigma = np.where(sigma > 2.0 * usual, usual, sigma)
            inside = np.abs(rows - median[:, None]) <= 3.0 * sigma[:, None]
            clipped = np.nanmedian(np.where(inside, rows, np.nan), axis=1)
            level = np.where(np.isnan(clipped), median, clipped)
            filled = level.copy()
            for y in np.flatnonzero(np.isnan(level)):
                filled[y] = np.nanmedian(level[max(0, y - N_FILL_ROWS) : y + N_FILL_ROWS + 1])
            levels[amp] = filled
    return levels


def overscan_noise(stack: NDArray[Any], levels: Array, layout: AmpLayout) -> NDArray[np.float64]:
    """Return each amp's clipped scatter of the overscan about its row levels, over the imaging rows [ADU]."""
    noise = np.full(len(stack), np.nan)
    if layout.serial is None:
        return noise
    y0, y1 = layout.data.y0, layout.data.y1
    for amp, pixels in enumerate(stack):
        residual = pixels[y0:y1, layout.serial[0] : layout.serial[1]] - levels[amp, y0:y1, None]
        near = residual[np.abs(residual) <= MAX_RESIDUAL_ADU + 1]
        place = np.rint(2.0 * near).astype(np.int64) + 2 * MAX_RESIDUAL_ADU
        n = 4 * MAX_RESIDUAL_ADU + 1
        counts = np.bincount(place[(place >= 0) & (place < n)], minlength=n)
        noise[amp] = 0.5 * clipped_moments_of_histogram(counts)[1]  # type: ignore[no-untyped-call] # shared with a compiled kernel
    return noise


def correct_crosstalk(signal: Array, crosstalk: Array | None, quadratic: Array | None = None) -> Array:
    """Subtract what each amp's signal put into the others, at the same place in the read-out.

    Parameters
    ----------
    signal : ndarray of shape (n_amps, height, width), float32
        NaN where an amp's level is not known: then what it put into the others is not, either, and is left.
    crosstalk, quadratic : ndarray of shape (n_amps, n_amps), float32
        ``[target, source]``: of the signal, and of its square.
    """
    corrected = signal
    source = np.where(np.isnan(signal), np.float32(0), signal)
    if crosstalk is not None:
        corrected = corrected - np.tensordot(crosstalk, source, axes=(1, 0))
    if quadratic is not None:
        corrected = corrected - np.tensordot(quadratic, source * source, axes=(1, 0))
    return corrected.astype(np.float32)


def _grown(columns: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """Return the columns, along the last axis, with those up to n beside them."""
    grown = columns.copy()
    for shift in range(1, n + 1):
        grown[..., shift:] |= columns[..., :-shift]
        grown[..., :-shift] |= columns[..., shift:]
    return grown


def column_medians(pixels: Array) -> Array:
    """Return the median of every column of an array of shape (n_rows, width)."""
    # Axis 0 last: a partition of contiguous columns is four times as fast.
    return np.median(np.ascontiguousarray(pixels.T), axis=1)


def parallel_levels(
    rows: Array,
    last_rows: Array,
    *,
    gain: Array,
    saturation: Array,
    image_median: Callable[[int], float],
    medians: Callable[[Array], Array] = column_medians,
) -> Array:
    """Measure the parallel overscan level of every column.

    Parameters
    ----------
    rows : ndarray of shape (n_amps, n_rows, width), float32
        Parallel overscan after serial overscan, gain and crosstalk.
    last_rows : ndarray of shape (n_amps, n, width), float32
        Imaging rows next to it: where they are saturated the overscan holds their trail.
    gain, saturation : ndarray of shape (n_amps,), float32
        Saturation is in the unit of ``rows``.
    image_median
        Gives the median of an amp's imaging pixels, to tell an overscan that holds image; asked only if the
        overscan is bright.
    medians
        Gives the median of every column; what it makes of columns with a pixel that is not finite does not matter.

    Returns
    -------
    levels : ndarray of shape (n_amps, width), float32
        Zeros for an amp whose overscan is not to be believed.
    """
    n_amps, _, width = rows.shape
    levels = np.zeros((n_amps, width), dtype=np.float32)
    limit = (SATURATED_OVERSCAN * saturation)[:, None, None]
    with np.errstate(invalid="ignore"):
        saturated = np.asarray((rows >= limit).any(axis=1) | (last_rows >= limit).any(axis=1))
        bad = _grown(saturated, GROW_SATURATED_PX)
        bad |= ~np.isfinite(rows).all(axis=1)
        amps = np.flatnonzero(~bad.all(axis=1))
        columns = np.zeros((n_amps, width), dtype=rows.dtype)
        overall = np.zeros(n_amps)
        for amp in amps:
            columns[amp] = medians(rows[amp])
            overall[amp] = np.median(columns[amp][~bad[amp]])
        far = rows > (overall + PARALLEL_DEVIATION_ADU * gain).astype(rows.dtype)[:, None, None]
        for amp, x in np.argwhere(far.any(axis=1) & ~bad):
            kept = rows[amp, :, x][~far[amp, :, x]]
            if len(kept):
                columns[amp, x] = np.median(kept)
            else:
                bad[amp, x] = True
        if width >= 5:
            excess = columns - median_filter(columns, (1, 5), mode="nearest")
            bad |= _grown(excess >= COLUMN_EXCESS_ADU * gain[:, None], GROW_COLUMNS_PX)
        for amp in amps:
            if overall[amp] > MAX_OVERSCAN_FRACTION * BRIGHT_IMAGE:
                median = image_median(int(amp))
                if median > BRIGHT_IMAGE and overall[amp] > MAX_OVERSCAN_FRACTION * median:
                    continue
            if bad[amp].all():
                continue
            column = columns[amp].copy()
            for x in np.flatnonzero(bad[amp]):
                near = slice(max(0, x - N_FILL_ROWS), x + N_FILL_ROWS + 1)
                good = column[near][~bad[amp, near]]
                column[x] = np.median(good) if len(good) else overall[amp]
            levels[amp] = column
    return levels


def image_median(counts: NDArray[Any], levels: Array, gain: np.float32) -> float:
    """Return an amp's median of every 16th imaging row, in the unit of the image: a guide, not a result.

    Parameters
    ----------
    counts : ndarray of shape (height, width), ADU
        The amp's imaging pixels.
    levels : ndarray of shape (height,), float32, ADU
    """
    return float(np.median((counts[::16] - levels[::16, None]) * gain))


def place_amps(values: NDArray[Any], layout: AmpLayout, out: NDArray[Any]) -> None:
    """Put each amp's imaging pixels at their place in the trimmed image, flipped as they were read."""
    for pixels, (x0, y0, flip_x, flip_y) in zip(values, layout.place, strict=True):
        turned = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        out[y0 : y0 + layout.data.height, x0 : x0 + layout.data.width] = turned


def interpolate_rows(image: Array, variance: Array, mask: NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """Give pixels without value one from the nearest good pixels of their row, in place.

    Saturation is grown by one pixel along the row first. Runs longer than `MAX_INTERPOLATED_PX` are set to 0.

    Returns
    -------
    long_runs
        (y, first x, one past the last x) of what is left for `fill_long_runs`.
    """
    long_runs = []
    width = image.shape[1]
    for y in np.flatnonzero((mask & WITHOUT_VALUE).any(axis=1)):
        saturated = (mask[y] & SAT) != 0
        mask[y][_grown(saturated, 1)] |= SAT
        bad = (mask[y] & WITHOUT_VALUE) != 0
        edges = np.flatnonzero(np.diff(np.concatenate(([0], bad.astype(np.int8), [0]))))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            mask[y, first:last] |= INTRP
            if last - first > MAX_INTERPOLATED_PX or last - first == width:
                image[y, first:last] = 0.0
                variance[y, first:last] = NO_DATA_VARIANCE
                long_runs.append((int(y), int(first), int(last)))
                continue
            for plane in (image, variance):
                left = plane[y, first - 1] if first > 0 else plane[y, last]
                right = plane[y, last] if last < width else plane[y, first - 1]
                fraction = np.arange(1, last - first + 1, dtype=np.float32) / np.float32(last - first + 1)
                plane[y, first:last] = left + (right - left) * fraction
    return long_runs


def fill_long_runs(planes: IsrPlanes, long_runs: NDArray[np.int64]) -> None:
    """Give long runs the median of the image's other pixels (every 8th row), and bin them again."""
    sample = planes.image[::8]
    good = sample[(planes.mask[::8] & WITHOUT_VALUE) == 0]
    value = np.float32(np.median(good)) if good.size else np.float32(0.0)
    for y, first, last in long_runs:
        planes.image[y, first:last] = value
    height, width = planes.binned.shape
    for row in np.unique(long_runs[:, 0] // 8):
        if row < height:
            block = planes.image[8 * row : 8 * row + 8, : 8 * width].reshape(8, width, 8)
            planes.binned[row] = block.sum(axis=(0, 2), dtype=np.float32) / np.float32(64)


def run_steps(stack: NDArray[Any], inputs: IsrInputs) -> IsrPlanes:
    """Remove the signature of one detector, in numpy.

    Parameters
    ----------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32 or float32, ADU
    inputs
        What to apply.

    Returns
    -------
    IsrPlanes
        New arrays.
    """
    layout = inputs.layout
    box = layout.data
    n_amps, raw_height, _ = stack.shape
    rows, columns = box.slices
    shape = (layout.height, layout.width)
    # Serial overscan [ADU].
    levels = np.zeros((n_amps, raw_height), dtype=np.float32)
    noise = np.full(n_amps, np.nan)
    if inputs.serial_overscan and layout.serial is not None:
        levels = serial_levels(stack, layout.serial)
        noise = overscan_noise(stack, levels, layout)
    adu = stack[:, rows, columns].astype(np.float32) - levels[:, rows, None]
    # Saturation [ADU].
    with np.errstate(invalid="ignore"):
        saturated = (adu >= inputs.saturation[:, None, None]) | (stack[:, rows, columns] >= inputs.adc_max)
        suspect = adu >= inputs.suspect[:, None, None]
    flags = np.where(saturated, SAT, 0) | np.where(suspect, SUSPECT, 0)
    # Gain: from here on in the unit of the image.
    signal = adu * inputs.gain[:, None, None]
    parallel = np.zeros((n_amps, box.width), dtype=np.float32)
    if inputs.parallel_overscan and layout.parallel is not None:
        y0, y1 = layout.parallel
        overscan = (stack[:, y0:y1, columns].astype(np.float32) - levels[:, y0:y1, None]) * inputs.gain[:, None, None]
        overscan = correct_crosstalk(overscan, inputs.crosstalk, inputs.quadratic_crosstalk)
        parallel = parallel_levels(
            overscan,
            signal[:, -GROW_SATURATED_PX:],
            gain=inputs.gain,
            saturation=inputs.saturation * inputs.gain,
            image_median=lambda amp: image_median(stack[amp, rows, columns], levels[amp, rows], inputs.gain[amp]),
        )
    signal = correct_crosstalk(signal, inputs.crosstalk, inputs.quadratic_crosstalk)
    signal = signal - parallel[:, None, :]
    if inputs.linearity is not None:
        signal = linearity.correct(signal, inputs.linearity)
    # Assembly.
    planes = IsrPlanes(
        image=np.zeros(shape, dtype=np.float32),
        mask=np.full(shape, NO_DATA, dtype=np.int32),
        variance=np.full(shape, NO_DATA_VARIANCE, dtype=np.float32),
        binned=np.zeros((shape[0] // 8, shape[1] // 8), dtype=np.float32),
        levels=levels,
        overscan_noise=noise,
        parallel_levels=parallel,
        counts=np.zeros((n_amps, 3), dtype=np.int64),
    )
    place_amps(signal, layout, planes.image)
    place_amps(flags, layout, planes.mask)
    image, mask = planes.image, planes.mask
    covered = (mask & NO_DATA) == 0
    ones = np.ones((n_amps, box.height, box.width), dtype=np.float32)
    per_photon = np.ones(shape, dtype=np.float32)
    noise_variance = np.zeros(shape, dtype=np.float32)
    place_amps(ones / inputs.photon_gain[:, None, None], layout, per_photon)
    place_amps(ones * inputs.noise_variance[:, None, None], layout, noise_variance)
    if inputs.bias is not None:
        image -= inputs.bias
    if inputs.dark is not None:
        image -= inputs.dark * np.float32(inputs.dark_scale)
    if inputs.defects is not None:
        mask[(inputs.defects != 0) & covered] |= BAD
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        variance = noise_variance + image * per_photon
        mask[covered & (variance <= 0)] |= BAD
        if inputs.flat is not None:
            inverse = np.float32(1) / np.where(inputs.flat > 0, inputs.flat, np.float32(np.nan))
            image *= inverse
            variance *= inverse * inverse
        useless = ~(np.isfinite(image) & np.isfinite(variance))
    mask[useless & covered] |= UNMASKEDNAN
    image[useless | ~covered] = 0.0
    variance[useless | ~covered] = NO_DATA_VARIANCE
    planes.variance[...] = variance
    for amp, (x0, y0, _, _) in enumerate(layout.place):
        part = mask[y0 : y0 + box.height, x0 : x0 + box.width]
        planes.counts[amp] = [np.count_nonzero(part & plane) for plane in (SAT, SUSPECT, BAD)]
    long_runs = interpolate_rows(image, planes.variance, mask) if inputs.interpolate else []
    height, width = planes.binned.shape
    blocks = image[: 8 * height, : 8 * width].reshape(height, 8, width, 8)
    planes.binned[...] = blocks.sum(axis=(1, 3), dtype=np.float32) / np.float32(64)
    if long_runs:
        fill_long_runs(planes, np.array(long_runs, dtype=np.int64))
    return planes
