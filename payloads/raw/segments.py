"""Read the amp segments of a raw: from bytes to one stack of counts.

Plain image HDUs and RICE_1-compressed ones are decoded here; any other compression is left to astropy, in a process of its own.
A header may tell of another overscan than the camera's definition (older read-outs, test stands): then
the header's own DATASEC is believed if it fits.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payloads.raw.apart import decoder
from payloads.raw.rice_hdu import RiceTiles, find_rice_tiles, readable_buffer
from rapid.camera.models import Amp, Box, Detector
from rapid.errors import CorruptRawError
from rapid.exposure.fits_header import BLOCK, CARD, FitsStructure, Hdu

_SECTION = re.compile(r"\[\s*(-?\d+)\s*:\s*(-?\d+)\s*,\s*(-?\d+)\s*:\s*(-?\d+)\s*\]")
MAX_PIXELS = 1 << 26
"""64 million pixels in one segment: far above any CCD, below what would exhaust a worker."""
MAX_FIELDS = 999
"""Columns of a table, by the FITS standard; a compressed image has one to seven."""


@dataclass(frozen=True)
class Segments:
    """The segments of one detector's raw, in the order of `amps`.

    Attributes
    ----------
    pixels : ndarray of shape (n_amps, raw_height, raw_width), int32 or float32, ADU
        Counts as read; indexed ``[amp, y, x]``. May be a buffer that the next call reuses.
    amps
        The camera's amps, with the boxes as this raw has them.
    """

    pixels: NDArray[Any]
    amps: tuple[Amp, ...]


def parse_section(text: object) -> tuple[int, int, int, int] | None:
    """Return ``(x1, x2, y1, y2)`` of a FITS section like ``[4:512,1:2000]``, or None."""
    match = _SECTION.search(text) if isinstance(text, str) else None
    return tuple(int(group) for group in match.groups()) if match else None  # type: ignore[return-value]


def image_shape(hdu: Hdu) -> tuple[int, int]:
    """Return rows and columns of an image HDU.

    Raises
    ------
    CorruptRawError
        Raised for a size that cannot be.
    """
    prefix = "Z" if hdu.is_compressed_image else ""
    nx, ny = hdu.header.get(f"{prefix}NAXIS1"), hdu.header.get(f"{prefix}NAXIS2")
    # Not isinstance: true is an int, too.
    if type(nx) is not int or type(ny) is not int or nx < 1 or ny < 1 or nx * ny > MAX_PIXELS:
        raise CorruptRawError(f"HDU {hdu.index} ({hdu.name}): impossible size {nx} x {ny}", hdu=hdu.index)
    return ny, nx


def _with_header_geometry(amp: Amp, hdu: Hdu, shape: tuple[int, int]) -> Amp:
    """Return the amp with its boxes as this raw's header tells them."""
    ny, nx = shape
    section = parse_section(hdu.header.get("DATASEC"))
    if section is None:
        raise CorruptRawError(
            f"{hdu.name or amp.name}: {nx} x {ny} pixels where the camera has {amp.raw_width} x {amp.raw_height}, "
            "and no DATASEC says which are image",
            field="DATASEC",
        )
    x1, x2, y1, y2 = section
    x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    width, height = x2 - x1 + 1, y2 - y1 + 1
    if x1 < 1 or y1 < 1 or x2 > nx or y2 > ny or (width, height) != (amp.data.width, amp.data.height):
        raise CorruptRawError(
            f"{hdu.name or amp.name}: DATASEC {hdu.header.get('DATASEC')} in {nx} x {ny} pixels does not hold the "
            f"camera's {amp.data.width} x {amp.data.height}",
            field="DATASEC",
        )
    data = Box(x0=x1 - 1, y0=y1 - 1, width=width, height=height)
    serial = Box(x0=data.x1, y0=data.y0, width=nx - data.x1, height=height) if nx > data.x1 else None
    parallel = Box(x0=data.x0, y0=data.y1, width=width, height=ny - data.y1) if ny > data.y1 else None
    return amp.model_copy(
        update={
            "raw_width": nx,
            "raw_height": ny,
            "data": data,
            "serial_overscan": serial,
            "parallel_overscan": parallel,
        }
    )


def fits_detector(structure: FitsStructure, detector: Detector) -> bool:
    """Return whether the imaging section that a raw's headers tell of has the size of a detector's.

    A raw that tells nothing is taken to fit where the size of its segments does.
    """
    amp = detector.amps[0]
    for hdu in structure.hdus:
        if hdu.is_image:
            section = parse_section(hdu.header.get("DATASEC"))
            if section is not None:
                size = abs(section[1] - section[0]) + 1, abs(section[3] - section[2]) + 1
                if size == (amp.data.width, amp.data.height):
                    return True
            if section is None and image_shape(hdu) != (amp.raw_height, amp.raw_width):
                return False
            return section is None
    return False


def _match(structure: FitsStructure, detector: Detector) -> list[tuple[Amp, Hdu]]:
    """Pair amps with HDUs: by name, or by order where the names do not help."""
    images = [hdu for hdu in structure.hdus if hdu.is_image]
    by_name = {hdu.name.lower().removeprefix("segment"): hdu for hdu in images if hdu.name}
    wanted = [amp.name.lower().removeprefix("c") for amp in detector.amps]
    if all(name in by_name for name in wanted):
        return [(amp, by_name[name]) for amp, name in zip(detector.amps, wanted, strict=True)]
    named_segments = [hdu for hdu in images if hdu.name.lower().startswith("segment")]
    candidates = named_segments or images
    if len(candidates) == len(detector.amps):
        return list(zip(detector.amps, candidates, strict=True))
    missing = [f"Segment{name}" for name in wanted if name not in by_name]
    raise CorruptRawError(
        f"{len(candidates)} segments where {detector.name} has {len(detector.amps)} amps (missing: {', '.join(missing)})",
        missing=missing,
    )


def _decode_plain(structure: FitsStructure, hdu: Hdu, shape: tuple[int, ...]) -> NDArray[Any]:
    kinds = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
    kind = kinds[int(hdu.header["BITPIX"])]
    return np.frombuffer(structure.data, dtype=kind, count=shape[0] * shape[1], offset=hdu.data_offset).reshape(shape)


def _bytes_alone(structure: FitsStructure, hdu: Hdu) -> bytes:
    """Return a file of one extension: what is wrong with the others does not matter, and they cost no time."""
    before = structure.hdus[hdu.index - 1]
    begin = before.data_offset + -(-before.data_length // BLOCK) * BLOCK
    content = bytes(structure.data[begin : hdu.data_offset + hdu.data_length])
    cards = [f"{key:8}= {value:>20}" for key, value in (("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "0"))]
    primary = "".join(card.ljust(CARD) for card in (*cards, "END"))
    return primary.ljust(BLOCK).encode() + content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0")


def _decode_astropy(structure: FitsStructure, hdu: Hdu, shape: tuple[int, ...]) -> NDArray[Any]:
    n_fields = hdu.header.get("TFIELDS")
    if not isinstance(n_fields, int) or not 1 <= n_fields <= MAX_FIELDS:
        # Astropy looks for each of them; for a million that takes a minute.
        raise CorruptRawError(f"{hdu.name or hdu.index}: TFIELDS is {n_fields!r}", hdu=hdu.index, field="TFIELDS")
    try:
        data = decoder.decode(_bytes_alone(structure, hdu))
    except CorruptRawError as error:
        raise CorruptRawError(f"{hdu.name or hdu.index}: cannot be decoded: {error.message}", hdu=hdu.index) from error
    if data.shape != shape:
        raise CorruptRawError(f"{hdu.name or hdu.index}: decodes to {data.shape}, not {shape}", hdu=hdu.index)
    return data


def _scale(header: dict[str, Any]) -> tuple[float, float]:
    scale, zero = header.get("BSCALE", 1.0), header.get("BZERO", 0.0)
    return (
        float(scale) if isinstance(scale, int | float) else 1.0,
        float(zero) if isinstance(zero, int | float) else 0.0,
    )


def decode_image(
    structure: FitsStructure, buffer: NDArray[np.uint8], hdu: Hdu, out: NDArray[np.int32]
) -> NDArray[Any] | None:
    """Decode an image HDU into ``out``; return its pixels instead if they are not all 32-bit integers.

    Parameters
    ----------
    buffer : ndarray of uint8
        The file, readable a window beyond the HDU if that is compressed.
    out : ndarray of shape (n_rows, n_columns), int32
        Written; C-contiguous.

    Raises
    ------
    CorruptRawError
        Raised, naming the HDU, if it is damaged.
    """
    tiles = find_rice_tiles(structure, hdu) if hdu.is_compressed_image else None
    if tiles is not None:
        tiles.decode(buffer, out)
        return None
    data: NDArray[Any]
    if hdu.is_compressed_image:
        data = _decode_astropy(structure, hdu, out.shape)
    else:
        data = _decode_plain(structure, hdu, out.shape)
        scale, zero = _scale(hdu.header)
        if data.dtype.kind in "iu" and scale == 1.0 and zero == int(zero):
            if zero:
                data = data.astype(np.int64) + int(zero)
        else:
            data = data * scale + zero
    if data.dtype.kind not in "iu":
        return data
    limits = np.iinfo(np.int32)
    may_exceed = data.dtype.itemsize > 4 or (data.dtype.kind == "u" and data.dtype.itemsize == 4)
    if may_exceed and (int(data.min()) < limits.min or int(data.max()) > limits.max):
        return data.astype(np.float64)
    np.copyto(out, data, casting="unsafe")
    return None


class OpenSegments:
    """The segments of one raw in the order of a detector's amps, found but not decoded.

    Attributes
    ----------
    amps
        The camera's amps, with the boxes as this raw has them.
    shape
        Rows and columns of every segment [px].
    buffer : ndarray of uint8
        The file, readable a window beyond its last compressed segment.

    Raises
    ------
    CorruptRawError
        Raised, naming the segment, if one is missing or of another size than the others.
    """

    def __init__(self, structure: FitsStructure, detector: Detector) -> None:
        self._structure = structure
        self._pairs = _match(structure, detector)
        shapes = {image_shape(hdu) for _, hdu in self._pairs}
        if len(shapes) != 1:
            raise CorruptRawError(f"segments of different sizes: {sorted(shapes)}")
        self.shape = shape = shapes.pop()
        self.amps = tuple(
            amp if shape == (amp.raw_height, amp.raw_width) else _with_header_geometry(amp, hdu, shape)
            for amp, hdu in self._pairs
        )
        compressed = [hdu for _, hdu in self._pairs if hdu.is_compressed_image]
        self.buffer = readable_buffer(structure, max((h.data_offset + h.data_length for h in compressed), default=0))

    def __len__(self) -> int:
        return len(self._pairs)

    def tiles(self, place: int) -> RiceTiles | None:
        """Return a segment's tiles if our decoder reads them."""
        hdu = self._pairs[place][1]
        return find_rice_tiles(self._structure, hdu) if hdu.is_compressed_image else None

    def decode(self, place: int, out: NDArray[np.int32]) -> NDArray[Any] | None:
        """Decode a segment into ``out``; return its pixels instead if they are not all 32-bit integers.

        Raises
        ------
        CorruptRawError
            Raised, naming the segment, if it is damaged.
        """
        return decode_image(self._structure, self.buffer, self._pairs[place][1], out)


class SegmentReader:
    """Reads raws one after the other into a buffer that is kept between them."""

    def __init__(self) -> None:
        self._stack: NDArray[np.int32] | None = None

    def _buffer(self, shape: tuple[int, int, int]) -> NDArray[np.int32]:
        if self._stack is None or self._stack.shape != shape:
            self._stack = np.empty(shape, dtype=np.int32)
        return self._stack

    def read(self, structure: FitsStructure, detector: Detector) -> Segments:
        """Read all segments of a detector.

        Parameters
        ----------
        structure
            The scanned raw.
        detector
            Whose raw it is.

        Returns
        -------
        Segments
            The pixels are overwritten by the next call.

        Raises
        ------
        CorruptRawError
            Raised, naming the segment, if one is missing, of a wrong size or damaged.
        """
        return self.read_all(OpenSegments(structure, detector))

    def read_all(self, found: OpenSegments) -> Segments:
        """Read all segments of an opened raw; as `read`."""
        stack = self._buffer((len(found), *found.shape))
        others: dict[int, NDArray[Any]] = {}
        for place in range(len(found)):
            data = found.decode(place, stack[place])
            if data is not None:
                others[place] = data
        if not others:
            return Segments(stack, found.amps)
        # Some segment holds what is no 32-bit integer.
        floats = stack.astype(np.float32)
        for place, data in others.items():
            floats[place] = data
        return Segments(floats, found.amps)
