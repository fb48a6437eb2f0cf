"""What will go wrong in a night: drawn from a seed before anything starts, printed, and the same every time.

A night is a list of scenes. In each one exposure arrives, in its own disorder, while the scene's faults are committed
one after the other. Moments are gaps to the fault before, so that a slow machine sees the same night as a fast one.
"""

import random
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VALKEY = "valkey"
FREEZE_RATIO = 3
"""Kills for each freeze."""

OUTAGE_S = 10.0
LOST_BYTES = 200_000
"""What a busy board writes in a second, the longest that it goes without a sync."""

LEASE_S = 3.0


class FaultKind(StrEnum):
    """What is done to a process."""

    KILL = "kill"
    """SIGKILL to the role alone: what it started lives on as long as it likes."""

    KILL_ALL = "kill_all"
    """SIGKILL to the role and what it started, as when a pod goes."""

    KILL_PAYLOAD = "kill_payload"
    """SIGKILL to a worker's payload process alone, as the kernel does when memory is short."""

    POWER_CUT = "power_cut"
    """SIGKILL to the Valkey, and the last writes are gone: they had not reached the disk."""

    FREEZE = "freeze"
    """SIGSTOP to the role and what it started, SIGCONT later: a zombie that does not know it."""

    OUTAGE = "outage"
    """SIGKILL, and down for a while."""


class Disorder(StrEnum):
    """What happens to a raw on its way."""

    LATE = "late"
    """Arrives only after the next exposure did."""

    TWICE = "twice"
    """Written again under its name, with the same content."""

    COPIED = "copied"
    """A second copy lies in another folder."""

    TRUNCATED = "truncated"
    """Ends in the middle of its pixels, for good."""

    MENDED = "mended"
    """Ends in the middle; the whole one comes under its name later."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(_Facts):
    """One thing that is done to one process."""

    after_s: float = Field(ge=0, description="Since the fault before.")
    kind: FaultKind
    target: str = Field(description="Name of the role's process, or valkey.")
    for_s: float = Field(default=0.0, ge=0, description="How long it is frozen or down.")
    lost_bytes: int = Field(default=0, ge=0, description="Of the append-only file, from its end.")


class Scene(_Facts):
    """One exposure and what goes wrong meanwhile."""

    seq_num: int
    shuffle: int = Field(description="Seed of the order in which its raws arrive.")
    sidecar_last: bool = Field(description="The list of detectors read out comes after the raws.")
    disorder: dict[int, Disorder] = Field(description="By detector, what happens to its raw.")
    faults: tuple[Fault, ...]


class Schedule(_Facts):
    """A whole night of faults."""

    seed: int
    scenes: tuple[Scene, ...]

    @property
    def faults(self) -> list[Fault]:
        """All faults in order."""
        return [fault for scene in self.scenes for fault in scene.faults]

    def count(self, *kinds: FaultKind) -> int:
        """Return how many faults are of some kinds."""
        return sum(fault.kind in kinds for fault in self.faults)


class Scale(_Facts):
    """How much of everything."""

    kills: int = Field(
        default=300, ge=1, description="Processes killed with SIGKILL; a third as many are frozen besides."
    )
    exposures: int = Field(default=30, ge=1)
    detectors: tuple[int, ...] = Field(min_length=1)
    heads: int = Field(default=2, ge=1)
    gathers: int = Field(default=2, ge=1)
    workers: int = Field(default=4, ge=1)
    outages: int = Field(default=1, ge=0, description="Of the Valkey, ten seconds each.")
    gap_s: float = Field(default=2.0, ge=0, description="Mean time between two faults.")
    disordered: int = Field(default=5, ge=0, description="Raws of each exposure that something happens to.")


def make_schedule(seed: int, scale: Scale) -> Schedule:
    """Draw a night of faults.

    Parameters
    ----------
    seed
        The same seed and scale give the same night.

    Notes
    -----
    Every kind of process gets its share: workers most, since most work is in their hands.
    """
    rng = random.Random(seed)
    faults = [_draw_kill(rng, scale) for _ in range(scale.kills)]
    faults += [_draw_freeze(rng, scale) for _ in range(scale.kills // FREEZE_RATIO)]
    rng.shuffle(faults)
    per_scene: list[list[Fault]] = [[] for _ in range(scale.exposures)]
    for number, fault in enumerate(faults):
        per_scene[number * scale.exposures // len(faults)].append(fault)
    for number in range(scale.outages):
        place = (number + 1) * scale.exposures // (scale.outages + 1)
        outage = Fault(after_s=scale.gap_s, kind=FaultKind.OUTAGE, target=VALKEY, for_s=OUTAGE_S)
        per_scene[min(place, scale.exposures - 1)].append(outage)
    order = list(range(1, scale.exposures + 1))
    for place in range(0, len(order) - 1, 4):  # now and then an older exposure arrives after a newer one
        order[place], order[place + 1] = order[place + 1], order[place]
    return Schedule(
        seed=seed,
        scenes=tuple(
            Scene(
                seq_num=seq_num,
                shuffle=rng.randrange(1 << 30),
                sidecar_last=rng.random() < 0.3,
                disorder=_draw_disorder(rng, scale),
                faults=tuple(own),
            )
            for seq_num, own in zip(order, per_scene, strict=True)
        ),
    )


def _draw_kill(rng: random.Random, scale: Scale) -> Fault:
    after_s = round(rng.expovariate(1 / scale.gap_s), 2) if scale.gap_s else 0.0
    draw = rng.random()
    if draw < 0.05:
        return Fault(after_s=after_s, kind=FaultKind.KILL, target=VALKEY)
    if draw < 0.08:
        lost = rng.randrange(LOST_BYTES)
        return Fault(after_s=after_s, kind=FaultKind.POWER_CUT, target=VALKEY, for_s=0.5, lost_bytes=lost)
    if draw < 0.45:
        kind = rng.choice([FaultKind.KILL, FaultKind.KILL_ALL])
        return Fault(after_s=after_s, kind=kind, target=f"worker-{rng.randrange(scale.workers)}")
    if draw < 0.60:
        return Fault(after_s=after_s, kind=FaultKind.KILL_PAYLOAD, target=f"worker-{rng.randrange(scale.workers)}")
    if draw < 0.82:
        return Fault(after_s=after_s, kind=FaultKind.KILL_ALL, target=_one_of(rng, "head", scale.heads))
    return Fault(after_s=after_s, kind=FaultKind.KILL_ALL, target=_one_of(rng, "gather", scale.gathers))


def _draw_freeze(rng: random.Random, scale: Scale) -> Fault:
    after_s = round(rng.expovariate(1 / scale.gap_s), 2) if scale.gap_s else 0.0
    targets = [f"worker-{n}" for n in range(scale.workers)] * 2
    targets += [_one_of(rng, "head", scale.heads), _one_of(rng, "gather", scale.gathers), VALKEY]
    target = rng.choice(targets)
    # Some thaw before their lease runs out, most after; a server that is slow is not one that is dead.
    longest_s = LEASE_S if target == VALKEY else 3 * LEASE_S
    return Fault(after_s=after_s, kind=FaultKind.FREEZE, target=target, for_s=round(rng.uniform(0.5, longest_s), 2))


def _one_of(rng: random.Random, role: str, n: int) -> str:
    return role if n == 1 else f"{role}-{rng.randrange(n)}"


def _draw_disorder(rng: random.Random, scale: Scale) -> dict[int, Disorder]:
    n = min(scale.disordered, len(scale.detectors))
    return {number: rng.choice(list(Disorder)) for number in sorted(rng.sample(scale.detectors, n))}


def describe(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as data: enough to play it again."""
    return schedule.model_dump(mode="json", exclude_defaults=True)
