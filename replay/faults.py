"""Faults as data: what goes wrong in a night on purpose, and when.

Each is a `FaultEvent` of a recording, or a line of a YAML file beside it (`replay.fault_files`). Three kinds of them, told apart
by what they touch:

* raws (drop, delay, duplicate, truncate, corrupt): the night itself is changed before it is played (`spoil_night`), so that
  they happen in any target and the books know what was delivered;
* processes and servers (kill, freeze, slow, outages, power cut, full disk, clock skew): `replay.commit`, on a system of ours;
* payloads (crash, die, hang, leak, slow): `replay.misbehave`, a payload that is put into the night's pipelines.

With a probability, the seed of the recording and the place of the fault in it decide: the same night every time.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from rapid.errors import ConfigurationError
from replay.events import FaultEvent, NightEvent, RawsEvent
from replay.recording import Recording

VALKEY = "valkey"
AWAIT = "await"
ROLE = r"^(valkey|(head|worker|gather|display|publish)(-[a-z0-9-]+)?)$"
MAX_S = 86_400.0
BAD_HEADER = "raw_corrupt"
CUT_OFF = "raw_truncated"
NO_FITS = "raw_not_fits"


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(
        default=1.0, gt=0, le=1, description="That it happens: of a fault of raws or payloads, to each of them."
    )


class _BusyFault(_Fault):
    """Something happens to a process, if need be while it has a job in hand."""

    target: str = Field(pattern=ROLE, description="Name of a role's process, `worker-0`, or valkey.")
    busy: bool = Field(default=False, description="Wait until it has a job in hand.")

    @model_validator(mode="after")
    def _has_jobs(self) -> Self:
        if self.busy and not self.target.startswith("worker"):
            raise ValueError(f"busy: only a worker has jobs, {self.target} has none")
        return self


class Kill(_BusyFault):
    """SIGKILL."""

    kind: Literal["kill"] = "kill"
    what: Literal["role", "all", "payload"] = Field(
        default="all",
        description="role: it alone; all: with what it started, as when a pod goes; payload: only what it started, as "
        "the kernel does when memory is short.",
    )

    @model_validator(mode="after")
    def _has_payload(self) -> "Kill":
        if self.what == "payload" and not self.target.startswith("worker"):
            raise ValueError(f"what: only a worker has payloads, {self.target} has none")
        return self


class Freeze(_BusyFault):
    """SIGSTOP to a role and what it started, SIGCONT later: a zombie that does not know it."""

    kind: Literal["freeze"] = "freeze"
    for_s: float = Field(gt=0, le=MAX_S, description="Of real time [s].")
    what: Literal["all", "role"] = Field(
        default="all", description="role: it alone; its payload goes on, and its answer waits for the thaw."
    )
    given_away: bool = Field(
        default=False,
        description="Only with a job in hand, and thawed once that was given to another worker: its report is surely "
        "late. for_s is then how long to wait for that at most.",
    )

    @model_validator(mode="after")
    def _is_worker(self) -> "Freeze":
        if self.given_away and not self.target.startswith("worker"):
            raise ValueError(f"given_away: only a worker has jobs, {self.target} has none")
        return self


class Slow(_Fault):
    """A role gets only a share of the processor."""

    kind: Literal["slow"] = "slow"
    target: str = Field(pattern=ROLE)
    for_s: float = Field(gt=0, le=MAX_S, description="Of real time [s].")
    share: float = Field(default=0.2, gt=0, lt=1, description="Of the time that it runs.")


class Outage(_Fault):
    """The board's server, or a role, is killed and stays down."""

    kind: Literal["outage"] = "outage"
    target: str = Field(default=VALKEY, pattern=ROLE)
    for_s: float = Field(gt=0, le=MAX_S, description="Of real time [s].")


class S3Outage(_Fault):
    """The bucket that raws land in answers no role of the system; what is put into it meanwhile is there afterwards."""

    kind: Literal["s3_outage"] = "s3_outage"
    for_s: float = Field(gt=0, le=MAX_S, description="Of real time [s].")


class PowerCut(_Fault):
    """The Valkey is killed, and its last writes are gone: they had not reached the disk."""

    kind: Literal["power_cut"] = "power_cut"
    for_s: float = Field(default=0.5, gt=0, le=MAX_S, description="Of real time [s].")
    lost_bytes: int = Field(default=0, ge=0, description="Of the append-only file, from its end.")
    lost_since: int = Field(
        default=0, ge=0, description="An exposure: everything is lost from the first word of it on, its post included."
    )

    @model_validator(mode="after")
    def _loses_something(self) -> "PowerCut":
        if bool(self.lost_bytes) == bool(self.lost_since):
            raise ValueError("lost_bytes: say what is lost, so many bytes or lost_since an exposure")
        return self


class FullDisk(_Fault):
    """A role can write nothing: every file it makes stays empty, with an error."""

    kind: Literal["full_disk"] = "full_disk"
    target: str = Field(pattern=r"^(head|worker|gather|display|publish)(-[a-z0-9-]+)?$")
    for_s: float = Field(gt=0, le=MAX_S, description="Of real time [s].")


class ClockSkew(_Fault):
    """The server's clock jumps ahead: leases and time-outs see it, results do not."""

    kind: Literal["clock_skew"] = "clock_skew"
    by_s: float = Field(gt=0, le=7 * MAX_S)


class _RawFault(_Fault):
    """Something happens to raws on their way, from the fault's moment on."""

    exposures: tuple[int, ...] = Field(default=(), description="Ids, or sequence numbers; all from here on if empty.")
    detectors: tuple[str, ...] = Field(default=(), description="Names; all if empty.")
    until_s: float | None = Field(default=None, ge=0, description="Raws that arrive later are spared [s of the night].")

    def touches(self, exposure: int, detector: str) -> bool:
        """Whether it is meant for a raw."""
        is_exposure = not self.exposures or exposure in self.exposures or exposure % 100_000 in self.exposures
        return is_exposure and (not self.detectors or detector in self.detectors)


class Drop(_RawFault):
    """A raw never comes."""

    kind: Literal["drop"] = "drop"


class Delay(_RawFault):
    """A raw comes late."""

    kind: Literal["delay"] = "delay"
    by_s: float = Field(gt=0, le=MAX_S, description="Of the night [s].")
    after_summary: bool = Field(
        default=False, description="Not before the exposure's first summary is out, however long that takes."
    )


class Duplicate(_RawFault):
    """A raw is written again under its name."""

    kind: Literal["duplicate"] = "duplicate"
    by_s: float = Field(default=1.0, ge=0, le=MAX_S, description="How long after the first [s of the night].")


class Truncate(_RawFault):
    """A raw ends in the middle of its pixels."""

    kind: Literal["truncate"] = "truncate"
    mended_after_s: float | None = Field(
        default=None, gt=0, le=MAX_S, description="The whole one comes so long after [s of the night]; never if none."
    )
    after_quarantine: bool = Field(
        default=False, description="It is mended not before the one that is cut off was set aside."
    )

    @model_validator(mode="after")
    def _is_mended(self) -> "Truncate":
        if self.after_quarantine and self.mended_after_s is None:
            raise ValueError("after_quarantine: nothing is mended without mended_after_s")
        return self


class Corrupt(_RawFault):
    """A raw's header is damaged, or it is no FITS file at all."""

    kind: Literal["corrupt"] = "corrupt"
    what: Literal["header", "everything"] = "header"


class PayloadFault(_RawFault):
    """Science code misbehaves on some raws."""

    kind: Literal["payload"] = "payload"
    does: Literal["fail", "die", "hang", "leak", "slow"] = Field(
        description="fail: raises; die: its process is gone; hang: never answers; leak: keeps memory; slow: takes long."
    )
    pipelines: tuple[str, ...] = Field(default=("quicklook",), min_length=1)
    times: int = Field(default=0, ge=0, description="Only the first so many attempts of each job; always if 0.")
    for_s: float = Field(default=1.0, gt=0, le=MAX_S, description="How much longer it takes if it is slow [s].")
    leak_mb: int = Field(default=64, gt=0, le=4096, description="What a job keeps if it leaks [MB].")
    time_limit_s: float | None = Field(
        default=None, gt=0, le=MAX_S, description="Hard limit of the pipelines' jobs meanwhile [s]."
    )


RawFault = Drop | Delay | Duplicate | Truncate | Corrupt
ProcessFault = Kill | Freeze | Slow | Outage | S3Outage | PowerCut | FullDisk | ClockSkew
Fault = Annotated[
    Kill
    | Freeze
    | Slow
    | Outage
    | S3Outage
    | PowerCut
    | FullDisk
    | ClockSkew
    | Drop
    | Delay
    | Duplicate
    | Truncate
    | Corrupt
    | PayloadFault,
    Field(discriminator="kind"),
]
_FAULT: TypeAdapter[Fault] = TypeAdapter(Fault)
KINDS = tuple(kind.model_fields["kind"].default for kind in get_args(ProcessFault | RawFault | PayloadFault))


class Await(BaseModel):
    """No fault: the night stands until the system has come so far with an exposure. Part of a delay, or of a story."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["await"] = "await"
    exposure: int = Field(gt=0)
    until: Literal["posted", "result", "summary", "complete", "quarantined"] = Field(
        default="summary",
        description="Its first batch is on the board; its first result is in; a summary is out; a complete one is; a raw "
        "of it was set aside.",
    )
    pipeline: str = Field(
        default="", description="Of this pipeline; of any if empty. `build_flat`: the calibs are there."
    )
    detector: str = Field(default="", description="Whose raw was set aside; anyone's if empty.")

    @property
    def of(self) -> str:
        """Which pipeline, or detector."""
        return self.detector if self.until == "quarantined" else self.pipeline


def parse_fault(facts: Mapping[str, Any]) -> Fault:
    """Read a fault.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for what is none.
    """
    try:
        return _FAULT.validate_python(dict(facts))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # The kind comes first in the place; a person wants the field. What a model says as a whole names its own.
        where = ".".join(str(part) for part in first["loc"][1:]) or ("" if first["loc"] else "kind")
        kind = facts.get("kind")
        message = first["msg"].removeprefix("Value error, ") if kind in KINDS else f"is one of {', '.join(KINDS)}"
        raise ConfigurationError(
            ": ".join(part for part in (f"fault {kind or ''}".strip(), where) if part), message
        ) from error


def fault_event(at_s: float, fault: BaseModel) -> FaultEvent:
    """Return a fault as an event of a night."""
    return FaultEvent(at_s=at_s, fault={"kind": fault.kind} | fault.model_dump(mode="json", exclude_defaults=True))  # type: ignore[attr-defined]  # every kind of fault has one


def is_power_cut(event: NightEvent) -> bool:
    """Whether an event takes the last writes from the board's server."""
    return isinstance(event, FaultEvent) and event.fault.get("kind") == "power_cut"


def with_faults(recording: Recording, faults: Iterable[FaultEvent]) -> Recording:
    """Return a night with more faults."""
    changed = recording.with_manifest()
    # Stable: a fault at the moment of an arrival comes after it.
    changed.events = sorted([*recording.events, *faults], key=lambda event: event.at_s)
    return changed


def faults_of(recording: Recording) -> list[tuple[float, Fault]]:
    """Return the faults of a night in time.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for what is no fault, or names a detector or role that is not there.
    """
    names = recording.camera().by_name
    found: list[tuple[float, Fault]] = []
    for event in recording.events:
        if not isinstance(event, FaultEvent) or event.fault.get("kind") == AWAIT:
            continue
        fault = parse_fault(event.fault)
        if isinstance(fault, _RawFault):
            unknown = [name for name in fault.detectors if name not in names]
            if unknown:
                raise ConfigurationError(
                    f"fault {fault.kind}: detectors", f"{recording.manifest.camera} has no {unknown[0]}"
                )
        found.append((event.at_s, fault))
    return found


def spoil_night(recording: Recording) -> Recording:
    """Return the night as its faults of raws make it: what is dropped does not arrive, what is late arrives late.

    Faults of processes stay in it as events; those of raws and payloads, and what a probability leaves out, do not. A
    night that was spoilt is spoilt no further.
    """
    found = faults_of(recording)
    seed = recording.manifest.seed
    raws = [(at_s, fault) for at_s, fault in found if isinstance(fault, RawFault)]
    events: list[NightEvent] = []
    place = 0
    for event in recording.events:
        if isinstance(event, FaultEvent) and event.fault.get("kind") != AWAIT:
            fault = found[place][1]
            is_drawn = isinstance(fault, ProcessFault) and chance_of(seed, place, 0, "") < fault.probability
            place += 1
            if is_drawn:
                events.append(event)
        elif isinstance(event, RawsEvent):
            events += _spoil_arrival(event, raws, seed)
        else:
            events.append(event)
    changed = recording.with_manifest()
    changed.events = sorted(events, key=lambda event: event.at_s)
    return changed


def chance_of(seed: int, place: int, exposure: int, detector: str) -> float:
    """Draw a number between 0 and 1: the same for the same fault and raw."""
    return random.Random(f"{seed} {place} {exposure} {detector}").random()


def _spoil_arrival(event: RawsEvent, faults: list[tuple[float, RawFault]], seed: int) -> list[NightEvent]:
    kept: list[tuple[str, int]] = []
    quarantined = dict(event.quarantined)
    later: list[NightEvent] = []
    for detector, after_ms in zip(event.detectors, event.after_ms, strict=True):
        at_s = round(event.at_s + after_ms / 1000, 3)
        fault = next(
            (
                fault
                for place, (from_s, fault) in enumerate(faults)
                if from_s <= at_s
                and (fault.until_s is None or at_s <= fault.until_s)
                and fault.touches(event.exposure, detector)
                and chance_of(seed, place, event.exposure, detector) < fault.probability
            ),
            None,
        )
        problem = event.quarantined.get(detector, "")
        match fault:
            case Drop():
                quarantined.pop(detector, None)
                continue
            case Delay():
                quarantined.pop(detector, None)
                late = _one(event.exposure, detector, at_s + fault.by_s, problem)
                later += [fault_event(late.at_s, Await(exposure=event.exposure))] if fault.after_summary else []
                later.append(late)
                continue
            case Duplicate():
                later.append(_one(event.exposure, detector, at_s + fault.by_s, problem))
            case Truncate():
                quarantined[detector] = CUT_OFF
                if fault.mended_after_s is not None:
                    mended = _one(event.exposure, detector, at_s + fault.mended_after_s, problem)
                    if fault.after_quarantine:
                        seen = Await(exposure=event.exposure, until="quarantined", detector=detector)
                        later.append(fault_event(mended.at_s, seen))
                    later.append(mended)
            case Corrupt():
                quarantined[detector] = BAD_HEADER if fault.what == "header" else NO_FITS
        kept.append((detector, after_ms))
    if not kept:
        return later
    arrived = event.model_copy(
        update={
            "detectors": tuple(name for name, _ in kept),
            "after_ms": tuple(ms for _, ms in kept),
            "quarantined": quarantined,
        }
    )
    return [arrived, *later]


def _one(exposure: int, detector: str, at_s: float, problem: str) -> RawsEvent:
    quarantined = {detector: problem} if problem else {}
    return RawsEvent(
        at_s=round(at_s, 3), exposure=exposure, detectors=(detector,), after_ms=(0,), quarantined=quarantined
    )
