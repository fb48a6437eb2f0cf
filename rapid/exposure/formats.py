"""How raws of different kinds are named and read: FITS of our cameras, and whatever an installed package adds.

A camera definition names its format (``raw_format``, ``fits`` if it names none). Formats of others are registered in
the entry-point group ``rapid.formats``; see docs/payloads.md for one of a page.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from rapid.camera.models import Camera
from rapid.errors import ConfigurationError, RapidError
from rapid.exposure.identity import tell_ccd_type
from rapid.exposure.models import ExposureInfo
from rapid.exposure.naming import RawName, parse_raw_name
from rapid.exposure.reader import read_info
from rapid.plugins import FORMATS, entries_of, load_entry

FITS = "fits"


@dataclass(frozen=True)
class RawFacts:
    """Who a raw is, as its format read it.

    Attributes
    ----------
    header
        What else the file tells, for a pipeline's rules and for payloads.
    data
        The bytes that payloads get: expanded, if the file was packed.
    n_segments
        Images in the file; None where that says nothing of its being complete.
    ccd_type
        Kind of CCD, for cameras that have more than one of them in a place.
    """

    info: ExposureInfo
    data: bytes | memoryview
    header: Mapping[str, Any] = field(default_factory=dict)
    n_segments: int | None = None
    ccd_type: str | None = None


class RawFormat(Protocol):
    """A kind of raw file. Made without arguments, once a process."""

    reads_whole: ClassVar[bool] = True
    """Whether `read` needs the whole file; else it gets something that reads the ranges it is asked for."""

    def parse_name(self, path: str) -> RawName | None:
        """Return what a path tells; None if it names no raw of this kind, so that nobody looks into the file."""
        ...

    def read(self, data: Any, *, uri: str, camera: Camera | None) -> RawFacts:
        """Return who a raw is.

        Raises
        ------
        RawError
            Raised as the subclass that says what is wrong. `TruncatedRawError` for a file that may still be written:
            the arrival door waits for it to become whole.
        """
        ...


class FitsFormat:
    """FITS files of CCD cameras, named in one of the observatory's ways or in none."""

    reads_whole: ClassVar[bool] = False

    def parse_name(self, path: str) -> RawName | None:
        """Return what a path tells; see `rapid.exposure.naming.parse_raw_name`."""
        return parse_raw_name(path)

    def read(self, data: Any, *, uri: str, camera: Camera | None) -> RawFacts:
        """Return who a raw is; see `rapid.exposure.reader.read_info`."""
        info, structure = read_info(data, uri=uri, camera=camera)
        images = [hdu for hdu in structure.hdus[1:] if hdu.is_image]
        return RawFacts(
            info=info,
            data=structure.data,
            header=structure.primary,
            n_segments=sum(hdu.is_image for hdu in structure.hdus),
            ccd_type=tell_ccd_type(structure.primary, images[0].header) if images else None,
        )


@lru_cache(maxsize=16)
def load_format(name: str) -> RawFormat:
    """Return a format by name.

    Raises
    ------
    NotFoundError
        Raised for a name that no installed package registers.
    ConfigurationError
        Raised if it cannot be imported, or is no format.
    """
    if name == FITS:
        return FitsFormat()
    made = load_entry(FORMATS, name)()
    missing = [what for what in ("reads_whole", "parse_name", "read") if not hasattr(made, what)]
    if missing:
        raise ConfigurationError(f"format {name}", f"{type(made).__name__} lacks {', '.join(missing)}")
    result: RawFormat = made
    return result


def format_names() -> tuple[str, ...]:
    """Return the names of all formats, ours first."""
    return (FITS, *(name for name in entries_of(FORMATS) if name != FITS))


def _formats(camera: Camera | None) -> Iterator[RawFormat]:
    """Yield the formats a file may have; one by one, so that those of others are imported only for files not ours."""
    if camera is not None:
        yield load_format(camera.raw_format)
        return
    for name in format_names():
        try:
            yield load_format(name)
        except RapidError:
            continue  # whoever needs that one is told; files of the others are read all the same


def parse_name(path: str, camera: Camera | None = None) -> RawName | None:
    """Return what a path tells of a raw of a camera, or of any; None if it names no raw."""
    for one in _formats(camera):
        name = one.parse_name(path)
        if name is not None:
            return name
    return None


def format_of(uri: str, camera: Camera | None = None) -> RawFormat:
    """Return the format of a raw: the camera's, or the first that the name is one of; FITS if it is none's."""
    if camera is not None:
        return load_format(camera.raw_format)
    return next((one for one in _formats(None) if one.parse_name(uri) is not None), load_format(FITS))
