"""Read the headers of a raw without its pixels: a file or object as bytes that come when asked for.

Not a memory map: a writer that shortens a mapped file kills the reader with SIGBUS.
"""

import json
from collections.abc import Callable
from typing import Any

from rapid.arrival.models import RawHeader
from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.errors import CorruptRawError, EmptyRawError, TruncatedRawError
from rapid.exposure.formats import format_of
from rapid.exposure.models import ExposureInfo
from rapid.exposure.naming import parse_expected_sensors

MAX_SIDECAR_BYTES = 1 << 20
"""205 names need 4 KB."""


class RangedBytes:
    """Bytes of which only the asked-for ranges are read.

    Parameters
    ----------
    size
        Length of the whole [bytes].
    fetch
        Returns the bytes from an offset, of a length; fewer if the whole has become shorter.
    ahead
        Bytes to read at once: a header is read in blocks of 2880, one after the other.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes], *, ahead: int = 32 * 1024) -> None:
        self._size = size
        self._fetch = fetch
        self._ahead = ahead
        self._start = 0
        self._chunk = b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> bytes:
        start, stop, step = where.indices(self._size)
        if step != 1:
            raise ValueError("only whole ranges")
        if stop <= start:
            return b""
        if start < self._start or stop > self._start + len(self._chunk):
            length = min(max(stop - start, self._ahead), self._size - start)
            self._chunk, self._start = self._fetch(start, length), start
            if len(self._chunk) < stop - start:
                raise TruncatedRawError(
                    "the file became shorter while it was read", wanted_bytes=stop, got_bytes=start + len(self._chunk)
                )
        return self._chunk[start - self._start : stop - self._start]

    def whole(self) -> bytes:
        """Return everything."""
        return self._fetch(0, self._size)


def read_raw_header(data: RangedBytes, *, uri: str, camera: Camera | None) -> RawHeader:
    """Read who a raw is, and check that it is as long as its headers say.

    Raises
    ------
    RawError
        Raised as the subclass that names what is wrong.
    """
    if len(data) == 0:
        raise EmptyRawError("the file is empty")
    raw_format = format_of(uri, camera)
    # A gzip stream has no ranges; it is read as a whole.
    content: Any = data.whole() if raw_format.reads_whole or data[:2] == b"\x1f\x8b" else data
    facts = raw_format.read(content, uri=uri, camera=camera)
    if facts.n_segments is not None:
        _check_segments(facts.info, facts.n_segments, camera)
    return RawHeader(uri=uri, info=facts.info, header=dict(facts.header))


def _check_segments(info: ExposureInfo, n_segments: int, camera: Camera | None) -> None:
    """Raise `TruncatedRawError` for a raw that ends between two HDUs: valid FITS, but with amps missing."""
    detector = (camera or load_camera(info.camera)).by_id.get(info.detector)
    if info.is_guider or detector is None or n_segments >= len(detector.amps):
        return
    raise TruncatedRawError(
        f"the file ends after {n_segments} of the {len(detector.amps)} segments of {detector.name}",
        wanted_segments=len(detector.amps),
        got_segments=n_segments,
    )


def read_sidecar(data: RangedBytes) -> frozenset[str]:
    """Return the detector names that a side-car lists.

    Raises
    ------
    EmptyRawError, TruncatedRawError
        Raised for a side-car that does not end: it may still be written.
    CorruptRawError
        Raised for one that lists no detectors.
    """
    if len(data) == 0:
        raise EmptyRawError("the side-car is empty")
    if len(data) > MAX_SIDECAR_BYTES:
        raise CorruptRawError(f"a side-car of {len(data)} bytes lists no sensors")
    text = data.whole()
    try:
        document = json.loads(text)
    except ValueError as error:
        if not text.rstrip().endswith(b"}"):
            raise TruncatedRawError("the side-car ends too early", got_bytes=len(text)) from error
        raise CorruptRawError(f"the side-car is not JSON: {error}") from error
    except RecursionError as error:
        raise CorruptRawError("the side-car is nested too deeply") from error
    try:
        return parse_expected_sensors(document)
    except ValueError as error:
        raise CorruptRawError(str(error)) from error
