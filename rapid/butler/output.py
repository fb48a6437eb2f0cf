"""Our results as datasets: calibrated images, tables, pictures, metrics and the calibs they were made with.

RUN collections per night, ``CAMERA/rapid/RUN/DAY``, chained newest first as ``CAMERA/rapid/RUN``; certified calibs in the
calibration collection ``CAMERA/calib/rapid``. ``CAMERA/rapid/defaults`` chains results, calibs and raws. A dataset type
is named after pipeline and product: ``rapid_quicklook_binned``.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from rapid.butler.middleware import daf_butler
from rapid.butler.repository import FORMATTERS, Repository, passing_errors
from rapid.errors import NotFoundError
from rapid.exposure.models import ExposureInfo
from rapid.results.models import DetectorResult, ExposureSummary

log = structlog.get_logger()

OUTPUT_FORMATTERS = {**FORMATTERS, "StructuredDataDict": "lsst.daf.butler.formatters.json.JsonFormatter"}
CLASS_OF = {"fits": "RapidImage", "fits.fz": "RapidImage"}
"""Storage class by the ending of a product; JSON is a table or a document, anything else bytes."""
PROMPT = "prompt"
CALIBRATED = "calibrated"
"""The product that is a calibrated image with mask and variance, at full size."""
MAX_PENDING_BYTES = 128 * 1024 * 1024
"""Put at a time: the images of a large camera's exposure are gigabytes, and wait in a temporary folder."""

_NO_NAME = re.compile(r"\W+")
DETECTOR = ("instrument", "exposure", "detector")
EXPOSURE = ("instrument", "exposure")


@dataclass(frozen=True)
class Piece:
    """One dataset to put.

    Attributes
    ----------
    load
        Returns its file's bytes; `NotFoundError` if it is gone.
    """

    dataset_type: str
    dimensions: tuple[str, ...]
    storage_class: str
    detector: int | None
    extension: str
    load: Callable[[], bytes]


def collection_of(camera: str, run: str, day_obs: int | None = None) -> str:
    """Return the collection of a night's results, or of all nights'.

    Examples
    --------
    >>> collection_of("LSSTCam", "prompt", 20261120), collection_of("LSSTCam", "prompt")
    ('LSSTCam/rapid/prompt/20261120', 'LSSTCam/rapid/prompt')
    """
    name = f"{camera}/rapid/{run}"
    return name if day_obs is None else f"{name}/{day_obs}"


def pieces_of(summary: ExposureSummary, results: Sequence[DetectorResult], load: Callable[[str], bytes]) -> list[Piece]:
    """Return everything of a summary and its detectors that becomes a dataset.

    Parameters
    ----------
    load
        Returns a product's bytes by its key.
    """
    document = summary.model_dump(mode="json")
    found = [_document(summary.pipeline, "summary", EXPOSURE, None, document)]
    for kind, key in sorted(summary.products.items()):
        found.append(_product(summary.pipeline, f"summary_{kind}", EXPOSURE, None, key, load))
    for result in results:
        facts = {
            "metrics": result.metrics,
            "amps": result.amps,
            "provenance": result.provenance.model_dump(mode="json"),
            "run": result.run,
            "pipeline": result.pipeline,
        }
        found.append(_document(summary.pipeline, "metrics", DETECTOR, result.detector, facts))
        for kind, key in sorted(result.products.items()):
            found.append(_product(summary.pipeline, kind, DETECTOR, result.detector, key, load))
    return found


def _document(
    pipeline: str, kind: str, dimensions: tuple[str, ...], detector: int | None, document: dict[str, Any]
) -> Piece:
    text = json.dumps(document, sort_keys=True, allow_nan=False).encode()
    return Piece(_type_name(pipeline, kind), dimensions, "StructuredDataDict", detector, ".json", lambda: text)


def _product(
    pipeline: str,
    kind: str,
    dimensions: tuple[str, ...],
    detector: int | None,
    key: str,
    load: Callable[[str], bytes],
) -> Piece:
    name = key.rsplit("/", 1)[-1]
    extension = name.partition(".")[2].removeprefix(f"{kind}.") if "." in name else ""
    extension = "fits.fz" if extension.endswith("fits.fz") else extension.rpartition(".")[2]
    storage_class = CLASS_OF.get(extension, "RapidFile")
    if kind == CALIBRATED and storage_class == "RapidImage":
        storage_class = "RapidCalibrated"
    if extension == "json":
        storage_class = "StructuredDataDict" if kind.endswith("provenance") else "RapidTable"
    return Piece(
        _type_name(pipeline, kind),
        dimensions,
        storage_class,
        detector,
        f".{extension}" if extension else "",
        lambda: load(key),
    )


def _type_name(pipeline: str, kind: str) -> str:
    return _NO_NAME.sub("_", f"rapid_{pipeline}_{kind}")


class ResultsShelf:
    """Puts results into a repository. Called from one thread."""

    def __init__(self, repository: Repository) -> None:
        self.repository = self._repository = repository
        self._butler = repository.butler
        self._chained: set[str] = set()

    def put_exposure(self, summary: ExposureSummary, pieces: Sequence[Piece]) -> int:
        """Put an exposure's datasets; what is there with the same content stays. Return how many are new.

        Raises
        ------
        StoreError
            Raised if the repository does not answer.
        Exception
            Raised by the Butler for what it cannot take.
        """
        run = collection_of(summary.camera, summary.run, summary.day_obs)
        with passing_errors():
            self._repository.register_run(run)
            new = self._repository.register_exposures([info_of(summary)])
            self._repository.note_known(new)
            n_new = sum(self._put_some(summary, some, run) for some in self._by_size(pieces))
            self.chain(collection_of(summary.camera, summary.run), run)
            defaults = f"{summary.camera}/rapid/defaults"
            # A campaign's results stand beside the night's, and take nobody's place: who wants them names their run.
            for child in (collection_of(summary.camera, PROMPT), f"{summary.camera}/raw/all"):
                if ("run", child) in self._repository.known or self._exists(child):
                    self.chain(defaults, child, last=True)
        return n_new

    def _by_size(self, pieces: Sequence[Piece]) -> Iterator[list[tuple[Piece, bytes]]]:
        """Yield pieces with their bytes, as many at a time as may be in hand; those whose file is gone are left out."""
        some: list[tuple[Piece, bytes]] = []
        size = 0
        for piece in pieces:
            try:
                data = piece.load()
            except NotFoundError as error:
                log.warning("a product is gone and is left out", dataset_type=piece.dataset_type, error=error.message)
                continue
            some.append((piece, data))
            size += len(data)
            if size >= MAX_PENDING_BYTES:
                yield some
                some, size = [], 0
        yield some

    def _put_some(self, summary: ExposureSummary, pieces: Sequence[tuple[Piece, bytes]], run: str) -> int:
        """Put some datasets of an exposure; return how many are new."""
        with tempfile.TemporaryDirectory(prefix="rapid-butler-") as folder:
            datasets = []
            for number, (piece, data) in enumerate(pieces):
                data_id = {"instrument": summary.camera, "exposure": summary.exposure}
                if piece.detector is not None:
                    data_id["detector"] = piece.detector
                ref = self.ref_of(piece.dataset_type, piece.dimensions, piece.storage_class, data_id, run)
                if self._has(ref, data):
                    continue
                path = Path(folder) / f"{number}{piece.extension}"
                path.write_bytes(data)
                formatter = OUTPUT_FORMATTERS[piece.storage_class]
                datasets.append(daf_butler().FileDataset(path=str(path), refs=[ref], formatter=formatter))
            if datasets:
                self._butler.ingest(*datasets, transfer="move")
        return len(datasets)

    def ref_of(
        self, name: str, dimensions: tuple[str, ...], storage_class: str, data_id: dict[str, Any], run: str, **more: Any
    ) -> Any:
        """Return the reference of a dataset, its type registered; the same one for the same run and data id."""
        lsst = daf_butler()
        kind = self._repository.dataset_type(name, dimensions, storage_class, **more)
        return lsst.DatasetRef(
            kind,
            lsst.DataCoordinate.standardize(data_id, dimensions=kind.dimensions),
            run=run,
            id_generation_mode=lsst.DatasetIdGenEnum.DATAID_TYPE_RUN,
        )

    def _has(self, ref: Any, data: bytes) -> bool:
        """Whether a dataset is there with this content; one with another content is removed."""
        if not self._butler._datastore.knows(ref):
            return False
        try:
            if self._butler.getURI(ref).read() == data:
                return True
        except FileNotFoundError:
            log.warning("a dataset's file was lost and is put again", dataset=str(ref))
        self._butler.pruneDatasets([ref], disassociate=True, unstore=True, purge=True)
        return False

    def _exists(self, collection: str) -> bool:
        try:
            return bool(self._butler.collections.query(collection))
        except daf_butler().MissingCollectionError:
            return False

    def chain(self, name: str, child: str, *, last: bool = False) -> None:
        """Make a collection part of a chain, newest first."""
        if f"{name}>{child}" in self._chained:
            return
        collections = self._butler.collections
        collections.register(name, daf_butler().CollectionType.CHAINED)
        children = list(collections.get_info(name).children)
        if child not in children:
            children = [*children, child] if last else sorted([child, *children], reverse=True)
            collections.redefine_chain(name, children)
        self._chained.add(f"{name}>{child}")


def info_of(summary: ExposureSummary) -> ExposureInfo:
    """Return the facts of a summary's exposure, as far as it has them."""
    place = {"detector": 0, "detector_name": "", "is_guider": False}
    try:
        return ExposureInfo.model_validate({**summary.info, **place})
    except ValidationError:
        return ExposureInfo(
            camera=summary.camera,
            exposure_id=summary.exposure,
            obs_id=str(summary.exposure),
            controller="O",
            day_obs=summary.day_obs,
            seq_num=summary.seq_num,
            image_type=summary.image_type,
            detector=0,
            detector_name="",
        )
