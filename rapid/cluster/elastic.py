"""Decide how many workers a group should have, from what the board knows; remember, explain, and do it.

The decision is pure (`Sizer`); the loop around it asks the board, tells the Kubernetes API, and does nothing while
either is away: sizes stay as they are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rapid.errors import RapidError

HALF = 0.5


class SizePolicy(BaseModel):
    """How a group may grow and shrink."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str = Field(description="Name of the StatefulSet.")
    pools: tuple[str, ...] = Field(min_length=1, description="Pools whose waiting jobs it is there for.")
    least: int = Field(default=1, ge=0)
    most: int = Field(default=50, ge=1)
    drain_s: float = Field(default=120.0, gt=0, description="The backlog should be done in this time [s].")
    fill: float = Field(default=0.8, gt=0, le=1, description="Share of the cadence that a current exposure may take.")
    largest_step: int = Field(default=8, ge=1, description="Workers added at once at most.")
    calm: int = Field(
        default=4, ge=1, description="Decisions in a row that must ask for fewer before any is taken away."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "SizePolicy":
        if self.least > self.most:
            raise ValueError("least is more than most")
        return self


@dataclass(frozen=True)
class Facts:
    """What lies on the board for a group.

    Attributes
    ----------
    backlog
        Jobs of older exposures and builds that wait.
    current
        Jobs of the newest exposure that wait or run.
    workers
        Workers that serve the pools, of this group and others, and give signs of life.
    job_s
        What a job takes [s]; None if none ran yet.
    cadence_s
        From exposure to exposure [s]; None if not known.
    """

    backlog: int
    current: int
    workers: int
    job_s: float | None
    cadence_s: float | None


@dataclass(frozen=True)
class Decision:
    """A size, and why, in a sentence."""

    group: str
    now: int
    size: int
    why: str

    @property
    def is_change(self) -> bool:
        """Whether anything is to be done."""
        return self.size != self.now


class Sizer:
    """Decides on the size of one group, with memory: grows at once, shrinks after it has been calm for a while."""

    def __init__(self, policy: SizePolicy) -> None:
        self.policy = policy
        self._calm = 0

    def decide(self, now: int, facts: Facts) -> Decision:
        """Return the size for the moment."""
        policy = self.policy
        wanted, why = self._wanted(now, facts)
        bounded = min(max(wanted, policy.least), policy.most)
        if bounded != wanted:
            why += f"; bounds are {policy.least} to {policy.most}"
        if bounded > now:
            self._calm = 0
            size = min(bounded, now + policy.largest_step)
            if size < bounded:
                why += f"; at most {policy.largest_step} at once"
            return Decision(policy.group, now, size, why)
        if bounded == now:
            self._calm = 0
            return Decision(policy.group, now, now, why)
        self._calm += 1
        if self._calm < policy.calm and now <= policy.most:
            return Decision(
                policy.group, now, now, f"{why}; fewer would do, {self._calm} of {policy.calm} times in a row"
            )
        self._calm = 0
        # Half of what is too many: a worker that is gone was warm, the next one is cold.
        size = min(now - max(math.ceil((now - bounded) * HALF), 1), policy.most)
        return Decision(policy.group, now, size, why)

    def _wanted(self, now: int, facts: Facts) -> tuple[int, str]:
        policy = self.policy
        if facts.job_s is None:
            if facts.backlog + facts.current and facts.workers == 0:
                return max(now, 1), f"{facts.backlog + facts.current} jobs wait and no worker is there"
            return now, "nothing is known yet of what a job takes"
        for_backlog = math.ceil(facts.backlog * facts.job_s / policy.drain_s)
        why = f"{facts.backlog} jobs of backlog at {facts.job_s:.2f} s want {for_backlog} workers for {policy.drain_s:.0f} s"
        more = 0
        if facts.cadence_s is not None and facts.current:
            needed = math.ceil(facts.current * facts.job_s / (policy.fill * facts.cadence_s))
            predicted_s = facts.current * facts.job_s / max(facts.workers, 1)
            others = max(facts.workers - now, 0)
            more = max(needed - others, 0)
            why += (
                f"; {facts.current} current jobs would take {predicted_s:.1f} s of a cadence of {facts.cadence_s:.1f} s"
                f" and want {more} here beside {others} others"
            )
        return max(for_backlog, more), why


@dataclass
class Controller:
    """Decides for several groups again and again.

    Attributes
    ----------
    sizers
        One per group.
    ask
        Gives the facts of a policy's pools; raises `RapidError` if the board is away.
    read_size, set_size
        Read and set a group's size; raise `RapidError` if the API is away.
    is_dry
        Decide and tell, but change nothing.
    """

    sizers: list[Sizer]
    ask: Callable[[SizePolicy], Facts]
    read_size: Callable[[str], int]
    set_size: Callable[[str, int], None]
    is_dry: bool = False

    def step(self) -> tuple[list[Decision], list[RapidError]]:
        """Decide once for every group, and carry it out.

        Returns
        -------
        decisions
            One for each group that could be asked about and set.
        faults
            One for each other: its size stays as it is, and the others are decided on all the same.
        """
        decisions, faults = [], []
        for sizer in self.sizers:
            try:
                decision = sizer.decide(self.read_size(sizer.policy.group), self.ask(sizer.policy))
                if decision.is_change and not self.is_dry:
                    self.set_size(decision.group, decision.size)
            except RapidError as error:
                faults.append(error)
            else:
                decisions.append(decision)
        return decisions, faults
