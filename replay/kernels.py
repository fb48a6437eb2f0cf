"""Compiled loops of the simulated camera.

Noise is not drawn per pixel: each row reads a stretch of a pool of four million true normal numbers, from a
random place. Marginals are exactly normal; two pixels share a number only by the chance meeting of two
stretches, once per some hundred rows, which no test of a mean or a variance can see.
"""

import numpy as np
from numba import njit

POOL_SIZE = 1 << 22
"""16 MB of float32."""


@njit(nogil=True, cache=True)
def expose(sources, sky, dark, x_mm, y_mm, pixel_mm, vig_a, vig_b, response, pool, offsets, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the mean signal of every pixel [electron].

    Parameters
    ----------
    sources : ndarray of shape (height, width), float32
        Light of stars [electron]; an empty array for none.
    sky, dark : float
        Electrons per pixel from the sky (or lamp) at the optical axis, and from dark current.
    x_mm, y_mm, pixel_mm : float
        Place of the first pixel in the focal plane, and pixel pitch.
    response : float
        Scatter of the pixels' response.
    pool, offsets
        Normal numbers, and where each row begins to read them: the fixed pattern of this CCD.
    out : ndarray of shape (height, width), float32
    """
    height, width = out.shape
    has_sources = sources.shape[0] == height
    for y in range(height):
        fp_y = y_mm + y * pixel_mm
        start = offsets[y]
        for x in range(width):
            fp_x = x_mm + x * pixel_mm
            r2 = fp_x * fp_x + fp_y * fp_y
            light = sky
            if has_sources:
                light += sources[y, x]
            shade = (1.0 - vig_a * r2 - vig_b * r2 * r2) * (1.0 + response * pool[start + x])
            out[y, x] = np.float32(light * shade + dark)


@njit(nogil=True, cache=True)
def read_out(  # type: ignore[no-untyped-def]
    signal,
    flip_x,
    flip_y,
    x0,
    y0,
    data_x0,
    gain,
    read_noise,
    bias,
    bias_slope,
    row_slope,
    saturation,
    nonlinearity,
    pattern,
    pattern_offsets,
    pool,
    offsets,
    out,
):
    """Read one amp out: electrons with noise to counts, with prescan and overscans.

    Parameters
    ----------
    signal : ndarray of shape (height, width), float32
        Mean electrons of the whole CCD.
    x0, y0, data_x0 : int
        First pixel of the amp in the trimmed image, and first imaging column in the segment.
    out : ndarray of shape (raw_height, raw_width), float32
        Receives counts, not yet rounded; its imaging size follows from ``pattern_offsets`` and the flips.
    pattern, pattern_offsets
        Scatter of the bias' fixed pattern [electron], and where each row reads it; the number of rows is the
        amp's imaging height, the last entry its imaging width.
    """
    data_height = pattern_offsets.shape[0] - 1
    data_width = pattern_offsets[data_height]
    raw_height, raw_width = out.shape
    for y in range(raw_height):
        start = offsets[y]
        level = bias + row_slope * y / raw_height
        in_rows = y < data_height
        source_y = y0 + (data_height - 1 - y if flip_y else y)
        for x in range(raw_width):
            electrons = np.float32(0.0)
            column = x - data_x0
            counts = level
            if in_rows and 0 <= column < data_width:
                source_x = x0 + (data_width - 1 - column if flip_x else column)
                electrons = signal[source_y, source_x]
                counts += bias_slope * column / data_width + pattern * pool[pattern_offsets[y] + column] / gain
            noise = pool[start + x] * np.sqrt(electrons + read_noise * read_noise)
            electrons = electrons + noise
            if electrons > saturation:
                electrons = np.float32(saturation)
            electrons -= nonlinearity * electrons * electrons
            out[y, x] = counts + electrons / gain


@njit(nogil=True, cache=True)
def add_stars(image, xs, ys, fluxes, sigma_like, e1, e2, beta, radius):  # type: ignore[no-untyped-def]
    """Add elliptical Moffat stars.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32, electron
    xs, ys, fluxes : ndarray of shape (n,)
        Centres [px] and total fluxes [electron].
    sigma_like : ndarray of shape (n,)
        Moffat alpha [px].
    e1, e2 : ndarray of shape (n,)
        Distortion components: ``e = (a^2 - b^2) / (a^2 + b^2)`` along the axes and the diagonal.
    beta : float
    radius : ndarray of shape (n,), int
        Half side of the stamp [px].
    """
    height, width = image.shape
    for i in range(xs.shape[0]):
        alpha2 = sigma_like[i] * sigma_like[i]
        norm = fluxes[i] * (beta - 1.0) / (np.pi * alpha2)
        e = np.hypot(e1[i], e2[i])
        area = np.sqrt(1.0 - e * e)
        cx, cy, r = xs[i], ys[i], radius[i]
        for y in range(max(int(cy) - r, 0), min(int(cy) + r + 1, height)):
            for x in range(max(int(cx) - r, 0), min(int(cx) + r + 1, width)):
                dx, dy = x - cx, y - cy
                rr = ((1.0 - e1[i]) * dx * dx - 2.0 * e2[i] * dx * dy + (1.0 + e1[i]) * dy * dy) / area
                image[y, x] += norm * (1.0 + rr / alpha2) ** (-beta)


@njit(nogil=True, cache=True)
def add_templates(image, xs, ys, fluxes, template):  # type: ignore[no-untyped-def]
    """Add copies of a template, shifted by fractions of a pixel (bilinear).

    Parameters
    ----------
    template : ndarray of shape (n, n), float32
        Sums to one; n odd, centred on its middle pixel.
    """
    height, width = image.shape
    n = template.shape[0]
    half = n // 2
    for i in range(xs.shape[0]):
        left, bottom = int(np.floor(xs[i])), int(np.floor(ys[i]))
        fx, fy = xs[i] - left, ys[i] - bottom
        for j in range(n + 1):
            y = bottom - half + j
            if y < 0 or y >= height:
                continue
            for k in range(n + 1):
                x = left - half + k
                if x < 0 or x >= width:
                    continue
                value = 0.0
                if j < n and k < n:
                    value += (1 - fx) * (1 - fy) * template[j, k]
                if j > 0 and k < n:
                    value += (1 - fx) * fy * template[j - 1, k]
                if j < n and k > 0:
                    value += fx * (1 - fy) * template[j, k - 1]
                if j > 0 and k > 0:
                    value += fx * fy * template[j - 1, k - 1]
                image[y, x] += fluxes[i] * value
