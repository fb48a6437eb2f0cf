"""Look at a file that was told of by its name alone: is it a whole raw, and whose."""

import functools
import os
from pathlib import Path
from typing import Any

from botocore.exceptions import ParamValidationError

from rapid.arrival.models import RawHeader
from rapid.arrival.ranged import RangedBytes, read_raw_header
from rapid.camera.models import Camera
from rapid.errors import NotFoundError, RawError
from rapid.products.s3 import S3_ERRORS, S3Location, as_rapid_error, client_for, is_s3_uri, parse_object_uri


def size_of(uri: str) -> int:
    """Return how large a file or object is [bytes].

    Raises
    ------
    RawError
        Raised if nothing can have such a name.
    NotFoundError
        Raised if it is gone.
    StoreError
        Raised if its server did not answer.
    """
    if not is_s3_uri(uri):
        path = Path(uri.removeprefix("file://"))
        if not path.is_file():
            raise NotFoundError("file", uri)
        return path.stat().st_size
    place = _object(uri)
    try:
        return int(client_for(place).head_object(Bucket=place.bucket, Key=place.path)["ContentLength"])
    except ParamValidationError as error:
        raise RawError(f"no server has a bucket or key of this name: {' '.join(str(error).split())}") from error
    except S3_ERRORS as error:
        raise as_rapid_error(error, kind="file", key=uri) from error


def look_at_raw(uri: str, camera: Camera, size_bytes: int | None = None) -> tuple[RawHeader, int]:
    """Return who a raw is, and how large it is [bytes].

    Raises
    ------
    RawError
        Raised as the subclass that names what is wrong.
    NotFoundError
        Raised if it is gone.
    StoreError
        Raised if its server did not answer.
    """
    if is_s3_uri(uri):
        place = _object(uri)
        size = size_of(uri) if size_bytes is None else size_bytes
        data = RangedBytes(size, functools.partial(_fetch, place), ahead=64 * 1024)
        try:
            return read_raw_header(data, uri=uri, camera=camera), size
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="raw", key=uri) from error
    try:
        descriptor = os.open(uri.removeprefix("file://"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError("raw", uri) from error
    except OSError as error:
        raise RawError(f"the file cannot be opened: {error.strerror}", errno=error.errno) from error
    try:
        size = os.fstat(descriptor).st_size
        data = RangedBytes(size, lambda offset, length: os.pread(descriptor, length, offset))
        return read_raw_header(data, uri=uri, camera=camera), size
    except OSError as error:
        raise RawError(f"the file cannot be read: {error.strerror}", errno=error.errno) from error
    finally:
        os.close(descriptor)


def _object(uri: str) -> S3Location:
    """Return where an object is: whoever told of it may have named a bucket alone."""
    place = parse_object_uri(uri)
    if not place.path:
        raise RawError("names a bucket and no object in it")
    return place


def _fetch(place: S3Location, offset: int, length: int) -> bytes:
    answer: Any = client_for(place).get_object(
        Bucket=place.bucket, Key=place.path, Range=f"bytes={offset}-{offset + length - 1}"
    )
    with answer["Body"] as body:
        data: bytes = body.read()
    return data
