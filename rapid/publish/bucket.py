"""The bucket RubinTV reads: whole objects, each in one PUT, and what is already there."""

import hashlib
from typing import Any

from rapid.errors import NotFoundError, StoreError
from rapid.products.s3 import S3_ERRORS, S3Store, as_rapid_error, client_for
from rapid.products.store import ProductsStore, open_products


def checksum(data: bytes) -> str:
    """Return the MD5 of an object, which is its ETag in S3 after a single PUT."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Bucket:
    """A bucket or directory with RubinTV's layout.

    Parameters
    ----------
    store
        Where the objects go.
    """

    def __init__(self, store: ProductsStore) -> None:
        self._store = store

    def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Write an object whole.

        Raises
        ------
        StoreError
            Raised if it was not written.
        """
        self._store.put(key, data, content_type=content_type)

    def get(self, key: str) -> bytes:
        """Return an object; raises `NotFoundError` if there is none."""
        return self._store.get(key)

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""
        self._store.delete(key)

    def checksums(self, prefix: str) -> dict[str, str]:
        """Return what is there below a prefix: MD5 by key.

        Raises
        ------
        StoreError
            Raised if the bucket does not answer.
        """
        if isinstance(self._store, S3Store):
            return _listed(self._store, prefix)
        found = {}
        for key in self._store.list(prefix):
            try:
                found[key] = checksum(self._store.get(key))
            except NotFoundError:
                continue  # removed meanwhile
        return found

    def check(self, prefix: str) -> None:
        """Ask for a sign of life.

        Raises
        ------
        StoreError
            Raised if there is none.
        """
        next(iter(self._store.list(prefix)), None)

    def url(self, key: str) -> str:
        """Return where an object is, for people."""
        return self._store.url(key)


def _listed(store: S3Store, prefix: str) -> dict[str, str]:
    """Return ETags by key, a thousand a request.

    An ETag that is no MD5 (encrypted or multipart objects) matches nothing; such objects are written again.
    """
    client: Any = client_for(store.place)
    before = f"{store.place.path}/" if store.place.path else ""
    found: dict[str, str] = {}
    try:
        for page in client.get_paginator("list_objects_v2").paginate(
            Bucket=store.place.bucket, Prefix=f"{before}{prefix}"
        ):
            for entry in page.get("Contents", ()):
                found[entry["Key"].removeprefix(before)] = entry["ETag"].strip('"')
    except S3_ERRORS as error:
        found_error = as_rapid_error(error, kind="objects", key=prefix)
        if isinstance(found_error, StoreError):
            raise found_error from error
        raise StoreError(f"objects {prefix}: {found_error.message}") from error
    return found


def open_bucket(url: str) -> Bucket:
    """Open a bucket by the URL of a store: ``s3://bucket?endpoint_url=...``, or a directory.

    Raises
    ------
    ConfigurationError
        Raised if the URL is none of these.
    """
    return Bucket(open_products(url))
