"""Compiled loops of templates and differences: binning, warping, convolving, combining. Arrays in, arrays out.

Each has a slow twin in its test. Quality planes are uint8: `GOOD`, `BAD`, `SATURATED`, `NOTHING`; larger is worse.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOOD, BAD, SATURATED, NOTHING = 0, 1, 2, 3
"""Of a pixel: to be trusted; bad, with a value made up from its neighbours; saturated; not there at all."""
N_TABLE = 4096
"""Sub-pixel shifts whose Lanczos weights are kept: nearer than a sixteenth of a per cent of a star's steepest slope."""
N_TAPS = 6
QUICK = {"contract", "reassoc", "arcp", "nsz"}
"""Sums in any order, so that they are vectorised; but NaN is still NaN: places that are none are told by it."""


def lanczos_table() -> NDArray[np.float32]:
    """Return Lanczos-3 weights of sub-pixel shifts, normalised to a sum of 1.

    Returns
    -------
    table : ndarray of shape (N_TABLE + 1, 6), float32
        Row ``i`` for a shift of ``i / N_TABLE`` beyond the third tap.
    """
    shift = np.arange(N_TABLE + 1) / N_TABLE
    away = np.arange(-2, 4)[None, :] - shift[:, None]
    weights = np.sinc(away) * np.sinc(away / 3.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


LANCZOS = lanczos_table()


@njit(cache=True, nogil=True)
def bin_planes(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject: int,
    saturated: int,
    factor: int,
    sums: NDArray[np.float32],
    variances: NDArray[np.float32],
    quality: NDArray[np.uint8],
) -> None:
    """Sum blocks of pixels; bad ones count as the mean of their block's others.

    Parameters
    ----------
    image, variance : ndarray of shape (height, width), float32
    mask : ndarray of the same shape, int32
    reject, saturated
        Bits of pixels that are bad, and of those that are saturated.
    sums, variances : ndarray of shape (height // factor, width // factor), float32
        Written; 0 where no pixel of a block is good.
    quality : ndarray of the same shape, uint8
        Written: the worst of the block; `NOTHING` where none is good and none saturated.
    """
    area = factor * factor
    for row in range(sums.shape[0]):
        for column in range(sums.shape[1]):
            total = np.float32(0)
            noise = np.float32(0)
            n_good = 0
            worst = GOOD
            for y in range(row * factor, (row + 1) * factor):
                for x in range(column * factor, (column + 1) * factor):
                    bits = mask[y, x]
                    value = image[y, x]
                    if bits & saturated:
                        worst = max(worst, SATURATED)
                    if (bits & reject) != 0 or not math.isfinite(value) or not math.isfinite(variance[y, x]):
                        worst = max(worst, BAD)
                    else:
                        n_good += 1
                        total += value
                        noise += variance[y, x]
            if n_good:
                scale = np.float32(area) / np.float32(n_good)
                sums[row, column] = total * scale
                variances[row, column] = noise * scale * scale
            else:
                sums[row, column] = 0
                variances[row, column] = 0
                worst = max(worst, NOTHING if worst != SATURATED else SATURATED)
            quality[row, column] = worst


@njit(cache=True, nogil=True)
def fill_holes(image: NDArray[np.float32], quality: NDArray[np.uint8], reach: int) -> None:
    """Write into bad pixels the mean of good ones near by, weighted by their distance squared; nearest rings first.

    Bad pixels farther than ``reach`` from any good one become 0. Changes ``image`` only.
    """
    height, width = image.shape
    for y in range(height):
        for x in range(width):
            if quality[y, x] == GOOD:
                continue
            value = 0.0
            for r in range(1, reach + 1):
                total = 0.0
                weights = 0.0
                for yy in range(max(y - r, 0), min(y + r + 1, height)):
                    for xx in range(max(x - r, 0), min(x + r + 1, width)):
                        if quality[yy, xx] == GOOD:
                            weight = 1.0 / ((yy - y) ** 2 + (xx - x) ** 2)
                            total += weight * image[yy, xx]
                            weights += weight
                if weights > 0:
                    value = total / weights
                    break
            image[y, x] = value


@njit(cache=True, nogil=True, fastmath=QUICK)
def warp(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    block: int,
    quality: NDArray[np.uint8],
    node_x: NDArray[np.float64],
    node_y: NDArray[np.float64],
    step: int,
    table: NDArray[np.float32],
    out: NDArray[np.float32],
    out_variance: NDArray[np.float32],
    out_quality: NDArray[np.uint8],
) -> None:
    """Resample an image by Lanczos-3, keeping fluxes: values are scaled by the area of the output's pixels.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
    variance : ndarray of shape (ceil(height / block), ceil(width / block)), float32
        Of single pixels, the mean over blocks.
    quality : ndarray of the shape of ``image``, uint8
    node_x, node_y : ndarray of shape (n_rows, n_columns), float64
        Where in the image every ``step``-th output pixel lies; between them it is interpolated.
    table
        `LANCZOS`.
    out, out_variance, out_quality : ndarray of shape (rows, columns)
        Written where ``out_quality`` is `NOTHING` and the image reaches: what is there stays. The variance is what counts
        once the output is smoothed over several pixels; single pixels scatter less, and together with their neighbours.
    """
    height, width = image.shape
    rows, columns = out.shape
    n_table = table.shape[0] - 1
    for j in range(0, rows, step):
        v = j // step
        for i in range(0, columns, step):
            u = i // step
            x00, x01, x10, x11 = node_x[v, u], node_x[v, u + 1], node_x[v + 1, u], node_x[v + 1, u + 1]
            y00, y01, y10, y11 = node_y[v, u], node_y[v, u + 1], node_y[v + 1, u], node_y[v + 1, u + 1]
            lowest_x, highest_x = min(x00, x01, x10, x11), max(x00, x01, x10, x11)
            lowest_y, highest_y = min(y00, y01, y10, y11), max(y00, y01, y10, y11)
            # The negation also passes over nodes that are NaN: the other side of the sky.
            if not (highest_x >= 2 and lowest_x < width - 3 and highest_y >= 2 and lowest_y < height - 3):
                continue
            area = abs((x01 - x00) * (y10 - y00) - (x10 - x00) * (y01 - y00)) / (step * step)
            scale = np.float32(area)
            for y in range(j, min(j + step, rows)):
                fy = (y - j) / step
                left_x, right_x = x00 + fy * (x10 - x00), x01 + fy * (x11 - x01)
                left_y, right_y = y00 + fy * (y10 - y00), y01 + fy * (y11 - y01)
                for x in range(i, min(i + step, columns)):
                    if out_quality[y, x] != NOTHING:
                        continue
                    fx = (x - i) / step
                    there_x, there_y = left_x + fx * (right_x - left_x), left_y + fx * (right_y - left_y)
                    if not (there_x >= 2 and there_x < width - 3 and there_y >= 2 and there_y < height - 3):
                        continue
                    first_x, first_y = int(there_x), int(there_y)
                    worst = max(
                        max(quality[first_y, first_x], quality[first_y, first_x + 1]),
                        max(quality[first_y + 1, first_x], quality[first_y + 1, first_x + 1]),
                    )
                    if worst == NOTHING:
                        continue
                    kx = int((there_x - first_x) * n_table + 0.5)
                    ky = int((there_y - first_y) * n_table + 0.5)
                    total = np.float32(0)
                    for b in range(N_TAPS):
                        line = np.float32(0)
                        for a in range(N_TAPS):
                            line += table[kx, a] * image[first_y - 2 + b, first_x - 2 + a]
                        total += table[ky, b] * line
                    out[y, x] = total * scale
                    out_variance[y, x] = variance[first_y // block, first_x // block] * scale
                    out_quality[y, x] = worst


@njit(cache=True, nogil=True, fastmath=QUICK)
def convolve_separable(
    image: NDArray[np.float32],
    along_y: NDArray[np.float32],
    along_x: NDArray[np.float32],
    line: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Add an image convolved with ``along_y[:, None] * along_x[None, :]`` to another; zero beyond the edges.

    Parameters
    ----------
    along_y, along_x : ndarray of odd length, float32
    line : ndarray of shape (width + len(along_x) - 1,), float32
        Room to work in.
    out : ndarray of the shape of ``image``
        Added to.
    """
    height, width = image.shape
    ry, rx = along_y.shape[0] // 2, along_x.shape[0] // 2
    for y in range(height):
        line[:] = 0
        middle = line[rx : rx + width]
        for k in range(max(-ry, y - height + 1), min(ry, y) + 1):
            weight = along_y[k + ry]
            source = image[y - k]
            for x in range(width):
                middle[x] += weight * source[x]
        target = out[y]
        for k in range(-rx, rx + 1):
            weight = along_x[k + rx]
            source = line[rx - k : rx - k + width]
            for x in range(width):
                target[x] += weight * source[x]


@njit(cache=True, nogil=True)
def combine(
    values: NDArray[np.float32],
    variances: NDArray[np.float32],
    quality: NDArray[np.uint8],
    weights: NDArray[np.float64],
    clip_sigma: float,
    clip_fraction: float,
    min_images: int,
    out: NDArray[np.float32],
    out_variance: NDArray[np.float32],
    out_quality: NDArray[np.uint8],
    out_counts: NDArray[np.uint8],
) -> None:
    """Average images of the same sky, leaving out what stands out from their median.

    Parameters
    ----------
    values, variances, quality : ndarray of shape (n, rows, columns)
    weights : ndarray of shape (n,)
        One for each image, so that the template has one PSF.
    clip_sigma, clip_fraction
        A value is left out if it is away from the median by more than so many standard deviations and more than this part
        of it: a star's core is higher in a sharper image. Of two the lower is taken for their median: what comes and
        goes is light.
    min_images
        Of fewer images a pixel is `NOTHING`.
    out, out_variance, out_quality, out_counts : ndarray of shape (rows, columns)
        Written. Quality is `SATURATED` where all are saturated or worse, `NOTHING` where there is no image at all, else `BAD`
        where none is good.
    """
    n, rows, columns = values.shape
    kept = np.empty(n)
    for y in range(rows):
        for x in range(columns):
            m = 0
            n_images = 0
            best = NOTHING
            for i in range(n):
                best = min(best, quality[i, y, x])
                n_images += quality[i, y, x] != NOTHING
                if quality[i, y, x] == GOOD:
                    kept[m] = values[i, y, x]
                    m += 1
            out[y, x] = 0
            out_variance[y, x] = 0
            out_counts[y, x] = 0
            out_quality[y, x] = best
            if n_images < min_images:
                out_quality[y, x] = NOTHING
                continue
            if m == 0:
                continue
            ordered = np.sort(kept[:m])
            middle = ordered[(m - 1) // 2] if m == 2 else 0.5 * (ordered[(m - 1) // 2] + ordered[m // 2])
            total = 0.0
            noise = 0.0
            weight = 0.0
            count = 0
            for i in range(n):
                if quality[i, y, x] != GOOD:
                    continue
                away = abs(values[i, y, x] - middle) - clip_fraction * abs(middle)
                if away > 0 and away * away > clip_sigma * clip_sigma * variances[i, y, x]:
                    continue
                total += weights[i] * values[i, y, x]
                noise += weights[i] * weights[i] * variances[i, y, x]
                weight += weights[i]
                count += 1
            if count:
                out[y, x] = total / weight
                out_variance[y, x] = noise / (weight * weight)
                out_counts[y, x] = min(count, 255)
            else:
                out_quality[y, x] = BAD
