"""Signature removal in one pass over the counts, compiled.

Row by row of the read-out: all amps of a row together (crosstalk needs them), then the detector rows they
fill, while they are in the first cache: bias, dark, defects, variance, flat, interpolation, binning. Each step is
a short loop over one row that the compiler vectorises. `payloads.isr.steps` says what each step is.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from payloads.isr.inputs import IsrInputs, IsrPlanes
from payloads.isr.overscan import correct_crosstalk_row, measure_serial, read_parallel_rows
from payloads.isr.steps import (
    GROW_SATURATED_PX,
    MAX_INTERPOLATED_PX,
    NO_DATA_VARIANCE,
    WITHOUT_VALUE,
    fill_long_runs,
    image_median,
    parallel_levels,
)
from payloads.mask import BAD, INTRP, NO_DATA, SAT, SUSPECT, UNMASKEDNAN

BLOCK = 8
"""Side of the blocks of the binned image [px]."""


@njit(nogil=True, cache=True)
def _linearize_row(signal, correction, step):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    last = correction.shape[0] - 1
    per_step = np.float32(1) / step
    for x in range(signal.shape[0]):
        place = signal[x] * per_step
        if not place > np.float32(0):  # NaN too
            place = np.float32(0)
        elif place > np.float32(last):
            place = np.float32(last)
        index = min(np.int32(place), np.int32(last - 1))
        fraction = place - np.float32(index)
        below = correction[index]
        signal[x] -= below + fraction * (correction[index + 1] - below)


@njit(nogil=True, cache=True)
def _fill_row(image, variance, mask, y, runs, n_runs):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Interpolate one row's pixels without value; note the runs that are too long. Returns how many by now."""
    width = image.shape[0]
    was_saturated = False
    for x in range(width):
        saturated = (mask[x] & SAT) != 0
        if saturated and not was_saturated and x > 0:
            mask[x - 1] |= SAT
        if was_saturated and not saturated:
            mask[x] |= SAT
        was_saturated = saturated
    x = 0
    while x < width:
        if (mask[x] & WITHOUT_VALUE) == 0:
            x += 1
            continue
        first = x
        while x < width and (mask[x] & WITHOUT_VALUE) != 0:
            mask[x] |= INTRP
            x += 1
        n = x - first
        if n > MAX_INTERPOLATED_PX or n == width:
            image[first:x] = np.float32(0)
            variance[first:x] = np.float32(NO_DATA_VARIANCE)
            if n_runs < runs.shape[0]:
                runs[n_runs, 0] = y
                runs[n_runs, 1] = first
                runs[n_runs, 2] = x
                n_runs += 1
            continue
        left = first - 1 if first > 0 else x
        right = x if x < width else first - 1
        low, high = image[left], image[right]
        low_variance, high_variance = variance[left], variance[right]
        for i in range(n):
            fraction = np.float32(i + 1) / np.float32(n + 1)
            image[first + i] = low + (high - low) * fraction
            variance[first + i] = low_variance + (high_variance - low_variance) * fraction
    return n_runs


# Loops run from 0 over slices: with another start the compiler must allow for negative indices, and does not
# vectorise. Arguments are rows of one amp.


@njit(nogil=True, cache=True)
def _level_row(counts, level, gain, saturation, suspect, adc_max, signal, flags):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Subtract the overscan level, flag, apply the gain; return how many pixels are saturated and suspect."""
    n_saturated = np.int32(0)
    n_suspect = np.int32(0)
    for x in range(counts.shape[0]):
        adu = np.float32(counts[x]) - level
        saturated = np.int32((adu >= saturation) | (counts[x] >= adc_max))
        doubtful = np.int32(adu >= suspect)
        flags[x] = saturated * np.int32(SAT) + doubtful * np.int32(SUSPECT)
        n_saturated += saturated
        n_suspect += doubtful
        signal[x] = adu * gain
    return n_saturated, n_suspect


@njit(nogil=True, cache=True)
def _place_row(signal, flags, flip, image, mask):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    n = signal.shape[0]
    if flip:
        for x in range(n):
            image[x] = signal[n - 1 - x]
            mask[x] = flags[n - 1 - x]
    else:
        for x in range(n):
            image[x] = signal[x]
            mask[x] = flags[x]


@njit(nogil=True, cache=True)
def _subtract_row(image, values, scale):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for x in range(image.shape[0]):
        image[x] -= values[x] * scale


@njit(nogil=True, cache=True)
def _mark_row(mask, defects):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for x in range(mask.shape[0]):
        mask[x] |= np.int32(defects[x] != 0) * np.int32(BAD)


@njit(nogil=True, cache=True)
def _vary_row(image, noise_variance, per_photon, variance, mask):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Fill the variance; return how many pixels are BAD."""
    n_bad = np.int32(0)
    for x in range(image.shape[0]):
        value = noise_variance + image[x] * per_photon
        variance[x] = value
        flag = mask[x] | (np.int32(value <= np.float32(0)) * np.int32(BAD))
        mask[x] = flag
        n_bad += np.int32((flag & np.int32(BAD)) != 0)
    return n_bad


@njit(nogil=True, cache=True, error_model="numpy")
def _flatten_row(image, variance, flat):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for x in range(image.shape[0]):
        response = flat[x] if flat[x] > np.float32(0) else np.float32(np.nan)
        image[x] /= response
        variance[x] /= response * response


@njit(nogil=True, cache=True)
def _check_row(image, variance, mask):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Mask what is not finite; return whether any pixel lacks a value."""
    seen = np.int32(0)
    for x in range(image.shape[0]):
        # A finite number minus itself is zero.
        zero = (image[x] - image[x]) + (variance[x] - variance[x])
        useless = zero != np.float32(0)
        mask[x] |= np.int32(useless) * np.int32(UNMASKEDNAN)
        image[x] = np.float32(0) if useless else image[x]
        variance[x] = np.float32(NO_DATA_VARIANCE) if useless else variance[x]
        seen |= mask[x]
    return (seen & WITHOUT_VALUE) != 0


@njit(nogil=True, cache=True)
def _bin_row(image, sums):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for column in range(sums.shape[0]):
        total = np.float32(0)
        for x in range(BLOCK):
            total += image[column * BLOCK + x]
        sums[column] += total


@njit(nogil=True, cache=True, error_model="numpy")
def calibrate(  # type: ignore[no-untyped-def] # noqa: ANN201
    stack, levels, parallel, place, bands, data, electronics, adc_max, crosstalk, linearity, linearity_step,  # noqa: ANN001
    bias, dark, dark_scale, defects, flat, interpolate, image, mask, variance, binned, counts, runs,  # noqa: ANN001
):  # fmt: skip
    """Apply every correction to every pixel; arguments of shape (0, ...) leave their step out.

    Parameters
    ----------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
    levels : ndarray of shape (n_amps, raw_height), float32, ADU
    parallel : ndarray of shape (n_amps, data_width), float32
    place, bands
        As in `payloads.isr.inputs.AmpLayout`.
    data : ndarray of shape (4,), int64
        x0, y0, width and height of the imaging pixels in a segment.
    electronics : ndarray of shape (n_amps, 5), float32
        gain, one over photon gain, noise variance, saturation and suspect level.
    image, mask, variance, binned, counts
        Written; ``binned`` must come as zeros.
    runs : ndarray of shape (n, 3), int64
        Written: runs left for `payloads.isr.steps.fill_long_runs`.

    Returns
    -------
    n_runs : int
    """
    n_amps = stack.shape[0]
    x0, y0, width, height = data[0], data[1], data[2], data[3]
    signal = np.empty((n_amps, width), dtype=np.float32)
    corrected = np.empty((n_amps, width), dtype=np.float32)
    flags = np.empty((n_amps, width), dtype=np.int32)
    lacking = np.zeros(n_amps, dtype=np.bool_)
    has_gaps = n_amps * width * height != image.size
    n_runs = 0
    n_rows, n_columns = binned.shape
    for k in range(height):
        for amp in range(n_amps):
            n_saturated, n_suspect = _level_row(
                stack[amp, y0 + k, x0 : x0 + width], levels[amp, y0 + k], electronics[amp, 0], electronics[amp, 3],
                electronics[amp, 4], adc_max, signal[amp], flags[amp],
            )  # fmt: skip
            counts[amp, 0] += n_saturated
            counts[amp, 1] += n_suspect
        if crosstalk.shape[0] > 0:
            correct_crosstalk_row(signal, crosstalk, corrected)
            signal, corrected = corrected, signal
        for amp in range(n_amps):
            if parallel.shape[0] > 0:
                _subtract_row(signal[amp], parallel[amp], np.float32(1))
            if linearity.shape[0] > 0:
                _linearize_row(signal[amp], linearity[amp], linearity_step[amp])
            left = place[amp, 0]
            y = place[amp, 1] + (height - 1 - k if place[amp, 3] else k)
            target, target_mask = image[y, left : left + width], mask[y, left : left + width]
            target_variance = variance[y, left : left + width]
            _place_row(signal[amp], flags[amp], place[amp, 2] != 0, target, target_mask)
            if bias.shape[0] > 0:
                _subtract_row(target, bias[y, left : left + width], np.float32(1))
            if dark.shape[0] > 0:
                _subtract_row(target, dark[y, left : left + width], dark_scale)
            if defects.shape[0] > 0:
                _mark_row(target_mask, defects[y, left : left + width])
            counts[amp, 2] += _vary_row(target, electronics[amp, 2], electronics[amp, 1], target_variance, target_mask)
            if flat.shape[0] > 0:
                _flatten_row(target, target_variance, flat[y, left : left + width])
            lacking[amp] = _check_row(target, target_variance, target_mask)
        for band in range(bands.shape[0]):
            y = bands[band, 0] + (height - 1 - k if bands[band, 1] else k)
            if interpolate:
                needs_value = False
                for amp in range(n_amps):
                    in_band = place[amp, 1] == bands[band, 0] and place[amp, 3] == bands[band, 1]
                    needs_value |= in_band and lacking[amp]
                if needs_value or has_gaps:
                    n_runs = _fill_row(image[y], variance[y], mask[y], y, runs, n_runs)
            if y < n_rows * BLOCK:
                _bin_row(image[y], binned[y // BLOCK])
    scale = np.float32(1.0 / (BLOCK * BLOCK))
    for y in range(n_rows):
        for x in range(n_columns):
            binned[y, x] *= scale
    return n_runs


def _readonly(values: NDArray | None, dtype: type, ndim: int) -> NDArray:  # type: ignore[type-arg]
    """Return values as a contiguous read-only array, empty for None: one type, so that there is one compiled kernel."""
    if values is None:
        values = np.empty((0,) * ndim, dtype=dtype)
    view = np.ascontiguousarray(values, dtype=dtype).view(np.ndarray)[...]
    view.flags.writeable = False
    return view


def run_kernels(stack: NDArray[np.int32], inputs: IsrInputs, planes: IsrPlanes) -> None:
    """Remove the signature of one detector into given planes.

    Parameters
    ----------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
    inputs
        What to apply.
    planes
        Overwritten; C-contiguous.
    """
    layout = inputs.layout
    box = layout.data
    if inputs.serial_overscan and layout.serial is not None:
        measure_serial(stack, *layout.serial, box.y0, box.y1, planes.levels, planes.overscan_noise)
    else:
        planes.levels[...] = 0.0
        planes.overscan_noise[...] = np.nan
    crosstalk = _readonly(inputs.crosstalk, np.float32, 2)
    gain = _readonly(inputs.gain, np.float32, 1)
    planes.parallel_levels[...] = 0.0
    with_parallel = inputs.parallel_overscan and layout.parallel is not None
    if with_parallel and layout.parallel is not None:
        y0, y1 = layout.parallel
        rows = np.empty((len(stack), y1 - y0, box.width), dtype=np.float32)
        read_parallel_rows(stack, planes.levels, gain, crosstalk, box.x0, y0, y1, rows)
        last = slice(box.y1 - GROW_SATURATED_PX, box.y1)
        last_rows = (stack[:, last, box.x0 : box.x1] - planes.levels[:, last, None]) * inputs.gain[:, None, None]
        planes.parallel_levels[...] = parallel_levels(
            rows,
            last_rows,
            gain=inputs.gain,
            saturation=inputs.saturation * inputs.gain,
            image_median=lambda amp: image_median(stack[amp], planes.levels[amp], inputs.gain[amp], layout),
        )
    if not layout.covers_image:
        planes.image[...] = 0.0
        planes.mask[...] = NO_DATA
        planes.variance[...] = NO_DATA_VARIANCE
    planes.binned[...] = 0.0
    planes.counts[...] = 0
    electronics = np.stack(
        [inputs.gain, np.float32(1) / inputs.photon_gain, inputs.noise_variance, inputs.saturation, inputs.suspect],
        axis=1,
    ).astype(np.float32)
    # A row of n pixels has at most this many long runs.
    runs = np.empty((layout.height * (1 + layout.width // MAX_INTERPOLATED_PX), 3), dtype=np.int64)
    n_runs = calibrate(
        stack,
        planes.levels,
        _readonly(planes.parallel_levels if with_parallel else None, np.float32, 2),
        _readonly(layout.place, np.int64, 2),
        _readonly(layout.bands, np.int64, 2),
        np.array([box.x0, box.y0, box.width, box.height], dtype=np.int64),
        electronics,
        np.int32(inputs.adc_max),
        crosstalk,
        _readonly(inputs.linearity, np.float32, 2),
        _readonly(inputs.linearity_step, np.float32, 1),
        _readonly(inputs.bias, np.float32, 2),
        _readonly(inputs.dark, np.float32, 2),
        np.float32(inputs.dark_scale),
        _readonly(inputs.defects, np.uint8, 2),
        _readonly(inputs.flat, np.float32, 2),
        inputs.interpolate,
        planes.image,
        planes.mask,
        planes.variance,
        planes.binned,
        planes.counts,
        runs,
    )
    if n_runs:
        fill_long_runs(planes, runs[:n_runs])
