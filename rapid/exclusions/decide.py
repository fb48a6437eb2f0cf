"""Decide what an exclusion means: which detectors and amps, from when to when, and for which exposure. Pure.

The head asks once per exposure, by the time the exposure began: a change applies to the next exposure, and a
recovery that comes to an exposure again decides as before (invariants I2 and I9).
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from rapid.camera.models import Camera
from rapid.exclusions.models import MAX_REASON, UNPRINTABLE, Exclusion, ExclusionError, Target
from rapid.exposure.values import EARLIEST, LATEST, leap_seconds
from rapid.pipeline.models import Pipeline

MAX_TARGETS = 300
"""A camera has 205 detectors; a longer list is a mistake."""

ISR = "isr"
"""The payload that masks excluded amps."""

_DAY = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


@dataclass(frozen=True)
class Excluded:
    """What is switched off in one exposure.

    Attributes
    ----------
    detectors
        Reason, by detector number.
    amps
        Reason, by detector name and amp name; of detectors that are not off as a whole.
    """

    detectors: dict[int, str] = field(default_factory=dict)
    amps: dict[str, dict[str, str]] = field(default_factory=dict)

    def among(self, detectors: Iterable[int]) -> dict[int, str]:
        """Return the reasons of those of some detectors that are off: ``BatchSpec.excluded``."""
        return {number: self.detectors[number] for number in detectors if number in self.detectors}

    def config_for(self, pipeline: Pipeline) -> dict[str, Any]:
        """Return what a pipeline's configuration has to say of excluded amps: ``BatchSpec.config``, or a part of it.

        Empty for a pipeline without signature removal: nothing in it would mask an amp.
        """
        if not self.amps or all(step.payload != ISR for step in pipeline.steps):
            return {}
        return {ISR: {"excluded_amps": self.amps}}

    @property
    def facts(self) -> dict[str, Any]:
        """Return what an exposure's facts say of excluded amps: a part of ``BatchSpec.info``."""
        return {"excluded_amps": self.amps} if self.amps else {}


def choose_excluded(exclusions: Iterable[Exclusion], camera: Camera, begin: datetime) -> Excluded:
    """Return what is switched off in an exposure.

    Parameters
    ----------
    exclusions
        Of the camera; those that do not hold at ``begin`` are passed over.
    begin
        When the exposure began, UTC with zone.

    Notes
    -----
    A detector all of whose amps are off is off: nothing of it could be measured.
    """
    detectors: dict[int, str] = {}
    amps: dict[int, dict[str, str]] = {}
    for exclusion in sorted(exclusions, key=lambda one: one.id):
        if not exclusion.covers(begin) or exclusion.detector not in camera.by_id:
            continue
        if exclusion.amp is None:
            detectors.setdefault(exclusion.detector, exclusion.why)
        else:
            amps.setdefault(exclusion.detector, {}).setdefault(exclusion.amp, exclusion.why)
    for number, reasons in amps.items():
        names = set(camera.by_id[number].amp_by_name)
        if names <= set(reasons):
            detectors.setdefault(number, f"every amp is off: {next(iter(reasons.values()))}")
    kept = {
        camera.by_id[number].name: dict(sorted(reasons.items()))
        for number, reasons in sorted(amps.items())
        if number not in detectors
    }
    return Excluded(detectors=dict(sorted(detectors.items())), amps=kept)


def begin_utc(begin_tai: datetime | None, *, now: datetime) -> datetime:
    """Return an exposure's begin, TAI as headers have it, as UTC with zone; now, if its header does not tell."""
    if begin_tai is None:
        return now
    plain = begin_tai.replace(tzinfo=None)
    return (plain - timedelta(seconds=leap_seconds(plain))).replace(tzinfo=UTC)


def newest_begin(info: Mapping[str, Any]) -> datetime | None:
    """Return when an exposure began, TAI, from its facts as the board keeps them; None if they do not tell."""
    try:
        return datetime.fromisoformat(str(info.get("begin") or ""))
    except ValueError:
        return None


def next_exposure_from(newest_begin_tai: datetime | None, *, now: datetime) -> datetime:
    """Return the time from which a change made now holds, so that the next exposure is the first one it is for.

    Just after the newest exposure began, or now if that is earlier or nothing has been taken: a night that is played
    back has other dates than the clock on the wall, and the next exposure is the next one there as well.
    """
    if newest_begin_tai is None:
        return now
    return min(now, begin_utc(newest_begin_tai, now=now) + timedelta(milliseconds=1))


def parse_bound(text: str, field_name: str, *, is_end: bool = False) -> datetime:
    """Return a limit of validity as UTC with zone.

    Parameters
    ----------
    text
        An ISO 8601 time, UTC unless it says otherwise, or an observing day: ``20261120`` or ``2026-11-20``, which
        begins at noon UTC. As an end it is meant inclusive: noon of the next day.
    field_name
        What to call it in an error.

    Raises
    ------
    ExclusionError
        Raised if it is no time, or a nonsensical one.

    Examples
    --------
    >>> parse_bound("20261120", "valid_from").isoformat()
    '2026-11-20T12:00:00+00:00'
    >>> parse_bound("2026-11-20T14:00:00-03:00", "valid_to").isoformat()
    '2026-11-20T17:00:00+00:00'
    """
    cleaned = text.strip()
    try:
        day = _DAY.fullmatch(cleaned)
        if day:
            noon = datetime(*(int(part) for part in day.groups()), 12, tzinfo=UTC)  # type: ignore[misc,arg-type] # three numbers
            found = noon + timedelta(days=1 if is_end else 0)
        else:
            found = datetime.fromisoformat(cleaned)
            found = found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ExclusionError(
            field_name, f"{cleaned[:64]!r} is neither an ISO time (2026-11-20T23:15) nor an observing day (20261120)"
        ) from None
    if not EARLIEST <= found.replace(tzinfo=None) <= LATEST:
        raise ExclusionError(field_name, f"{cleaned[:64]!r} is not within {EARLIEST.year} to {LATEST.year}")
    return found


def parse_targets(texts: Sequence[str | int], camera: Camera) -> list[Target]:
    """Return detectors and amps by name, each once, in the order they were named.

    Parameters
    ----------
    texts
        ``R22_S11`` or ``94``, ``R22_S11/C00`` or ``94/C00`` for an amp, ``R22`` for all detectors of a raft.

    Raises
    ------
    ExclusionError
        Raised, with the nearest name there is, for what the camera does not have.
    """
    if not texts:
        raise ExclusionError("targets", "names no detector")
    if len(texts) > MAX_TARGETS:
        raise ExclusionError("targets", f"names {len(texts)} things; {MAX_TARGETS} at most")
    found: dict[str, Target] = {}
    for text in texts:
        for target in _targets_of(str(text).strip(), camera):
            found[target.name] = target
    return list(found.values())


def _targets_of(text: str, camera: Camera) -> list[Target]:
    place, slash, amp_text = text.partition("/")
    names = {name.upper(): detector for name, detector in camera.by_name.items()}
    rafts = {detector.raft.upper() for detector in camera.detectors}
    wanted = place.strip().upper()
    # A camera of one raft may call a detector what another calls a raft; the detector is the smaller mistake.
    if wanted in names:
        detectors = [names[wanted]]
    elif wanted.isascii() and wanted.isdigit() and len(wanted) < 7 and int(wanted) in camera.by_id:
        detectors = [camera.by_id[int(wanted)]]
    elif wanted in rafts and not slash:
        detectors = [detector for detector in camera.detectors if detector.raft.upper() == wanted]
    else:
        is_number = wanted.lstrip("-").isdigit()
        near = [] if is_number else difflib.get_close_matches(wanted[:64], [*names, *rafts], n=1)
        hint = f" (did you mean {near[0]}?)" if near else f" (numbers {min(camera.by_id)} to {max(camera.by_id)})"
        raise ExclusionError("targets", f"{camera.name} has no detector {place[:64]!r}{hint}")
    if not slash:
        return [Target(detector=one.id, detector_name=one.name) for one in detectors]
    (detector,) = detectors
    by_name = {name.upper(): name for name in detector.amp_by_name}
    amp = by_name.get(amp_text.strip().upper())
    if amp is None:
        known = ", ".join(detector.amp_by_name)
        raise ExclusionError("targets", f"{detector.name} has no amp {amp_text[:64]!r} (known: {known})")
    return [Target(detector=detector.id, detector_name=detector.name, amp=amp)]


def find_exclusions(which: Sequence[str], known: Iterable[Exclusion], camera: Camera) -> list[int]:
    """Return the numbers of exclusions that are named by their number or by what is off.

    Parameters
    ----------
    which
        ``7`` or ``#7`` for an exclusion's number, taken as it is; else what `parse_targets` takes.
    known
        Those that are not over.

    Raises
    ------
    ExclusionError
        Raised for a name of something that is not off.
    """
    found: dict[int, None] = {}
    listed = list(known)
    for text in which:
        named = text.strip().removeprefix("#")
        if named.isascii() and named.isdigit() and len(named) < 12:
            found[int(named)] = None
            continue
        names = {target.name for target in parse_targets([named], camera)}
        numbers = [one.id for one in listed if one.name in names]
        if not numbers:
            raise ExclusionError("targets", f"{named[:64]} is not excluded")
        found.update(dict.fromkeys(numbers))
    return list(found)


def check_reason(reason: str) -> str:
    """Return a reason, trimmed.

    Raises
    ------
    ExclusionError
        Raised for one that is empty, too long, or holds control characters.
    """
    trimmed = reason.strip()
    if not trimmed:
        raise ExclusionError("reason", "must say why: whoever finds it later will ask")
    if len(trimmed) > MAX_REASON:
        raise ExclusionError("reason", f"is longer than {MAX_REASON} characters")
    if UNPRINTABLE.search(trimmed):
        raise ExclusionError("reason", "must be one line of printable text")
    return trimmed


def merge_config(config: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return per-payload overrides with more of them; where both say something, the latter stands.

    Examples
    --------
    >>> merge_config({"isr": {"flat": False}}, {"isr": {"excluded_amps": {}}})
    {'isr': {'flat': False, 'excluded_amps': {}}}
    """
    merged = {name: dict(values) for name, values in config.items()}
    for name, values in more.items():
        merged[name] = {**merged.get(name, {}), **values}
    return merged
