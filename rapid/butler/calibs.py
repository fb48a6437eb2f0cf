"""Certified calibs as datasets, and in the calibration collection for the time in which each is the choice.

``CAMERA/calib/rapid`` is made to say what our registry says: what is withdrawn leaves it, what begins later ends what
was before, what comes back takes its place again. Datasets stay in their RUN collection, as results were made with them.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from rapid.butler.middleware import daf_butler
from rapid.butler.output import OUTPUT_FORMATTERS, ResultsShelf
from rapid.butler.repository import passing_errors
from rapid.butler.validity import choose_spans
from rapid.errors import NotFoundError
from rapid.results.models import CalibRecord

log = structlog.get_logger()


class CalibShelf:
    """Puts calibs into a repository. Called from one thread.

    Parameters
    ----------
    shelf
        Of results: names and chains are made by it.
    load
        Returns a calib's file; raises `NotFoundError` if it is gone.
    """

    def __init__(self, shelf: ResultsShelf, load: Callable[[CalibRecord], bytes]) -> None:
        self._shelf = shelf
        self._repository = shelf.repository
        self._butler = shelf.repository.butler
        self._load = load

    def put(self, record: CalibRecord) -> Any:
        """Put a calib, whatever its state; return its dataset, None if its file is gone.

        Raises
        ------
        StoreError
            Raised if the repository does not answer.
        Exception
            Raised by the Butler for what it cannot take.
        """
        lsst = daf_butler()
        with passing_errors():
            ref = self._ref(record)
            if self._butler._datastore.knows(ref):
                return ref
            try:
                data = self._load(record)
            except NotFoundError as error:
                log.warning("a calib is gone and is left out", calib_id=record.calib_id, error=error.message)
                return None
            with tempfile.TemporaryDirectory(prefix="rapid-butler-") as folder:
                path = Path(folder) / "calib.fits"
                path.write_bytes(data)
                dataset = lsst.FileDataset(path=str(path), refs=[ref], formatter=OUTPUT_FORMATTERS["RapidImage"])
                self._butler.ingest(dataset, transfer="move")
        return ref

    def _ref(self, record: CalibRecord) -> Any:
        dimensions: tuple[str, ...] = ("instrument", "detector")
        data_id: dict[str, Any] = {"instrument": record.camera, "detector": record.detector}
        if record.physical_filter is not None:
            self._repository.register_filter(record.physical_filter)
            dimensions += ("physical_filter",)
            data_id["physical_filter"] = record.physical_filter
        run = f"{record.camera}/calib/rapid/{record.valid_from:%Y%m%dT%H%M%S}/v{record.version}"
        self._repository.register_run(run)
        return self._shelf.ref_of(f"rapid_{record.kind}", dimensions, "RapidImage", data_id, run, is_calib=True)

    def certify(self, records: Sequence[CalibRecord], like: CalibRecord) -> bool:
        """Make the calibration collection say what the registry says of one kind, detector and filter.

        Parameters
        ----------
        records
            All that are certified, in any order; none takes all that are there out of the collection.
        like
            One of that kind, detector and filter, whatever its state.

        Returns
        -------
        changed
            Whether the collection said something else.

        Raises
        ------
        StoreError
            Raised if the repository does not answer.
        Exception
            Raised by the Butler for what it cannot take.
        """
        lsst = daf_butler()
        by_id = {record.calib_id: record for record in records}
        collection = f"{like.camera}/calib/rapid"
        wanted = []
        for span in choose_spans(records):
            ref = self.put(by_id[span.calib_id])
            if ref is not None:
                wanted.append((ref, lsst.Timespan(_time(span.begin), None if span.end is None else _time(span.end))))
        with passing_errors():
            kind = self._ref(like)
            self._butler.collections.register(collection, lsst.CollectionType.CALIBRATION)
            registry = self._butler.registry
            # A clause on the detector would be the database's; this interface has none. A year's are some thousands.
            there = {
                (one.ref.id, one.timespan)
                for one in registry.queryDatasetAssociations(
                    kind.datasetType, collections=collection, collectionTypes={lsst.CollectionType.CALIBRATION}
                )
                if one.ref.dataId == kind.dataId
            }
            is_changed = there != {(ref.id, span) for ref, span in wanted}
            if is_changed:
                with self._butler.transaction():
                    if there:
                        always = lsst.Timespan(None, None)
                        registry.decertify(collection, kind.datasetType.name, always, dataIds=[kind.dataId])
                    for ref, span in wanted:
                        registry.certify(collection, [ref], span)
            self._shelf.chain(f"{like.camera}/rapid/defaults", collection, last=True)
        return is_changed


def _time(moment: Any) -> Any:
    from astropy.time import Time

    return Time(moment, scale="tai")
