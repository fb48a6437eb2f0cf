"""Play a recorded night into a system: in its order, at the clock's pace.

The order is that of the recording; with a seed, raws of one exposure come in another order, the same for the same seed.
"""

import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import ValidationError

from rapid.errors import RapidError
from replay.clock import NightClock, Playing
from replay.delivered import Delivered, Delivery
from replay.events import (
    CancelEvent,
    ControlEvent,
    ExclusionEvent,
    FaultEvent,
    NightEvent,
    NoteEvent,
    RawsEvent,
    RequestEvent,
    SidecarEvent,
    VisitCanceledEvent,
    VisitEvent,
)
from replay.recording import Recording
from replay.regenerate import Raw, Regenerator
from replay.targets import RawTarget, SystemDoor

AHEAD = 24
"""Raws made before they are due, per thread that makes them: a CCD at full size takes a third of a second."""


@dataclass(frozen=True)
class Step:
    """One thing that happens.

    Attributes
    ----------
    detector
        Of a raw; empty for any other event.
    problem
        Code of the error that the recorded raw was quarantined with.
    """

    at_s: float
    event: NightEvent
    exposure: int | None = None
    detector: str = ""
    problem: str = ""

    @property
    def label(self) -> str:
        """What happens, in a word or two."""
        name = self.event.kind
        return f"{name} {self.exposure} {self.detector}".strip() if self.exposure else name


def end_of(recording: Recording) -> float:
    """Return when the last thing of a night happens [s]."""
    return max((step.at_s for step in steps_of(recording.events)), default=0.0)


def steps_of(events: Iterable[NightEvent], *, seed: int | None = None) -> list[Step]:
    """Return the steps of a night in order.

    Parameters
    ----------
    seed
        Shuffle the raws of each exposure among the times at which they came.
    """
    chance = random.Random(seed)
    steps: list[Step] = []
    for event in events:
        if isinstance(event, NoteEvent):
            continue  # the system does such things by itself
        if not isinstance(event, RawsEvent):
            steps.append(Step(event.at_s, event, getattr(event, "exposure", None)))
            continue
        detectors = list(event.detectors)
        if seed is not None:
            chance.shuffle(detectors)
        for detector, after_ms in zip(detectors, event.after_ms, strict=True):
            steps.append(
                Step(
                    round(event.at_s + after_ms / 1000, 3),
                    event,
                    event.exposure,
                    detector,
                    event.quarantined.get(detector, ""),
                )
            )
    # Stable: what happened at one time keeps its order.
    return sorted(steps, key=lambda step: step.at_s)


@dataclass
class PlayProgress:
    """How far a night is played."""

    n_steps: int = 0
    n_done: int = 0
    """Steps of this round."""

    n_raws: int = 0
    """Of all rounds."""

    n_loops: int = 0
    """Rounds that have begun."""

    position_s: float = 0.0
    late_s: float = 0.0
    """The most that a step came after its time, in real time [s]: raws were not made, or taken, as fast as asked for."""

    duration_s: float = 0.0
    last: str = ""
    problems: list[str] = field(default_factory=list)


class Player:
    """Plays one recording.

    Parameters
    ----------
    target
        Takes raws and side-cars.
    door
        Takes control changes, requests, announcements and exclusions, and the clock's rate; they are left out without
        one.
    clock
        Says when.
    seed
        See `steps_of`.
    loops
        How often the night is played; 0 for ever. Raws of a later round are the same files again.
    max_gap_s
        Of the time between two events, pass over what is longer than so much of the night; None for no such limit.
    n_threads
        Raws made at a time.
    may_begin
        Called with an exposure before its first raw; it may wait, so that a system is not overrun.
    on_fault
        Called with each fault that is part of the night.
    on_step
        Called after each step.
    restore_rate
        Let the system's clock run at its own pace again when the night is over; else it runs on at the night's.
    """

    def __init__(
        self,
        recording: Recording,
        target: RawTarget,
        clock: NightClock,
        *,
        door: SystemDoor | None = None,
        seed: int | None = None,
        loops: int = 1,
        max_gap_s: float | None = None,
        n_threads: int = 1,
        compress: bool = True,
        may_begin: Callable[[int], None] = lambda _exposure: None,
        on_fault: Callable[[FaultEvent], None] = lambda _fault: None,
        on_step: Callable[[PlayProgress], None] = lambda _progress: None,
        restore_rate: bool = True,
    ) -> None:
        self.clock = clock
        self.delivered = Delivered()
        self._recording = recording
        self._target = target
        self._door = door
        self._steps = steps_of(recording.events, seed=seed)
        self._loops = loops
        self._max_gap_s = max_gap_s
        self._n_threads = n_threads
        self._local = threading.local()
        self._compress = compress
        self._by_name = recording.camera().by_name
        self._may_begin = may_begin
        self._on_fault = on_fault
        self._on_step = on_step
        self._restore_rate = restore_rate
        self._sidecars = Regenerator(recording, compress=compress)
        self._begun: set[int] = set()
        self.progress = PlayProgress(n_steps=len(self._steps), duration_s=end_of(recording))
        self.clock.ends_at_s = self.progress.duration_s

    def run(self) -> Delivered:
        """Play to the end, or until the clock is stopped; return what was delivered.

        Raises
        ------
        ConfigurationError
            Raised if the recording says nothing of what arrives.
        StoreError
            Raised if the target takes nothing.
        """
        if self._door is not None:
            self.clock.on_rate = self._door.set_rate
        try:
            with ThreadPoolExecutor(self._n_threads, thread_name_prefix="raws") as pool:
                n = 0
                while self.clock.state is not Playing.STOPPED and (self._loops == 0 or n < self._loops):
                    if n:
                        self.clock.seek(0.0)
                        self._begun.clear()
                    n += 1
                    self.progress.n_loops = n
                    self.progress.n_done = 0
                    if n == 1:
                        self.clock.hold()
                        self._get_ready(pool)
                        self.clock.begin()
                        if self._door is not None:
                            self._door.set_rate(self.clock.board_rate)
                    if not self._play(pool):
                        break
        finally:
            if self._door is not None:
                self.clock.on_rate = lambda _rate: None
                # Not left standing, as in a night that was stepped through: what has come must come to its end.
                goes_on = self.clock.rate if math.isfinite(self.clock.rate) else 1.0
                self._door.set_rate(1.0 if self._restore_rate else goes_on)
        return self.delivered

    def _play(self, pool: ThreadPoolExecutor) -> bool:
        """Play once; False if the clock was stopped."""
        place = 0
        made: deque[tuple[int, Future[Raw]]] = deque()
        try:
            while place < len(self._steps):
                step = self._steps[place]
                self._make_ahead(pool, made, place)
                if self._max_gap_s is not None and place:
                    # Never before what a person sought: the clock refuses to go back.
                    self.clock.skip_to(step.at_s - self._max_gap_s)
                due = self.clock.wait_until(step.at_s)
                if due.stopped:
                    return False
                if due.sought_s is not None:
                    place = self._first_after(due.sought_s)
                    _drop(made)
                    continue
                self._do(step, made)
                self.progress.late_s = max(self.progress.late_s, self.clock.late_s(step.at_s))
                place += 1
                self.progress.n_done += 1
                self.progress.position_s = step.at_s
                self.progress.last = step.label
                self._on_step(self.progress)
            return True
        finally:
            _drop(made)

    def _get_ready(self, pool: ThreadPoolExecutor) -> None:
        """Make a raw that nobody gets: the first takes some seconds, until what makes it is compiled."""
        first = next((step for step in self._steps if step.detector), None)
        if first is not None and math.isfinite(self.clock.rate):
            pool.submit(self._make, first).result()

    def _first_after(self, at_s: float) -> int:
        return next((place for place, step in enumerate(self._steps) if step.at_s >= at_s), len(self._steps))

    def _make_ahead(self, pool: ThreadPoolExecutor, made: deque[tuple[int, Future[Raw]]], place: int) -> None:
        """Begin to make raws that are due soon: one that is made late comes late."""
        next_place = made[-1][0] + 1 if made else place
        while len(made) < AHEAD * self._n_threads and next_place < len(self._steps):
            if self._steps[next_place].detector:
                made.append((next_place, pool.submit(self._make, self._steps[next_place])))
            next_place += 1

    def _make(self, step: Step) -> Raw:
        if not hasattr(self._local, "regenerator"):
            self._local.regenerator = Regenerator(self._recording, compress=self._compress)
        raw: Raw = self._local.regenerator.raw(step.exposure, step.detector, problem=step.problem)
        return raw

    def _do(self, step: Step, made: deque[tuple[int, Future[Raw]]]) -> None:
        event = step.event
        if step.detector:
            self._deliver(step, made.popleft()[1].result())
        elif isinstance(event, SidecarEvent):
            self._begin(event.exposure)
            sidecar = self._sidecars.sidecar(event.exposure, event.detectors)
            self._target.put(sidecar.key, sidecar.data)
        elif isinstance(event, FaultEvent):
            self._on_fault(event)
        elif self._door is not None:
            try:
                self._ask(event, self._door)
            except (RapidError, ValidationError) as error:
                # The recorded system took it: that this one does not is for the report.
                self.progress.problems.append(f"{event.kind} at {event.at_s:g} s: {error}")

    def _ask(self, event: NightEvent, door: SystemDoor) -> None:
        if isinstance(event, ControlEvent):
            door.change_control(event)
        elif isinstance(event, RequestEvent):
            door.ask(event)
        elif isinstance(event, CancelEvent):
            door.cancel(event)
        elif isinstance(event, VisitEvent):
            door.announce(event)
        elif isinstance(event, VisitCanceledEvent):
            door.cancel_visit(event)
        elif isinstance(event, ExclusionEvent):
            door.exclude(event)

    def _begin(self, exposure: int) -> None:
        if exposure not in self._begun:
            self._begun.add(exposure)
            self._may_begin(exposure)

    def _deliver(self, step: Step, raw: Raw) -> None:
        exposure = step.exposure or 0
        self._begin(exposure)
        # Noted first: what is there must be accounted for.
        delivery = Delivery.of(raw.key, raw.data, is_whole=raw.is_whole)
        self.delivered.take(exposure, self._by_name[step.detector].id, delivery)
        self._target.put(raw.key, raw.data)
        self.progress.n_raws += 1


def _drop(made: "deque[tuple[int, Future[Raw]]]") -> None:
    while made:
        made.pop()[1].cancel()
