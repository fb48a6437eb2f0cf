"""Make small FITS files and headers for the tests of this folder."""

from typing import Any

BLOCK = 2880


def card(key: str, value: Any) -> str:
    """Return one card of 80 characters."""
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif value is None:
        text = ""
    elif isinstance(value, str):
        text = f"'{value}'"
    else:
        text = f"{value!r:>20}"
    return f"{key:<8}= {text}"[:80].ljust(80)


def header_bytes(cards: dict[str, Any], extra: tuple[str, ...] = ()) -> bytes:
    """Return a padded header with END."""
    lines = [card(key, value) for key, value in cards.items()]
    lines += [line.ljust(80) for line in extra]
    text = "".join([*lines, "END".ljust(80)])
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")


def image_bytes(width: int = 20, height: int = 10, **cards: Any) -> bytes:
    """Return an image extension of 16-bit zeros."""
    size = width * height * 2
    header = header_bytes(
        {
            "XTENSION": "IMAGE", "BITPIX": 16, "NAXIS": 2, "NAXIS1": width, "NAXIS2": height,
            "PCOUNT": 0, "GCOUNT": 1, **cards,
        }
    )  # fmt: skip
    return header + bytes(-(-size // BLOCK) * BLOCK)


def raw_bytes(header: dict[str, Any], n_segments: int = 2, extra: tuple[str, ...] = ()) -> bytes:
    """Return a raw: primary header and image segments."""
    primary = header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True, **header}, extra)
    return primary + b"".join(image_bytes(EXTNAME=f"Segment1{i}") for i in range(n_segments))


def lsstcam_header(**changes: Any) -> dict[str, Any]:
    """Return the header of a science exposure of LSSTCam; a change to ... leaves the key out."""
    header = {
        "INSTRUME": "LSSTCam", "TELESCOP": "Simonyi Survey Telescope", "OBSID": "MC_O_20251115_000226",
        "CAMCODE": "MC", "CONTRLLR": "O", "DAYOBS": "20251115", "SEQNUM": 226, "IMGTYPE": "OBJECT",
        "REASON": "SCIENCE", "PROGRAM": "BLOCK-407", "OBJECT": "COSMOS", "GROUPID": "2025-11-16T03:00:00.000",
        "CURINDEX": 1, "MAXINDEX": 1, "DATE-BEG": "2025-11-16T03:00:10.000", "DATE-END": "2025-11-16T03:00:40.000",
        "TIMESYS": "TAI", "EXPTIME": 30.0, "SHUTTIME": 30.001, "DARKTIME": 30.9, "FILTER": "r_57", "TRACKSYS": "RADEC",
        "RASTART": 150.1, "DECSTART": 2.2, "AZSTART": 20.0, "ELSTART": 60.0, "ROTPA": 12.5, "AMSTART": 1.155,
        "FOCUSZ": -1.5, "VIGN_MIN": "NO", "SEEING": 0.8, "AIRTEMP": 9.5, "PRESSURE": 74300.0, "HUMIDITY": 20.0,
        "RAFTBAY": "R22", "CCDSLOT": "S11", "LSST_NUM": "E2V-CCD250-382", **changes,
    }  # fmt: skip
    return {key: value for key, value in header.items() if value is not ...}
