"""What arrived, as a recorder sees it: live through the arrival door, or afterwards in the raw store."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapid.arrival.bucket import BucketSource
from rapid.arrival.decide import FileKind, kind_of
from rapid.arrival.door import name_of_sidecar
from rapid.arrival.look import look_at
from rapid.arrival.models import Arrival, ExpectedSensors, RawArrived
from rapid.arrival.source import RawSource, open_source
from rapid.camera.models import Camera
from rapid.errors import RapidError
from rapid.exposure.formats import parse_name
from rapid.exposure.models import ExposureInfo
from rapid.products.s3 import client_for, is_s3_uri, parse_store_url
from rapid.products.store import path_of


@dataclass(frozen=True)
class SeenRaw:
    """A raw that arrived.

    Attributes
    ----------
    at_s
        When, seconds since the Unix epoch.
    info
        Who it is; None if it could not be read.
    problem
        Code of the error that it was quarantined with.
    """

    uri: str
    exposure: int
    detector: str
    at_s: float
    info: ExposureInfo | None = None
    header: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class SeenSensors:
    """A list of the sensors that are read out."""

    exposure: int
    detectors: tuple[str, ...]
    at_s: float


Seen = SeenRaw | SeenSensors


def day_of(exposure: int) -> int:
    """Return the observing day of an exposure id, as it counts in the id."""
    return exposure // 100_000


def look_through(url: str, *, camera: Camera, day_obs: int | None = None) -> Iterator[Seen]:
    """Yield what lies in a raw store, with the times at which it was written.

    Raises
    ------
    StoreError
        Raised if a bucket does not answer.
    """
    if is_s3_uri(url):
        yield from _look_through_bucket(url, camera, day_obs)
        return
    root = path_of(url)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            kind = kind_of(str(path), camera)
            if kind is FileKind.OTHER or not _is_of_day(name, day_obs):
                continue
            look = look_at(str(path), kind=kind, camera=camera)
            if look is None:
                continue
            at_s = look.stamp.modified_ns / 1e9
            if kind is FileKind.EXPECTED_SENSORS:
                yield from _sensors(str(path), look.sensors or frozenset(), at_s)
            elif look.header is not None:
                yield _raw(str(path), look.header.info, look.header.header, at_s)
            elif look.problem is not None:
                yield from _spoilt(str(path), look.problem.code, at_s)


def _look_through_bucket(url: str, camera: Camera, day_obs: int | None) -> Iterator[Seen]:
    place = parse_store_url(url)
    source = BucketSource(place, camera=camera)
    for found in source.sweep():
        if not _is_of_day(found.key, day_obs):
            continue
        seen = source.look(found)
        about = client_for(place).head_object(Bucket=place.bucket, Key=found.key)
        at_s, uri = about["LastModified"].timestamp(), place.uri(found.key)
        if seen.sensors is not None:
            yield from _sensors(uri, seen.sensors, at_s)
        elif seen.header is not None:
            yield _raw(uri, seen.header.info, seen.header.header, at_s)
        elif seen.problem is not None:
            yield from _spoilt(uri, seen.problem.code, at_s)


async def follow(url: str, *, camera: Camera, day_obs: int | None = None) -> AsyncIterator[Seen]:
    """Yield what lies in a raw store, and then what arrives, through the same door as the head's."""
    source = open_source(url, camera=camera)
    arrivals: Any = source.arrivals()
    try:
        async for arrival in arrivals:
            for seen in seen_of(arrival, source):
                if day_obs is None or day_of(seen.exposure) == day_obs:
                    yield seen
    finally:
        await arrivals.aclose()


def seen_of(arrival: Arrival, source: RawSource) -> Iterator[Seen]:
    """Yield what an arrival is to a recorder: nothing if it names no exposure."""
    written_s = _written_s(arrival.uri)
    if isinstance(arrival, ExpectedSensors):
        if written_s is not None:
            yield SeenSensors(arrival.exposure_id, tuple(sorted(arrival.detector_names)), written_s)
        return
    if not isinstance(arrival, RawArrived):
        yield from _spoilt(arrival.uri, arrival.code, written_s or arrival.quarantined_at.timestamp())
        return
    try:
        header = source.read_header(arrival.uri)
    except RapidError:
        return  # gone again
    yield _raw(arrival.uri, header.info, header.header, written_s or arrival.arrived_at.timestamp())


def _written_s(uri: str) -> float | None:
    """Return when a file, or an object, was written [s since the epoch]; None if it is gone."""
    try:
        if is_s3_uri(uri):
            from rapid.products.s3 import parse_object_uri

            place = parse_object_uri(uri)
            about = client_for(place).head_object(Bucket=place.bucket, Key=place.path)
            return float(about["LastModified"].timestamp())
        return path_of(uri).stat().st_mtime if "://" in uri else Path(uri).stat().st_mtime
    except Exception:  # noqa: BLE001 - whatever a store says: the door's own time stands then
        return None


def _is_of_day(name: str, day_obs: int | None) -> bool:
    if day_obs is None:
        return True
    found = parse_name(name) or name_of_sidecar(name)
    return found is None or found.exposure_id is None or day_of(found.exposure_id) == day_obs


def _raw(uri: str, info: ExposureInfo, header: dict[str, Any], at_s: float) -> SeenRaw:
    return SeenRaw(uri, info.exposure_id, info.detector_name, at_s, info, header)


def _sensors(uri: str, names: frozenset[str], at_s: float) -> Iterator[SeenSensors]:
    found = name_of_sidecar(uri)
    if found is not None and found.exposure_id is not None:
        yield SeenSensors(found.exposure_id, tuple(sorted(names)), at_s)


def _spoilt(uri: str, code: str, at_s: float) -> Iterator[SeenRaw]:
    found = parse_name(uri)
    if found is not None and found.exposure_id is not None and found.detector_name is not None:
        yield SeenRaw(uri, found.exposure_id, found.detector_name, at_s, problem=code)
