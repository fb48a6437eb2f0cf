"""A whole system of real processes for a replay, in a folder of its own; and what came of a night in it."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.control.store import ControlStore
from rapid.dispatch.board import Board
from rapid.errors import ConfigurationError, RapidError, StoreError
from rapid.pipeline.store import default_book
from rapid.products.directory import DirectoryStore
from rapid.results.store import open_results
from rapid.wiring.camera import adopt_camera
from rapid.wiring.pools import own_pools
from rapid.wiring.roles import run_head
from rapid.wiring.settings import RoleSettings, make_settings
from rapid.wiring.supervisor import Supervisor
from replay.clock import NightClock
from replay.commit import Committer
from replay.delivered import Delivered
from replay.door import DoorSource, HeadThread
from replay.events import FaultEvent, RequestEvent
from replay.fault_check import check_exposures, check_targets
from replay.faults import FullDisk, Kill, ProcessFault, is_power_cut, spoil_night
from replay.incident import incident_again
from replay.invariants import NAMED_WITHIN_S, Accountant, Interruption, one_each
from replay.outcome import read_outcome
from replay.pace import measure_loop_s
from replay.play import Player, PlayProgress
from replay.promises import Started, check_promises
from replay.recording import MANIFEST, NightSystem, Recording
from replay.s3_gate import gate_before
from replay.surroundings import surroundings
from replay.targets import BucketTarget, DirectoryTarget, RawTarget, SystemDoor
from replay.turnstile import Turnstile
from replay.witness import Witness

MAX_OPEN = 3
"""Exposures in flight before the next one is delivered, when a night goes as fast as possible."""

STALL_S = 180.0
"""A night in which nothing happens for this long has failed."""

GATHER = "gather"
PARKED = "parked"
"""State of a worker that waits for work."""

START_TIMEOUT_S = 300.0
"""On a busy machine, with kernels to compile, a worker takes minutes."""

OUTAGE_S = 60.0

FORGOT_MS = 10_000
"""What a server whose power failed may have forgotten, and how long it was away."""


@dataclass
class SystemOptions:
    """How a system for a replay is made.

    Attributes
    ----------
    raws
        Bucket that raws go to, ``s3://bucket/prefix?endpoint_url=...``; a folder of the system's own if empty.
    straight
        The head runs in this process and is handed the raws: straight to its arrival door.
    settings
        Role settings other than the defaults, beside those of the night.
    start_timeout_s
        How long head and workers may take until they are there.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for options that do not go together.
    """

    n_workers: int | None = None
    n_heads: int | None = None
    n_gathers: int | None = None
    with_display: bool = False
    raws: str = ""
    straight: bool = False
    settings: Mapping[str, Any] | None = None
    start_timeout_s: float = START_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.straight and self.raws:
            raise ConfigurationError(
                "straight", "raws that are handed to the head lie in no bucket: leave one of them out"
            )

    def under(self, system: NightSystem) -> "SystemOptions":
        """Return the options, with those that are left open as a night has them."""
        return replace(
            self,
            n_workers=self.n_workers or system.n_workers,
            n_heads=self.n_heads or system.n_heads,
            n_gathers=self.n_gathers or system.n_gathers,
            settings=system.settings | dict(self.settings or {}),
        )


class ReplaySystem:
    """Head, workers, gather and an embedded Valkey, from entering to leaving a `with` block.

    Parameters
    ----------
    folder
        For everything that is written; emptied by nobody.
    camera
        Name of a camera, or path of a definition.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a bucket that holds something already.
    """

    def __init__(self, folder: Path, camera: str, options: SystemOptions | None = None) -> None:
        self.folder = folder.absolute()
        self.raws = self.folder / "raws"
        self.raws.mkdir(parents=True, exist_ok=True)
        self.camera: Camera = adopt_camera(camera)
        self.options = (options or SystemOptions()).under(NightSystem())
        self.gate = gate_before(self.options.raws)
        """Before the bucket, if its raws are in one that can be cut off."""
        raws = self.gate.url if self.gate is not None else self.options.raws or str(self.raws)
        given = {"camera": self.camera.name, "raws": raws, "data": self.folder / "data", "port": 0}
        self.settings: RoleSettings = make_settings(**(given | dict(self.options.settings or {})))
        self.supervisor = Supervisor(
            self.settings,
            n_workers=self.options.n_workers or 1,
            n_heads=0 if self.options.straight else self.options.n_heads or 1,
            n_gathers=self.options.n_gathers or 1,
            with_display=self.options.with_display,
            # Each worker serves every pool: one more process for each would take longer to start than a short night.
            pool_workers=dict.fromkeys(own_pools(default_book(), camera=self.camera.name), 0),
            restart_pause_s=0.1,
            restart_pause_max_s=1.0,
        )
        self._door_source = DoorSource(self.raws, self.camera) if self.options.straight else None
        self._head: HeadThread | None = None
        self.interruptions: list[Interruption] = []
        """Of gathers: plots that they were at then belong to no row."""
        self.supervisor.on_restart = self._note_end
        self.heard = Started()
        self._loops: list[float] = []

    def __enter__(self) -> Self:
        self._loops.append(measure_loop_s())
        if self.gate is not None:
            self.gate.__enter__()
        self.supervisor.start()
        try:
            self.results = open_results(self.settings.results)
            self.products = DirectoryStore(Path(self.settings.products))
            self.board = Board(self.supervisor.redis_url, self.camera.name, outage_s=OUTAGE_S)
            self.board.load()
            self.control = ControlStore(self.board.connection, self.camera, default_book())
            self.witness = Witness(self.supervisor.redis_url, self.camera.name, also=self.heard.take)
            self.witness.start()
            if self._door_source is not None:
                self._head = self._start_head(self._door_source)
        except BaseException:
            self.supervisor.stop()
            self._close_gate()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._head is not None:
            self._head.__exit__(None, None, None)
        self.witness.stop()
        self.board.close()
        self.supervisor.stop()
        self._close_gate()
        self.results.close()

    def _close_gate(self) -> None:
        if self.gate is not None:
            self.gate.__exit__(None, None, None)

    def _start_head(self, source: DoorSource) -> HeadThread:
        # RubinTV's page obeys one head on a Redis database; this one is nobody's.
        settings = self.settings.model_copy(update={"redis_url": self.supervisor.redis_url, "rubintv": False})
        return HeadThread(lambda stop: run_head(settings, stop, source=source)).__enter__()

    @property
    def door(self) -> SystemDoor:
        """What takes control changes, requests, exclusions and the clock's rate."""
        return SystemDoor(self.camera, self.board, control=self.control, results=self.results)

    @property
    def target(self) -> RawTarget:
        """Where its raws go; past the gate, if they go to a bucket."""
        if self.options.raws:
            return BucketTarget(self.options.raws)
        return self._door_source or DirectoryTarget(self.raws)

    def wait_until_up(self) -> None:
        """Wait until a head leads and the workers are there: a night begins on a system that is awake.

        Raises
        ------
        StoreError
            Raised, with the end of the logs, if they do not come.
        """
        wanted = self.options.n_workers or 1

        def is_up() -> bool:
            status = self.board.status()
            # One that is known may still compile its kernels; one that waits for work is ready.
            return bool(status.leader) and sum(worker.state == PARKED for worker in status.workers) >= wanted

        timeout_s = self.options.start_timeout_s
        if not self._wait(is_up, timeout_s=timeout_s):
            raise StoreError(f"the system did not start in {timeout_s:.0f} s\n{self.log_ends()}")

    def log_ends(self, n_chars: int = 1500) -> str:
        """Return the ends of the roles' logs."""
        logs = sorted((self.folder / "data" / "logs").glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-n_chars:]}" for path in logs)

    def _note_end(self, name: str, _status: int) -> None:
        if name.startswith(GATHER):
            self.interruptions.append(Interruption(now_s := datetime.now(UTC).timestamp(), now_s))

    def note_faults(self, committed: Iterable[tuple[datetime, ProcessFault]]) -> None:
        """Remember what was done on purpose to gathers, their end left out: that is noticed."""
        for at, fault in committed:
            if isinstance(fault, Kill | FullDisk) and fault.target.startswith(GATHER):
                begin_s = at.timestamp()
                for_s = fault.for_s if isinstance(fault, FullDisk) else 0.0
                self.interruptions.append(Interruption(begin_s, begin_s + for_s))

    def accountant(self, delivered: Delivered) -> Accountant:
        """Return who keeps the books of what was delivered."""
        return Accountant(
            self.camera.name,
            delivered,
            self.results,
            self.products,
            self.board,
            interruptions=self.interruptions,
            memory_s=self.settings.board_memory_s,
        )

    def _wait_for_plots(self, accountant: Accountant) -> float:
        """Let the gather name what it has drawn; return until when [s since the epoch]. What it draws now may come later."""
        until_s = datetime.now(UTC).timestamp()
        self._wait(lambda: not accountant.unnamed_plots(until_s=until_s), timeout_s=NAMED_WITHIN_S)
        return until_s

    def wait_until_settled(self, delivered: Delivered, door: SystemDoor, *, stall_s: float = STALL_S) -> list[str]:
        """Wait until nothing is to come any more; return what is still open when nothing has moved for so long."""
        accountant = self.accountant(delivered)

        def unsettled() -> Iterator[str]:
            yield from door.unsettled()
            yield from accountant.unsettled()

        if self._wait(lambda: not any(unsettled()), timeout_s=None, stall_s=stall_s):
            return []
        return one_each(unsettled())

    def _wait(self, condition: Callable[[], bool], *, timeout_s: float | None, stall_s: float | None = None) -> bool:
        """Wait for a condition, looked at whenever the board tells something and every second besides."""
        begin_s = moved_s = time.monotonic()
        n_heard = -1
        while True:
            with contextlib.suppress(RapidError):
                if condition():
                    return True
            now_s = time.monotonic()
            n_now = sum(self.witness.heard.kinds.values())
            if n_now != n_heard:
                n_heard, moved_s = n_now, now_s
            if timeout_s is not None and now_s - begin_s > timeout_s:
                return False
            if stall_s is not None and now_s - moved_s > stall_s:
                return False
            self.witness.wait_for_news(1.0)

    def outcome(self, recording: Recording, delivered: Delivered, *, door: SystemDoor | None = None) -> Recording:
        """Return the recording with what came of it here in place of what came of it then."""
        self._loops.append(measure_loop_s())
        tables, summaries = read_outcome(
            self.results, self.camera.name, delivered.raws, last_raw_s=delivered.last_raw_s
        )
        accountant = self.accountant(delivered)
        promises = check_promises(
            camera=self.camera.name,
            accountant=accountant,
            delivered=delivered,
            results=self.results,
            heard=self.heard,
            redis_url=self.supervisor.redis_url,
            has_faults=any(isinstance(event, FaultEvent) for event in recording.events),
            forgot_ms=FORGOT_MS if any(is_power_cut(event) for event in recording.events) else 0,
            plots_until_s=self._wait_for_plots(accountant),
        )
        asked = door.asked() if door is not None else {}
        found = recording.with_manifest(
            # The slower of the two: what else ran on the machine meanwhile belongs to the latencies too.
            loop_s=max(self._loops),
            invariants=promises,
            settings={
                name: value
                for name, value in self.settings.model_dump(mode="json").items()
                if name.endswith(("_s", "_ms"))
            },
        )
        if (was := recording.manifest.incident) is not None:
            run = next((record.run for record in asked.values()), "")
            again = incident_again(was, self.camera.name, self.results, delivered, run=run)
            found = found.with_manifest(incident=again.model_dump())
        found.results, found.summaries = tables, summaries
        found.events = [
            event.model_copy(update={"ended": asked[event.request_id].state.value, "run": asked[event.request_id].run})
            if isinstance(event, RequestEvent) and event.request_id in asked
            else event
            for event in recording.events
        ]
        return found


def replay_night(
    recording: Recording,
    folder: Path,
    *,
    rate: float = math.inf,
    options: SystemOptions | None = None,
    seed: int | None = None,
    max_open: int | None = None,
    max_gap_s: float | None = None,
    stall_s: float = STALL_S,
    on_step: Callable[[PlayProgress], None] = lambda _progress: None,
    around: Callable[["ReplaySystem", RawTarget], RawTarget] = lambda _system, target: target,
    clock: NightClock | None = None,
) -> Recording:
    """Play a recording through a system of its own, its faults included, and return what came of it.

    Parameters
    ----------
    folder
        Empty, or not there.
    rate
        Seconds of the night per second; as fast as the system takes it by default.
    options
        What they leave open is as the night has it.
    max_open
        Exposures in flight, when it goes as fast as possible; as the night has it by default.
    max_gap_s
        Pass over what is longer than so long between two events.
    around
        Puts something around the target that raws go to.
    clock
        Given by whoever wants to pause or seek.

    Raises
    ------
    ConfigurationError
        Raised if the folder is not empty, or the night's faults or pipelines are not valid.
    StoreError
        Raised if the system does not start.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError("folder", f"{folder} is not empty")
    night_clock = clock or NightClock(rate)
    folder.mkdir(parents=True, exist_ok=True)
    camera = camera_file(recording, folder)
    adopt_camera(camera)
    check_exposures(recording)
    night = spoil_night(recording)
    options = (options or SystemOptions()).under(recording.manifest.system)
    with contextlib.ExitStack() as stack:
        stack.enter_context(surroundings(recording, folder))
        system = ReplaySystem(folder, camera, options)
        check_targets(night, system.supervisor.role_names, has_bucket=system.gate is not None)
        stack.enter_context(system)
        system.wait_until_up()
        door = system.door
        turnstile = Turnstile(
            system.witness, night, max_open=max_open or recording.manifest.system.max_open, stall_s=stall_s
        )
        committer = Committer(system.supervisor, system.board, system.witness, bucket=system.gate, patience_s=stall_s)
        player = Player(
            night,
            around(system, system.target),
            night_clock,
            door=door,
            seed=seed,
            max_gap_s=max_gap_s,
            n_threads=max((os.cpu_count() or 2) // 2, 1),
            compress=False,
            may_begin=turnstile if not math.isfinite(night_clock.rate) else lambda _exposure: None,
            on_fault=committer,
            on_step=on_step,
            # What is still to come is decided on the night's own clock.
            restore_rate=False,
        )
        try:
            delivered = player.run()
        finally:
            committer.finish()
        system.note_faults(committer.committed)
        open_ = system.wait_until_settled(delivered, door, stall_s=stall_s)
        found = system.outcome(recording, delivered, door=door)
        problems = [*player.progress.problems, *committer.problems, *open_]
        if problems:
            found = found.with_manifest(invariants=found.manifest.invariants | {"played": problems})
        return found


def camera_file(recording: Recording, folder: Path) -> str:
    """Return the recorded camera's name, or the path of its definition, written from the recording.

    Raises
    ------
    ConfigurationError
        Raised for a definition that is none, or one of another camera.
    """
    name = recording.manifest.camera
    if not recording.manifest.camera_yaml:
        return name
    path = folder / f"{name}.yaml"
    path.write_text(recording.manifest.camera_yaml, encoding="utf-8")
    try:
        defined = load_camera(str(path)).name
    except ConfigurationError as error:
        raise ConfigurationError(f"{MANIFEST}: camera_yaml", error.message) from error
    if defined != name:
        raise ConfigurationError(f"{MANIFEST}: camera_yaml", f"defines {defined}, and the recording is of {name}")
    return str(path)
