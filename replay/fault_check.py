"""Refuse faults that cannot happen, before a night begins: a name that is not there would be found out at its end, or never."""

from collections.abc import Collection, Iterator

from rapid.errors import ConfigurationError
from replay.events import FaultEvent, RawsEvent
from replay.faults import (
    AWAIT,
    VALKEY,
    Await,
    Freeze,
    FullDisk,
    Kill,
    Outage,
    PayloadFault,
    PowerCut,
    RawFault,
    S3Outage,
    Slow,
    faults_of,
)
from replay.recording import Recording


def check_exposures(night: Recording) -> None:
    """Refuse a fault of raws that touches none, and one that names an exposure that does not come.

    Raises
    ------
    ConfigurationError
        Raised, naming the fault's field.
    """
    known = {event.exposure for event in night.events if isinstance(event, RawsEvent)}
    for field, exposure in _named(night):
        if exposure not in known and exposure not in {number % 100_000 for number in known}:
            raise ConfigurationError(field, f"no raw of {exposure} arrives in this night")
    arrivals = [event for event in night.events if isinstance(event, RawsEvent)]
    for from_s, fault in faults_of(night):
        if isinstance(fault, RawFault | PayloadFault) and not any(
            _touches(fault, from_s, event, by_raw=isinstance(fault, RawFault)) for event in arrivals
        ):
            until = "" if fault.until_s is None else f" to {fault.until_s:g} s"
            raise ConfigurationError(
                f"fault {fault.kind}: at_s", f"nothing that it names arrives from {from_s:g} s{until} on"
            )


def _named(night: Recording) -> Iterator[tuple[str, int]]:
    """Yield the exposures that faults name, each with its field."""
    for _, fault in faults_of(night):
        if isinstance(fault, RawFault | PayloadFault):
            yield from ((f"fault {fault.kind}: exposures", exposure) for exposure in fault.exposures)
        elif isinstance(fault, PowerCut) and fault.lost_since:
            yield f"fault {fault.kind}: lost_since", fault.lost_since
    for event in night.events:
        if isinstance(event, FaultEvent) and event.fault.get("kind") == AWAIT:
            yield f"{AWAIT}: exposure", Await.model_validate(event.fault).exposure


def _touches(fault: RawFault | PayloadFault, from_s: float, event: RawsEvent, *, by_raw: bool) -> bool:
    last_s = float("inf") if fault.until_s is None else fault.until_s
    return any(
        from_s <= event.at_s + (after_ms / 1000 if by_raw else 0.0) <= last_s
        and fault.touches(event.exposure, detector)
        for detector, after_ms in zip(event.detectors, event.after_ms, strict=True)
    )


def check_targets(night: Recording, roles: Collection[str], *, has_bucket: bool) -> None:
    """Refuse a fault of a process, or of a bucket, that the night's system does not have.

    Parameters
    ----------
    roles
        Names of its processes, the board's server left out.
    has_bucket
        Whether its raws are in a bucket that can be cut off.

    Raises
    ------
    ConfigurationError
        Raised, naming the fault's field.
    """
    for _, fault in faults_of(night):
        if isinstance(fault, S3Outage):
            if not has_bucket:
                raise ConfigurationError(
                    f"fault {fault.kind}",
                    "the raws of this system are in no bucket that can be cut off: "
                    "--to s3://bucket/prefix?endpoint_url=http://...",
                )
            continue
        if not isinstance(fault, Kill | Freeze | Slow | Outage | FullDisk) or fault.target in {VALKEY, *roles}:
            continue
        raise ConfigurationError(
            f"fault {fault.kind}: target", f"{fault.target}: the system has {', '.join([VALKEY, *roles])}"
        )
