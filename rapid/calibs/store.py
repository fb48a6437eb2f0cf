"""Keep calibs, and choose the one an exposure gets.

A calib is a plain, uncompressed FITS file (`rapid.calibs.file`): readable anywhere, written whole, never changed. Its row in the results store says for when it
is valid, and has the checksum of the whole file. FITS floats are big-endian, which compiled kernels cannot
map; so beside each file lie native-endian ``.npy`` copies of its planes, made once from a file whose
checksum was verified, made again if one is missing or damaged, and memory-mapped by all workers of a
machine: they share one copy of the pages.
"""

import hashlib
import io
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from payloads.plugin import CalibPlane
from rapid.calibs.file import CalibFacts, read_planes, read_table, write_calib
from rapid.errors import ConfigurationError, NotFoundError, StoreError
from rapid.exposure.models import ExposureInfo
from rapid.products.directory import DirectoryStore
from rapid.results.models import CalibRecord, CalibState, Provenance
from rapid.results.store import ResultsStore

_NAME = re.compile(r"^[A-Za-z0-9_~.-]+$")
PER_FILTER = frozenset({"flat"})
"""Kinds that exist once per filter."""
PAGE_PIXELS = 1024
"""float32 pixels in a page of memory: 4 KiB."""


def calib_id_of(
    kind: str, camera: str, detector: int, physical_filter: str | None, begin: datetime, version: int
) -> str:
    """Return the readable identity of a calib.

    Examples
    --------
    >>> calib_id_of("flat", "LSSTCam", 94, "r_57", datetime(2026, 11, 20, 20, 1), 1)
    'LSSTCam-094-flat-r_57-20261120T200100-v1'
    """
    filter_part = f"-{physical_filter}" if physical_filter else ""
    return f"{camera}-{detector:03d}-{kind}{filter_part}-{begin:%Y%m%dT%H%M%S}-v{version}"


@dataclass(frozen=True)
class Verified:
    """What the verification of a new calib found, in the words of the registry.

    Attributes
    ----------
    document
        A `rapid.verification.models.Verification`, as it is stored.
    """

    outcome: str
    is_success: bool
    failures: tuple[str, ...]
    document: Mapping[str, Any]
    reason: str = ""


class CalibStore:
    """Calibs of one installation.

    Parameters
    ----------
    root
        Directory of the files; may be shared between workers.
    results
        Where the registry rows are.
    """

    def __init__(self, root: Path, results: ResultsStore) -> None:
        self.root = root.absolute()
        # Durable: a calib that is registered must outlive a power cut.
        self._files = DirectoryStore(root, durable=True)
        self._results = results

    def certify(
        self,
        *,
        kind: str,
        camera: str,
        detector: int,
        image: NDArray[np.float32],
        valid_from: datetime,
        physical_filter: str | None = None,
        variance: NDArray[np.float32] | None = None,
        counts: NDArray[np.integer[Any]] | None = None,
        table: Mapping[str, Mapping[str, float]] | None = None,
        valid_to: datetime | None = None,
        inputs: list[int] | None = None,
        certified_by: str = "policy",
        note: str = "",
        provenance: Provenance | None = None,
        verified: Verified | None = None,
    ) -> CalibRecord:
        """Store a calib and register it as the choice from ``valid_from`` on, if its verification lets it.

        One that failed is kept and registered as rejected: listed and shown, and never chosen.

        Certifying the same pixels for the same validity again returns the first record, so that a build
        that ran twice has one effect (I3). Other pixels make a new version; earlier ones stay.

        Parameters
        ----------
        image : ndarray of shape (height, width), float32
            bias: electron; dark: electron/s; flat: dimensionless.
        variance : ndarray of shape (height, width), float32
            In the image's unit squared.
        counts : ndarray of shape (height, width), integer
            Exposures that each pixel is the mean of.
        table
            Per-amp numbers, by amp name.
        provenance
            How it was built. Goes into header and registry: without it nobody can tell what a bad input has touched.
        verified
            What its verification found; None certifies without.

        Raises
        ------
        ConfigurationError
            Raised for a name that could not be part of a file name.
        StoreError
            Raised if the file cannot be written or the row not registered.
        """
        for field, value in (("kind", kind), ("camera", camera), ("physical_filter", physical_filter or "none")):
            if not _NAME.match(value):
                raise ConfigurationError(field, f"{value!r} is no name for a calib")
        if image.ndim != 2 or (variance is not None and variance.shape != image.shape):
            raise ConfigurationError("image", "a calib is a picture, and its variance has the same shape")
        if not np.isfinite(image).all():
            raise ConfigurationError("image", "a calib may not hold NaN or infinite pixels")
        # Whole seconds, as in the id: two calibs of one second are versions of one another.
        begin = valid_from.replace(microsecond=0)
        facts = CalibFacts(
            kind=kind,
            camera=camera,
            detector=detector,
            valid_from=begin,
            physical_filter=physical_filter,
            table=table or {},
            inputs=tuple(inputs or ()),
            provenance=provenance,
        )
        data = write_calib(facts, image, variance, counts)
        checksum = hashlib.sha256(data).hexdigest()
        # Named by content: whoever certifies other pixels at the same moment writes another file.
        folder = f"{camera}/{kind}/{physical_filter or 'none'}/{detector:03d}"
        path = f"{folder}/{begin:%Y%m%dT%H%M%S}-{checksum[:12]}.fits"
        self._files.put(path, data, content_type="application/fits")
        created_at = datetime.now(UTC)

        def record_of(version: int) -> CalibRecord:
            return CalibRecord(
                calib_id=calib_id_of(kind, camera, detector, physical_filter, begin, version),
                camera=camera,
                detector=detector,
                kind=kind,
                physical_filter=physical_filter,
                valid_from=begin,
                valid_to=valid_to,
                version=version,
                path=path,
                sha256=checksum,
                inputs=sorted(inputs or []),
                created_at=created_at,
                certified_by=certified_by,
                note=note,
                provenance=provenance,
                state=CalibState.CERTIFIED if verified is None or verified.is_success else CalibState.REJECTED,
                state_reason="" if verified is None else verified.reason,
                outcome=verified.outcome if verified else None,
                failures=list(verified.failures) if verified else [],
                verification=dict(verified.document) if verified else None,
            )

        return self._results.add_calib(record_of)

    def choose(
        self,
        camera: str,
        detector: int,
        kind: str,
        *,
        at: datetime,
        physical_filter: str | None = None,
        as_of: datetime | None = None,
    ) -> CalibRecord | None:
        """Return the calib that an exposure taken at a time gets, or None.

        Of those valid then, the one whose validity began last; of its versions the newest.
        """
        wanted = (physical_filter or "") if kind in PER_FILTER else ""
        found = self._results.calibs(camera, kind=kind, detector=detector, physical_filter=wanted, at=at, as_of=as_of)
        return found[0] if found else None

    def load(self, record: CalibRecord) -> CalibPlane:
        """Return a calib's planes, the image memory-mapped.

        Raises
        ------
        NotFoundError
            Raised if its file is gone.
        StoreError
            Raised if the file does not hold what was certified.
        """
        source = self.root / record.path
        shape, table, names = self._read_head(record, source)
        planes: dict[str, NDArray[np.float32]] = {}
        for plane in names:
            mapped = source.with_name(f"{source.stem}.{plane}.npy")
            found = _map(mapped, shape)
            if found is None:
                self._make_mapped(record, source)
                found = _map(mapped, shape)
            if found is None:
                raise StoreError(f"calib {record.calib_id}: {mapped} cannot be mapped", calib_id=record.calib_id)
            planes[plane] = found
        return CalibPlane(calib_id=record.calib_id, image=planes["image"], variance=planes.get("variance"), table=table)

    @staticmethod
    def _read_head(
        record: CalibRecord, source: Path
    ) -> tuple[tuple[int, int], dict[str, dict[str, float]], tuple[str, ...]]:
        """Return the image's shape, the numbers per amp, and which planes there are."""
        try:
            with fits.open(source) as hdus:
                header = hdus[0].header
                names = ("image", "variance") if "VARIANCE" in hdus else ("image",)
                return (int(header["NAXIS2"]), int(header["NAXIS1"])), read_table(hdus), names
        except FileNotFoundError as error:
            raise NotFoundError("calib file", record.path) from error
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise StoreError(f"calib {record.calib_id} cannot be read: {error}", calib_id=record.calib_id) from error

    def _make_mapped(self, record: CalibRecord, source: Path) -> None:
        """Make the native copies of a file that holds what was certified."""
        data = source.read_bytes()
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise StoreError(f"calib {record.calib_id}: its file does not hold what was certified")
        for plane, pixels in read_planes(data).items():
            buffer = io.BytesIO()
            np.save(buffer, pixels, allow_pickle=False)
            mapped = source.with_name(f"{source.stem}.{plane}.npy")
            self._files.put(
                mapped.relative_to(self.root).as_posix(), buffer.getvalue(), content_type="application/octet-stream"
            )


def _map(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return a native copy, memory-mapped read-only; None if it is missing or not what it should be."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if mapped.shape != shape or mapped.dtype != np.dtype(np.float32):
        return None
    return np.asarray(mapped)


class CalibCache:
    """Calibs loaded by one worker, looked up again only when something was certified since.

    Parameters
    ----------
    store
        Where calibs are.
    max_loaded
        Planes kept; the least recently used goes first. Mapped pages belong to the system's cache.
    """

    def __init__(self, store: CalibStore, results: ResultsStore, *, max_loaded: int = 64) -> None:
        self._store = store
        self._results = results
        self._max_loaded = max_loaded
        self._generation = -1
        self._choices: dict[tuple[Any, ...], CalibRecord | None] = {}
        self._loaded: OrderedDict[str, CalibPlane] = OrderedDict()

    def refresh(self) -> None:
        """Ask once, per job, whether anything was certified since."""
        generation = self._results.calib_generation()
        if generation != self._generation:
            self._choices.clear()
            self._generation = generation

    def get(self, info: ExposureInfo, kind: str) -> CalibPlane | None:
        """Return the calib of a kind for an exposure's detector, or None."""
        at = info.begin or datetime.now(UTC).replace(tzinfo=None)
        key = (info.camera, info.detector, kind, info.physical_filter if kind in PER_FILTER else None, at)
        if key not in self._choices:
            if len(self._choices) > 10_000:
                self._choices.clear()
            self._choices[key] = self._store.choose(
                info.camera, info.detector, kind, at=at, physical_filter=info.physical_filter
            )
        record = self._choices[key]
        return None if record is None else self._load(record)

    def _load(self, record: CalibRecord) -> CalibPlane:
        plane = self._loaded.get(record.calib_id)
        if plane is None:
            plane = self._loaded[record.calib_id] = self._store.load(record)
            while len(self._loaded) > self._max_loaded:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(record.calib_id)
        return plane

    def prepare(self, record: CalibRecord) -> bool:
        """Load a calib before it is needed, its pixels read into memory; return whether it was not loaded before.

        Raises
        ------
        NotFoundError, StoreError
            Raised as by `CalibStore.load`.
        """
        is_new = record.calib_id not in self._loaded
        plane = self._load(record)
        for pixels in (plane.image, plane.variance):
            if pixels is not None:
                pixels.reshape(-1)[::PAGE_PIXELS].max(initial=0.0)  # a mapped page is read when it is touched
        return is_new

    def let_go(self, calib_ids: Iterable[str]) -> None:
        """Forget calibs that were prepared and are not wanted after all."""
        for calib_id in calib_ids:
            self._loaded.pop(calib_id, None)


class FrameCalibs:
    """The calib source of one frame: what payloads see as `payloads.plugin.Calibs`."""

    def __init__(self, cache: CalibCache, info: ExposureInfo) -> None:
        self._cache = cache
        self._info = info

    def get(self, kind: str) -> CalibPlane | None:
        """Return the certified calib of a kind for this frame, or None."""
        return self._cache.get(self._info, kind)


class PinnedCalibs:
    """Named calibs, whatever a look-up would choose now: to measure an image once more that was made with them.

    Parameters
    ----------
    chosen
        Calib id by kind; there is no other kind.
    """

    def __init__(self, store: CalibStore, results: ResultsStore, camera: str, chosen: Mapping[str, str]) -> None:
        self._store = store
        self._results = results
        self._camera = camera
        self._chosen = dict(chosen)

    def get(self, kind: str) -> CalibPlane | None:
        """Return the calib of a kind, or None if none was named."""
        calib_id = self._chosen.get(kind)
        return None if calib_id is None else self._store.load(self._results.calib(self._camera, calib_id))
