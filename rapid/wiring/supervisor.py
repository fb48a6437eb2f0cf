"""Run all roles on one machine as separate processes, with an embedded Valkey.

A role that ends unasked is started again, with a pause that grows; the board sees to it that nothing it
had in hand is lost. On stop, every role is told to drain, workers first.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rapid.dispatch.valkey import EmbeddedValkey
from rapid.errors import StoreError
from rapid.wiring.settings import RoleSettings

RESTART_PAUSE_S = 0.5
RESTART_PAUSE_MAX_S = 30.0
STEADY_S = 60.0
"""A role that ran this long before it ended is started again without a growing pause."""

URL_TIMEOUT_S = 60.0


@dataclass
class RoleProcess:
    """One role's process, and how often it had to be started."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[str] | None = None
    restarts: int = 0
    started: float = 0.0
    not_before: float = 0.0
    first_line: str = ""
    has_line: threading.Event = field(default_factory=threading.Event)
    listener: threading.Thread | None = None


class Supervisor:
    """The roles of one machine.

    Parameters
    ----------
    settings
        Shared by all roles; its ``data`` folder holds everything that is written.
    n_workers
        Workers to run.
    embedded
        Start a Valkey below the data folder; else use the settings' ``redis_url``.
    """

    def __init__(
        self, settings: RoleSettings, *, n_workers: int, embedded: bool = True, with_display: bool = True
    ) -> None:
        self.settings = settings
        self.data = settings.data.absolute()
        self._valkey = EmbeddedValkey(self.data / "valkey") if embedded else None
        self._n_workers = n_workers
        self._with_display = with_display
        self._roles: list[RoleProcess] = []
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self.on_restart: Callable[[str, int], None] = lambda _name, _status: None

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
            raise StoreError(f"the display did not start; see {self.data / 'logs' / 'display.log'}")
        return role.first_line

    def processes(self) -> dict[str, int]:
        """Return the process id of every running role."""
        return {
            role.name: role.process.pid
            for role in self._roles
            if role.process is not None and role.process.poll() is None
        }

    def start(self) -> None:
        """Start Valkey and all roles."""
        (self.data / "logs").mkdir(parents=True, exist_ok=True)
        if self._valkey:
            self._valkey.start()
        self._roles = [RoleProcess("head", ["head"]), RoleProcess("gather", ["gather"])]
        self._roles += [RoleProcess(f"worker-{n}", ["worker"]) for n in range(self._n_workers)]
        if self._with_display:
            self._roles.append(RoleProcess("display", ["display"]))
        for role in self._roles:
            self._spawn(role)
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def _environment(self, role: RoleProcess) -> dict[str, str]:
        environment = dict(os.environ)
        for name, value in self.settings.model_dump(mode="json", exclude={"token", "name"}).items():
            if value not in {None, ""}:
                environment[f"RAPID_{name.upper()}"] = str(value)
        if self.settings.token is not None:
            environment["RAPID_TOKEN"] = self.settings.token.get_secret_value()
        environment.update(
            RAPID_REDIS_URL=self.redis_url, RAPID_DATA=str(self.data), RAPID_NAME=role.name, PYTHONUNBUFFERED="1"
        )
        return environment

    def _spawn(self, role: RoleProcess) -> None:
        log = (self.data / "logs" / f"{role.name}.log").open("a", encoding="utf-8")
        with log:
            role.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "rapid", *role.arguments],
                env=self._environment(role),
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

    def _watch(self) -> None:
        """Start again what ended unasked."""
        while not self._stopping.wait(0.25):
            now = time.monotonic()
            for role in self._roles:
                if role.process is None or (status := role.process.poll()) is None:
                    continue
                if role.not_before == 0.0:
                    steady = now - role.started > STEADY_S
                    role.restarts = 0 if steady else role.restarts + 1
                    pause = min(RESTART_PAUSE_S * 2 ** max(role.restarts - 1, 0), RESTART_PAUSE_MAX_S)
                    role.not_before = now + pause
                    self.on_restart(role.name, status)
                elif now >= role.not_before and not self._stopping.is_set():
                    role.not_before = 0.0
                    self._spawn(role)

    def stop(self) -> None:
        """Tell every role to drain, wait for them, stop Valkey."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        # The head first, so that nothing new is handed out; the gather last, so that it sees the last results.
        for names in (("head",), ("worker",), ("display",), ("gather",)):
            group = [role for role in self._roles if role.name.split("-")[0] in names]
            self._end(group)
        if self._valkey:
            self._valkey.stop()

    def _end(self, roles: list[RoleProcess]) -> None:
        running = [role.process for role in roles if role.process is not None and role.process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
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
        return self.data / "logs" / f"{name}.log"
