"""RICE_1-compressed image HDUs: where their tiles are, and whether our decoder reads them."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payloads.raw import rice
from rapid.errors import CorruptRawError
from rapid.exposure.fits_header import FitsStructure, Hdu

MAX_BLOCK_SIZE = 1 << 16


@dataclass(frozen=True)
class RiceTiles:
    """The tiles of one HDU; each holds whole rows.

    Attributes
    ----------
    hdu
        Whose they are.
    descriptors : ndarray of shape (n_tiles, 2), int64
        Length and offset in the heap of each tile's stream [bytes].
    heap, limit
        Where in the file the heap begins, and the first byte after it.
    rows_per_tile
        The last tile may hold fewer.
    zero
        To be added to every pixel.
    """

    hdu: Hdu
    descriptors: NDArray[np.int64]
    heap: int
    limit: int
    byte_pix: int
    block_size: int
    rows_per_tile: int
    zero: int

    def decode(self, buffer: NDArray[np.uint8], out: NDArray[np.int32]) -> None:
        """Decode all tiles.

        Parameters
        ----------
        buffer : ndarray of uint8
            The file, readable for `rice.WINDOW_BYTES` beyond the heap.
        out : ndarray of shape (n_rows, n_columns), int32
            Written; C-contiguous.

        Raises
        ------
        CorruptRawError
            Raised, naming HDU and row, for a damaged stream.
        """
        n_rows, n_columns = out.shape
        n_whole = n_rows // self.rows_per_tile
        whole = out[: n_whole * self.rows_per_tile].reshape(n_whole, self.rows_per_tile * n_columns)
        rest = out[n_whole * self.rows_per_tile :].reshape(-1, max(1, (n_rows % self.rows_per_tile) * n_columns))
        for first, part in ((0, whole), (n_whole, rest)):
            status, tile = rice.decode_rows(
                buffer,
                self.descriptors[first : first + len(part)],
                self.heap,
                self.limit,
                part,
                self.byte_pix,
                self.block_size,
            )
            self.check(status, first + int(tile))
        if self.zero:
            out += np.int32(self.zero)

    def check(self, status: int, tile: int) -> None:
        """Raise what a status other than `rice.OK` says of a tile."""
        if status != rice.OK:
            row = tile * self.rows_per_tile
            what = "compressed stream is damaged" if status == rice.BAD_STREAM else "points outside its heap"
            raise CorruptRawError(f"{self.hdu.name or self.hdu.index}: row {row} {what}", hdu=self.hdu.index, row=row)


def find_rice_tiles(structure: FitsStructure, hdu: Hdu) -> RiceTiles | None:
    """Return the tiles of an HDU, or None if it is of a kind that is left to astropy.

    Ours are integer images whose tiles are whole rows, without null values, with an offset that keeps 32 bits.

    Raises
    ------
    CorruptRawError
        Raised if the table that points to the tiles cannot be true.
    """
    header = hdu.header
    nx, ny = header.get("ZNAXIS1"), header.get("ZNAXIS2")
    if not (isinstance(nx, int) and isinstance(ny, int) and nx > 0 and ny > 0):
        return None
    names = {
        str(header.get(f"ZNAME{i}")).strip(): header.get(f"ZVAL{i}") for i in range(1, 10) if f"ZNAME{i}" in header
    }
    byte_pix, block_size = names.get("BYTEPIX", 4), names.get("BLOCKSIZE", 32)
    rows_per_tile = header.get("ZTILE2", 1)
    zero = header.get("BZERO", 0)
    form = re.match(r"^\s*1?([PQ])B", str(header.get("TFORM1", "")))
    if not (
        str(header.get("ZCMPTYPE")).strip() in {"RICE_1", "RICE_ONE"}
        and header.get("TFIELDS") == 1
        and str(header.get("TTYPE1")).strip() == "COMPRESSED_DATA"
        and header.get("ZTILE1", nx) == nx
        and isinstance(rows_per_tile, int)
        and 1 <= rows_per_tile <= ny
        and header.get("NAXIS2") == -(-ny // rows_per_tile)
        and header.get("ZBITPIX") in {8, 16, 32}
        and byte_pix in {1, 2, 4}
        and isinstance(block_size, int)
        and 0 < block_size <= MAX_BLOCK_SIZE
        and "ZBLANK" not in header
        and header.get("BSCALE", 1) == 1
        and isinstance(zero, int | float)
        and zero == int(zero)
        # Of the 16-bit images that have an offset the sum stays within 32 bits.
        and (zero == 0 or (header.get("ZBITPIX") in {8, 16} and abs(zero) <= 1 << 16))
        and form is not None
    ):
        return None
    step, kind = (16, ">i8") if form.group(1) == "Q" else (8, ">i4")
    if header.get("NAXIS1") != step:
        return None
    n_tiles = int(header["NAXIS2"])
    heap = header.get("THEAP", step * n_tiles)
    if not isinstance(heap, int) or heap < step * n_tiles or heap > hdu.data_length:
        raise CorruptRawError(f"{hdu.name}: THEAP is {heap!r}", field="THEAP")
    table = np.frombuffer(structure.data, dtype=kind, count=2 * n_tiles, offset=hdu.data_offset)
    return RiceTiles(
        hdu=hdu,
        descriptors=table.reshape(n_tiles, 2).astype(np.int64),
        heap=hdu.data_offset + heap,
        limit=hdu.data_offset + hdu.data_length,
        byte_pix=byte_pix,
        block_size=block_size,
        rows_per_tile=rows_per_tile,
        zero=int(zero),
    )


def readable_buffer(structure: FitsStructure, last_byte: int) -> NDArray[np.uint8]:
    """Return the file as an array that may be read a window beyond ``last_byte``; copied only if it ends before."""
    if last_byte + rice.WINDOW_BYTES <= len(structure.data):
        return np.frombuffer(structure.data, dtype=np.uint8)
    return rice.padded(bytes(structure.data))
