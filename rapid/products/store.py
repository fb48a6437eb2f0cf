"""The one interface to products, wherever they are kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from rapid.errors import ConfigurationError
from rapid.products.directory import DirectoryStore
from rapid.products.s3 import S3Store, is_s3_uri, parse_store_url


class ProductsStore(Protocol):
    """Whole objects by key (see `rapid.products.naming`). Safe for threads and for several processes."""

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write a product whole, in place of an older one of the same key.

        Raises
        ------
        ValueError
            Raised for an unsafe key.
        StoreError
            Raised if it could not be written; nothing of it is seen then.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return a product's bytes.

        Raises
        ------
        NotFoundError
            Raised if there is none, or if no product can have this key.
        StoreError
            Raised if the store did not answer.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether a product is there."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with a prefix, in order."""
        ...

    def delete(self, key: str) -> None:
        """Remove a product; none there is no error."""
        ...

    def url(self, key: str) -> str:
        """Return where a product is: ``file:///...`` or ``s3://...``."""
        ...


def path_of(url: str) -> Path:
    """Return the path that a ``file:`` URL or a plain path names.

    Raises
    ------
    ConfigurationError
        Raised for another scheme, or a ``file:`` URL of another host.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        return Path(url).expanduser()
    parts = urlsplit(url)
    if scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise ConfigurationError("url", f"{url!r} is neither a path nor file:///path nor s3://bucket/prefix")
    return Path(unquote(parts.path))


def open_products(url: str) -> ProductsStore:
    """Open a products store.

    Parameters
    ----------
    url
        ``/path``, ``file:///path``, ``s3://bucket/prefix?endpoint_url=http://...`` or
        ``s3+http://host:port/bucket/prefix``.

    Raises
    ------
    ConfigurationError
        Raised if the URL is none of these.
    """
    if is_s3_uri(url):
        return S3Store(parse_store_url(url))
    return DirectoryStore(path_of(url))
