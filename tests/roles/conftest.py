"""Real processes on a real Valkey, a small camera, and a way to wait for what they do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import Event, EventKind
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.results.store import ResultsStore, open_results
from tests.support.night import adopt_small_camera


class Roles:
    """Starts, stops and kills roles of one small installation."""

    def __init__(self, folder: Path, valkey: EmbeddedValkey) -> None:
        self.folder = folder
        self.raws = folder / "raws"
        self.raws.mkdir()
        self.valkey = valkey
        self.processes: dict[str, subprocess.Popen] = {}
        self.results: ResultsStore = open_results(str(folder / "data/results.sqlite"))
        self.board = Board(valkey.url, "SmallCam9")
        self.board.load()
        self._seen = "0"
        self._heard: list[Event] = []

    def start(self, role: str, name: str, **settings: object) -> subprocess.Popen:
        environment = dict(os.environ) | {
            "RAPID_CAMERA": "SmallCam9",
            "RAPID_REDIS_URL": self.valkey.url,
            "RAPID_DATA": str(self.folder / "data"),
            "RAPID_RAWS": str(self.raws),
            "RAPID_NAME": name,
            "RAPID_LEASE_MS": "1500",
            "RAPID_LEAD_TTL_S": "1",
            "RAPID_GATHER_TIMEOUT_S": "2",
            "RAPID_REGATHER_TIMEOUT_S": "4",
            "RAPID_DEADLINE_S": "100",
        }
        environment |= {f"RAPID_{key.upper()}": str(value) for key, value in settings.items()}
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "rapid", role], env=environment, stderr=log, stdout=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.processes[name] = process
        return process

    def kill(self, name: str) -> None:
        """Kill a role and its children at once."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(40)

    def wait_for(self, wanted: Callable[[Event], bool], *, timeout_s: float = 60.0) -> Event:
        """Wait for an event after the last one waited for."""
        deadline = time.monotonic() + timeout_s
        heard = []
        while time.monotonic() < deadline:
            if not self._heard:
                self._heard = self.board.events(self._seen, timeout_s=1.0)
            while self._heard:
                event = self._heard.pop(0)
                self._seen = event.event_id
                heard.append((event.kind.value, event.batch_id, event.detector, dict(event.data)))
                if wanted(event):
                    return event
        logs = "".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log")))
        pytest.fail(f"nothing of the kind within {timeout_s:.0f} s; heard {heard[-12:]}\n{logs}")

    def hear_from_the_beginning(self) -> None:
        """Forget which events were heard: the server was emptied."""
        self._seen, self._heard = "0", []

    def wait_for_summary(self, exposure_id: int, *, n_finished: int = 9, timeout_s: float = 100.0) -> Event:
        """Wait for the summary that shows so many detectors; on a slow machine partial ones come before it."""
        return self.wait_for(
            lambda e: (
                e.kind is EventKind.SUMMARY_READY
                and e.batch_id == f"prompt.{exposure_id}.quicklook"
                and e.data["n_finished"] == n_finished
            ),
            timeout_s=timeout_s,
        )

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        self.board.close()
        self.results.close()


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Roles]:
    adopt_small_camera(tmp_path, monkeypatch)
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        started = Roles(tmp_path, valkey)
        yield started
        started.close()
