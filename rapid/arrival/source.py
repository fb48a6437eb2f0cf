"""The one interface to raws, wherever they land; and how a worker reads one."""

import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from rapid.arrival.bucket import BucketSource, read_object
from rapid.arrival.decide import Patience
from rapid.arrival.directory import DirectorySource, read_file
from rapid.arrival.models import Arrival, IsDone, RawHeader
from rapid.camera.models import Camera
from rapid.products.s3 import is_s3_uri, parse_store_url
from rapid.products.store import path_of


class RawSource(Protocol):
    """Where raws land."""

    def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrives: first what is there, newest exposure first, then what comes.

        Every call begins anew, for a head that takes over the lead. Close the iterator to end the watch.
        """
        ...

    def read(self, uri: str) -> bytes:
        """Return a raw's bytes; see `read_raw`."""
        ...

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is.

        Raises
        ------
        RawError
            Raised as the subclass that names what is wrong.
        NotFoundError
            Raised if it is gone.
        StoreError
            Raised if its store did not answer.
        """
        ...


def open_source(
    url: str,
    *,
    camera: Camera | None = None,
    patience: Patience | None = None,
    sweep_s: float | None = None,
    n_days: int | None = None,
    is_done: IsDone | None = None,
) -> RawSource:
    """Open a raw source.

    Parameters
    ----------
    url
        A directory (``/path`` or ``file:///path``), ``s3://bucket/prefix?endpoint_url=http://...`` or
        ``s3+http://host:port/bucket/prefix``.
    camera
        The camera its raws should be from; any known one if left out.
    patience
        How long to wait for a file to become complete; objects are complete when they are seen.
    sweep_s
        Between two listings of everything, the safety net [s]; the source's own default if left out.
    n_days
        Of a bucket only the newest so many ``YYYYMMDD/`` folders are listed; all if left out.
    is_done
        Asked about a raw that was there before the watch began, in a thread, before it is looked at: one that is done
        with does not arrive.

    Raises
    ------
    ConfigurationError
        Raised if the URL is none of these.
    """
    if is_s3_uri(url):
        place = parse_store_url(url)
        bucket = functools.partial(BucketSource, place, camera=camera, n_days=n_days, is_done=is_done)
        return bucket() if sweep_s is None else bucket(sweep_s=sweep_s)
    directory = functools.partial(DirectorySource, path_of(url), camera=camera, patience=patience, is_done=is_done)
    return directory() if sweep_s is None else directory(sweep_s=sweep_s)


def read_raw(uri: str) -> bytes:
    """Return a raw's bytes, from a path, a ``file:`` URL or an S3 URI.

    Raises
    ------
    NotFoundError
        Raised if it is not there.
    StoreError
        Raised if its store did not answer: worth a retry.
    """
    return read_object(uri) if is_s3_uri(uri) else read_file(str(path_of(uri)) if "://" in uri else str(Path(uri)))
