"""Steer a night that is played: by keys, or from another terminal over a local socket.

One line in, one line of JSON out: ``pause``, ``resume``, ``seek 120``, ``step 3``, ``speed 10``, ``status``, ``stop``.
"""

import contextlib
import json
import math
import os
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from rapid.errors import ConfigurationError, StoreError
from replay.clock import NightClock

MAX_LINE = 200
ANSWER_TIMEOUT_S = 5.0
KEYS = "space: pause or go on   . : one step   + -: twice as fast, half   < >: 60 s back, on   q: end"


def run_command(clock: NightClock, line: str) -> None:
    """Carry out a command.

    Raises
    ------
    ConfigurationError
        Raised, naming what is wrong, for one that is none.
    """
    word, _, rest = line.strip().partition(" ")
    simple: dict[str, Callable[[], None]] = {
        "pause": clock.pause,
        "resume": clock.resume,
        "stop": clock.stop,
        "status": lambda: None,
    }
    if word in simple:
        if rest:
            raise ConfigurationError("command", f"{word} takes nothing; got {rest!r}")
        simple[word]()
    elif word == "step":
        clock.step(_whole(rest or "1"))
    elif word == "seek":
        clock.seek(_number(rest, "seek 120, a time of the night [s]"))
    elif word == "speed":
        clock.set_rate(math.inf if rest == "max" else _number(rest, "speed 10, or speed max"))
    else:
        raise ConfigurationError("command", f"{word[:20]!r} is none of pause, resume, seek, step, speed, status, stop")


def _number(text: str, example: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError("command", f"{text[:20]!r} is no number: {example}") from error


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigurationError("command", f"{text[:20]!r} is no whole number") from error


class ControlSocket:
    """Listens on a Unix socket while a night is played.

    Parameters
    ----------
    path
        Made, and removed at the end; only its owner may use it.
    status
        Facts that are answered to every command, beside state, position and speed.
    """

    def __init__(self, path: Path, clock: NightClock, status: Callable[[], dict[str, object]]) -> None:
        self._path = path
        self._clock = clock
        self._status = status
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="replay control", daemon=True)

    def __enter__(self) -> "ControlSocket":
        with contextlib.suppress(FileNotFoundError):
            if self._path.is_socket():
                self._path.unlink()  # of one that was killed
        try:
            self._server.bind(str(self._path))
        except OSError as error:
            raise StoreError(f"{self._path} cannot be listened on: {error}") from error
        self._path.chmod(0o600)
        self._server.listen(4)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b"x")
        self._thread.join(ANSWER_TIMEOUT_S)
        for one in (self._server, self._wake, self._woken):
            one.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    client, _ = self._server.accept()
                    with client, contextlib.suppress(OSError):
                        client.settimeout(ANSWER_TIMEOUT_S)
                        self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        line = client.recv(MAX_LINE).decode(errors="replace").split("\n", 1)[0]
        facts: dict[str, object] = {}
        try:
            run_command(self._clock, line)
        except ConfigurationError as error:
            facts["error"] = error.message
        facts |= {
            "state": self._clock.state.value,
            "position_s": round(self._clock.position_s, 3),
            "speed": self._clock.rate if self._clock.rate < float("inf") else None,
            **self._status(),
        }
        client.sendall(json.dumps(facts).encode() + b"\n")


def send_command(path: Path, line: str) -> dict[str, object]:
    """Send a command to a night that is played, and return the answer.

    Raises
    ------
    StoreError
        Raised if nobody listens there.
    ConfigurationError
        Raised if the command is none.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(ANSWER_TIMEOUT_S)
            client.connect(str(path))
            client.sendall(line.encode() + b"\n")
            data = b""
            while piece := client.recv(4096):
                data += piece
        answer: dict[str, object] = json.loads(data)
    except (OSError, ValueError) as error:
        raise StoreError(f"no night is played at {path}: {error}") from error
    if "error" in answer:
        raise ConfigurationError("command", str(answer["error"]).removeprefix("command: "))
    return answer


def press(clock: NightClock, key: str) -> None:
    """Carry out a key; one without a meaning does nothing."""
    if key == " ":
        (clock.pause if clock.state.value == "running" else clock.resume)()
    elif key in {".", "n"}:
        clock.step()
    elif key == "+":
        clock.set_rate(clock.rate * 2)
    elif key == "-":
        clock.set_rate(clock.rate / 2 if clock.rate < float("inf") else 100.0)
    elif key in {"<", ","}:
        clock.seek(max(clock.position_s - 60.0, 0.0))
    elif key == ">":
        clock.seek(clock.position_s + 60.0)
    elif key == "q":
        clock.stop()


@contextlib.contextmanager
def keys_of_terminal(clock: NightClock) -> Iterator[bool]:
    """Listen to keys while a block runs; yields whether there is a terminal to listen to."""
    if not sys.stdin.isatty():
        yield False
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    wake, woken = socket.socketpair()

    def listen() -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(number, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is woken:
                        return
                    with contextlib.suppress(ConfigurationError):
                        press(clock, os.read(number, 1).decode(errors="replace"))

    thread = threading.Thread(target=listen, name="keys", daemon=True)
    try:
        tty.setcbreak(number)
        thread.start()
        yield True
    finally:
        wake.send(b"x")
        thread.join(ANSWER_TIMEOUT_S)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
        wake.close()
        woken.close()
