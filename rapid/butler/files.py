"""Files of any kind as datasets of a repository, by observing day and group."""

from dataclasses import dataclass

from rapid.butler.middleware import daf_butler
from rapid.butler.place import to_butler
from rapid.butler.raws import Transfer
from rapid.butler.records import MAX_NAME
from rapid.butler.repository import Repository, day_span, passing_errors


@dataclass(frozen=True)
class PlainFile:
    """A file to ingest.

    Attributes
    ----------
    group
        What tells files of one type and day apart.
    """

    uri: str
    dataset_type: str
    storage_class: str
    formatter: str
    run: str
    day_obs: int
    group: str


def ingest_file(repository: Repository, file: PlainFile, *, transfer: Transfer = Transfer.DIRECT) -> bool:
    """Ingest a file; return whether it is new: one that is there already is success, too.

    Raises
    ------
    StoreError
        Raised if the repository does not answer.
    FileNotFoundError
        Raised if the file is gone.
    Exception
        Raised by the Butler for what it cannot take.
    """
    lsst = daf_butler()
    butler, camera = repository.butler, repository.camera.name
    kind = repository.dataset_type(file.dataset_type, ("instrument", "day_obs", "group"), file.storage_class)
    # The end of a long name tells more than its beginning.
    data_id = {"instrument": camera, "day_obs": file.day_obs, "group": file.group[-MAX_NAME:]}
    ref = lsst.DatasetRef(
        kind,
        lsst.DataCoordinate.standardize(data_id, dimensions=kind.dimensions),
        run=file.run,
        id_generation_mode=lsst.DatasetIdGenEnum.DATAID_TYPE_RUN,
    )
    with passing_errors():
        repository.register_run(file.run)
        is_new = not butler._datastore.knows(ref)  # the public way looks at the file
        registry = butler.registry
        registry.insertDimensionData(
            "day_obs",
            {"instrument": camera, "id": file.day_obs, "timespan": day_span(file.day_obs)},
            skip_existing=True,
        )
        registry.insertDimensionData("group", {"instrument": camera, "name": data_id["group"]}, skip_existing=True)
        dataset = lsst.FileDataset(path=to_butler(file.uri), refs=[ref], formatter=file.formatter or None)
        butler.ingest(dataset, transfer=transfer.value, skip_existing=True)
    return is_new
