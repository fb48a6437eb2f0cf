"""Objects in S3: how they are named in URLs, and products in a bucket.

A store is written ``s3://bucket/prefix?endpoint_url=http://host:9000&profile=NAME&region=NAME`` or
``s3+http://host:9000/bucket/prefix``; without an endpoint there, `S3_ENDPOINT_URL` or boto3's own
``AWS_ENDPOINT_URL`` from the environment holds. One object is written ``s3://bucket/key`` or
``s3+http://host:9000/bucket/key``, its key verbatim (no quoting). Credentials come from the places boto3
knows (environment, files, pod identity), never from a URL, where logs and process lists would show them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rapid.errors import ConfigurationError, NotFoundError, RapidError, StoreError
from rapid.products.naming import check_key, is_safe_key

MISSING = {"404", "NoSuchKey", "NotFound"}
REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class S3Location:
    """A bucket, what follows it (a prefix or a key, as the case may be), and the server it is on.

    Attributes
    ----------
    path
        Prefix or key, without a leading slash.
    endpoint_url
        None for the one of the environment.
    """

    bucket: str
    path: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None

    def uri(self, key: str) -> str:
        """Return the URI of an object in this bucket; it leads to the same server from any process."""
        if self.endpoint_url is None:
            return f"s3://{self.bucket}/{key}"
        return f"s3+{self.endpoint_url.rstrip('/')}/{self.bucket}/{key}"


def is_s3_uri(uri: str) -> bool:
    """Whether a text is the URI of an S3 object or store."""
    return uri.startswith(("s3://", "s3+http://", "s3+https://"))


def parse_object_uri(uri: str) -> S3Location:
    """Read the URI of one object (or of a prefix), its key verbatim.

    Examples
    --------
    >>> parse_object_uri("s3+http://localhost:9000/raws/LSSTCam/a b.fits").path
    'LSSTCam/a b.fits'

    Raises
    ------
    ConfigurationError
        Raised if it is no such URI.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or not is_s3_uri(uri):
        raise ConfigurationError("url", f"{uri!r} is not s3://bucket/key")
    endpoint_url = None
    if scheme != "s3":
        host, _, rest = rest.partition("/")
        endpoint_url = f"{scheme.removeprefix('s3+')}://{host}"
    bucket, _, path = rest.partition("/")
    if "@" in bucket or (endpoint_url and "@" in endpoint_url):
        # The message repeats nothing of the URL: it holds a secret.
        raise ConfigurationError(
            "url", "credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, not in a URL"
        )
    if not bucket:
        raise ConfigurationError("url", f"{uri!r} names no bucket")
    return S3Location(bucket=bucket, path=path, endpoint_url=endpoint_url)


def parse_store_url(url: str) -> S3Location:
    """Read the URL of a store, with its options.

    Raises
    ------
    ConfigurationError
        Raised if it is no such URL, or has an option that is not known.
    """
    address, _, query = url.partition("?")
    place = parse_object_uri(address)
    options = dict(parse_qsl(query))
    unknown = options.keys() - {"endpoint_url", "region", "profile"}
    if unknown:
        raise ConfigurationError("url", f"option {min(unknown)!r} is not one of endpoint_url, region, profile")
    endpoint_url = options.get("endpoint_url", place.endpoint_url)
    if endpoint_url is not None and not endpoint_url.startswith(("http://", "https://")):
        raise ConfigurationError("url", f"endpoint_url {endpoint_url!r} is not http:// or https://")
    return S3Location(
        bucket=place.bucket,
        path=place.path.strip("/"),
        endpoint_url=endpoint_url,
        region=options.get("region"),
        profile=options.get("profile"),
    )


@lru_cache(maxsize=16)
def _client(endpoint_url: str | None, region: str | None, profile: str | None, _pid: int) -> Any:
    session = boto3.session.Session(profile_name=profile, region_name=region or None)
    return session.client(
        "s3",
        endpoint_url=endpoint_url or os.environ.get("S3_ENDPOINT_URL"),
        region_name=session.region_name or "us-east-1",
        config=Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=32,
            # Ceph and older servers refuse the checksum trailers that newer boto3 sends unasked.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if endpoint_url else {},
        ),
    )


def client_for(place: S3Location) -> Any:
    """Return a client for a location; made once per process and server, safe for threads.

    Raises
    ------
    ConfigurationError
        Raised if the profile or endpoint cannot be used.
    """
    try:
        # The process id is part of the key: connections must not be shared across a fork.
        return _client(place.endpoint_url, place.region, place.profile, os.getpid())
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError("url", str(error)) from error


def as_rapid_error(error: Exception, *, kind: str, key: str) -> RapidError:
    """Return the error of a failed S3 call in our words."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in MISSING:
            return NotFoundError(kind, key)
        reason = "access refused" if code in REFUSED else str(error)
        return StoreError(f"{kind} {key}: {reason}", key=key, s3_code=code)
    return StoreError(f"{kind} {key}: {error}", key=key)


S3_ERRORS: tuple[type[Exception], ...] = (BotoCoreError, ClientError)


class S3Store:
    """Products as objects in a bucket.

    Parameters
    ----------
    place
        Bucket and prefix; see `parse_store_url`.
    """

    def __init__(self, place: S3Location) -> None:
        self.place = place
        self._prefix = f"{place.path}/" if place.path else ""

    @property
    def _s3(self) -> Any:
        return client_for(self.place)

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write a product in one PUT: a reader sees the old or the new one, never a part."""
        name = self._prefix + check_key(key)
        try:
            self._s3.put_object(Bucket=self.place.bucket, Key=name, Body=data, ContentType=content_type)
        except S3_ERRORS as error:
            # A missing bucket is not a missing product.
            found = as_rapid_error(error, kind="product", key=key)
            raise (found if isinstance(found, StoreError) else StoreError(f"product {key}: {error}")) from error

    def get(self, key: str) -> bytes:
        """Return a product's bytes."""
        if not is_safe_key(key):
            raise NotFoundError("product", key)
        try:
            answer: Any = self._s3.get_object(Bucket=self.place.bucket, Key=self._prefix + key)
            with answer["Body"] as body:
                data: bytes = body.read()
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="product", key=key) from error
        return data

    def exists(self, key: str) -> bool:
        """Whether a product is there."""
        if not is_safe_key(key):
            return False
        try:
            self._s3.head_object(Bucket=self.place.bucket, Key=self._prefix + key)
        except S3_ERRORS as error:
            found = as_rapid_error(error, kind="product", key=key)
            if isinstance(found, NotFoundError):
                return False
            raise found from error
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with a prefix, in order."""
        pages = self._s3.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self.place.bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self._prefix)
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="products", key=prefix) from error

    def delete(self, key: str) -> None:
        """Remove a product; none there is no error."""
        name = self._prefix + check_key(key)
        try:
            self._s3.delete_object(Bucket=self.place.bucket, Key=name)
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="product", key=key) from error

    def url(self, key: str) -> str:
        """Return where a product is, as the URI of its object."""
        return self.place.uri(self._prefix + check_key(key))
