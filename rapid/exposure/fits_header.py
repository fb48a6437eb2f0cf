"""Scan the structure of a FITS file in memory: headers and where the data lie, no pixels.

Made for raws on arrival: a few milliseconds for a raw of 19 HDUs, and safe on anything: every number is
checked before it is used, and what is wrong is said with the HDU and the bytes concerned.
Follows the FITS standard 4.0 (2018), sections 3 and 4; reads ``CONTINUE`` and ``HIERARCH`` too.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rapid.errors import CorruptRawError, EmptyRawError, NotFitsError, TruncatedRawError

BLOCK = 2880
CARD = 80
MAX_HDUS = 10_000
"""More than any raw has; a guard against a file that lies."""
MAX_HEADER_BLOCKS = 2_000
MAX_TEXT = 100_000
"""Where a continued text stops growing: each card copies it, and thousands would take minutes."""

MAX_EXPANDED = 1 << 29
"""A gzip file that expands to more than 512 MiB is no raw (the largest has 80 MB)."""
EXPAND_STEP = 1 << 24
"""Most bytes expanded at a time."""
READ_STEP = 1 << 20
"""Bytes read at a time: what is left of a step is copied at the end of each member."""
MAX_MEMBERS = 4096
"""Members of a gzip file: some programs write one per 64 KiB."""
GZIP = b"\x1f\x8b"

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?$")
_INTEGER = re.compile(rb"[+-]?\d+$")
_BITPIX = {8, 16, 32, 64, -32, -64}


@dataclass(frozen=True)
class Hdu:
    """One header-data unit.

    Attributes
    ----------
    index
        Place in the file, 0 for the primary HDU.
    header
        Keys and values in file order; None for an undefined value. The first of a repeated key counts.
    data_offset, data_length
        Where the data lie [bytes], without the padding to a whole block.
    """

    index: int
    header: dict[str, Any]
    data_offset: int
    data_length: int

    @property
    def name(self) -> str:
        """EXTNAME, or an empty string."""
        return str(self.header.get("EXTNAME") or "").strip()

    @property
    def is_compressed_image(self) -> bool:
        """Whether this table holds a tile-compressed image."""
        return self.header.get("ZIMAGE") is True and "ZCMPTYPE" in self.header

    @property
    def is_image(self) -> bool:
        """Whether this HDU holds a two-dimensional image, compressed or not."""
        if self.is_compressed_image:
            return self.header.get("ZNAXIS") == 2
        kind = str(self.header.get("XTENSION") or ("IMAGE" if "SIMPLE" in self.header else "")).strip()
        return kind == "IMAGE" and self.header.get("NAXIS") == 2


@dataclass(frozen=True)
class FitsStructure:
    """A scanned file: its bytes (expanded, if it was gzipped) and its HDUs."""

    data: Any
    hdus: tuple[Hdu, ...]

    @property
    def primary(self) -> dict[str, Any]:
        """Header of the primary HDU."""
        return self.hdus[0].header


def expand(data: Any) -> Any:
    """Return the content of a gzipped file, or the data as they are.

    Raises
    ------
    TruncatedRawError
        Raised if the gzip stream ends too early.
    CorruptRawError
        Raised if it is damaged, or expands to more than `MAX_EXPANDED` bytes.
    """
    if bytes(data[:2]) != GZIP:
        return data
    pieces: list[bytes] = []
    n_expanded = n_members = at = 0
    with memoryview(data) as view:
        # Members follow one another; what follows the last is padding.
        while bytes(view[at : at + 2]) == GZIP:
            n_members += 1
            if n_members > MAX_MEMBERS:
                raise CorruptRawError(f"gzip file of more than {MAX_MEMBERS} members")
            expander = zlib.decompressobj(wbits=31)
            while not expander.eof:
                step = bytes(view[at : at + READ_STEP])
                try:
                    piece = expander.decompress(step, EXPAND_STEP)
                except zlib.error as error:
                    raise CorruptRawError(f"damaged gzip stream: {error}") from error
                at += len(step) - len(expander.unconsumed_tail) - len(expander.unused_data)
                n_expanded += len(piece)
                if n_expanded > MAX_EXPANDED:
                    raise CorruptRawError(f"gzip stream expands to more than {MAX_EXPANDED} bytes")
                if not piece and not step and not expander.eof:
                    raise TruncatedRawError("the gzip stream ends too early", got_bytes=len(data))
                pieces.append(piece)
    return b"".join(pieces)


def _string(text: bytes) -> tuple[str, bool]:
    """Return the quoted string that a value field begins with, and whether the quotes are closed."""
    end, pieces, start = 1, [], 1
    while True:
        end = text.find(b"'", end)
        if end < 0:
            return text[start:].decode("ascii", "replace").rstrip(), False
        if text[end + 1 : end + 2] != b"'":
            pieces.append(text[start:end])
            return b"".join(pieces).decode("ascii", "replace").rstrip(), True
        pieces.append(text[start : end + 1])
        end += 2
        start = end


# The segments of a raw, and the raws of an exposure, repeat most of their cards.
@lru_cache(maxsize=8192)
def _value(text: bytes) -> Any:
    """Return the value of a card's value field; None if it is undefined or unreadable."""
    text = text.strip()
    if text[:1] == b"'":
        return _string(text)[0]
    word = text.split(b"/", 1)[0].strip()
    if not word:
        return None
    if word in {b"T", b"F"}:
        return word == b"T"
    if _INTEGER.match(word):
        return int(word) if len(word) < 4000 else None
    if _NUMBER.match(word):
        number = float(word.replace(b"D", b"E").replace(b"d", b"e"))
        return number if number - number == 0 else None
    return word.decode("ascii", "replace")


def _cards(block_source: Any, start: int, total: int, index: int) -> Iterator[tuple[bytes, int]]:
    """Yield cards and the offset after their block, up to and including END."""
    offset = start
    for _ in range(MAX_HEADER_BLOCKS):
        if offset + BLOCK > total:
            raise TruncatedRawError(
                f"HDU {index}: the file ends inside its header", hdu=index, wanted_bytes=offset + BLOCK, got_bytes=total
            )
        block = bytes(block_source[offset : offset + BLOCK])
        offset += BLOCK
        for place in range(0, BLOCK, CARD):
            card = block[place : place + CARD]
            yield card, offset
            if card[:8] == b"END     " and not card[8:].strip():
                return
    raise CorruptRawError(f"HDU {index}: header without END", hdu=index)


def _read_header(data: Any, start: int, total: int, index: int) -> tuple[dict[str, Any], int]:
    header: dict[str, Any] = {}
    end = start
    last: str | None = None
    for card, after in _cards(data, start, total, index):
        end = after
        key_bytes = card[:8]
        if key_bytes == b"CONTINUE" and last is not None:
            more = card[8:].strip()
            before = header.get(last)
            if more[:1] == b"'" and isinstance(before, str) and before.endswith("&") and len(before) < MAX_TEXT:
                header[last] = before.removesuffix("&") + _string(more)[0]
            continue
        if key_bytes == b"HIERARCH":
            name, equals, rest = card[9:].partition(b"=")
            if not equals:
                continue
            key = name.strip().decode("ascii", "replace")
        elif card[8:10] == b"= ":
            key = key_bytes.rstrip().decode("ascii", "replace")
            rest = card[10:]
        else:
            continue
        if key not in header:
            header[key] = _value(rest)
            last = key
        else:
            last = None
    return header, end


def _whole(header: dict[str, Any], key: str, index: int, default: int | None = None) -> int:
    value = header.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise CorruptRawError(f"HDU {index}: {key} is {value!r}", hdu=index, field=key)
    return value


def _data_length(header: dict[str, Any], index: int) -> int:
    n_axes = _whole(header, "NAXIS", index)
    if n_axes > 999:
        raise CorruptRawError(f"HDU {index}: NAXIS is {n_axes}", hdu=index, field="NAXIS")
    bitpix: Any = header.get("BITPIX")
    if bitpix not in _BITPIX:
        raise CorruptRawError(f"HDU {index}: BITPIX is {bitpix!r}", hdu=index, field="BITPIX")
    if n_axes == 0:
        return 0
    elements = 1
    for axis in range(1, n_axes + 1):
        elements *= _whole(header, f"NAXIS{axis}", index)
    groups = 1 if index == 0 else _whole(header, "GCOUNT", index, 1)
    extra = 0 if index == 0 else _whole(header, "PCOUNT", index, 0)
    return abs(int(bitpix)) // 8 * groups * (extra + elements)


def scan(data: Any) -> FitsStructure:
    """Scan a file.

    Parameters
    ----------
    data
        The file's bytes (or a memoryview or mmap of them); gzip is expanded first.

    Returns
    -------
    FitsStructure

    Raises
    ------
    EmptyRawError
        Raised for a file without a byte.
    NotFitsError
        Raised if it does not begin as FITS does.
    TruncatedRawError
        Raised, with the HDU and the bytes wanted and there, if it ends before its headers say.
    CorruptRawError
        Raised, with the HDU and the key, if a header cannot be true.
    """
    if len(data) == 0:
        raise EmptyRawError("the file is empty")
    data = expand(data)
    total = len(data)
    if total == 0:
        raise EmptyRawError("the gzip stream holds nothing")
    if bytes(data[:9]) != b"SIMPLE  =":
        if total < 9 and b"SIMPLE  =".startswith(bytes(data[0:total])):
            raise TruncatedRawError("the file ends inside its first card", got_bytes=total)
        raise NotFitsError(f"not FITS: it begins with {bytes(data[:9])!r}")
    hdus: list[Hdu] = []
    offset = 0
    while offset < total:
        index = len(hdus)
        if index > 0 and bytes(data[offset : offset + 8]) != b"XTENSION":
            if not bytes(data[offset : offset + BLOCK]).strip(b"\0 "):
                break  # some writers pad the end of the file
            raise CorruptRawError(f"no HDU begins at byte {offset}, after HDU {index - 1}", hdu=index)
        if index >= MAX_HDUS:
            raise CorruptRawError(f"more than {MAX_HDUS} HDUs")
        header, data_offset = _read_header(data, offset, total, index)
        length = _data_length(header, index)
        if data_offset + length > total:
            raise TruncatedRawError(
                f"HDU {index} ({header.get('EXTNAME') or 'no name'}): its data end at byte {data_offset + length}, "
                f"the file at byte {total}",
                hdu=index,
                wanted_bytes=data_offset + length,
                got_bytes=total,
            )
        hdus.append(Hdu(index, header, data_offset, length))
        offset = data_offset + -(-length // BLOCK) * BLOCK
    return FitsStructure(data, tuple(hdus))
