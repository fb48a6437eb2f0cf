"""Run all roles on one machine as separate processes, with an embedded Valkey.

What ends unasked is started again, the Valkey too, with a pause that grows while it keeps ending; the board sees to it
that nothing it had in hand is lost. On stop every role is told to drain. If the supervisor itself is killed, its roles
notice and drain by themselves (`rapid.wiring.lifeline`), and the Valkey ends after the last of them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from rapid.dispatch.valkey import EmbeddedValkey
from rapid.errors import StoreError
from rapid.pipeline.store import default_book
from rapid.wiring.lifeline import Lifeline
from rapid.wiring.pools import other_pools, own_pools
from rapid.wiring.settings import RoleSettings, ingests, publishes

RESTART_PAUSE_S = 0.5
RESTART_PAUSE_MAX_S = 30.0
STEADY_S = 60.0
"""A role that ran this long before it ended is started again without a growing pause."""

URL_TIMEOUT_S = 60.0
VALKEY = "valkey"


@dataclass
class RoleProcess:
    """One role's process, and how often it had to be started."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[str] | None = None
    restarts: int = 0
    started: float = 0.0
    first_line: str = ""
    has_line: threading.Event = field(default_factory=threading.Event)
    listener: threading.Thread | None = None
    is_retired: bool = False
    """Not to be started again."""


class Supervisor:
    """The roles of one machine.

    Parameters
    ----------
    settings
        Shared by all roles; its ``data`` folder holds everything that is written.
    n_workers, n_heads, n_gathers
        How many to run of each. Of two heads one stands by.
    pool_workers
        By pool, how many workers to run for it alone; the others then leave it to them, unless it is 0. Left out: one
        for each pool of its own that a pipeline of this camera asks for (`rapid.wiring.pools`).
    embedded
        Start a Valkey below the data folder; else use the settings' ``redis_url``.
    restart_pause_s, restart_pause_max_s
        First and longest pause before a role that ended is started again.

    Attributes
    ----------
    on_restart
        Called with name and exit status of what ended unasked; negative: the signal that killed it.
    """

    def __init__(
        self,
        settings: RoleSettings,
        *,
        n_workers: int,
        n_heads: int = 1,
        n_gathers: int = 1,
        pool_workers: Mapping[str, int] | None = None,
        embedded: bool = True,
        with_display: bool = True,
        restart_pause_s: float = RESTART_PAUSE_S,
        restart_pause_max_s: float = RESTART_PAUSE_MAX_S,
    ) -> None:
        self.settings = settings
        self.data = settings.data.absolute()
        self.on_restart: Callable[[str, int], None] = lambda _name, _status: None
        self._valkey = EmbeddedValkey(self.data / VALKEY) if embedded else None
        self._pause_s = restart_pause_s
        self._pause_max_s = restart_pause_max_s
        names = [*_numbered("head", n_heads), *_numbered("gather", n_gathers)]
        if with_display:
            names.append("display")
        if publishes(settings):
            names.append("publish")
        if ingests(settings):
            names.append("ingest")
        self._roles = [RoleProcess(name, [name.split("-")[0]]) for name in names]
        own = own_pools(default_book(), camera=settings.camera) if pool_workers is None else dict(pool_workers)
        pools = ",".join(other_pools(settings.pools, own))
        self._worker_arguments = ["worker", "--pools", pools]
        self._roles += [RoleProcess(f"worker-{n}", self._worker_arguments) for n in range(n_workers)]
        self._n_workers = n_workers
        self._roles += [
            RoleProcess(f"worker-{pool}-{n}", ["worker", "--pools", pool])
            for pool, n_own in own.items()
            for n in range(n_own)
        ]
        self._keepers: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._changed = threading.Condition()
        self._down_s: dict[str, float] = {}
        self._valkey_pid: int | None = None
        self._lifeline: Lifeline | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def redis_url(self) -> str:
        """URL of the board's server."""
        return self._valkey.url if self._valkey else self.settings.redis_url

    @property
    def display_url(self) -> str:
        """URL of the display, once it listens.

        Raises
        ------
        StoreError
            Raised if it does not say so in time.
        """
        role = next((role for role in self._roles if role.name == "display"), None)
        if role is None:
            raise StoreError("no display is running")
        if not role.has_line.wait(URL_TIMEOUT_S):
            raise StoreError(f"the display did not start; see {self.log_of('display')}")
        return role.first_line

    @property
    def role_names(self) -> tuple[str, ...]:
        """Names of its roles' processes, whether they run or not."""
        return tuple(role.name for role in self._roles)

    def processes(self) -> dict[str, int]:
        """Return the process id of every running role, and of the embedded Valkey."""
        running = {
            role.name: role.process.pid
            for role in self._roles
            if role.process is not None and role.process.poll() is None
        }
        return running | ({VALKEY: self._valkey_pid} if self._valkey_pid else {})

    def wait_for_process(self, name: str, *, timeout_s: float, other_than: int | None = None) -> int:
        """Wait until a role runs and return its process id.

        Parameters
        ----------
        other_than
            The process id of one that was ended: wait for its successor.

        Raises
        ------
        StoreError
            Raised if it does not run in time.
        """
        with self._changed:
            found = self._changed.wait_for(
                lambda: (pid := self.processes().get(name)) not in {None, other_than} and pid, timeout=timeout_s
            )
        if not found:
            raise StoreError(f"{name} does not run after {timeout_s:.0f} s; see {self.log_of(name)}")
        return int(found)

    def wait_for_end(self, name: str, pid: int, *, timeout_s: float) -> None:
        """Wait until a role's process has ended.

        Raises
        ------
        StoreError
            Raised if it goes on for longer.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.processes().get(name) != pid, timeout=timeout_s):
                raise StoreError(f"{name} still runs after {timeout_s:.0f} s")

    @property
    def n_workers(self) -> int:
        """Ordinary workers that are to run; those of a pool of their own are not counted."""
        return self._n_workers

    def scale(self, n_workers: int) -> None:
        """Run so many ordinary workers from now on. Those that are too many drain: their jobs are not lost.

        Parameters
        ----------
        n_workers
            At least 1.
        """
        if n_workers < 1:
            raise ValueError("a supervisor runs at least one worker")
        with self._starting:
            if self._stopping.is_set():
                return
            known = {role.name: role for role in self._roles}
            names = [f"worker-{n}" for n in range(max(n_workers, self._n_workers))]
            retired = [known[name] for name in names[n_workers:]]
            for role in retired:
                role.is_retired = True
            self._roles = [role for role in self._roles if not role.is_retired]
            for name in names[self._n_workers : n_workers]:
                role = RoleProcess(name, self._worker_arguments)
                self._roles.append(role)
                self._spawn(role)
                self._keep(lambda role=role: self._keep_role(role), name)  # type: ignore[misc]  # a default binds it
            self._n_workers = n_workers
        self._end(retired)
        self._tell_change()

    def leave_down(self, name: str, seconds: float) -> None:
        """Leave a role down for so long the next time it ends: rehearse an outage."""
        self._down_s[name] = seconds

    def start(self) -> None:
        """Start Valkey and all roles."""
        (self.data / "logs").mkdir(parents=True, exist_ok=True)
        self._lifeline = Lifeline()
        if self._valkey:
            self._start_valkey(self._valkey)
            self._keep(self._keep_valkey, VALKEY)
        for role in self._roles:
            self._spawn(role)
            self._keep(lambda role=role: self._keep_role(role), role.name)  # type: ignore[misc]  # a default binds it

    def _keep(self, keep: Callable[[], None], name: str) -> None:
        keeper = threading.Thread(target=keep, name=f"keeper of {name}", daemon=True)
        self._keepers.append(keeper)
        keeper.start()

    def _environment(self, role: RoleProcess) -> dict[str, str]:
        environment = dict(os.environ)
        secrets = {name: value for name, value in self.settings if isinstance(value, SecretStr)}
        for name, value in self.settings.model_dump(mode="json", exclude={"name", *secrets}).items():
            if value not in (None, "", {}, []):
                environment[f"RAPID_{name.upper()}"] = str(value) if isinstance(value, str) else json.dumps(value)
        for name, secret in secrets.items():
            environment[f"RAPID_{name.upper()}"] = secret.get_secret_value()
        environment.update(
            RAPID_REDIS_URL=self.redis_url, RAPID_DATA=str(self.data), RAPID_NAME=role.name, PYTHONUNBUFFERED="1"
        )
        return environment | (self._lifeline.environment if self._lifeline else {})

    def _spawn(self, role: RoleProcess) -> None:
        with self.log_of(role.name).open("a", encoding="utf-8") as log:
            role.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "rapid", *role.arguments],
                env=self._environment(role),
                pass_fds=self._lifeline.pass_fds if self._lifeline else (),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # A Ctrl-C is for the supervisor; it tells the roles in order.
                start_new_session=True,
            )
        role.started = time.monotonic()
        role.listener = threading.Thread(target=self._listen, args=(role, role.process), daemon=True)
        role.listener.start()
        self._tell_change()

    def _tell_change(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @staticmethod
    def _listen(role: RoleProcess, process: "subprocess.Popen[str]") -> None:
        """Keep the first line a role prints; let the rest pass."""
        if process.stdout is None:
            return
        with process.stdout:
            for line in process.stdout:
                if not role.has_line.is_set():
                    role.first_line = line.strip()
                    role.has_line.set()

    def _keep_role(self, role: RoleProcess) -> None:
        """Start a role again whenever it ends unasked."""
        while role.process is not None:
            status = role.process.wait()
            self._tell_change()
            if self._stopping.is_set() or role.is_retired:
                return
            role.restarts = 0 if time.monotonic() - role.started > STEADY_S else role.restarts + 1
            self.on_restart(role.name, status)
            self._stopping.wait(self._pause(role.name, role.restarts))
            with self._starting:
                if self._stopping.is_set() or role.is_retired:
                    return
                self._spawn(role)

    def _pause(self, name: str, restarts: int) -> float:
        pause_s = min(self._pause_s * 2.0 ** min(max(restarts - 1, 0), 16), self._pause_max_s)
        return max(pause_s, self._down_s.pop(name, 0.0))

    def _start_valkey(self, valkey: EmbeddedValkey) -> None:
        self._valkey_pid = valkey.start().pid
        if self._guard is not None:
            _end_guard(self._guard)
        self._guard = self._lifeline.guard(self._valkey_pid) if self._lifeline else None
        self._tell_change()

    def _keep_valkey(self) -> None:
        """Start the Valkey again whenever it ends unasked: its append-only file has the board."""
        restarts = 0
        while self._valkey is not None:
            started = time.monotonic()
            status = self._valkey.wait()
            self._valkey_pid = None
            self._tell_change()
            if self._stopping.is_set():
                return
            self.on_restart(VALKEY, status)
            restarts = 0 if time.monotonic() - started > STEADY_S else restarts + 1
            while not self._stopping.wait(self._pause(VALKEY, restarts)):
                with self._starting:
                    if self._stopping.is_set():
                        return
                    try:
                        self._start_valkey(self._valkey)
                        break
                    except StoreError:  # full disk, say: its log tells, and whoever listens is told each time
                        restarts += 1
                self.on_restart(VALKEY, 1)

    def stop(self) -> None:
        """Tell every role to drain, wait for them, stop Valkey."""
        with self._starting:
            self._stopping.set()
        # The head first, so that nothing new is handed out; the gather last, so that it sees the last results.
        for kind in ("head", "worker", "display", "gather", "publish", "ingest"):
            self._end([role for role in self._roles if role.arguments[0] == kind])
        if self._valkey:
            self._valkey.stop()
            self._valkey_pid = None
        for keeper in self._keepers:
            keeper.join()
        if self._guard is not None:
            _end_guard(self._guard)
        if self._lifeline is not None:
            self._lifeline.close()

    def _end(self, roles: Iterable[RoleProcess]) -> None:
        running = [role.process for role in roles if role.process is not None and role.process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
                process.send_signal(signal.SIGCONT)  # a frozen one hears nothing
        deadline = time.monotonic() + self.settings.drain_s + 10.0
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for role in roles:
            if role.listener is not None:
                role.listener.join(timeout=5.0)

    def log_of(self, name: str) -> Path:
        """Return the log file of a role."""
        if name == VALKEY and self._valkey is not None:
            return self._valkey.log_path
        return self.data / "logs" / f"{name}.log"


def _numbered(role: str, n: int) -> list[str]:
    """Return names of so many processes of a role; a single one has the role's own name."""
    return [role] if n == 1 else [f"{role}-{number}" for number in range(n)]


def _end_guard(guard: "subprocess.Popen[bytes]") -> None:
    guard.kill()
    guard.wait()
