"""`rapid up` with a Butler: raws that are copied in are in the repository, whatever is killed."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from lsst.daf.butler import Butler

from rapid.dispatch.board import Board
from rapid.ingest import store
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor
from tests.support.night import adopt_small_camera, make_plan, take_all

SCIENCE = [{"kind": "science", "n": 1, "physical_filter": "r_57"}]
RUN = "SmallCam9/raw/all"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    adopt_small_camera(tmp_path, monkeypatch)
    (tmp_path / "raws").mkdir()
    return tmp_path


def take(folder: Path, seq_num: int) -> int:
    """Take an exposure; return its id."""
    (exposure_id,) = take_all(make_plan(SCIENCE, first_seq_num=seq_num, stars_per_detector=1), folder / "raws")
    return exposure_id


def wait_for_told(board: Board, exposure_id: int, *, n: int = 9) -> None:
    """Wait until so many detectors of an exposure were told to be in."""
    last = "0-0"
    for _ in range(120):
        if len(board.connection.run(store.get_told(board.prefix, exposure_id))) >= n:
            return
        for entry_id, _message in board.connection.run(store.follow_ingested(board.prefix, last, timeout_s=2.0)):
            last = entry_id
    pytest.fail(f"{exposure_id} is not in")


def wait_for_status(board: Board, is_so: Callable[[store.IngestStatus], bool]) -> None:
    """Wait until the ingest process says that it stands so: it says so every few seconds."""
    for _ in range(900):
        if any(is_so(status) for status in board.connection.run(store.get_statuses(board.prefix))):
            return
        board.events("$", timeout_s=0.2)
    pytest.fail("the ingest process does not say so")


def raws_in(repo: Path) -> list[tuple[int, int]]:
    """Return exposure and detector of every raw in a repository, as a plain client finds them."""
    with Butler.from_config(str(repo)) as butler:
        refs = butler.query_datasets("raw", collections=RUN, limit=None)
    return sorted((int(ref.dataId["exposure"]), int(ref.dataId["detector"])) for ref in refs)


def test_raws_copied_in_are_in_the_butler_once_though_ingest_is_killed_in_the_middle_of_a_batch(folder):
    repo = folder / "repo"
    settings = make_settings(
        camera="SmallCam9", raws=str(folder / "raws"), data=folder / "data", butler_repo=str(repo), ingest_batch=4
    )
    supervisor = Supervisor(settings, n_workers=0, with_display=False, restart_pause_s=0.1)
    supervisor.start()
    try:
        pid = supervisor.processes()["ingest"]
        with Board(supervisor.redis_url, "SmallCam9") as board:
            one = take(folder, 1)
            wait_for_told(board, one)
            with sqlite3.connect(repo / "gen3.sqlite3", isolation_level=None) as database:
                database.execute("BEGIN IMMEDIATE")  # no batch ends while this lasts
                two = take(folder, 2)
                wait_for_status(board, lambda status: status.n_waiting > 0)
                os.kill(pid, signal.SIGKILL)
                supervisor.wait_for_end("ingest", pid, timeout_s=60)
                database.execute("ROLLBACK")
            database.close()
            wait_for_told(board, two)
            again = supervisor.wait_for_process("ingest", timeout_s=60, other_than=pid)
            # The same raws by second names, then one that is new: what came before it has been dealt with.
            shutil.copytree(folder / "raws" / "20261120", folder / "raws" / "copies")
            three = take(folder, 3)
            wait_for_told(board, three)
            assert supervisor.processes()["ingest"] == again
            assert board.connection.run(store.n_set_aside(board.prefix)) == 0
    finally:
        supervisor.stop()
    assert supervisor.processes() == {}
    assert raws_in(repo) == [(exposure, detector) for exposure in (one, two, three) for detector in range(90, 99)]
