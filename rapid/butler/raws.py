"""Raws in a repository: what is there, ingest what is not, replace what was written anew.

A raw's dataset id follows from what it is (`DATAID_TYPE_RUN`): ingested twice, it is there once. Files stay where
they are unless told otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog

from rapid.butler.middleware import daf_butler
from rapid.butler.place import from_butler, to_butler
from rapid.butler.repository import OWN_CLASSES, RAW_DIMENSIONS, Repository, passing_errors
from rapid.exposure.models import ExposureInfo

log = structlog.get_logger()

RAW = "raw"
GUIDER = "guider_raw"


class Transfer(StrEnum):
    """What becomes of an ingested file."""

    DIRECT = "direct"
    """It stays where it is; the repository notes where."""

    COPY = "copy"
    LINK = "link"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    MOVE = "move"


class Ingested(StrEnum):
    """What became of a raw that was ingested."""

    NEW = "new"
    ALREADY = "already"
    """It was there: success, too."""

    REPLACED = "replaced"
    """Another file of the same detector and exposure was there; this one is now."""


@dataclass(frozen=True)
class RawFile:
    """A raw to ingest.

    Attributes
    ----------
    uri
        Where it is, in our words.
    replaces
        Whether it was seen to take another file's place.
    """

    uri: str
    info: ExposureInfo
    size_bytes: int
    replaces: bool = False


class RawShelf:
    """The raws of one RUN collection.

    Parameters
    ----------
    formatter
        Class that reads raws, for a repository whose ``raw`` is of another storage class than ours; else the
        repository knows.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        run: str,
        transfer: Transfer = Transfer.DIRECT,
        formatter: str = "",
    ) -> None:
        self._repository = repository
        self._run = run
        self._transfer = transfer
        self._formatter = formatter or None
        lsst = daf_butler()
        self._file_dataset = lsst.FileDataset
        self._dataset_ref = lsst.DatasetRef
        self._coordinate = lsst.DataCoordinate
        self._by_what = lsst.DatasetIdGenEnum.DATAID_TYPE_RUN
        self._types = {
            is_guider: repository.dataset_type(name, sorted(RAW_DIMENSIONS), "RapidRaw")
            for is_guider, name in ((False, RAW), (True, GUIDER))
        }
        with passing_errors():
            repository.register_run(run)

    @property
    def run(self) -> str:
        """The RUN collection."""
        return self._run

    def ref(self, info: ExposureInfo) -> Any:
        """Return the reference of a raw, whether it is there or not."""
        data_id = self._coordinate.standardize(
            instrument=info.camera,
            exposure=info.exposure_id,
            detector=info.detector,
            dimensions=self._types[info.is_guider].dimensions,
        )
        return self._dataset_ref(self._types[info.is_guider], data_id, run=self._run, id_generation_mode=self._by_what)

    def ingest(self, raws: Sequence[RawFile]) -> list[Ingested]:
        """Ingest raws of different detectors or exposures, all or none.

        Raises
        ------
        StoreError
            Raised if the repository does not answer.
        FileNotFoundError
            Raised if a file is gone.
        Exception
            Raised by the Butler for what it cannot take, e.g. an exposure that contradicts one that is there.
        """
        butler = self._repository.butler
        refs = [self.ref(raw.info) for raw in raws]
        with passing_errors():
            outcomes, stale = self._compare(raws, refs)
            news = [
                self._file_dataset(
                    path=to_butler(raw.uri),
                    refs=[ref],
                    formatter=None if ref.datasetType.storageClass_name in OWN_CLASSES else self._formatter,
                )
                for raw, ref, outcome in zip(raws, refs, outcomes, strict=True)
                if outcome is not Ingested.ALREADY
            ]
            if not news:
                return outcomes
            if stale:
                # Their entries go; the files, which are not the repository's, stay.
                butler.pruneDatasets(stale, disassociate=True, unstore=True, purge=True)
            with butler.transaction():
                new = self._repository.register_exposures(raw.info for raw in raws)
                butler.ingest(*news, transfer=self._transfer.value, skip_existing=True)
            self._repository.note_known(new)
        return outcomes

    def _compare(self, raws: Sequence[RawFile], refs: Sequence[Any]) -> tuple[list[Ingested], list[Any]]:
        """Return what each raw is to the repository, and the references of what has to go."""
        butler = self._repository.butler
        known = butler._datastore.knows_these(refs)  # the public way looks at every file
        outcomes: list[Ingested] = []
        stale: list[Any] = []
        for raw, ref in zip(raws, refs, strict=True):
            if not known[ref]:
                outcomes.append(Ingested.NEW)
                continue
            there = butler._datastore.getStoredItemsInfo(ref)[0]
            is_here = _is_same_place(there.path, raw.uri)
            is_changed = there.file_size >= 0 and there.file_size != raw.size_bytes
            if is_changed and (is_here or raw.replaces):
                outcomes.append(Ingested.REPLACED)
                stale.append(ref)
                log.warning("raw in the repository is replaced", uri=raw.uri, was=there.path)
            else:
                outcomes.append(Ingested.ALREADY)
        return outcomes, stale

    def uris(self, refs: Sequence[Any]) -> list[str]:
        """Return where datasets are, in our words."""
        if not refs:
            return []
        with passing_errors():
            found = self._repository.butler.get_many_uris(refs)
            return [from_butler(str(found[ref].primaryURI)) for ref in refs]


def _is_same_place(path: str, uri: str) -> bool:
    # A path without a scheme is relative to the datastore: the file was copied, or moved.
    return "://" not in path or path == to_butler(uri)
