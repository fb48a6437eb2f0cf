"""Play a night of faults on real processes, and close the books."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import redis

from rapid.camera.store import load_camera
from rapid.control.spelling import READBACK
from rapid.dispatch import keys
from rapid.dispatch.board import Board
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.errors import RapidError
from rapid.products.directory import DirectoryStore
from rapid.results.store import ResultsStore, open_results
from rapid.wiring.settings import RoleSettings, make_settings
from rapid.wiring.supervisor import Supervisor
from replay.invariants import NAMED_WITHIN_S, Accountant, Interruption, one_each
from replay.plan import NightPlan
from replay.witness import Witness
from tests.chaos.camera import ChaosCamera
from tests.chaos.faults import Injector
from tests.chaos.report import KILLS, Report, count_faults, recoveries
from tests.chaos.schedule import LEASE_S, FaultKind, Scale, Schedule
from tests.support.light import Environment

CAMERA = "TestCam205"
DAY_OBS = 20261120
MAX_OPEN = 2.5
"""Exposures in flight before the camera waits: the backlog stays small on any machine."""

STALL_S = 180.0
"""A night in which nothing ends for this long has failed."""

TEN_DAYS_MS = 11 * 86_400_000
"""Longer than anything on the board lives."""


@dataclass
class ChaosNight:
    """One night of faults.

    Attributes
    ----------
    folder
        Empty; everything is written below it.
    """

    schedule: Schedule
    scale: Scale
    folder: Path
    _stopped: threading.Event = field(default_factory=threading.Event)
    _problems: list[str] = field(default_factory=list)
    _interruptions: list[Interruption] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.raws = self.folder / "raws"
        self.raws.mkdir(parents=True)
        plan = NightPlan.model_validate(
            {
                "camera": CAMERA,
                "day_obs": DAY_OBS,
                "seed": self.schedule.seed,
                "stars_per_detector": 12,
                "detectors": self.scale.detectors,
                "blocks": [{"kind": "science", "n": self.scale.exposures, "physical_filter": "r_57"}],
            }
        )
        self.camera = ChaosCamera(plan, self.raws, self._stopped)
        self.settings = self._settings()
        self.supervisor = Supervisor(
            self.settings,
            n_workers=self.scale.workers,
            n_heads=self.scale.heads,
            n_gathers=self.scale.gathers,
            with_display=False,
            restart_pause_s=0.05,
            restart_pause_max_s=0.05,
        )
        self.supervisor.on_restart = self._note_end
        self.injector = Injector(self.supervisor)

    def _settings(self) -> RoleSettings:
        return make_settings(
            camera=CAMERA,
            raws=str(self.raws),
            data=self.folder / "data",
            lease_ms=int(LEASE_S * 1000),
            gather_lease_ms=int(LEASE_S * 1000),
            lead_ttl_s=2.0,
            grace_ms=300,
            gather_timeout_s=4.0,
            regather_timeout_s=8.0,
            deadline_s=60.0,
            drain_s=5.0,
            build_calibs=False,
        )

    def play(self) -> Report:
        """Play the night and return its report."""
        begin = time.monotonic()
        self.supervisor.start()
        witness = Witness(self.supervisor.redis_url, CAMERA)
        witness.start()
        results = open_results(self.settings.results)
        products = DirectoryStore(Path(self.settings.products))
        try:
            board = Board(self.supervisor.redis_url, CAMERA)
            accountant = Accountant(
                CAMERA, self.camera.delivered, results, products, board, interruptions=self._interruptions
            )
            self._play_scenes(witness)
            self._wait_until_settled(accountant, witness)
            self._problems += one_each(accountant.unaccounted())
            may_forget = any(event.fault.kind is FaultKind.POWER_CUT for event in self.injector.committed)
            self._problems += one_each(accountant.wrong_batches(may_forget=may_forget))
            self._problems += one_each(accountant.wrong_summaries())
            until_s = self._wait_for_plots(accountant, witness)
            self._problems += one_each(accountant.wrong_products(until_s=until_s))
            report = self._report(witness, board, results, accountant, time.monotonic() - begin)
            board.close()
        finally:
            self._stopped.set()
            witness.stop()
            self.camera.close()
            self.injector.finish()
            self.supervisor.stop()
            results.close()
        self._let_everything_expire(report)
        report.problems = self._problems
        return report

    def _play_scenes(self, witness: Witness) -> None:
        """Deliver exposures and commit faults, side by side, scene by scene."""
        for scene in self.schedule.scenes:
            taking = threading.Thread(target=self._guarded, args=(lambda scene=scene: self.camera.take(scene),))
            taking.start()
            for fault in scene.faults:
                if self._stopped.wait(fault.after_s):
                    break
                self._guarded(lambda fault=fault: self.injector.commit(fault))
            taking.join()
            if self._stopped.is_set():
                return
            witness.wait_until(lambda: self._n_open(witness) < MAX_OPEN * len(self.scale.detectors), timeout_s=STALL_S)
        self.camera.finish()
        self.injector.finish()

    def _n_open(self, witness: Witness) -> int:
        """Return how many raws were delivered and are not done or given up."""
        return self.camera.delivered.n_raws - len(witness.heard.settled)

    def _guarded(self, do: Callable[[], None]) -> None:
        try:
            do()
        except (RapidError, OSError) as error:
            self._problems.append(f"{type(error).__name__}: {error}")
            self._stopped.set()

    def _wait_until_settled(self, accountant: Accountant, witness: Witness) -> None:
        """Wait until nothing is to come any more; what is still open when nothing moves is a problem."""
        moved_at, before = time.monotonic(), -1
        while True:
            with contextlib.suppress(RapidError):
                open_ = list(accountant.unsettled())
                if not open_:
                    return
            now = sum(witness.heard.kinds.values())
            if now != before:
                moved_at, before = time.monotonic(), now
            if time.monotonic() - moved_at > STALL_S or self._stopped.is_set():
                self._problems += one_each(accountant.unsettled())
                return
            witness.wait_for_news(1.0)

    def _note_end(self, name: str, _status: int) -> None:
        if name.startswith("gather"):
            self._interruptions.append(Interruption(now_s := datetime.now(UTC).timestamp(), now_s))

    def _wait_for_plots(self, accountant: Accountant, witness: Witness) -> float:
        """Let the gather name what it has drawn; return until when [s since the epoch]. What it draws now comes later."""
        until_s = datetime.now(UTC).timestamp()
        end_s = time.monotonic() + NAMED_WITHIN_S
        while accountant.unnamed_plots(until_s=until_s) and time.monotonic() < end_s:
            witness.wait_for_news(1.0)
        return until_s

    def _report(
        self, witness: Witness, board: Board, results: ResultsStore, accountant: Accountant, duration_s: float
    ) -> Report:
        delivered, committed = self.camera.delivered, self.injector.committed
        counters = board.status().counters
        fates = Counter(
            fate
            for exposure_id, found in accountant.fates().items()
            for detector in delivered.raws.get(exposure_id, {})
            for fate in found.of(detector)
        )
        with redis.Redis.from_url(self.supervisor.redis_url) as client:
            memory = int(client.info("memory")["used_memory_peak"])
        return Report(
            seed=self.schedule.seed,
            exposures=len(delivered.raws),
            raws=delivered.n_raws,
            duplicates=delivered.n_duplicates,
            late=delivered.n_late,
            truncated=delivered.n_truncated,
            mended=delivered.n_mended,
            duration_s=round(duration_s, 1),
            faults=count_faults(committed),
            kills=sum(event.fault.kind in KILLS for event in committed),
            freezes=sum(event.fault.kind is FaultKind.FREEZE for event in committed),
            outages=sum(event.fault.kind is FaultKind.OUTAGE for event in committed),
            fates=dict(fates),
            summary_versions=sum(len(results.summary_versions(CAMERA, exposure)) for exposure in delivered.raws),
            leases_lost=counters.get("leases_lost", 0),
            jobs_redone=witness.heard.n_redone,
            late_completions_refused=counters.get("refused", 0),
            dead_letters=counters.get("dead_letters", 0),
            recovery=recoveries(committed, witness.heard, self.supervisor.data / "logs"),
            memory_peak_bytes=memory,
        )

    def _let_everything_expire(self, report: Report) -> None:
        """Start the board's server on what the night left, let ten days pass, and see what stays."""
        with EmbeddedValkey(self.folder / "data" / "valkey") as server, redis.Redis.from_url(server.url) as client:
            with Board(server.url, CAMERA) as board:
                board.advance_clock(TEN_DAYS_MS)
                for _ in range(1000):
                    if board.tick() is None:
                        break
            prefix = keys.prefix(CAMERA)
            names = sorted(name.decode() for name in client.scan_iter(count=1000))
            report.keys_end = [name.removeprefix(prefix) for name in names]
            self._problems += [problem for name in names if (problem := left_over(client, name, prefix))]
            report.memory_end_bytes = int(client.info("memory")["used_memory"])


def left_over(client: redis.Redis, name: str, prefix: str) -> str | None:
    """Return what is wrong with a key that is still there when everything has expired; None if it may stay."""
    own = name.removeprefix(prefix)
    if own == name:  # the readbacks that RubinTV's page listens to: a handful, named by it
        is_readback = name.startswith("RUBINTV_CONTROL_") and name.endswith(READBACK)
        return None if is_readback else f"key {name} is not of our instrument"
    spec = keys.find_key(own)
    if spec is None:
        return f"key {own} is in no table"
    if spec.expiry == keys.WAKE_EXPIRY:
        return None if 0 < int(client.pttl(name)) <= 60_000 else f"key {own} does not expire"
    if stays(spec) or (spec.type == "stream" and client.xlen(name) == 0):  # emptied; its readers' group is left
        return None
    return f"key {own} should have gone: {spec.expiry}"


def stays(spec: keys.KeySpec) -> bool:
    """Whether a kind of key stays however long nothing happens: bounded in number or size, not in time."""
    return spec.expiry.startswith(("never", "about")) or (spec.expiry.endswith("are kept") and ";" not in spec.expiry)


def detectors_of(camera: str) -> tuple[int, ...]:
    """Return all detectors of a camera."""
    return tuple(sorted(detector.id for detector in load_camera(camera).detectors))


def set_environment(folder: Path, environment: Environment) -> None:
    """Let the processes started from here share one cache of compiled modules: hundreds of interpreters start."""
    environment.setenv("PYTHONDONTWRITEBYTECODE", "")
    environment.setenv("PYTHONPYCACHEPREFIX", str(folder))
