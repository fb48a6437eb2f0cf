"""Decode RICE_1 tiles straight from the bytes of a file.

The bit position is one integer; each code is read from a 64-bit big-endian window loaded at the byte it
points into, so there is no refill loop. The bytes are the world's: every step is checked against the
end of its tile, so that a hostile or damaged stream gives an error, never a read out of bounds or a hang.

Algorithm: R. White, "High performance compression of astronomical images" (1992), with the parameters and
byte order of the FITS standard 4.0, section 10.4.1; bit-exact with cfitsio.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

WINDOW_BYTES = 8
"""Bytes that may be read past the end of a tile; callers make sure they exist."""

OK = 0
BAD_STREAM = 1
BAD_TABLE = 2


@intrinsic
def _load_window(typingctx, buffer, offset):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, ARG001
    """Load 8 bytes at any offset of a uint8 array as one big-endian uint64."""
    signature = types.uint64(buffer, types.int64)

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        array = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(address, cgutils.intp_t.as_pointer()))
        word.align = 1
        return builder.bswap(word)

    return signature, codegen


@intrinsic
def _leading_zeros(typingctx, word):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, ARG001
    """Count the leading zero bits of a uint64; 64 for zero."""
    signature = types.int64(types.uint64)

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, ARG001
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return signature, codegen


@njit(nogil=True, cache=True, inline="never")
def decode_tile(buffer, start, length, out, byte_pix, block_size):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Decode one tile.

    Parameters
    ----------
    buffer : ndarray of uint8
        Holds at least ``start + length + WINDOW_BYTES`` bytes.
    start, length : int
        Where the tile's stream lies in the buffer.
    out : ndarray of shape (n,), int32
        Receives the pixels.
    byte_pix, block_size : int
        BYTEPIX (1, 2 or 4) and BLOCKSIZE of the compression.

    Returns
    -------
    status : int
        `OK` or `BAD_STREAM`.
    """
    if byte_pix == 4:
        fs_bits, fs_max = 5, 25
    elif byte_pix == 2:
        fs_bits, fs_max = 4, 14
    else:
        fs_bits, fs_max = 3, 6
    raw_bits = 8 * byte_pix
    if length < byte_pix:
        return BAD_STREAM
    end = (start + length) * 8
    position = start * 8
    # The first pixel stands as it is.
    last = np.uint32(_load_window(buffer, start) >> np.uint64(64 - raw_bits))  # type: ignore[call-arg] # numba supplies the typing context
    position += raw_bits
    n = out.shape[0]
    index = 0
    while index < n:
        stop = min(index + block_size, n)
        if position + fs_bits > end:
            return BAD_STREAM
        window = _load_window(buffer, position >> 3) << np.uint64(position & 7)
        fs = np.int64(window >> np.uint64(64 - fs_bits)) - 1
        position += fs_bits
        if fs < 0:
            # No differences in this block.
            while index < stop:
                out[index] = np.int32(last)
                index += 1
        elif fs == fs_max:
            # Noise: differences stand uncoded.
            while index < stop:
                if position + raw_bits > end:
                    return BAD_STREAM
                window = _load_window(buffer, position >> 3) << np.uint64(position & 7)
                code = np.uint32(window >> np.uint64(64 - raw_bits))
                position += raw_bits
                last = np.uint32(last + ((code >> np.uint32(1)) ^ (np.uint32(0) - (code & np.uint32(1)))))
                out[index] = np.int32(last)
                index += 1
        elif fs > fs_max:
            return BAD_STREAM
        else:
            while index < stop:
                if position >= end:
                    return BAD_STREAM
                window = _load_window(buffer, position >> 3) << np.uint64(position & 7)
                zeros = _leading_zeros(window)
                if zeros + 1 + fs <= 57:
                    # The usual case: unary and binary part in one window.
                    rest = window << np.uint64(zeros + 1)
                    position += zeros + 1 + fs
                else:
                    zeros = np.int64(0)
                    count = _leading_zeros(window)
                    while count >= 57:
                        zeros += 57
                        position += 57
                        if position >= end:
                            return BAD_STREAM
                        window = _load_window(buffer, position >> 3) << np.uint64(position & 7)
                        count = _leading_zeros(window)
                    zeros += count
                    position += count + 1
                    if position + fs > end:
                        return BAD_STREAM
                    rest = _load_window(buffer, position >> 3) << np.uint64(position & 7)
                    position += fs
                low = np.uint32(rest >> np.uint64(63 - fs)) >> np.uint32(1) if fs < 31 else np.uint32(0)
                code = np.uint32((np.uint32(zeros) << np.uint32(fs)) | low)
                last = np.uint32(last + ((code >> np.uint32(1)) ^ (np.uint32(0) - (code & np.uint32(1)))))
                out[index] = np.int32(last)
                index += 1
            if position > end:
                return BAD_STREAM
    return OK


@njit(nogil=True, cache=True)
def decode_rows(buffer, descriptors, heap, limit, out, byte_pix, block_size):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Decode an image whose tiles are its rows.

    Parameters
    ----------
    buffer : ndarray of uint8
    descriptors : ndarray of shape (n_rows, 2), int64
        Length and offset in the heap of each tile's stream [bytes].
    heap, limit : int
        Where the heap begins in the buffer, and the first byte after it.
    out : ndarray of shape (n_rows, n_columns), int32
        Receives the pixels; values of 1- and 2-byte images are sign-extended as the standard says.
    byte_pix, block_size : int

    Returns
    -------
    status, row : int, int
        `OK`, `BAD_TABLE` or `BAD_STREAM`, and the row where it stopped.
    """
    for row in range(out.shape[0]):
        length = descriptors[row, 0]
        offset = descriptors[row, 1]
        # Compared by differences: sums of what a hostile table says may overflow.
        room = min(limit, buffer.shape[0] - WINDOW_BYTES) - heap
        if length < 0 or offset < 0 or length > room or offset > room - length:
            return BAD_TABLE, row
        status = decode_tile(buffer, heap + offset, length, out[row], byte_pix, block_size)
        if status != OK:
            return status, row
        if byte_pix == 2:
            for column in range(out.shape[1]):
                out[row, column] = np.int16(out[row, column])
        elif byte_pix == 1:
            for column in range(out.shape[1]):
                out[row, column] = np.uint8(out[row, column])
    return OK, out.shape[0]


def padded(data: bytes) -> NDArray[np.uint8]:
    """Return data as an array with the zeros behind it that `decode_rows` may read into."""
    buffer = np.zeros(len(data) + WINDOW_BYTES, dtype=np.uint8)
    buffer[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return buffer
