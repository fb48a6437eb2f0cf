"""Look at a file once: who writes it, how it is now, and what is wrong with it."""

import errno
import fcntl
import os
import signal
import stat
from dataclasses import dataclass
from datetime import UTC, datetime

from rapid.arrival.decide import FileKind, Writer
from rapid.arrival.models import RawHeader
from rapid.arrival.ranged import RangedBytes, read_raw_header, read_sidecar
from rapid.camera.models import Camera
from rapid.errors import RawError, TruncatedRawError


@dataclass(frozen=True, slots=True)
class Stamp:
    """How a file is: another stamp is another content."""

    size_bytes: int
    modified_ns: int
    inode: int


@dataclass(frozen=True)
class Look:
    """What one look at a file saw.

    Attributes
    ----------
    idle_s
        Since the last change that the file system tells of: content, name, link or mode.
    header, sensors
        What it holds: of a raw or a side-car respectively, None if there is a problem.
    """

    stamp: Stamp
    writer: Writer
    idle_s: float
    header: RawHeader | None = None
    sensors: frozenset[str] | None = None
    problem: RawError | None = None


def stamp_of(facts: os.stat_result) -> Stamp:
    """Return the stamp of a file's status."""
    return Stamp(facts.st_size, facts.st_mtime_ns, facts.st_ino)


def stamp_at(path: str) -> Stamp | None:
    """Return the stamp of a file without opening it; None if it is gone, or no file."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - for each file of a season
    except OSError:
        return None
    return stamp_of(facts) if stat.S_ISREG(facts.st_mode) else None


def find_writer(descriptor: int) -> Writer:
    """Return whether somebody has a file open for writing.

    Parameters
    ----------
    descriptor
        The file, open for reading only.

    Notes
    -----
    Linux grants a read lease only on a file that nobody has open for writing; we ask for one and give it
    back at once. An open for writing in between waits for that moment; its signal is one that is ignored
    by default. Network file systems and files of other users cannot be asked: that is `UNKNOWN`.
    Source: fcntl(2), "Leases".
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except AttributeError:
        return Writer.UNKNOWN  # not Linux
    except OSError as error:
        return Writer.PRESENT if error.errno == errno.EAGAIN else Writer.UNKNOWN
    return Writer.GONE


def look_at(path: str, *, kind: FileKind, camera: Camera | None) -> Look | None:
    """Look at a file; None if it is gone, or no regular file."""
    try:
        # Without O_NONBLOCK a FIFO of that name would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return _look_from_outside(path, error)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return None
        writer = find_writer(descriptor)
        data = RangedBytes(facts.st_size, lambda offset, length: os.pread(descriptor, length, offset))
        header, sensors, problem = None, None, None
        try:
            if kind is FileKind.RAW:
                header = read_raw_header(data, uri=path, camera=camera)
            else:
                sensors = read_sidecar(data)
        except RawError as error:
            problem = error
        except OSError as error:
            problem = RawError(f"the file cannot be read: {error.strerror}", errno=error.errno)
        after = os.fstat(descriptor)
        if stamp_of(after) != stamp_of(facts):
            # It changed under our eyes: what was read may be of neither state.
            problem = TruncatedRawError("the file is being written", got_bytes=after.st_size)
            return Look(stamp_of(after), Writer.PRESENT, 0.0, problem=problem)
        return Look(stamp_of(facts), writer, _idle_s(facts), header, sensors, problem)
    finally:
        os.close(descriptor)


def _look_from_outside(path: str, error: OSError) -> Look | None:
    """Return a look at a file that could not be opened, None if it is gone."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - called for every file of a sweep
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    problem = RawError(f"the file cannot be opened: {error.strerror}", errno=error.errno)
    return Look(stamp_of(facts), Writer.UNKNOWN, _idle_s(facts), problem=problem)


def _idle_s(facts: os.stat_result) -> float:
    # The change time: unlike the modification time, copying and unpacking programs cannot set it back.
    return max(0.0, datetime.now(UTC).timestamp() - facts.st_ctime)
