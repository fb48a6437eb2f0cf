"""Where a file is, in our words and in the Butler's.

We write an object on a server of its own as ``s3+http://host:9000/bucket/key``; the Butler writes ``s3://bucket/key``
and takes the server from `S3_ENDPOINT_URL`. Keys are verbatim in ours, percent-encoded in theirs.
"""

import os
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from rapid.errors import ConfigurationError
from rapid.products.s3 import S3Location, is_s3_uri, parse_object_uri

ENDPOINT = "S3_ENDPOINT_URL"


def adopt_endpoint(url: str) -> None:
    """Have the Butler reach the S3 server of one of our URLs, in this process and those started from it.

    Raises
    ------
    ConfigurationError
        Raised if it already reaches another one: it knows one server only.
    """
    if not is_s3_uri(url):
        return
    from rapid.products.s3 import parse_store_url

    endpoint = parse_store_url(url).endpoint_url
    if endpoint is None:
        return
    known = os.environ.setdefault(ENDPOINT, endpoint)
    if known.rstrip("/") != endpoint.rstrip("/"):
        raise ConfigurationError("raws", f"{endpoint} is not the server of {ENDPOINT}, {known}: the Butler knows one")


def to_butler(uri: str) -> str:
    """Return the Butler's URI of one of our files.

    Examples
    --------
    >>> to_butler("/data/a b#1.fits"), to_butler("s3://raws/a+b.fits")
    ('file:///data/a%20b%231.fits', 's3://raws/a%2Bb.fits')
    """
    if is_s3_uri(uri):
        place = parse_object_uri(uri)
        return f"s3://{place.bucket}/{quote(place.path)}"
    path = unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
    return "file://" + quote(str(Path(path).absolute()))


def from_butler(uri: str) -> str:
    """Return our name of a file that the Butler names.

    Examples
    --------
    >>> from_butler("file:///data/a%20b%231.fits")
    '/data/a b#1.fits'
    """
    parts = urlsplit(uri)
    if parts.scheme in {"", "file"}:
        return unquote(parts.path)
    if parts.scheme == "s3":
        bucket = parts.netloc.rpartition("@")[2]
        return S3Location(bucket, endpoint_url=os.environ.get(ENDPOINT)).uri(unquote(parts.path.lstrip("/")))
    raise ConfigurationError("butler_repo", f"files of {parts.scheme}:// cannot be read here")
