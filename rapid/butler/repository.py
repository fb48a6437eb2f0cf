"""A Butler repository, opened or made, that knows a camera.

One thread talks to it: the Butler is not safe for several. What it raises becomes ours here: `StoreError` if the
repository does not answer (worth waiting for), the Butler's own errors else.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from rapid.butler import records
from rapid.butler.middleware import daf_butler
from rapid.camera.models import Camera
from rapid.errors import ConfigurationError, StoreError
from rapid.exposure.models import ExposureInfo
from rapid.exposure.translate import band_of
from rapid.products.store import path_of

log = structlog.get_logger()

STORAGE_CLASSES: dict[str, dict[str, Any]] = {
    "RapidRaw": {
        "pytype": "astropy.io.fits.HDUList",
        "derivedComponents": {"header": "RapidHeader"},
        "delegate": "lsst.daf.butler.StorageClassDelegate",
    },
    "RapidHeader": {"pytype": "astropy.io.fits.Header"},
    "RapidFile": {"pytype": "bytes"},
    "RapidImage": {"pytype": "astropy.io.fits.HDUList", "derivedComponents": {"header": "RapidHeader"}},
    "RapidTable": {"pytype": "astropy.table.Table"},
    "RapidCalibrated": {
        "pytype": "payloads.keep.calibrated.CalibratedImage",
        "derivedComponents": {
            "image": "NumpyArray",
            "mask": "NumpyArray",
            "variance": "NumpyArray",
            "header": "RapidHeader",
        },
        "delegate": "lsst.daf.butler.StorageClassDelegate",
    },
}
FORMATTERS = {
    "RapidRaw": "rapid.butler.formatters.RawFormatter",
    "RapidHeader": "rapid.butler.formatters.RawFormatter",
    "RapidFile": "rapid.butler.formatters.FileFormatter",
    "RapidImage": "rapid.butler.formatters.RawFormatter",
    "RapidTable": "rapid.butler.formatters.TableFormatter",
    "RapidCalibrated": "rapid.butler.formatters.CalibratedFormatter",
}
OWN_CLASSES = frozenset(STORAGE_CLASSES)

RAW_DIMENSIONS = frozenset({"instrument", "exposure", "detector"})


@dataclass(frozen=True)
class RepositorySettings:
    """Where a repository is, and how it is made if it is not there.

    Attributes
    ----------
    root
        Its root: a folder, or anything else the Butler opens.
    database
        URL of the database of a new repository; SQLite below the root if empty.
    schema
        Schema of a new repository in a PostgreSQL database; the database's default if empty.
    class_name
        Python class the instrument is registered with, e.g. ``lsst.obs.lsst.LsstCam``.
    """

    root: str
    database: str = ""
    schema: str = ""
    class_name: str = ""


@dataclass
class Repository:
    """An open, writable repository.

    Attributes
    ----------
    is_new
        Whether it was made just now, by this process.
    known
        Dimension records that are there for sure, so that they are not offered again: element and key.
    """

    butler: Any
    camera: Camera
    settings: RepositorySettings
    is_new: bool = False
    known: set[tuple[str, Any]] = field(default_factory=set)
    dataset_types: dict[str, Any] = field(default_factory=dict)

    def close(self) -> None:
        """Close its connections."""
        self.butler.close()

    def dataset_type(self, name: str, dimensions: Iterable[str], storage_class: str, *, is_calib: bool = False) -> Any:
        """Return a dataset type, registered; one that is there already counts, however its data are stored.

        Raises
        ------
        ConfigurationError
            Raised if it is there with other dimensions.
        """
        if name in self.dataset_types:
            return self.dataset_types[name]
        lsst = daf_butler()
        wanted = lsst.DatasetType(
            name, tuple(dimensions), storage_class, universe=self.butler.dimensions, isCalibration=is_calib
        )
        with passing_errors():
            try:
                found = self.butler.get_dataset_type(name)
            except lsst.MissingDatasetTypeError:
                self.butler.registry.registerDatasetType(wanted)
                found = wanted
        if found.dimensions != wanted.dimensions:
            raise ConfigurationError(
                "butler_repo",
                f"its dataset type {name} is by {', '.join(found.dimensions.required)}, "
                f"not by {', '.join(wanted.dimensions.required)}",
            )
        self.dataset_types[name] = found
        return found

    def register_run(self, run: str) -> None:
        """Make a RUN collection, if it is not there."""
        if ("run", run) not in self.known:
            self.butler.collections.register(run)
            self.known.add(("run", run))

    def register_camera(self) -> None:
        """Tell the repository of the camera, if it does not know it."""
        for element, rows in records.instrument_records(self.camera, self.settings.class_name):
            self.butler.registry.insertDimensionData(element, *rows, skip_existing=True)

    def register_filter(self, physical_filter: str) -> None:
        """Tell the repository of a filter, if it does not know it."""
        if ("physical_filter", physical_filter) not in self.known:
            row = {
                "instrument": self.camera.name,
                "name": physical_filter,
                "band": band_of(physical_filter) or records.UNKNOWN_FILTER,
            }
            self.butler.registry.insertDimensionData("physical_filter", row, skip_existing=True)
            self.known.add(("physical_filter", physical_filter))

    def register_exposures(self, infos: Iterable[ExposureInfo]) -> list[tuple[str, Any]]:
        """Tell the repository of exposures; within a transaction of the caller's.

        Returns
        -------
        new : list of (element, key)
            What was told; `note_known` it once the transaction is through.
        """
        rows: dict[str, dict[Any, dict[str, Any]]] = {
            "physical_filter": {},
            "day_obs": {},
            "group": {},
            "exposure": {},
        }
        for info in infos:
            if ("exposure", info.exposure_id) in self.known or info.exposure_id in rows["exposure"]:
                continue
            rows["physical_filter"][records.filter_name(info)] = records.filter_record(info)
            rows["day_obs"][info.day_obs] = records.day_record(info) | {"timespan": day_span(info.day_obs)}
            rows["group"][records.group_name(info)] = records.group_record(info)
            rows["exposure"][info.exposure_id] = records.exposure_record(info) | {"timespan": exposure_span(info)}
        new: list[tuple[str, Any]] = []
        for element, by_key in rows.items():
            news = {key: row for key, row in by_key.items() if (element, key) not in self.known}
            if news:
                self.butler.registry.insertDimensionData(element, *news.values(), skip_existing=True)
                new += [(element, key) for key in news]
        return new

    def note_known(self, new: Iterable[tuple[str, Any]]) -> None:
        """Note that records are there."""
        if len(self.known) > 200_000:
            self.known.clear()  # months of exposures: they are merely offered once more
        self.known.update(new)


def open_repository(settings: RepositorySettings, camera: Camera) -> Repository:
    """Open a repository, made if there is none, with the camera registered.

    Raises
    ------
    ConfigurationError
        Raised if the Butler is not installed, or if the place cannot be a repository.
    StoreError
        Raised if its database or storage does not answer.
    """
    lsst = daf_butler()
    if urlsplit(settings.database).password:
        # The repository's configuration would show it to everybody who reads from it.
        raise ConfigurationError(
            "butler_db", "a password belongs in PGPASSWORD or ~/.lsst/db-auth.yaml, not in the URL"
        )
    root = str(path_of(settings.root).absolute()) if _is_local(settings.root) else settings.root
    with passing_errors():
        is_new = not lsst.Butler.has_repo_config(root) and _make(lsst, root, settings)
        butler = _open(lsst, root)
        for name in OWN_CLASSES:
            # A repository that others made does not define our storage classes.
            if name not in butler.storageClasses:
                _define_storage_class(butler, name)
        found = Repository(butler, camera, settings, is_new=is_new)
        found.register_camera()
    return found


def open_reader(root: str) -> Any:
    """Return a Butler to read a repository with.

    Raises
    ------
    ConfigurationError
        Raised if there is none.
    StoreError
        Raised if it does not answer.
    """
    lsst = daf_butler()
    with passing_errors():
        return _open(lsst, str(path_of(root).absolute()) if _is_local(root) else root, writeable=False)


def _is_local(root: str) -> bool:
    return "://" not in root or root.startswith("file:")


def _open(lsst: Any, root: str, *, writeable: bool = True) -> Any:
    try:
        return lsst.Butler.from_config(root, writeable=writeable)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise ConfigurationError("butler_repo", f"{root} is no Butler repository: {error}") from error


def _make(lsst: Any, root: str, settings: RepositorySettings) -> bool:
    """Make a repository; return whether it was us."""
    config = lsst.Config()
    config["storageClasses"] = STORAGE_CLASSES
    for name, formatter in FORMATTERS.items():
        config["datastore", "formatters", name] = formatter
    if settings.database:
        config["registry", "db"] = settings.database
    if settings.schema:
        config["registry", "namespace"] = settings.schema
    if _is_local(root):
        place = Path(root)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ConfigurationError("butler_repo", f"{root} is neither a Butler repository nor empty")
    try:
        lsst.Butler.makeRepo(root, config=config, forceConfigRoot=not settings.database)
    except FileExistsError:
        log.info("another process made the repository", root=root)
        return False
    except Exception as error:
        if _is_local(root):
            # Its configuration is written first: left behind, it would pass for a repository.
            (Path(root) / "butler.yaml").unlink(missing_ok=True)
        if isinstance(error, ValueError | KeyError | TypeError | RuntimeError | ImportError):
            raise ConfigurationError("butler_db", f"cannot make the repository: {error}") from error
        raise
    log.info("Butler repository made", root=root)
    return True


def _define_storage_class(butler: Any, name: str) -> None:
    lsst = daf_butler()
    butler.storageClasses.addFromConfig(lsst.StorageClassConfig({"storageClasses": {name: STORAGE_CLASSES[name]}}))


@contextmanager
def passing_errors() -> Iterator[None]:
    """Turn what a database or store that does not answer raises into `StoreError`."""
    from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    try:
        yield
    except (OperationalError, InterfaceError, DisconnectionError, PoolTimeoutError) as error:
        raise StoreError(f"the Butler's database: {_first_line(error)}", error=type(error).__name__) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreError(f"the Butler's database: {_first_line(error)}", error=type(error).__name__) from error
        raise
    except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
        raise  # of one file
    except OSError as error:
        raise StoreError(f"the Butler's storage: {_first_line(error)}", error=type(error).__name__) from error


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0][:300]


def day_span(day_obs: int) -> Any:
    """Return the time of an observing day: noon to noon, UTC-12 h, in TAI as the Butler counts."""
    begin = datetime.strptime(str(day_obs), "%Y%m%d").replace(tzinfo=UTC) + timedelta(hours=12)
    return _span(begin, begin + timedelta(days=1))


def exposure_span(info: ExposureInfo) -> Any:
    """Return the time of an exposure; None if its header does not tell."""
    if info.begin is None:
        return None
    begin = info.begin.replace(tzinfo=UTC)
    end = info.end.replace(tzinfo=UTC) if info.end is not None else None
    if end is None or end < begin:
        end = begin + timedelta(seconds=max(info.exposure_time_s or 0.0, 0.001))
    return _span(begin, max(end, begin + timedelta(milliseconds=1)))


def _span(begin: datetime, end: datetime) -> Any:
    from astropy.time import Time

    # Both are TAI, whatever zone they carry: a datetime has none of its own for it.
    moments = [Time(moment.replace(tzinfo=None), scale="tai") for moment in (begin, end)]
    return daf_butler().Timespan(*moments)
