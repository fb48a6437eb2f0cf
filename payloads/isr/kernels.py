"""Signature removal in one pass over the counts, compiled.

Row by row of the read-out: all amps of a row together (crosstalk needs them), then the detector rows they
fill, while they are in the first cache: bias, dark, defects, variance, flat, interpolation, binning. Each step is
a short loop over one row that the compiler vectorises. `payloads.isr.steps` says what each step is, and
`payloads.isr.fused` calls the pass.
"""

import numpy as np
from numba import njit

from payloads.isr.linearity import STRETCH, correct_row
from payloads.isr.overscan import correct_crosstalk
from payloads.isr.steps import MAX_INTERPOLATED_PX, NO_DATA_VARIANCE, WITHOUT_VALUE
from payloads.mask import BAD, INTRP, SAT, SUSPECT, UNMASKEDNAN

BLOCK = 8
"""Side of the blocks of the binned image [px]."""


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
def _level_row(counts, level, gain, signal):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Subtract the overscan level, apply the gain."""
    for x in range(counts.shape[0]):
        signal[x] = (np.float32(counts[x]) - level) * gain


@njit(nogil=True, cache=True)
def _flag_row(counts, level, saturation, suspect, adc_max, flags):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Flag; return how many pixels are saturated and suspect."""
    n_saturated = np.int32(0)
    n_suspect = np.int32(0)
    for x in range(counts.shape[0]):
        adu = np.float32(counts[x]) - level
        saturated = np.int32((adu >= saturation) | (counts[x] >= adc_max))
        doubtful = np.int32(adu >= suspect)
        flags[x] = saturated * np.int32(SAT) + doubtful * np.int32(SUSPECT)
        n_saturated += saturated
        n_suspect += doubtful
    return n_saturated, n_suspect


@njit(nogil=True, cache=True)
def _place_row(signal, flags, flip, image, mask):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    n = signal.shape[0]
    if flip:
        # Unsigned, so that no index can be negative: only then does the compiler reverse whole registers.
        last = np.uint64(n - 1)
        for x in range(n):
            image[x] = signal[last - np.uint64(x)]
        for x in range(n):
            mask[x] = flags[last - np.uint64(x)]
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
        inverse = np.float32(1) / (flat[x] if flat[x] > np.float32(0) else np.float32(np.nan))
        image[x] *= inverse
        variance[x] *= inverse * inverse


@njit(nogil=True, cache=True)
def _check_row(image, variance, mask):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Mask what is not finite; return whether any pixel lacks a value."""
    seen = np.int32(0)
    for x in range(image.shape[0]):
        # A finite number minus itself is zero.
        zero = (image[x] - image[x]) + (variance[x] - variance[x])
        useless = zero != np.float32(0)
        flag = mask[x] | np.int32(useless) * np.int32(UNMASKEDNAN)
        mask[x] = flag
        image[x] = np.float32(0) if useless else image[x]
        variance[x] = np.float32(NO_DATA_VARIANCE) if useless else variance[x]
        seen |= flag
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
    plane, levels, parallel, place, bands, size, electronics, adc_max, crosstalk, knots, pieces, nearby, bins_per_unit,  # noqa: ANN001
    bias, dark, dark_scale, defects, flat, interpolate, image, mask, variance, binned, counts, runs,  # noqa: ANN001
):  # fmt: skip
    """Apply every correction to every pixel; arguments of shape (0, ...) leave their step out.

    Parameters
    ----------
    plane : ndarray of shape (height, width), int32, ADU
        As `payloads.isr.readout.ReadOut.counts`: ``image``, as integers.
    levels : ndarray of shape (n_amps, data_height), float32, ADU
        Of the imaging rows.
    parallel : ndarray of shape (n_amps, data_width), float32
    place, bands
        As in `payloads.isr.inputs.AmpLayout`; without bands the rows are interpolated and binned at the end.
    size : ndarray of shape (2,), int64
        Width and height of an amp's imaging pixels.
    electronics : ndarray of shape (n_amps, 5), float32
        gain, one over photon gain, noise variance, saturation and suspect level.
    knots, pieces, nearby, bins_per_unit
        As in `payloads.isr.linearity.Linearity`.
    image, mask, variance, binned, counts
        Written; ``binned`` must come as zeros.
    runs : ndarray of shape (n, 3), int64
        Written: runs left for `payloads.isr.steps.fill_long_runs`.

    Returns
    -------
    n_runs : int
    """
    n_amps = place.shape[0]
    width, height = size[0], size[1]
    signal = np.empty((n_amps, width), dtype=np.float32)
    corrected = np.empty(width, dtype=np.float32)
    flags = np.empty(width, dtype=np.int32)
    clipped = np.empty(STRETCH, dtype=np.float32)
    amount = np.empty(STRETCH, dtype=np.float32)
    lacking = np.zeros(n_amps, dtype=np.bool_)
    has_gaps = n_amps * width * height != image.size
    n_runs = 0
    n_rows, n_columns = binned.shape
    for k in range(height):
        for amp in range(n_amps):
            left = place[amp, 0]
            y = place[amp, 1] + (height - 1 - k if place[amp, 3] else k)
            _level_row(plane[y, left : left + width], levels[amp, k], electronics[amp, 0], signal[amp])
        for amp in range(n_amps):
            left = place[amp, 0]
            y = place[amp, 1] + (height - 1 - k if place[amp, 3] else k)
            n_saturated, n_suspect = _flag_row(
                plane[y, left : left + width], levels[amp, k], electronics[amp, 3], electronics[amp, 4], adc_max, flags
            )
            counts[amp, 0] += n_saturated
            counts[amp, 1] += n_suspect
            row = signal[amp]
            if crosstalk.shape[0] > 0:
                correct_crosstalk(signal, crosstalk[amp], amp, corrected)
                row = corrected
            if parallel.shape[0] > 0:
                _subtract_row(row, parallel[amp], np.float32(1))
            if knots.shape[0] > 0:
                correct_row(row, knots[amp], pieces[amp], nearby[amp], bins_per_unit[amp], clipped, amount)
            target, target_mask = image[y, left : left + width], mask[y, left : left + width]
            target_variance = variance[y, left : left + width]
            _place_row(row, flags, place[amp, 2] != 0, target, target_mask)
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
            needs_value = has_gaps
            for amp in range(n_amps):
                in_band = place[amp, 1] == bands[band, 0] and place[amp, 3] == bands[band, 1]
                needs_value |= in_band and lacking[amp]
            if interpolate and needs_value:
                n_runs = _fill_row(image[y], variance[y], mask[y], y, runs, n_runs)
            if y // BLOCK < n_rows:
                _bin_row(image[y], binned[y // BLOCK])
    if bands.shape[0] == 0:
        for y in range(image.shape[0]):
            if interpolate:
                n_runs = _fill_row(image[y], variance[y], mask[y], y, runs, n_runs)
            if y // BLOCK < n_rows:
                _bin_row(image[y], binned[y // BLOCK])
    scale = np.float32(1.0 / (BLOCK * BLOCK))
    for y in range(n_rows):
        for x in range(n_columns):
            binned[y, x] *= scale
    return n_runs
