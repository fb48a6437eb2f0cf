"""List the raws of one night: what there is to process, whoever has or has not processed it.

A watch (`rapid.arrival.source`) tells what comes; a campaign and a report of holes ask what is there.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rapid.arrival.decide import FileKind, kind_of
from rapid.arrival.models import RawHeader
from rapid.arrival.source import open_source
from rapid.arrival.sweep import Sweeper
from rapid.camera.models import Camera
from rapid.errors import StoreError
from rapid.exposure.formats import parse_name
from rapid.exposure.naming import RawName
from rapid.products.s3 import S3_ERRORS, as_rapid_error, client_for, is_s3_uri, parse_store_url
from rapid.products.store import path_of

MAX_LEVELS = 3
"""Folders between the store's root and those of the days: LSSTCam/20261120/... has one."""

_DAY = re.compile(r"^\d{8}$")


@dataclass
class ExposureRaws:
    """The raws of one exposure, by detector: their URIs."""

    raws: dict[int, str] = field(default_factory=dict)
    guiders: dict[int, str] = field(default_factory=dict)


class RawListing:
    """Lists raws by night.

    Parameters
    ----------
    url
        As of `open_source`.
    """

    def __init__(self, url: str, camera: Camera) -> None:
        self._url = url
        self._camera = camera
        self._source = open_source(url, camera=camera)

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is; raises as `RawSource.read_header`."""
        return self._source.read_header(uri)

    def night(self, day_obs: int) -> dict[int, ExposureRaws]:
        """Return the raws of a night, by exposure id.

        What does not tell its exposure and detector by its name is left out: a whole season would have to be opened.

        Raises
        ------
        StoreError, NotFoundError
            Raised if the store does not answer, or is not there: an empty list would say that all raws are gone.
        """
        uris = self._objects(day_obs) if is_s3_uri(self._url) else self._files(day_obs)
        found: dict[int, ExposureRaws] = {}
        for uri in uris:
            if kind_of(uri, self._camera) is not FileKind.RAW:
                continue
            name = parse_name(uri, self._camera)
            detector = self._detector_of(name)
            if name is None or name.exposure_id is None or detector is None or _day_of(name) != day_obs:
                continue
            raws = found.setdefault(name.exposure_id, ExposureRaws())
            (raws.guiders if name.is_guider else raws.raws)[detector] = uri
        return found

    def _detector_of(self, name: RawName | None) -> int | None:
        if name is None:
            return None
        known = self._camera.by_name.get(name.detector_name or "")
        if known is not None:
            return known.id
        if name.detector is not None and name.detector in self._camera.by_id:
            return name.detector
        # A camera of one sensor need not name it.
        return self._camera.detectors[0].id if len(self._camera.detectors) == 1 else None

    def _files(self, day_obs: int) -> list[str]:
        root = path_of(self._url)
        if not root.is_dir():
            raise StoreError(f"raws cannot be listed: {root} is no folder")
        found: list[str] = []
        for folder in self._folders(root, str(day_obs), MAX_LEVELS):
            found += [path for path, _ in Sweeper(self._camera).sweep(str(folder), now_ns=0)]
        return sorted(found)

    def _folders(self, root: Path, day: str, levels: int) -> list[Path]:
        """Return the folders to look into: those of the day, and those that are not sorted by day."""
        try:
            entries = [Path(entry.path) for entry in os.scandir(root) if entry.is_dir() or entry.is_file()]
        except OSError:
            return []
        folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        if any(_DAY.match(entry.name) for entry in folders):
            return [entry for entry in folders if entry.name == day or not _DAY.match(entry.name)]
        if levels and folders and len(folders) == len(entries):
            return [found for entry in folders for found in self._folders(entry, day, levels - 1)]
        return [root]

    def _objects(self, day_obs: int) -> Iterable[str]:
        place = parse_store_url(self._url)
        base = f"{place.path}/" if place.path else ""
        pages = client_for(place).get_paginator("list_objects_v2")
        # The summit's layout first; a bucket of another one is listed as a whole.
        prefix = f"{base}{self._camera.name}/{day_obs}/"
        try:
            for wanted in (prefix, base):
                found = [
                    place.uri(entry["Key"])
                    for page in pages.paginate(Bucket=place.bucket, Prefix=wanted)
                    for entry in page.get("Contents", ())
                ]
                if found:
                    return found
        except S3_ERRORS as error:
            raise as_rapid_error(error, kind="bucket", key=place.bucket) from error
        return []


def _day_of(name: RawName) -> int | None:
    if name.day_obs is not None:
        return name.day_obs
    return None if name.exposure_id is None else name.exposure_id // 100_000
