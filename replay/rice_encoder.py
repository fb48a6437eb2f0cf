"""Encode image rows as RICE_1 tiles, the way a camera's data acquisition does.

The inverse of `payloads.raw.rice`, with the choices of cfitsio's encoder (R. White 1992), so that any FITS
reader decodes it. Only replays write raws; the product never does.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK_SIZE = 32
FS_BITS, FS_MAX, RAW_BITS = 5, 25, 32
"""Parameters of the standard for 4-byte pixels."""


@njit(nogil=True, cache=True)
def _encode_row(row, out, position):  # type: ignore[no-untyped-def]
    """Append one row's stream to ``out`` at byte ``position``; return the byte after it."""
    accumulator = np.uint64(np.uint32(row[0]))
    bits = 32
    last = row[0]
    mapped = np.empty(BLOCK_SIZE, dtype=np.uint32)
    n = row.shape[0]
    for begin in range(0, n, BLOCK_SIZE):
        count = min(BLOCK_SIZE, n - begin)
        total = 0.0
        for i in range(count):
            value = row[begin + i]
            difference = np.int32(value - last)
            last = value
            mapped[i] = np.uint32(~(difference << 1)) if difference < 0 else np.uint32(difference << 1)
            total += mapped[i]
        mean = (total - (count // 2) - 1) / count
        mean = max(mean, 0.0)
        half = np.uint32(mean) >> np.uint32(1)
        fs = 0
        while half > 0:
            half >>= np.uint32(1)
            fs += 1
        if fs >= FS_MAX:
            code, fs_now = FS_MAX + 1, -2
        elif fs == 0 and total == 0:
            code, fs_now = 0, -1
        else:
            code, fs_now = fs + 1, fs
        # Keep at most 31 bits pending, so that 32 more always fit.
        while bits >= 8:
            bits -= 8
            out[position] = np.uint8((accumulator >> np.uint64(bits)) & np.uint64(255))
            position += 1
        accumulator = (accumulator << np.uint64(FS_BITS)) | np.uint64(code)
        bits += FS_BITS
        if fs_now == -1:
            continue
        for i in range(count):
            while bits >= 8:
                bits -= 8
                out[position] = np.uint8((accumulator >> np.uint64(bits)) & np.uint64(255))
                position += 1
            if fs_now == -2:
                accumulator = (accumulator << np.uint64(RAW_BITS)) | np.uint64(mapped[i])
                bits += RAW_BITS
                continue
            zeros = int(mapped[i] >> np.uint32(fs_now))
            while zeros >= 24:
                accumulator <<= np.uint64(24)
                bits += 24
                zeros -= 24
                while bits >= 8:
                    bits -= 8
                    out[position] = np.uint8((accumulator >> np.uint64(bits)) & np.uint64(255))
                    position += 1
            accumulator = (accumulator << np.uint64(zeros + 1)) | np.uint64(1)
            bits += zeros + 1
            while bits >= 8:
                bits -= 8
                out[position] = np.uint8((accumulator >> np.uint64(bits)) & np.uint64(255))
                position += 1
            if fs_now > 0:
                low = np.uint64(mapped[i]) & ((np.uint64(1) << np.uint64(fs_now)) - np.uint64(1))
                accumulator = (accumulator << np.uint64(fs_now)) | low
                bits += fs_now
    while bits >= 8:
        bits -= 8
        out[position] = np.uint8((accumulator >> np.uint64(bits)) & np.uint64(255))
        position += 1
    if bits > 0:
        out[position] = np.uint8((accumulator << np.uint64(8 - bits)) & np.uint64(255))
        position += 1
    return position


@njit(nogil=True, cache=True)
def _encode_rows(image, out, ends):  # type: ignore[no-untyped-def]
    position = 0
    for y in range(image.shape[0]):
        position = _encode_row(image[y], out, position)
        ends[y] = position
    return position


def encode(image: NDArray[np.int32]) -> tuple[NDArray[np.int32], bytes]:
    """Encode an image, each row a tile.

    Parameters
    ----------
    image : ndarray of shape (ny, nx), int32

    Returns
    -------
    descriptors : ndarray of shape (ny, 2), int32
        Length of each tile's stream and its offset in the heap [bytes].
    heap : bytes
    """
    ny, nx = image.shape
    # Worst case: every block raw, 5 bits each beside the pixels; and runs of zeros stay below that on average.
    out = np.empty(ny * (nx * 5 + nx // BLOCK_SIZE + 64) + 64, dtype=np.uint8)
    ends = np.empty(ny, dtype=np.int64)
    size: int = _encode_rows(np.ascontiguousarray(image), out, ends)
    starts = np.concatenate(([0], ends[:-1]))
    descriptors = np.stack([ends - starts, starts], axis=1).astype(np.int32)
    return descriptors, out[:size].tobytes()
