"""Keys of products: deterministic, so that writing twice is writing once (invariant I3).

``{camera}/{day_obs}/{seq_num:06d}/{run}/{pipeline}/{detector_name}.{kind}.{extension}`` for a detector,
``.../{kind}.v{version}.{extension}`` for a version of the focal-plane summary.
"""

import re
from typing import Protocol

from rapid.exposure.models import exposure_id_of

MAX_KEY_BYTES = 1000
"""S3 allows 1024 bytes; the store's own prefix takes some of them."""

MAX_PART_BYTES = 200
"""File systems allow 255 bytes in a name; the temporary file's suffix takes some of them."""

_PART = re.compile(r"[A-Za-z0-9_~+=@-][A-Za-z0-9_.~+=@-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_~+=@-]+")


class DetectorFacts(Protocol):
    """What a detector's key is made of; `rapid.results.models.DetectorResult` has it."""

    camera: str
    exposure: int
    day_obs: int
    seq_num: int
    run: str
    pipeline: str
    detector_name: str


class SummaryFacts(Protocol):
    """What a summary's key is made of; `rapid.results.models.ExposureSummary` has it."""

    camera: str
    exposure: int
    day_obs: int
    seq_num: int
    run: str
    pipeline: str
    version: int


def is_safe_key(key: str) -> bool:
    r"""Whether a key can be used in a directory and in a bucket alike.

    Parts are separated by single slashes; a part begins with no dot, so that neither a parent folder nor a
    temporary file can be named.

    Examples
    --------
    >>> is_safe_key("LSSTCam/20251115/000226/prompt/quicklook/R22_S11.binned.fits")
    True
    >>> [is_safe_key(key) for key in ("../etc/passwd", "/etc/passwd", "a//b", "a/.b", "a\x00", "")]
    [False, False, False, False, False, False]
    """
    if not key or len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        return False
    return all(len(part) <= MAX_PART_BYTES and _PART.fullmatch(part) is not None for part in key.split("/"))


def check_key(key: str) -> str:
    """Return a key that is safe.

    Raises
    ------
    ValueError
        Raised if it is not (see `is_safe_key`).
    """
    if not is_safe_key(key):
        raise ValueError(f"not a product key: {key!r}")
    return key


def safe_part(text: str) -> str:
    """Return a word, such as a filter's name, as a part of a key.

    Examples
    --------
    >>> safe_part("SDSSr_65mm~empty"), safe_part("BG40 65mm/1"), safe_part("")
    ('SDSSr_65mm~empty', 'BG40-65mm-1', 'none')
    """
    return _UNSAFE.sub("-", text) or "none"


def exposure_prefix(camera: str, exposure: int, day_obs: int, seq_num: int) -> str:
    """Return the folder of an exposure's products.

    Exposures of the older controllers share day and number with others; their id is added then.

    Examples
    --------
    >>> exposure_prefix("LSSTCam", 2025111500226, 20251115, 226)
    'LSSTCam/20251115/000226'
    >>> exposure_prefix("LSSTCam", 7024032100720, 20240321, 720)
    'LSSTCam/20240321/000720-7024032100720'
    """
    number = f"{seq_num:06d}"
    if exposure != exposure_id_of(day_obs, seq_num):
        number = f"{number}-{exposure}"
    return f"{camera}/{day_obs}/{number}"


def detector_key(result: DetectorFacts, *, kind: str, extension: str) -> str:
    """Return the key of a detector's product.

    Raises
    ------
    ValueError
        Raised if a part (the kind, say) has letters that no key may have.
    """
    prefix = exposure_prefix(result.camera, result.exposure, result.day_obs, result.seq_num)
    return check_key(f"{prefix}/{result.run}/{result.pipeline}/{result.detector_name}.{kind}.{extension}")


def summary_key(summary: SummaryFacts, *, kind: str = "summary", extension: str = "json") -> str:
    """Return the key of a product of one version of a summary: ``summary.v1.json``, ``mosaic.v2.jpg``.

    Raises
    ------
    ValueError
        Raised if a part has letters that no key may have.
    """
    prefix = exposure_prefix(summary.camera, summary.exposure, summary.day_obs, summary.seq_num)
    return check_key(f"{prefix}/{summary.run}/{summary.pipeline}/{kind}.v{summary.version}.{extension}")


def night_key(camera: str, day_obs: int, *, run: str, kind: str, extension: str) -> str:
    """Return the key of a product of a whole night, which is written anew as the night goes on.

    Examples
    --------
    >>> night_key("LSSTCam", 20251115, run="prompt", kind="movie", extension="mp4")
    'LSSTCam/20251115/night/prompt/movie.mp4'

    Raises
    ------
    ValueError
        Raised if a part has letters that no key may have.
    """
    return check_key(f"{camera}/{day_obs}/night/{run}/{kind}.{extension}")
