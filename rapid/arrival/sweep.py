"""List the raws under a folder: what a watch has missed, or was there before it began."""

import os
import time
from dataclasses import dataclass, field

import structlog

from rapid.arrival.decide import FileKind, kind_of
from rapid.arrival.door import name_of_sidecar
from rapid.arrival.look import Stamp, stamp_of
from rapid.camera.models import Camera
from rapid.exposure.formats import parse_name

log = structlog.get_logger()

QUIET_NS = 3600 * 1_000_000_000
"""A folder without a change of its names for an hour is not listed again: its exposure is over."""

SETTLING_NS = 60 * 1_000_000_000
"""A folder that changed less than a minute ago cannot be closed."""


def newest_first(paths: list[str]) -> list[str]:
    """Return paths ordered for dispatch: newest exposure first, its side-car before its raws.

    Examples
    --------
    >>> newest_first(["MC_O_20251115_000226_R22_S11.fits", "MC_O_20251115_000227_R22_S11.fits"])[0]
    'MC_O_20251115_000227_R22_S11.fits'
    """

    def place(path: str) -> tuple[int, bool, str]:
        is_raw = kind_of(path) is FileKind.RAW
        name = parse_name(path) if is_raw else name_of_sidecar(path)
        return (-(name.exposure_id or 0) if name else 0, is_raw, path)

    return sorted(paths, key=place)


@dataclass
class Sweeper:
    """Lists a tree again and again, without looking into folders that are over.

    Attributes
    ----------
    camera
        Whose raws are listed; any camera's if None.
    listed_ns
        By folder, its change of names at the last listing.
    """

    camera: Camera | None = None
    listed_ns: dict[str, int] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Folders that are over although they changed lately."""

    def close(self, folder: str) -> bool:
        """Do not list a folder again until its names change; return False if they have since it was listed."""
        try:
            changed_ns = os.stat(folder).st_mtime_ns  # noqa: PTH116 - as below
        except OSError:
            return True  # it is gone
        # A moment later: clocks of file servers are coarse, and a name that came right after the listing had the same time.
        is_listed = changed_ns == self.listed_ns.get(folder) and changed_ns < time.time_ns() - SETTLING_NS
        if is_listed:
            self.closed.add(folder)
        return is_listed

    def sweep(self, folder: str, *, now_ns: int) -> list[tuple[str, Stamp]]:
        """Return raws and side-cars under a folder, with their stamps; links are followed once."""
        found: list[tuple[str, Stamp]] = []
        visited: set[tuple[int, int]] = set()
        folders = [folder]
        while folders:
            here = folders.pop()
            try:
                facts = os.stat(here)  # noqa: PTH116 - once per folder of a season
                if (facts.st_dev, facts.st_ino) in visited:
                    continue  # a link that leads back
                visited.add((facts.st_dev, facts.st_ino))
                is_over = facts.st_mtime_ns == self.listed_ns.get(here) and (
                    facts.st_mtime_ns < now_ns - QUIET_NS or here in self.closed
                )
                if not is_over:
                    self.closed.discard(here)
                self._list(here, folders, None if is_over else found)
            except OSError as error:
                if here == folder:
                    log.error("folder of raws cannot be listed", folder=here, error=str(error))
                continue  # removed while we went through, or not ours
            self.listed_ns[here] = facts.st_mtime_ns
        return found

    def _list(self, here: str, folders: list[str], found: list[tuple[str, Stamp]] | None) -> None:
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_dir():
                        folders.append(entry.path)
                    elif found is not None and kind_of(entry.name, self.camera) is not FileKind.OTHER:
                        found.append((entry.path, stamp_of(entry.stat())))
                except OSError:
                    continue  # a dangling link
