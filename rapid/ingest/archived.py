"""What a repository has already, so that a restart reads no header twice.

A raw's name tells whose it is; the repository knows from which file, and of what size, it has that raw: nothing is
remembered beside it. A raw that is in but was not told of is no such raw: whoever was killed between the two steps
left it to the next process (invariant I1).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from rapid.butler.middleware import daf_butler
from rapid.butler.place import from_butler
from rapid.butler.repository import open_reader, passing_errors
from rapid.camera.models import Camera
from rapid.errors import RapidError
from rapid.exposure.formats import parse_name
from rapid.ingest.store import TOLD_EXPIRE_S

log = structlog.get_logger()

N_EXPOSURES = 64
"""Exposures that are remembered: a listing goes through them one after the other."""

KINDS = ("raw", "guider_raw")

_Files = dict[str, int]
"""Size of every file of an exposure that need not be looked at [bytes], by where it is."""


class Archive:
    """The files of a repository, asked one by one. Safe for threads; each answer is quick but the first of an exposure.

    Parameters
    ----------
    root
        Root of the repository.
    run
        RUN collection of the raws.
    told
        Returns which detectors of an exposure were told to be in, lately, of a dataset type. May raise `RapidError`.
    """

    def __init__(self, root: str, camera: Camera, *, run: str, told: Callable[[int, str], frozenset[int]]) -> None:
        self._root = root
        self._camera = camera
        self._run = run
        self._told = told
        self._exposures: OrderedDict[int, _Files] = OrderedDict()
        self._lock = threading.Lock()
        self._butler: Any = None

    def holds(self, uri: str, size_bytes: int) -> bool:
        """Return whether a file is in, just so, and everybody was told; False if that cannot be found out."""
        name = parse_name(uri)
        if name is None or name.exposure_id is None:
            return False
        with self._lock:
            files = self._exposures.get(name.exposure_id)
            if files is None:
                try:
                    files = self._read(name.exposure_id)
                except RapidError as error:
                    log.info("the repository does not tell what it has; headers are read", error=error.message)
                    return False
                self._exposures[name.exposure_id] = files
                while len(self._exposures) > N_EXPOSURES:
                    self._exposures.popitem(last=False)
        return files.get(uri) == size_bytes

    def close(self) -> None:
        """Close the repository."""
        with self._lock:
            if self._butler is not None:
                self._butler.close()
            self._butler = None

    def _read(self, exposure_id: int) -> _Files:
        with passing_errors():
            if self._butler is None:
                self._butler = open_reader(self._root)
            return {uri: size for kind in KINDS for uri, size in self._files(kind, exposure_id).items()}

    def _files(self, kind: str, exposure_id: int) -> _Files:
        refs = self._refs(kind, exposure_id)
        if not refs:
            return {}
        # What was told longer ago is forgotten on the board: nobody waits for it.
        before = datetime.now(UTC) - timedelta(seconds=TOLD_EXPIRE_S)
        old = {ref.id for ref in self._refs(kind, exposure_id, before=before)}
        told = self._told(exposure_id, kind) if len(old) < len(refs) else frozenset()
        done = {ref.id: ref for ref in refs if ref.id in old or ref.dataId["detector"] in told}
        # One query for all; the public way looks at every file.
        found = self._butler._datastore._get_stored_records_associated_with_refs(list(done.values()))
        # A path without a scheme is relative to the repository: a copy, which tells nothing of where it came from.
        return {
            from_butler(str(info.path)): int(info.file_size)
            for infos in found.values()
            for info in infos
            if "://" in str(info.path)
        }

    def _refs(self, kind: str, exposure_id: int, *, before: datetime | None = None) -> list[Any]:
        lsst = daf_butler()
        where = f"{kind}.ingest_date < before" if before is not None else ""
        try:
            refs: list[Any] = self._butler.query_datasets(
                kind,
                collections=self._run,
                data_id={"instrument": self._camera.name, "exposure": exposure_id},
                where=where,
                bind={"before": before} if before is not None else None,
                limit=None,
                explain=False,
            )
        except (lsst.MissingDatasetTypeError, lsst.MissingCollectionError, lsst.DimensionValueError):
            return []  # nothing of the kind has been ingested
        return refs
