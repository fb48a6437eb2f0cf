"""How the datasets of our storage classes are read from files, and written to them.

A repository's datastore names these classes; whoever reads it needs them installed. Nothing else of us is.
"""

import io
import json
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.table import MaskedColumn, Table
from lsst.daf.butler import FormatterV2

from payloads.keep.calibrated import read_calibrated, read_plane


class RawFormatter(FormatterV2):  # type: ignore[misc] # the Butler has no types here
    """Reads a raw as a list of FITS HDUs, or its primary header alone as the component ``header``."""

    default_extension = ".fits"
    supported_extensions = frozenset({".fits", ".fits.fz", ".fits.gz", ".fz", ".fit", ".gz"})
    can_read_from_uri = True

    def read_from_uri(self, uri: Any, component: str | None = None, expected_size: int = -1) -> Any:
        """Return ``astropy.io.fits.HDUList``, whole in memory; for ``header`` an `astropy.io.fits.Header`."""
        _check_size(uri, expected_size)
        if component == "header":
            with uri.as_local() as local:
                return fits.getheader(local.ospath, 0)
        return _open_fits(uri.read())


class CalibratedFormatter(FormatterV2):  # type: ignore[misc] # the Butler has no types here
    """Reads a calibrated image with mask and variance, or one of its planes alone."""

    default_extension = ".fits.fz"
    supported_extensions = frozenset({".fits", ".fits.fz", ".fz"})
    can_read_from_uri = True

    def read_from_uri(self, uri: Any, component: str | None = None, expected_size: int = -1) -> Any:
        """Return `payloads.keep.calibrated.CalibratedImage`, or of it ``image``, ``mask``, ``variance`` or ``header``."""
        _check_size(uri, expected_size)
        if component == "header":
            with uri.as_local() as local:
                return fits.getheader(local.ospath, 0)
        return read_calibrated(uri.read()) if component is None else read_plane(uri.read(), component)


class FileFormatter(FormatterV2):  # type: ignore[misc] # the Butler has no types here
    """Reads any file as its bytes, and writes bytes."""

    default_extension = None
    can_read_from_uri = True

    @classmethod
    def validate_extension(cls, location: Any) -> None:
        """Take files of any name."""

    def get_write_extension(self) -> str:
        """Return the ending of what `put` writes: bytes of whatever kind."""
        return ".bin"

    def read_from_uri(self, uri: Any, component: str | None = None, expected_size: int = -1) -> bytes:  # noqa: ARG002 - the Butler's
        """Return the file's content."""
        _check_size(uri, expected_size)
        data: bytes = uri.read()
        return data

    def write_local_file(self, in_memory_dataset: Any, uri: Any) -> None:
        """Write bytes."""
        Path(uri.ospath).write_bytes(in_memory_dataset)


class TableFormatter(FormatterV2):  # type: ignore[misc] # the Butler has no types here
    """Reads a table of ours, JSON by column, as an astropy table; a cell without a value is masked."""

    default_extension = ".json"
    can_read_from_uri = True

    def read_from_uri(self, uri: Any, component: str | None = None, expected_size: int = -1) -> Any:  # noqa: ARG002 - the Butler's
        """Return ``astropy.table.Table``."""
        _check_size(uri, expected_size)
        columns = json.loads(uri.read())
        return Table({name: _column(values) for name, values in columns.items()})


def _column(values: Any) -> Any:
    if not isinstance(values, list):
        values = [values]
    if None not in values:
        return values
    kept = [value for value in values if value is not None]
    filler = kept[0] if kept else 0.0
    return MaskedColumn(
        [filler if value is None else value for value in values], mask=[value is None for value in values]
    )


def _check_size(uri: Any, expected_size: int) -> None:
    if expected_size >= 0 and (size := uri.size()) != expected_size:
        raise ValueError(f"{uri} has {size} bytes, and had {expected_size} when it was ingested")


def _open_fits(data: bytes) -> fits.HDUList:
    with fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=False) as found:
        for hdu in found:
            _ = hdu.data  # decoded now: the file is gone afterwards
        return found
