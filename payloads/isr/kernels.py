"""Signature removal in one pass over the counts, compiled.

Row by row of the read-out: all amps of a row together (crosstalk needs them), then the detector rows they
fill, while they are in the cache: bias, dark, defects, variance, flat, interpolation, binning. What this must cost is
the planes going through memory once; so all steps after assembly are one loop. `payloads.isr.steps` says what
each step is, and `payloads.isr.fused` calls the pass.
"""

import llvmlite.binding
import numpy as np
from numba import njit

from payloads.isr.linearity import STRETCH, correct_row
from payloads.isr.overscan import unmix_row
from payloads.isr.steps import MAX_INTERPOLATED_PX, NO_DATA_VARIANCE, WITHOUT_VALUE
from payloads.mask import BAD, INTRP, SAT, SUSPECT, UNMASKEDNAN

# Read by the vectoriser when a kernel is compiled. Its default of 8 is for loops of a few instructions.
llvmlite.binding.set_option("rapid", "-runtime-memory-check-threshold=64")

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
# vectorise. Integers are made 32-bit after every step, else they become 64-bit and half as many fit. Nor is a loop over many arrays vectorised, unless the compiler may look whether they overlap at as many pairs as there are.


@njit(nogil=True, cache=True)
def _level_row(counts, level, gain, saturation, suspect, adc_max, signal, flags):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Subtract the overscan level, apply the gain, flag; return whether any pixel has a flag."""
    seen = np.int32(0)
    for x in range(counts.shape[0]):
        adu = np.float32(counts[x]) - level
        signal[x] = adu * gain
        flag = np.int32(SAT) if (adu >= saturation) | (counts[x] >= adc_max) else np.int32(0)
        flag = np.int32(flag | (np.int32(SUSPECT) if adu >= suspect else np.int32(0)))
        flags[x] = flag
        seen = np.int32(seen | flag)
    return seen != 0


@njit(nogil=True, cache=True)
def _count_flags(flags, plane):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    n = np.int32(0)
    for x in range(flags.shape[0]):
        n += np.int32((flags[x] & np.int32(plane)) != 0)
    return n


@njit(nogil=True, cache=True)
def _reverse_row(values, target):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    # Unsigned, so that no index can be negative: only then does the compiler reverse whole registers.
    last = np.uint64(values.shape[0] - 1)
    for x in range(values.shape[0]):
        target[x] = values[last - np.uint64(x)]


@njit(nogil=True, cache=True)
def _subtract_row(row, values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for x in range(row.shape[0]):
        row[x] -= values[x]


@njit(nogil=True, cache=True, error_model="numpy")
def _finish_row(  # type: ignore[no-untyped-def] # noqa: ANN202
    signal, flags, bias, dark, dark_scale, defects, noise_variance, per_photon, flat, image, mask, variance,  # noqa: ANN001
):  # fmt: skip
    """Make all steps after assembly; return the planes that any pixel of the row has."""
    seen = np.int32(0)
    for x in range(signal.shape[0]):
        value = (signal[x] - bias[x]) - dark[x] * dark_scale
        noise = noise_variance + value * per_photon
        is_bad = (defects[x] != 0) | (noise <= np.float32(0))
        flag = np.int32(flags[x] | (np.int32(BAD) if is_bad else np.int32(0)))
        inverse = np.float32(1) / (flat[x] if flat[x] > np.float32(0) else np.float32(np.nan))
        value *= inverse
        noise *= inverse * inverse
        # A finite number minus itself is zero.
        useless = ((value - value) + (noise - noise)) != np.float32(0)
        flag = np.int32(flag | (np.int32(UNMASKEDNAN) if useless else np.int32(0)))
        value = np.float32(0) if useless else value
        mask[x] = flag
        image[x] = value
        variance[x] = np.float32(NO_DATA_VARIANCE) if useless else noise
        seen = np.int32(seen | flag)
    return seen


@njit(nogil=True, cache=True)
def _add_row(sums, image):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for x in range(sums.shape[0]):
        sums[x] += image[x]


@njit(nogil=True, cache=True)
def _close_block(sums, binned, row):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Add column sums to a row of the binned image, if it has that row, and begin anew."""
    if 0 <= row < binned.shape[0]:
        for column in range(binned.shape[1]):
            total = np.float32(0)
            for x in range(BLOCK):
                total += sums[column * BLOCK + x]
            binned[row, column] += total
    sums[:] = np.float32(0)


@njit(nogil=True, cache=True, error_model="numpy")
def calibrate(  # type: ignore[no-untyped-def] # noqa: ANN201
    plane, levels, parallel, place, order, bands, size, electronics, adc_max, unmix, knots, pieces, nearby, bins_per_unit,  # noqa: ANN001
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
    place
        As in `payloads.isr.inputs.AmpLayout`.
    order : ndarray of shape (n_amps,), int64
        The amps as they lie in a row of the image: memory is fast where one reads on.
    bands : ndarray of shape (n_bands, 2), int64
        As in `AmpLayout`, if each fills whole rows of its own; else of shape (0, 2), and the rows are interpolated and
        binned at the end.
    size : ndarray of shape (2,), int64
        Width and height of an amp's imaging pixels.
    electronics : ndarray of shape (n_amps, 5), float32
        gain, one over photon gain, noise variance, saturation and suspect level.
    unmix : ndarray of shape (n_amps, n_amps or 2 n_amps), float32
        As from `payloads.isr.overscan.unmixing`.
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
    amp_width, height = size[0], size[1]
    n_bands = bands.shape[0]
    n_rows, n_columns = binned.shape
    signal = np.empty((max(n_amps, unmix.shape[1]), amp_width), dtype=np.float32)
    flags = np.empty((n_amps, amp_width), dtype=np.int32)
    corrected = signal if unmix.shape[0] == 0 else np.empty((n_amps, amp_width), dtype=np.float32)
    amount = np.empty(STRETCH, dtype=np.float32)
    line = np.empty(amp_width, dtype=np.float32)
    line_flags = np.empty(amp_width, dtype=np.int32)
    # What an absent calib does: nothing.
    nothing = np.zeros(amp_width, dtype=np.float32)
    no_flags = np.zeros(amp_width, dtype=np.int32)
    no_defects = np.zeros(amp_width, dtype=np.uint8)
    unit = np.ones(amp_width, dtype=np.float32)
    sums = np.zeros((max(n_bands, 1), image.shape[1]), dtype=np.float32)
    open_row = np.full(n_bands, -1, dtype=np.int64)
    has_flags = np.zeros(n_amps, dtype=np.bool_)
    seen = np.zeros(n_amps, dtype=np.int32)
    n_runs = 0
    for k in range(height):
        for amp in order:
            x0 = place[amp, 0]
            y = place[amp, 1] + (height - 1 - k if place[amp, 3] else k)
            has_flags[amp] = _level_row(
                plane[y, x0 : x0 + amp_width],
                levels[amp, k],
                electronics[amp, 0],
                electronics[amp, 3],
                electronics[amp, 4],
                adc_max,
                signal[amp],
                flags[amp],
            )
            if has_flags[amp]:
                counts[amp, 0] += _count_flags(flags[amp], SAT)
                counts[amp, 1] += _count_flags(flags[amp], SUSPECT)
        if unmix.shape[0] > 0:
            unmix_row(unmix, signal, levels[:, k], corrected)
        for amp in order:
            x0, x1 = place[amp, 0], place[amp, 0] + amp_width
            y = place[amp, 1] + (height - 1 - k if place[amp, 3] else k)
            row = corrected[amp]
            if parallel.shape[0] > 0:
                _subtract_row(row, parallel[amp])
            if knots.shape[0] > 0:
                correct_row(row, knots[amp], pieces[amp], nearby[amp], bins_per_unit[amp], amount)
            if place[amp, 2] != 0:
                _reverse_row(row, line)
                row = line
                if has_flags[amp]:
                    _reverse_row(flags[amp], line_flags)
            seen[amp] = _finish_row(
                row,
                (line_flags if place[amp, 2] != 0 else flags[amp]) if has_flags[amp] else no_flags,
                bias[y, x0:x1] if bias.shape[0] > 0 else nothing,
                dark[y, x0:x1] if dark.shape[0] > 0 else nothing,
                dark_scale,
                defects[y, x0:x1] if defects.shape[0] > 0 else no_defects,
                electronics[amp, 2],
                electronics[amp, 1],
                flat[y, x0:x1] if flat.shape[0] > 0 else unit,
                image[y, x0:x1],
                mask[y, x0:x1],
                variance[y, x0:x1],
            )
            if (seen[amp] & BAD) != 0:
                counts[amp, 2] += _count_flags(mask[y, x0:x1], BAD)
        for band in range(n_bands):
            y = bands[band, 0] + (height - 1 - k if bands[band, 1] else k)
            planes_seen = np.int32(0)
            for amp in range(n_amps):
                if place[amp, 1] == bands[band, 0] and place[amp, 3] == bands[band, 1]:
                    planes_seen |= seen[amp]
            if interpolate and (planes_seen & WITHOUT_VALUE) != 0:
                n_runs = _fill_row(image[y], variance[y], mask[y], y, runs, n_runs)
            if open_row[band] != y // BLOCK:
                _close_block(sums[band], binned, open_row[band])
                open_row[band] = y // BLOCK
            _add_row(sums[band], image[y])
    for band in range(n_bands):
        _close_block(sums[band], binned, open_row[band])
    if n_bands == 0:
        for y in range(image.shape[0]):
            if interpolate:
                n_runs = _fill_row(image[y], variance[y], mask[y], y, runs, n_runs)
            _add_row(sums[0], image[y])
            if y % BLOCK == BLOCK - 1:
                _close_block(sums[0], binned, y // BLOCK)
    scale = np.float32(1.0 / (BLOCK * BLOCK))
    for y in range(n_rows):
        for x in range(n_columns):
            binned[y, x] *= scale
    return n_runs
