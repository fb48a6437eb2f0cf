"""Arrays as bytes: little-endian float32, one number per channel, NaN where there is none.

The same in SQLite and PostgreSQL, readable by anything: ``numpy.frombuffer(packed, "<f4")``. An array may be shorter
than there are channels: what is not there was not measured.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ITEM = 4
"""Bytes of a number."""


def pack(values: NDArray[np.floating]) -> bytes:
    """Return an array as bytes; infinities become NaN."""
    numbers = np.asarray(values, "<f4")
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan)).astype("<f4").tobytes()


def unpack(packed: Sequence[bytes | memoryview], n_channels: int) -> NDArray[np.float32]:
    """Return arrays as rows of a matrix.

    Returns
    -------
    values : ndarray of shape (len(packed), n_channels), float32
        NaN where an array is too short.
    """
    full = n_channels * ITEM
    if all(len(one) == full for one in packed):
        flat = np.frombuffer(b"".join(packed), "<f4")
        return flat.reshape(len(packed), n_channels).astype(np.float32)
    out = np.full((len(packed), n_channels), np.nan, np.float32)
    for row, one in enumerate(packed):
        part = np.frombuffer(one, "<f4")[:n_channels]
        out[row, : len(part)] = part
    return out


def patched(packed: bytes | memoryview | None, positions: NDArray[np.int64], values: NDArray[np.floating]) -> bytes:
    """Return an array with the numbers at some positions replaced, made longer if need be."""
    old = np.frombuffer(packed or b"", "<f4")
    size = max(len(old), int(positions.max(initial=-1)) + 1)
    new = np.full(size, np.nan, "<f4")
    new[: len(old)] = old
    new[positions] = values
    return pack(new)
