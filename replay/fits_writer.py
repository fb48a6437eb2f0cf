"""Write raws as LSSTCam writes them: a primary header, one segment HDU per amp, a small table.

Files appear whole: a temporary name beside them, then a rename.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapid.camera.models import Amp, Detector
from replay.rice_encoder import BLOCK_SIZE, encode

BLOCK = 2880
CARD = 80
Value = str | int | float | bool | None
Cards = Iterable[tuple[str, Value, str]]


def card_text(key: str, value: Value, comment: str = "") -> str:
    """Return a header card of any length, as people read it."""
    name = f"{key:<8}" if len(key) <= 8 and key == key.upper() and " " not in key else f"HIERARCH {key}"
    if value is None:
        text = f"{name}= "
    elif isinstance(value, bool):
        text = f"{name}= {'T' if value else 'F':>20}"
    elif isinstance(value, int):
        text = f"{name}= {value:>20d}"
    elif isinstance(value, float):
        number = repr(float(value)).replace("e", "E")
        text = f"{name}= {number:>20}"
    else:
        quoted = value.replace("'", "''")
        text = f"{name}= '{quoted:<8}'"
    if comment and len(text) + 3 + len(comment) <= CARD:
        text += f" / {comment}"
    return text


def card(key: str, value: Value, comment: str = "") -> str:
    """Return one 80-character header card.

    Examples
    --------
    >>> card("SEQNUM", 12).rstrip()
    'SEQNUM  =                   12'
    """
    text = card_text(key, value, comment)
    if len(text) > CARD:
        raise ValueError(f"header card too long: {text}")
    return f"{text:<80}"


def cards_of(key: str, value: Value, comment: str = "") -> str:
    """Return a card, or a text too long for one with the ``CONTINUE`` cards of the standard's section 4.2.1.2."""
    if not isinstance(value, str) or len(card_text(key, value)) <= CARD:
        return card(key, value, comment)
    name = card_text(key, "")[: -len("'        '")]
    pieces, rest, room = [], value, CARD - len(name) - 3
    while True:
        piece = rest[:room]
        while len(piece.replace("'", "''")) > room:
            piece = piece[:-1]
        rest = rest[len(piece) :]
        quoted = piece.replace("'", "''")
        pieces.append(f"{name}'{quoted}{'&' if rest else ''}'")
        if not rest:
            return "".join(f"{text:<80}" for text in pieces)
        name, room = "CONTINUE  ", CARD - 10 - 3


def header(cards: Cards) -> bytes:
    """Return a header: its cards, END, and blanks to a whole block."""
    text = "".join(cards_of(*entry) for entry in cards) + f"{'END':<80}"
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")


def padded(data: bytes) -> bytes:
    """Return data with zeros to a whole block."""
    return data + b"\0" * (-len(data) % BLOCK)


def _section(x0: int, x1: int, y0: int, y1: int) -> str:
    return f"[{x0}:{x1},{y0}:{y1}]"


def _segment_cards(amp: Amp, detector: Detector, channel: int) -> list[tuple[str, Value, str]]:
    box, place = amp.data, amp.trimmed
    x0, x1 = place.x0 + 1, place.x1
    y0, y1 = place.y0 + 1, place.y1
    if amp.flip_x:
        x0, x1 = x1, x0
    if amp.flip_y:
        y0, y1 = y1, y0
    return [
        ("EXTNAME", f"Segment{amp.name[1:]}", "name of this HDU"),
        ("DATASEC", _section(box.x0 + 1, box.x1, box.y0 + 1, box.y1), ""),
        ("DETSEC", _section(x0, x1, y0, y1), ""),
        ("DETSIZE", _section(1, detector.width, 1, detector.height), ""),
        ("CCDSUM", "1 1", ""),
        ("CHANNEL", channel, ""),
        ("BUNIT", "adu", ""),
    ]


def segment_hdu(pixels: NDArray[np.int32], amp: Amp, detector: Detector, channel: int, *, compress: bool) -> bytes:
    """Return one segment HDU, RICE_1-compressed or plain."""
    ny, nx = pixels.shape
    own = _segment_cards(amp, detector, channel)
    if not compress:
        cards: list[tuple[str, Value, str]] = [
            ("XTENSION", "IMAGE", ""),
            ("BITPIX", 32, ""),
            ("NAXIS", 2, ""),
            ("NAXIS1", nx, ""),
            ("NAXIS2", ny, ""),
            ("PCOUNT", 0, ""),
            ("GCOUNT", 1, ""),
            *own,
        ]
        return header(cards) + padded(pixels.astype(">i4").tobytes())
    descriptors, heap = encode(pixels)
    cards = [
        ("XTENSION", "BINTABLE", "binary table extension"),
        ("BITPIX", 8, ""),
        ("NAXIS", 2, ""),
        ("NAXIS1", 8, ""),
        ("NAXIS2", ny, ""),
        ("PCOUNT", len(heap), ""),
        ("GCOUNT", 1, ""),
        ("TFIELDS", 1, ""),
        ("TTYPE1", "COMPRESSED_DATA", ""),
        ("TFORM1", f"1PB({int(descriptors[:, 0].max())})", ""),
        ("ZIMAGE", True, "extension contains compressed image"),
        ("ZTENSION", "IMAGE", ""),
        ("ZBITPIX", 32, ""),
        ("ZNAXIS", 2, ""),
        ("ZNAXIS1", nx, ""),
        ("ZNAXIS2", ny, ""),
        ("ZPCOUNT", 0, ""),
        ("ZGCOUNT", 1, ""),
        ("ZTILE1", nx, ""),
        ("ZTILE2", 1, ""),
        ("ZCMPTYPE", "RICE_1", ""),
        ("ZNAME1", "BLOCKSIZE", ""),
        ("ZVAL1", BLOCK_SIZE, ""),
        ("ZNAME2", "BYTEPIX", ""),
        ("ZVAL2", 4, ""),
        *own,
    ]
    return header(cards) + padded(descriptors.astype(">i4").tobytes() + heap)


def conditions_hdu(temperature_c: float) -> bytes:
    """Return the small table of electronics conditions that follows the segments."""
    row = np.array([temperature_c], dtype=">f4").tobytes()
    cards: list[tuple[str, Value, str]] = [
        ("XTENSION", "BINTABLE", ""),
        ("BITPIX", 8, ""),
        ("NAXIS", 2, ""),
        ("NAXIS1", len(row), ""),
        ("NAXIS2", 1, ""),
        ("PCOUNT", 0, ""),
        ("GCOUNT", 1, ""),
        ("TFIELDS", 1, ""),
        ("TTYPE1", "CCDTEMP", ""),
        ("TFORM1", "E", ""),
        ("TUNIT1", "deg C", ""),
        ("EXTNAME", "REB_COND", ""),
    ]
    return header(cards) + padded(row)


def raw_bytes(
    primary: Mapping[str, Value], stack: NDArray[np.int32], detector: Detector, *, compress: bool = True
) -> bytes:
    """Return a raw.

    Parameters
    ----------
    primary
        Keys of the primary header, after the mandatory ones.
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
        Segments in the order of the detector's amps.
    """
    cards: list[tuple[str, Value, str]] = [
        ("SIMPLE", True, "conforms to FITS standard"),
        ("BITPIX", 8, ""),
        ("NAXIS", 0, ""),
        ("EXTEND", True, ""),
        *((key, value, "") for key, value in primary.items()),
    ]
    parts = [header(cards)]
    for channel, (pixels, amp) in enumerate(zip(stack, detector.amps, strict=True), start=1):
        parts.append(segment_hdu(pixels, amp, detector, channel, compress=compress))
    parts.append(conditions_hdu(-100.0))
    return b"".join(parts)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
