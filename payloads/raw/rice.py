"""Decode RICE_1 tiles straight from the bytes of a file.

The bit position is one integer; codes are read from a 64-bit big-endian window loaded at the byte it points into, so
there is no refill loop. Four codes nearly always fit in one window, and two tiles are decoded side by side: what one
code costs is the chain from its length to where the next begins, and two chains fill the time that one waits.
`decode_tile` is the same one code at a time, to be read first; the tests hold the two together.

The bytes are the world's: every step is checked against the end of its tile, so that a hostile or damaged stream
gives an error, never a read out of bounds or a hang.

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

WINDOW_BITS = 57
"""Bits of a window that are there wherever in its first byte the position points."""
GROUP = 4
"""Codes read from one window."""
MAX_GROUP_FS = 9
"""With more low bits than this, four codes seldom fit in a window, and are read one by one."""

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
def _decode_codes(buffer, position, end, last, fs, out, index, stop):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Decode codes one by one into ``out[index:stop]``; return the position behind them, -1 if damaged, and the last value."""
    while index < stop:
        if position >= end:
            return -1, last
        window = _load_window(buffer, position >> 3) << np.uint64(position & 7)  # type: ignore[call-arg] # numba supplies the typing context
        zeros = _leading_zeros(window)
        if zeros + 1 + fs <= WINDOW_BITS:
            # The usual case: unary and binary part in one window.
            rest = window << np.uint64(zeros + 1)
            position += zeros + 1 + fs
        else:
            zeros = np.int64(0)
            count = _leading_zeros(window)
            while count >= WINDOW_BITS:
                zeros += WINDOW_BITS
                position += WINDOW_BITS
                if position >= end:
                    return -1, last
                window = _load_window(buffer, position >> 3) << np.uint64(position & 7)
                count = _leading_zeros(window)
            zeros += count
            position += count + 1
            if position + fs > end:
                return -1, last
            rest = _load_window(buffer, position >> 3) << np.uint64(position & 7)
            position += fs
        low = np.uint32(rest >> np.uint64(63 - fs)) >> np.uint32(1) if fs < 31 else np.uint32(0)
        code = np.uint32((np.uint32(zeros) << np.uint32(fs)) | low)
        last = np.uint32(last + ((code >> np.uint32(1)) ^ (np.uint32(0) - (code & np.uint32(1)))))
        out[index] = np.int32(last)
        index += 1
    if position > end:
        return -1, last
    return position, last


@njit(nogil=True, cache=True, inline="never")
def _decode_block(buffer, position, end, last, fs, fs_max, raw_bits, out, index, stop):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Decode one block of any kind into ``out[index:stop]``; return as `_decode_codes` does."""
    if fs < 0:
        # No differences in this block.
        while index < stop:
            out[index] = np.int32(last)
            index += 1
        return position, last
    if fs > fs_max:
        return -1, last
    if fs < fs_max:
        return _decode_codes(buffer, position, end, last, fs, out, index, stop)
    # Noise: differences stand uncoded.
    while index < stop:
        if position + raw_bits > end:
            return -1, last
        window = _load_window(buffer, position >> 3) << np.uint64(position & 7)  # type: ignore[call-arg] # numba supplies the typing context
        code = np.uint32(window >> np.uint64(64 - raw_bits))
        position += raw_bits
        last = np.uint32(last + ((code >> np.uint32(1)) ^ (np.uint32(0) - (code & np.uint32(1)))))
        out[index] = np.int32(last)
        index += 1
    return position, last


@njit(nogil=True, cache=True)
def _parameters(byte_pix):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return how many bits tell of a block, the number that means noise, and the bits of a pixel."""
    if byte_pix == 4:
        return 5, 25, 32
    if byte_pix == 2:
        return 4, 14, 16
    return 3, 6, 8


@njit(nogil=True, cache=True, inline="never")
def decode_tile(buffer, start, length, out, byte_pix, block_size):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Decode one tile, one code at a time.

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
    fs_bits, fs_max, raw_bits = _parameters(byte_pix)
    if length < byte_pix:
        return BAD_STREAM
    end = (start + length) * 8
    # The first pixel stands as it is.
    last = np.uint32(_load_window(buffer, start) >> np.uint64(64 - raw_bits))  # type: ignore[call-arg] # numba supplies the typing context
    position = start * 8 + raw_bits
    n = out.shape[0]
    index = 0
    while index < n:
        stop = min(index + block_size, n)
        if position + fs_bits > end:
            return BAD_STREAM
        window = _load_window(buffer, position >> 3) << np.uint64(position & 7)
        fs = np.int64(window >> np.uint64(64 - fs_bits)) - 1
        position, last = _decode_block(buffer, position + fs_bits, end, last, fs, fs_max, raw_bits, out, index, stop)
        if position < 0:
            return BAD_STREAM
        index = stop
    return OK


@njit(nogil=True, cache=True, inline="never")
def decode_two_tiles(buffer, start_a, length_a, start_b, length_b, out_a, out_b, byte_pix, block_size):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Decode two tiles of the same number of pixels, in turns: while one waits for its bits the other has work.

    Parameters
    ----------
    buffer, byte_pix, block_size
        As of `decode_tile`.
    start_a, length_a, start_b, length_b
        Where the tiles' streams begin in the buffer, and how long they are [byte].
    out_a, out_b : ndarray of shape (n,), int32
        Written.

    Returns
    -------
    status_a, status_b : int
        `OK` or `BAD_STREAM`. Should one be damaged, the other is whole all the same.
    """
    fs_bits, fs_max, raw_bits = _parameters(byte_pix)
    if length_a < byte_pix or length_b < byte_pix:
        return (
            decode_tile(buffer, start_a, length_a, out_a, byte_pix, block_size),
            decode_tile(buffer, start_b, length_b, out_b, byte_pix, block_size),
        )
    end_a, end_b = (start_a + length_a) * 8, (start_b + length_b) * 8
    last_a = np.uint32(_load_window(buffer, start_a) >> np.uint64(64 - raw_bits))  # type: ignore[call-arg] # numba supplies the typing context
    last_b = np.uint32(_load_window(buffer, start_b) >> np.uint64(64 - raw_bits))
    position_a, position_b = start_a * 8 + raw_bits, start_b * 8 + raw_bits
    one, last_bit = np.uint64(1), np.uint64(63)
    n = out_a.shape[0]
    index = 0
    is_damaged = False
    while index < n and not is_damaged:
        stop = min(index + block_size, n)
        if position_a + fs_bits > end_a or position_b + fs_bits > end_b:
            is_damaged = True
            break
        window_a = _load_window(buffer, position_a >> 3) << np.uint64(position_a & 7)
        window_b = _load_window(buffer, position_b >> 3) << np.uint64(position_b & 7)
        fs_a = np.int64(window_a >> np.uint64(64 - fs_bits)) - 1
        fs_b = np.int64(window_b >> np.uint64(64 - fs_bits)) - 1
        position_a += fs_bits
        position_b += fs_bits
        limit = min(fs_max - 1, MAX_GROUP_FS)
        if not (0 <= fs_a <= limit and 0 <= fs_b <= limit):
            position_a, last_a = _decode_block(
                buffer, position_a, end_a, last_a, fs_a, fs_max, raw_bits, out_a, index, stop
            )
            position_b, last_b = _decode_block(
                buffer, position_b, end_b, last_b, fs_b, fs_max, raw_bits, out_b, index, stop
            )
            is_damaged = position_a < 0 or position_b < 0
            index = stop
            continue
        low_a, low_b = np.uint64(fs_a), np.uint64(fs_b)
        high_a, high_b = one << low_a, one << low_b
        while index + GROUP <= stop:
            if position_a >= end_a or position_b >= end_b:
                is_damaged = True
                break
            window_a = _load_window(buffer, position_a >> 3) << np.uint64(position_a & 7)
            window_b = _load_window(buffer, position_b >> 3) << np.uint64(position_b & 7)
            used_a, used_b = np.uint64(GROUP) * (low_a + one), np.uint64(GROUP) * (low_b + one)
            before_a, before_b = last_a, last_b
            for i in range(GROUP):
                # A window that is used up counts 64 zeros, and the group is found too long below.
                zeros_a, zeros_b = np.uint64(_leading_zeros(window_a)), np.uint64(_leading_zeros(window_b))
                window_a <<= zeros_a & last_bit
                window_b <<= zeros_b & last_bit
                # The one that ends the unary part comes along, as the bit above the low ones.
                code_a = np.uint32((zeros_a << low_a) + (window_a >> (last_bit - low_a)) - high_a)
                code_b = np.uint32((zeros_b << low_b) + (window_b >> (last_bit - low_b)) - high_b)
                window_a <<= low_a + one
                window_b <<= low_b + one
                used_a += zeros_a
                used_b += zeros_b
                last_a = np.uint32(last_a + ((code_a >> np.uint32(1)) ^ (np.uint32(0) - (code_a & np.uint32(1)))))
                last_b = np.uint32(last_b + ((code_b >> np.uint32(1)) ^ (np.uint32(0) - (code_b & np.uint32(1)))))
                out_a[np.uint64(index + i)] = np.int32(last_a)
                out_b[np.uint64(index + i)] = np.int32(last_b)
            if used_a <= np.uint64(WINDOW_BITS):
                position_a += np.int64(used_a)
            else:
                position_a, last_a = _decode_codes(
                    buffer, position_a, end_a, before_a, fs_a, out_a, index, index + GROUP
                )
            if used_b <= np.uint64(WINDOW_BITS):
                position_b += np.int64(used_b)
            else:
                position_b, last_b = _decode_codes(
                    buffer, position_b, end_b, before_b, fs_b, out_b, index, index + GROUP
                )
            if position_a < 0 or position_b < 0:
                is_damaged = True
                break
            index += GROUP
        if index < stop and not is_damaged:
            position_a, last_a = _decode_codes(buffer, position_a, end_a, last_a, fs_a, out_a, index, stop)
            position_b, last_b = _decode_codes(buffer, position_b, end_b, last_b, fs_b, out_b, index, stop)
            index = stop
        is_damaged = is_damaged or not 0 <= position_a <= end_a or not 0 <= position_b <= end_b
    if is_damaged:
        # Which of them it is, and where, is for the slow way to say.
        return (
            decode_tile(buffer, start_a, length_a, out_a, byte_pix, block_size),
            decode_tile(buffer, start_b, length_b, out_b, byte_pix, block_size),
        )
    return OK, OK


@njit(nogil=True, cache=True, inline="never")
def place_of_tile(buffer, descriptors, tile, heap, limit):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Return where a tile's stream begins in the buffer and its length; a start of -1 if that is not in the heap.

    Parameters
    ----------
    buffer : ndarray of shape (n,), uint8
        The file, and `WINDOW_BYTES` beyond it.
    descriptors : ndarray of shape (n_tiles, 2), int64
        Length and offset in the heap of each tile's stream [byte].
    tile
        Row of ``descriptors``.
    heap, limit
        Where the heap begins and ends in the buffer [byte].
    """
    length, offset = descriptors[tile, 0], descriptors[tile, 1]
    # Compared by differences: sums of what a hostile table says may overflow.
    room = min(limit, buffer.shape[0] - WINDOW_BYTES) - heap
    if length < 0 or offset < 0 or length > room or offset > room - length:
        return -1, 0
    return heap + offset, length


@njit(nogil=True, cache=True)
def _sign_extend(row, byte_pix):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    if byte_pix == 2:
        for column in range(row.shape[0]):
            row[column] = np.int16(row[column])
    elif byte_pix == 1:
        for column in range(row.shape[0]):
            row[column] = np.uint8(row[column])


@njit(nogil=True, cache=True)
def decode_pair(buffer, descriptors, tile, heap, limit, out, byte_pix, block_size):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Decode tiles ``tile`` and ``tile + 1`` (if there is one); see `decode_rows`.

    Parameters
    ----------
    buffer, descriptors, tile, heap, limit
        As of `place_of_tile`.
    out : ndarray of shape (2, n), int32
        Written: a row for each tile.
    byte_pix, block_size
        As of `decode_tile`.

    Returns
    -------
    status, tile : int, int
        `OK`, `BAD_TABLE` or `BAD_STREAM`, and the tile where it stopped.
    """
    start_a, length_a = place_of_tile(buffer, descriptors, tile, heap, limit)
    if start_a < 0:
        return BAD_TABLE, tile
    if tile + 1 == descriptors.shape[0]:
        status = decode_tile(buffer, start_a, length_a, out[0], byte_pix, block_size)
        _sign_extend(out[0], byte_pix)
        return status, tile
    start_b, length_b = place_of_tile(buffer, descriptors, tile + 1, heap, limit)
    if start_b < 0:
        return BAD_TABLE, tile + 1
    status_a, status_b = decode_two_tiles(
        buffer, start_a, length_a, start_b, length_b, out[0], out[1], byte_pix, block_size
    )
    if status_a != OK:
        return status_a, tile
    _sign_extend(out[0], byte_pix)
    _sign_extend(out[1], byte_pix)
    return status_b, tile + 1


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
    n_rows = out.shape[0]
    for row in range(0, n_rows, 2):
        status, where = decode_pair(buffer, descriptors, row, heap, limit, out[row : row + 2], byte_pix, block_size)
        if status != OK:
            return status, where
    return OK, n_rows


def padded(data: bytes) -> NDArray[np.uint8]:
    """Return data as an array with the zeros behind it that `decode_rows` may read into."""
    buffer = np.zeros(len(data) + WINDOW_BYTES, dtype=np.uint8)
    buffer[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return buffer
