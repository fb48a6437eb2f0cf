"""What both sources do with a raw they have looked at: deduplicate it and put it into words."""

import time
from collections import OrderedDict
from datetime import UTC, datetime

import structlog

from rapid.arrival.dedupe import Content, Deduper, Identity, Novelty
from rapid.arrival.models import ExpectedSensors, RawArrived, RawHeader, RawQuarantined
from rapid.camera.models import Camera
from rapid.errors import RawError
from rapid.exposure.formats import parse_name
from rapid.exposure.naming import RawName, parse_raw_name

log = structlog.get_logger()

REMEMBERED_HEADERS = 4096
"""Headers kept for whoever asks right after the arrival; 20 exposures of 205 detectors."""


def name_of_sidecar(uri: str) -> RawName | None:
    """Return what the name of an ``_expectedSensors.json`` tells of its exposure."""
    return parse_raw_name(uri.removesuffix("_expectedSensors.json") + ".fits")


class Door:
    """The arrivals of one watch."""

    def __init__(self) -> None:
        self._deduper = Deduper()
        self._headers: OrderedDict[str, RawHeader] = OrderedDict()
        self.n_duplicates = 0
        self.n_replacements = 0

    def admit(self, header: RawHeader, content: Content) -> RawArrived | None:
        """Return the arrival of a raw, None if it is one that we have."""
        info = header.info
        novelty, before = self._deduper.take(
            Identity(info.camera, info.exposure_id, info.detector, info.is_guider), content
        )
        if novelty is Novelty.DUPLICATE:
            self.n_duplicates += 1
            log.debug("raw came again", uri=content.uri, first=before.uri if before else None)
            return None
        if novelty is Novelty.REPLACEMENT:
            self.n_replacements += 1
            log.warning(
                "raw replaces an earlier one",
                uri=content.uri,
                replaces=before.uri if before else None,
                exposure_id=info.exposure_id,
                detector=info.detector,
            )
        self._headers[content.uri] = header
        while len(self._headers) > REMEMBERED_HEADERS:
            self._headers.popitem(last=False)
        return RawArrived(
            uri=content.uri,
            camera=info.camera,
            exposure_id=info.exposure_id,
            detector=info.detector,
            is_guider=info.is_guider,
            name=parse_name(content.uri),
            size_bytes=content.size_bytes,
            replaces=before.uri if before and novelty is Novelty.REPLACEMENT else None,
            arrived_at=datetime.now(UTC),
            arrived_monotonic_s=time.monotonic(),
        )

    def header_of(self, uri: str) -> RawHeader | None:
        """Return, once, the header that was read when a raw arrived."""
        return self._headers.pop(uri, None)


def quarantined(uri: str, problem: RawError, size_bytes: int | None) -> RawQuarantined:
    """Return the quarantine of a raw, with what its name tells."""
    name = parse_name(uri)
    return RawQuarantined(
        uri=uri,
        code=problem.code,
        reason=problem.message,
        size_bytes=size_bytes,
        exposure_id=name.exposure_id if name else None,
        detector_name=name.detector_name if name else None,
        quarantined_at=datetime.now(UTC),
    )


def expected_sensors(uri: str, detector_names: frozenset[str], camera: Camera | None) -> ExpectedSensors | None:
    """Return what a side-car says; None if it is of another camera or its name tells no exposure."""
    name = name_of_sidecar(uri)
    if name is None or name.exposure_id is None:
        log.warning("side-car without an exposure in its name", uri=uri)
        return None
    if camera is not None and name.code is not None and name.code != camera.code:
        return None
    return ExpectedSensors(uri=uri, exposure_id=name.exposure_id, detector_names=detector_names)
