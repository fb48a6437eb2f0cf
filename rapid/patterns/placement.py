"""Which detectors a worker is pinned to: a list, or its share by its place in a group of workers.

A worker of a StatefulSet knows its place from its name alone (``worker-science-17`` is the 18th), so that one setting
serves the whole group. Shares are runs of neighbouring detectors: the last workers of a group own the last rafts,
which is where a new version is tried first (`rapid.cluster.rollout`).
"""

import re

from rapid.camera.models import Camera
from rapid.errors import ConfigurationError
from rapid.patterns.errors import PatternError
from rapid.patterns.pattern import parse_pattern

_BY_ORDINAL = re.compile(r"^ordinal/(?P<size>[1-9][0-9]{0,4})(?:\s+of\s+(?P<pattern>.+))?$")
_ORDINAL = re.compile(r"-([0-9]{1,6})$")


def pinned_detectors(text: str, camera: Camera, name: str) -> frozenset[int]:
    """Return the detectors a worker is pinned to; none pins it to nothing.

    Parameters
    ----------
    text
        Numbers, comma separated; or ``ordinal/N``, for the N workers of a group whose names end in -0, -1, ..., or
        ``ordinal/N of PATTERN`` for a group that serves only those detectors. Workers from the N-th on begin anew.
    camera
        Whose detectors.
    name
        The worker's name.

    Raises
    ------
    ConfigurationError
        Raised for a detector the camera does not have, a pattern that is none, or a name without a number at its end.

    Examples
    --------
    >>> from rapid.camera.store import load_camera
    >>> camera = load_camera("LSSTComCam")
    >>> sorted(pinned_detectors("3, 4", camera, "worker-7"))
    [3, 4]
    >>> sorted(pinned_detectors("ordinal/4", camera, "worker-science-3"))
    [6, 7, 8]
    >>> sorted(pinned_detectors("ordinal/2 of R22_S00,R22_S11", camera, "worker-science-2"))
    [0]
    """
    text = text.strip()
    if not text:
        return frozenset()
    if found := _BY_ORDINAL.match(text):
        place = _ORDINAL.search(name)
        if place is None:
            raise ConfigurationError("pinned", f"{text!r} needs a worker whose name ends in -NUMBER, not {name!r}")
        return _share(camera, found["pattern"] or "all", int(place[1]), int(found["size"]))
    try:
        pinned = frozenset(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        message = f"{text!r} is neither a list of detector numbers nor ordinal/N [of PATTERN]"
        raise ConfigurationError("pinned", message) from None
    unknown = pinned - {detector.id for detector in camera.detectors}
    if unknown:
        raise ConfigurationError("pinned", f"{camera.name} has no detector {min(unknown)}")
    return pinned


def _share(camera: Camera, pattern: str, ordinal: int, size: int) -> frozenset[int]:
    try:
        detectors = sorted(parse_pattern(pattern).detectors(camera))
    except PatternError as error:
        raise ConfigurationError("pinned", error.message) from error
    place = ordinal % size
    return frozenset(detectors[place * len(detectors) // size : (place + 1) * len(detectors) // size])
