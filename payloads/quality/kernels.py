"""Compiled loops of the image-quality measurement: binning, sampling, stamps. Arrays in, arrays out.

Each has a plain-Python twin in its test. They take full-size planes as they are and allocate nothing of that size.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""
N_BACKGROUND_MIN = 20
"""Fewest ring pixels that make a local background."""
N_TOGETHER = 64
"""Blocks of a row that are looked at together when binning."""
N_RING_SAMPLE = 128
"""Ring pixels, or up to twice as many, that tell where to clip; smaller rings are taken whole."""


@njit(cache=True, nogil=True)
def _is_clean(bits, wanted):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    seen = np.int32(0)
    for x in range(bits.shape[0]):
        seen = np.int32(seen | bits[x])
    return (seen & wanted) == 0


@njit(cache=True, nogil=True)
def _add_line(total, line):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for x in range(total.shape[0]):
        total[x] += line[x]


@njit(cache=True, nogil=True)
def _average_clean(total, factor, binned, quality):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Average column sums of good pixels; return whether all are finite."""
    scale = np.float32(1) / np.float32(factor * factor)
    finite = np.float32(0)
    for column in range(binned.shape[0]):
        block = np.float32(0)
        for x in range(column * factor, (column + 1) * factor):
            block += total[x]
        binned[column] = block * scale
        quality[column] = 0
        # NaN and infinity are what does not vanish when subtracted from itself.
        finite += block - block
    return finite == np.float32(0)


@njit(cache=True, nogil=True)
def _average_good(lines, bits, bad_bits, saturated_bit, factor, binned, quality):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Average the good pixels of one row of blocks; return how many are bad and saturated."""
    n_bad = 0
    n_saturated = 0
    area = factor * factor
    has_mask = bits.shape[0] > 0
    for column in range(binned.shape[0]):
        block = np.float32(0)
        n_rejected = 0
        n_full = 0
        for y in range(factor):
            for x in range(column * factor, (column + 1) * factor):
                value = lines[y, x]
                flags = bits[y, x] if has_mask else np.int32(0)
                n_full += (flags & saturated_bit) != 0
                if (flags & bad_bits) != 0 or value - value != np.float32(0):
                    n_rejected += 1
                else:
                    block += value
        n_bad += n_rejected
        n_saturated += n_full
        if 2 * n_rejected <= area and n_rejected < area:
            binned[column] = block / np.float32(area - n_rejected)
            quality[column] = 1 if n_full > 0 else 0
        else:
            binned[column] = np.float32(0)
            quality[column] = 2
    return n_bad, n_saturated


@njit(cache=True, nogil=True)
def bin_image(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    bad_bits: int,
    saturated_bit: int,
    factor: int,
    binned: NDArray[np.float32],
    quality: NDArray[np.uint8],
) -> tuple[int, int]:
    """Average blocks of pixels, leaving out the bad ones.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
    mask : ndarray of the same shape, int32
        Mask planes; may be of shape (0, 0) when there is none.
    bad_bits, saturated_bit
        Bits of pixels to leave out; bit of saturated ones, which are averaged but remembered.
    factor
        Side of a block [px].
    binned : ndarray of shape (height // factor, width // factor), float32
        Written: mean of a block's good pixels, 0 where fewer than half are good.
    quality : ndarray of the same shape, uint8
        Written: 0 good; 1 holds a saturated pixel; 2 fewer than half of the pixels are good.

    Returns
    -------
    n_bad, n_saturated
        Pixels of each sort in the whole blocks. Pixels that are not finite count as bad.
    """
    n_rows, n_columns = binned.shape
    has_mask = mask.shape[0] > 0
    total = np.empty(N_TOGETHER * factor, dtype=np.float32)
    n_bad = 0
    n_saturated = 0
    for row in range(n_rows):
        y0, y1 = row * factor, (row + 1) * factor
        for first in range(0, n_columns, N_TOGETHER):
            # Most stretches have nothing to leave out.
            last = min(first + N_TOGETHER, n_columns)
            x0, x1 = first * factor, last * factor
            is_clean = True
            for y in range(y0, y1):
                is_clean = is_clean and (not has_mask or _is_clean(mask[y, x0:x1], bad_bits | saturated_bit))
            if is_clean:
                sums = total[: x1 - x0]
                sums[:] = np.float32(0)
                for y in range(y0, y1):
                    _add_line(sums, image[y, x0:x1])
                is_clean = _average_clean(sums, factor, binned[row, first:last], quality[row, first:last])
            if not is_clean:
                bits = mask[y0:y1, x0:x1] if has_mask else mask[:0, :0]
                rejected, full = _average_good(
                    image[y0:y1, x0:x1],
                    bits,
                    bad_bits,
                    saturated_bit,
                    factor,
                    binned[row, first:last],
                    quality[row, first:last],
                )
                n_bad += rejected
                n_saturated += full
    return n_bad, n_saturated


@njit(cache=True, nogil=True)
def sample_residuals(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject_bits: int,
    background: NDArray[np.float32],
    factor: int,
    step: int,
    out: NDArray[np.float32],
) -> int:
    """Collect every ``step``-th pixel less the background of its block.

    Parameters
    ----------
    background : ndarray of shape (n_rows, n_columns), float32
        Its blocks may reach beyond the image's upper and right edges.
    factor
        Side of a block [px].
    step
        Distance of the sampled rows and columns [px].
    out : ndarray of shape (n,), float32
        Filled from its start.

    Returns
    -------
    n
        How many residuals were written; at most ``len(out)``.
    """
    n = 0
    has_mask = mask.shape[0] > 0
    height, width = min(background.shape[0] * factor, image.shape[0]), min(background.shape[1] * factor, image.shape[1])
    for y in range(0, height, step):
        # A shift per row, so that the sample does not sit on the same columns all the way up.
        for x in range((y // step * 3) % step, width, step):
            value = image[y, x]
            if (has_mask and (mask[y, x] & reject_bits) != 0) or not np.isfinite(value):
                continue
            if n == out.shape[0]:
                return n
            out[n] = value - background[y // factor, x // factor]
            n += 1
    return n


@njit(cache=True, nogil=True)
def subtract_level(binned: NDArray[np.float32], level: NDArray[np.float32], every: int) -> None:
    """Subtract a coarser map in place: ``level[y // every, x // every]`` from each ``binned[y, x]``.

    Parameters
    ----------
    binned : ndarray of shape (height, width), float32
        Changed.
    level : ndarray of shape (ceil(height / every), ceil(width / every)), float32
        In the same unit.
    every
        Side of what one value of the map stands for [pixel of ``binned``].
    """
    for y in range(binned.shape[0]):
        row = level[y // every]
        for column in range(row.shape[0]):
            for x in range(column * every, min((column + 1) * every, binned.shape[1])):
                binned[y, x] -= row[column]


@njit(cache=True, nogil=True)
def _middle(ordered):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the median of an ascending array."""
    n = ordered.shape[0]
    return 0.5 * (np.float64(ordered[(n - 1) // 2]) + np.float64(ordered[n // 2]))


@njit(cache=True, nogil=True)
def _median_within(values, low, high, ordered):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the median of the values from low to high, NaN without any.

    ``ordered`` is an ascending sample of them, which tells where the median lies: only what is near is sorted.
    """
    n_sample = ordered.shape[0]
    begin, end = ordered[(2 * n_sample) // 5], ordered[(3 * n_sample) // 5]
    near = np.empty(values.shape[0], dtype=values.dtype)
    n = n_below = n_near = 0
    for i in range(values.shape[0]):
        value = values[i]
        is_kept = (value >= low) & (value <= high)
        n += is_kept
        n_below += is_kept & (value < begin)
        near[n_near] = value
        n_near += is_kept & (value >= begin) & (value <= end)
    if n == 0:
        return np.nan
    first, second = (n - 1) // 2 - n_below, n // 2 - n_below
    if first < 0 or second >= n_near:
        # The sample was misled.
        everything = np.sort(values)
        return _middle(everything[(everything >= low) & (everything <= high)])
    parted = np.partition(near[:n_near], second)
    above = parted[second]
    below = above if first == second else parted[:second].max()
    return 0.5 * (np.float64(below) + np.float64(above))


@njit(cache=True, nogil=True)
def _middle_distance(ordered, level):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the median distance of ascending values from a level among them, by walking out from it on both sides."""
    n = ordered.shape[0]
    right = np.searchsorted(ordered, level)
    left = right - 1
    before = distance = 0.0
    for _ in range(n // 2 + 1):
        before = distance
        if right == n or (left >= 0 and level - ordered[left] <= ordered[right] - level):
            distance = level - ordered[left]
            left -= 1
        else:
            distance = ordered[right] - level
            right += 1
    return distance if n % 2 == 1 else 0.5 * (before + distance)


@njit(cache=True, nogil=True)
def cut_stamp(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject_bits: int,
    x0: int,
    y0: int,
    core_px: float,
    ring_px: float,
    stamp: NDArray[np.float32],
) -> tuple[int, float]:
    """Copy a square around a star and subtract the local background.

    Parameters
    ----------
    x0, y0
        Lower left pixel of the stamp in the image; the stamp must lie inside.
    core_px
        Pixels nearer than this to the stamp's centre must be good.
    ring_px
        Pixels farther out than this make the background: their median after one clip at 3 sigma.
    stamp : ndarray of shape (size, size), float32
        Written; bad pixels outside the core become 0.

    Returns
    -------
    n_bad_core
        Bad pixels in the core; if there are any, the stamp is not to be used.
    background
        Level that was subtracted; NaN if too few good pixels lie in the ring (nothing subtracted then).
    """
    size = stamp.shape[0]
    centre = (size - 1) / 2.0
    has_mask = mask.shape[0] > 0
    zero = np.float32(0)
    ring = np.empty(size * size, dtype=np.float32)
    n_ring = 0
    n_bad = 0
    n_bad_core = 0
    for j in range(size):
        line = image[y0 + j, x0 : x0 + size]
        n_bad_row = np.int32(0)
        for i in range(size):
            n_bad_row += np.int32(line[i] - line[i] != zero)  # NaN or infinity
        if has_mask:
            bits = mask[y0 + j, x0 : x0 + size]
            for i in range(size):
                n_bad_row += np.int32((bits[i] & reject_bits) != 0)
        room2 = ring_px * ring_px - (j - centre) ** 2
        if n_bad_row == 0:
            stamp[j] = line
            # Of the row, what lies in the ring is at both ends.
            n_end = size if room2 < 0.0 else max(0, int(np.ceil(centre - np.sqrt(room2))))
            if n_end > 0 and room2 >= 0.0:
                ring[n_ring : n_ring + n_end] = line[:n_end]
                ring[n_ring + n_end : n_ring + 2 * n_end] = line[size - n_end :]
                n_ring += 2 * n_end
            elif n_end > 0:
                ring[n_ring : n_ring + size] = line
                n_ring += size
            continue
        for i in range(size):
            value = line[i]
            dx2 = (i - centre) ** 2
            if np.isfinite(value) and not (has_mask and (mask[y0 + j, x0 + i] & reject_bits) != 0):
                stamp[j, i] = value
                if dx2 > room2:
                    ring[n_ring] = value
                    n_ring += 1
                continue
            stamp[j, i] = np.nan
            n_bad += 1
            n_bad_core += dx2 + (j - centre) ** 2 <= core_px * core_px
    if n_ring < N_BACKGROUND_MIN:
        return n_bad_core, np.nan
    # Where to clip need not be known to the last pixel.
    ordered = np.sort(ring[: n_ring : max(1, n_ring // N_RING_SAMPLE)])
    level = _middle(ordered)
    reach = 3.0 * MAD_TO_SIGMA * _middle_distance(ordered, level)
    clipped = _median_within(ring[:n_ring], level - reach, level + reach, ordered)
    level = clipped if np.isfinite(clipped) else level
    for j in range(size):
        for i in range(size):
            stamp[j, i] -= level
    if n_bad > 0:
        for j in range(size):
            for i in range(size):
                stamp[j, i] = 0.0 if np.isnan(stamp[j, i]) else stamp[j, i]
    return n_bad_core, level


@njit(cache=True, nogil=True)
def weighted_moments(
    stamp: NDArray[np.float32], x: float, y: float, ixx: float, iyy: float, ixy: float
) -> NDArray[np.float64]:
    """Measure third and fourth moments with the adaptive Gaussian as the weight.

    Parameters
    ----------
    stamp : ndarray of shape (size, size), float32
        Background subtracted.
    x, y
        Centroid in the stamp [px].
    ixx, iyy, ixy
        Adaptive second moments [px^2]; positive definite.

    Returns
    -------
    moments : ndarray of shape (9,), float64
        M30 M21 M12 M03 M40 M31 M22 M13 M04, in coordinates in which the weight is round with unit width.
        NaN where the weighted flux is not positive.

    Notes
    -----
    Standardised by the inverse square root of the moment matrix, so that a Gaussian has M40 = M04 = 3/4
    and M22 = 1/4 (weight times profile halves the variance) whatever its size and ellipticity.
    """
    # Closed form of the square root of a symmetric 2x2 matrix.
    s = np.sqrt(ixx * iyy - ixy * ixy)
    t = np.sqrt(ixx + iyy + 2.0 * s)
    a, b, c = (ixx + s) / t, (iyy + s) / t, ixy / t
    det = a * b - c * c
    du, dv = b / det, -c / det
    out = np.zeros(9)
    norm = 0.0
    # Along a row the weight's logarithm is a parabola: two exponentials per row instead of one per pixel.
    slope2 = du * du + dv * dv
    ratio = np.exp(-slope2)
    for j in range(stamp.shape[0]):
        # The row meets the circle of radius 5 in (u, v) about its nearest point to the centre.
        u0, v0 = (-b * x - c * (j - y)) / det, (a * (j - y) + c * x) / det
        nearest = -(u0 * du + v0 * dv) / slope2
        room = (25.0 - (u0 + nearest * du) ** 2 - (v0 + nearest * dv) ** 2) / slope2
        if room < 0.0:
            continue
        first = max(0, math.ceil(nearest - math.sqrt(room)))
        last = min(stamp.shape[1] - 1, math.floor(nearest + math.sqrt(room)))
        u, v = u0 + first * du, v0 + first * dv
        weight = np.exp(-0.5 * (u * u + v * v))
        factor = np.exp(-(u * du + v * dv) - 0.5 * slope2)
        for i in range(first, last + 1):
            u, v = u0 + i * du, v0 + i * dv
            w = weight * stamp[j, i]
            weight *= factor
            factor *= ratio
            norm += w
            out[0] += w * u * u * u
            out[1] += w * u * u * v
            out[2] += w * u * v * v
            out[3] += w * v * v * v
            out[4] += w * u * u * u * u
            out[5] += w * u * u * u * v
            out[6] += w * u * u * v * v
            out[7] += w * u * v * v * v
            out[8] += w * v * v * v * v
    if norm <= 0.0:
        out[:] = np.nan
        return out
    return out / norm
