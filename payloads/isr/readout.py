"""Read a raw out of its file into the places where signature removal looks for the counts.

Row by row, as decoded in the first cache: imaging pixels straight to where they belong in the image plane (it holds
their counts until the fused pass makes electrons of them, so there is no second plane), overscans to buffers of their
own. All levels are measured from those before the pass.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from payloads.isr.inputs import AmpLayout
from payloads.raw import rice
from payloads.raw.segments import OpenSegments

LANES = 64
"""Overscan rows that are sorted together: their columns fill half of the first cache."""


@dataclass
class ReadOut:
    """The counts of one raw.

    Attributes
    ----------
    counts : ndarray of shape (height, width), int32, ADU
        Imaging pixels of every amp at the rows and columns they fill in the trimmed image, those of a row in the
        order they were read. A view of the image plane.
    serial : ndarray of shape (n_amps, n_blocks, n_columns, LANES), int32, ADU
        Serial overscan columns used; row y of the read-out is lane ``y % LANES`` of block ``y // LANES``.
    parallel : ndarray of shape (n_amps, n_rows, data_width), int32, ADU
        Parallel overscan rows used.
    row : ndarray of shape (2, raw_width), int32
        Room for two rows.
    raw_height
        Rows of a segment.
    """

    counts: NDArray[np.int32]
    serial: NDArray[np.int32]
    parallel: NDArray[np.int32]
    row: NDArray[np.int32]
    raw_height: int


def serial_shape(layout: AmpLayout, raw_height: int) -> tuple[int, int, int, int]:
    """Return the shape of `ReadOut.serial`."""
    n_columns = layout.serial[1] - layout.serial[0] if layout.serial else 0
    return len(layout.names), -(-raw_height // LANES), n_columns, LANES


def parallel_shape(layout: AmpLayout) -> tuple[int, int, int]:
    """Return the shape of `ReadOut.parallel`."""
    n_rows = layout.parallel[1] - layout.parallel[0] if layout.parallel else 0
    return len(layout.names), n_rows, layout.data.width


def _geometry(layout: AmpLayout, amp: int) -> NDArray[np.int64]:
    """Return what `_keep_row` is to know of an amp."""
    box = layout.data
    left, top, _, flip_y = layout.place[amp]
    serial = layout.serial or (0, 0)
    parallel = layout.parallel or (0, 0)
    return np.array(
        [box.x0, box.y0, box.width, box.height, left, top, flip_y, serial[0], parallel[0], parallel[1]], dtype=np.int64
    )


@njit(nogil=True, cache=True)
def _keep_row(row, y, geometry, zero, counts, serial, parallel):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Put the pixels of row y of one segment where they are wanted; ``zero`` is added to them."""
    x0, width = geometry[0], geometry[2]
    data = row[x0 : x0 + width]
    k = y - geometry[1]
    if 0 <= k < geometry[3]:
        line = geometry[5] + (geometry[3] - 1 - k if geometry[6] != 0 else k)
        target = counts[line, geometry[4] : geometry[4] + width]
        for x in range(width):
            target[x] = data[x] + zero
    if geometry[8] <= y < geometry[9]:
        target = parallel[y - geometry[8]]
        for x in range(width):
            target[x] = data[x] + zero
    lanes = serial[y // LANES]
    overscan = row[geometry[7] :]
    lane = y % LANES
    for x in range(lanes.shape[0]):
        lanes[x, lane] = overscan[x] + zero


@njit(nogil=True, cache=True)
def _keep_rows(pixels, geometry, counts, serial, parallel):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for y in range(pixels.shape[0]):
        _keep_row(pixels[y], y, geometry, np.int32(0), counts, serial, parallel)


@njit(nogil=True, cache=True)
def _decode_rows(  # type: ignore[no-untyped-def] # noqa: ANN202
    buffer, descriptors, heap, limit, byte_pix, block_size, geometry, zero, rows, counts, serial, parallel,  # noqa: ANN001
):  # fmt: skip
    """Decode a segment whose tiles are its rows; return status and row as `payloads.raw.rice.decode_rows` does."""
    n_rows = descriptors.shape[0]
    for y in range(0, n_rows, 2):
        status, where = rice.decode_pair(buffer, descriptors, y, heap, limit, rows, byte_pix, block_size)
        if status != rice.OK:
            return status, where
        _keep_row(rows[0], y, geometry, zero, counts, serial, parallel)
        if y + 1 < n_rows:
            _keep_row(rows[1], y + 1, geometry, zero, counts, serial, parallel)
    return rice.OK, n_rows


def read_stack(stack: NDArray[np.int32], layout: AmpLayout, out: ReadOut) -> None:
    """Read a raw that is decoded already.

    Parameters
    ----------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
    out
        Overwritten; what the amps do not fill is left as it is.
    """
    for amp, pixels in enumerate(stack):
        _keep_rows(pixels, _geometry(layout, amp), out.counts, out.serial[amp], out.parallel[amp])


def read_segments(found: OpenSegments, layout: AmpLayout, out: ReadOut, scratch: "Scratch") -> bool:
    """Read a raw straight from its file.

    Parameters
    ----------
    found
        Its segments.
    out
        Overwritten; what the amps do not fill is left as it is.
    scratch
        Room for one segment, used if a segment is not of Rice tiles that are rows.

    Returns
    -------
    is_whole
        False if a segment holds what is no 32-bit integer; then ``out`` is of no use.

    Raises
    ------
    CorruptRawError
        Raised, naming the segment, if one is damaged.
    """
    for amp in range(len(found)):
        geometry = _geometry(layout, amp)
        tiles = found.tiles(amp)
        if tiles is not None and tiles.rows_per_tile == 1:
            status, row = _decode_rows(
                found.buffer, tiles.descriptors, tiles.heap, tiles.limit, tiles.byte_pix, tiles.block_size, geometry,
                np.int32(tiles.zero), out.row, out.counts, out.serial[amp], out.parallel[amp],
            )  # fmt: skip
            tiles.check(status, int(row))
            continue
        pixels = scratch.of(found.shape)
        if found.decode(amp, pixels) is not None:
            return False
        _keep_rows(pixels, geometry, out.counts, out.serial[amp], out.parallel[amp])
    return True


class Scratch:
    """Room for one segment, made when it is first needed and kept."""

    def __init__(self) -> None:
        self._pixels: NDArray[Any] | None = None

    def of(self, shape: tuple[int, int]) -> NDArray[np.int32]:
        """Return an array of a shape, with any content."""
        if self._pixels is None or self._pixels.shape != shape:
            self._pixels = np.empty(shape, dtype=np.int32)
        return self._pixels
