"""A supervisor whose parts are killed, and one that is killed itself."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, EventKind
from rapid.results.models import DetectorState
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import VALKEY, Supervisor
from tests.support.light import use_light_pipelines
from tests.support.night import adopt_small_camera, make_plan, take_all

TO_BE_KILLED = """
import json, sys
from pathlib import Path
from rapid.results.models import DetectorState
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor

folder = Path(sys.argv[1])
settings = make_settings(camera="SmallCam9", raws=str(folder / "raws"), data=folder / "data", drain_s=1)
supervisor = Supervisor(settings, n_workers=1, with_display=False)
supervisor.start()
print(json.dumps(supervisor.processes()), supervisor.redis_url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    adopt_small_camera(tmp_path, monkeypatch)
    use_light_pipelines(tmp_path / "pipelines", monkeypatch)
    (tmp_path / "raws").mkdir()
    return tmp_path


def wait_for_queued(board: Board, exposure_id: int) -> None:
    """Wait until all raws of an exposure are queued; no worker takes them."""
    key = BatchKey(exposure_id=exposure_id, pipeline="quicklook")
    for _ in range(120):
        state = board.state(key)
        if state is not None and {status.state for status in state.detectors.values()} == {DetectorState.QUEUED}:
            return
        board.events("$", timeout_s=1.0)
    pytest.fail(f"{exposure_id} is not queued")


def wait_for_joined(board: Board, *, n: int = 1) -> list[str]:
    """Return the names of workers that joined, once there are so many."""
    last, names = "0", []
    for _ in range(120):
        for event in board.events(last, timeout_s=1.0):
            last = event.event_id
            if event.kind is EventKind.WORKER_JOINED:
                names.append(str(event.data["worker"]))
        if len(names) >= n:
            return names
    pytest.fail(f"{names} joined, not {n}")


def test_roles_and_valkey_end_when_their_supervisor_is_killed(folder):
    with subprocess.Popen(
        [sys.executable, "-c", TO_BE_KILLED, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        line = supervisor.stdout.readline().strip()
        text, _, url = line.rpartition(" ")
        processes = {name: psutil.Process(pid) for name, pid in json.loads(text).items()}
        assert set(processes) == {"head", "gather", "worker-0", VALKEY}
        with Board(url, "SmallCam9") as board:
            wait_for_joined(board)  # it has a payload child by now
        children = processes["worker-0"].children(recursive=True)
        assert children
        supervisor.kill()
        supervisor.wait(10)
    _, alive = psutil.wait_procs([*processes.values(), *children], timeout=90)
    assert not alive


def test_a_killed_valkey_comes_back_with_the_board_and_a_killed_worker_comes_back_to_it(folder):
    settings = make_settings(camera="SmallCam9", raws=str(folder / "raws"), data=folder / "data", drain_s=1)
    supervisor = Supervisor(settings, n_workers=1, with_display=False, restart_pause_s=0.1, n_heads=2)
    ended: list[tuple[str, int]] = []
    supervisor.on_restart = lambda name, status: ended.append((name, status))
    supervisor.start()
    try:
        assert set(supervisor.processes()) == {"head-0", "head-1", "gather", "worker-0", VALKEY}
        with Board(supervisor.redis_url, "SmallCam9") as board:
            wait_for_joined(board)
            key = BatchKey(exposure_id=2026112000001, pipeline="quicklook")
            board.post(BatchSpec(key=key, camera="SmallCam9", image_type="science", expected=frozenset({94})))
            before = supervisor.processes()
            os.kill(before[VALKEY], signal.SIGKILL)
            supervisor.wait_for_process(VALKEY, timeout_s=60, other_than=before[VALKEY])
            assert board.state(key) is not None
            os.killpg(before["worker-0"], signal.SIGKILL)
            supervisor.wait_for_process("worker-0", timeout_s=60, other_than=before["worker-0"])
            wait_for_joined(board, n=2)
        assert ended == [(VALKEY, -signal.SIGKILL), ("worker-0", -signal.SIGKILL)]
        assert supervisor.processes()["head-0"] == before["head-0"]
    finally:
        supervisor.stop()
    assert supervisor.processes() == {}


def test_what_a_power_cut_took_from_the_board_is_posted_again(folder):
    # A lead that outlasts the cut: its loss alone would have everything compared anew.
    settings = make_settings(camera="SmallCam9", raws=str(folder / "raws"), data=folder / "data", lead_ttl_s=30.0)
    supervisor = Supervisor(settings, n_workers=0, with_display=False, restart_pause_s=0.1)
    supervisor.start()
    try:
        with Board(supervisor.redis_url, "SmallCam9") as board:
            science = [{"kind": "science", "n": 1, "physical_filter": "r_57"}]
            (one,) = take_all(make_plan(science), folder / "raws")
            wait_for_queued(board, one)  # whatever a head does when it begins is on disk by now
            (log,) = (folder / "data" / "valkey" / "appendonlydir").glob("*.incr.aof")
            synced = log.stat().st_size
            (two,) = take_all(make_plan(science, first_seq_num=2), folder / "raws")
            wait_for_queued(board, two)
            pid = supervisor.processes()[VALKEY]
            supervisor.leave_down(VALKEY, 1.0)
            os.kill(pid, signal.SIGKILL)
            supervisor.wait_for_end(VALKEY, pid, timeout_s=60)
            os.truncate(log, synced)
            wait_for_queued(board, two)
            assert {key.exposure_id for key in board.recent()} == {one, two}
    finally:
        supervisor.stop()
