"""Decide what a file is by its name, and whether one that is looked at is complete.

Pure: `rapid.arrival.directory` looks at files and clocks; each race of a writer with us is one row of a
test table.
"""

from dataclasses import dataclass
from enum import StrEnum

from rapid.camera.models import Camera
from rapid.errors import EmptyRawError, RawError, TruncatedRawError
from rapid.exposure.formats import parse_name
from rapid.exposure.naming import is_expected_sensors


class FileKind(StrEnum):
    """What a file is, by its name."""

    RAW = "raw"
    EXPECTED_SENSORS = "expected_sensors"
    OTHER = "other"


def kind_of(path: str, camera: Camera | None = None) -> FileKind:
    """Return what a file is by its name, to a camera or to any: temporary and hidden ones are nobody's business.

    Examples
    --------
    >>> [kind_of(p).value for p in ("a/MC_O_20251115_000226_R22_S11.fits", "a/.x.fits.Qw3", "x.json", "x.fits.tmp")]
    ['raw', 'other', 'other', 'other']
    """
    name = path.rsplit("/", 1)[-1]
    if name.startswith("."):
        return FileKind.OTHER
    if is_expected_sensors(name):
        return FileKind.EXPECTED_SENSORS
    return FileKind.RAW if parse_name(name, camera) is not None else FileKind.OTHER


class Writer(StrEnum):
    """Whether somebody has the file open for writing."""

    GONE = "gone"
    """Its writer closed or renamed it, or the system says that nobody writes."""

    PRESENT = "present"
    UNKNOWN = "unknown"
    """The file system cannot say (network file systems)."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a file to become complete.

    Attributes
    ----------
    settle_s
        A complete file of which nobody knows whether it is being written must be unchanged for so long.
    closed_s
        An incomplete file whose writer has closed it may be continued (``>>``) for so long.
    open_s
        A file that somebody has open must be unchanged for so long before we act on what it is.
    """

    settle_s: float = 1.0
    closed_s: float = 5.0
    open_s: float = 60.0


@dataclass(frozen=True)
class FileLook:
    """One look at a file.

    Attributes
    ----------
    problem
        What is wrong with its content, None if it is a complete raw.
    unchanged_s
        For how long size and modification time have been as they are.
    """

    writer: Writer
    problem: RawError | None
    unchanged_s: float


class Verdict(StrEnum):
    """What to do with a file now."""

    DELIVER = "deliver"
    QUARANTINE = "quarantine"
    WAIT = "wait"


def decide_file(look: FileLook, patience: Patience) -> tuple[Verdict, float]:
    """Return what to do with a file, and after how many seconds without any event to look again.

    Notes
    -----
    Content alone is not enough: a writer that reserved the space first has a complete structure and no
    pixels. A closed writer alone is not enough: the file may be continued.
    """
    needed_s = _needed_s(look, patience)
    if look.unchanged_s >= needed_s:
        return (Verdict.DELIVER if look.problem is None else Verdict.QUARANTINE), 0.0
    return Verdict.WAIT, needed_s - look.unchanged_s


def _needed_s(look: FileLook, patience: Patience) -> float:
    """Return for how long a file must have been unchanged before anything is done with it."""
    if look.writer is Writer.PRESENT:
        return patience.open_s
    if look.problem is None:
        return 0.0 if look.writer is Writer.GONE else patience.settle_s
    if isinstance(look.problem, TruncatedRawError | EmptyRawError):
        return patience.closed_s if look.writer is Writer.GONE else patience.open_s
    return patience.settle_s if look.writer is Writer.GONE else patience.closed_s
