"""A short night through all roles: calibs are built in the afternoon and used at night."""

import threading

import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.results.store import open_results
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor
from replay.simulate import NightSimulator, directory_sink
from tests.support.night import adopt_small_camera, make_plan

BLOCKS = [
    {"kind": "bias", "n": 3},
    {"kind": "dark", "n": 3, "exposure_time_s": 30},
    {"kind": "flat", "n": 3, "physical_filter": "r_57"},
    {"kind": "science", "n": 1, "physical_filter": "r_57"},
]


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_calibs_of_the_afternoon_are_applied_at_night(tmp_path, monkeypatch):
    adopt_small_camera(tmp_path, monkeypatch)
    plan = make_plan(BLOCKS)
    settings = make_settings(camera="SmallCam9", raws=str(tmp_path / "raws"), data=tmp_path / "data", port=0)
    (tmp_path / "raws").mkdir()
    supervisor = Supervisor(settings, n_workers=2)
    simulator = NightSimulator(plan, directory_sink(tmp_path / "raws"))
    supervisor.start()
    try:
        assert supervisor.display_url.startswith("http://127.0.0.1:")
        with Board(supervisor.redis_url, "SmallCam9") as board:
            summaries: set[str] = set()
            last = "0"

            def wait_for(batch: str) -> None:
                nonlocal last
                give_up = threading.Event()
                timer = threading.Timer(120, give_up.set)
                timer.start()
                while batch not in summaries and not give_up.is_set():
                    for event in board.events(last, timeout_s=1.0):
                        last = event.event_id
                        if event.kind is EventKind.SUMMARY_READY and event.data["is_complete"]:
                            summaries.add(str(event.batch_id))
                timer.cancel()
                assert batch in summaries, summaries

            for exposure in simulator.exposures:
                if exposure.sees_sky:
                    wait_for("prompt.2026112000009.build_flat")
                list(simulator.take(exposure))
            wait_for("prompt.2026112000010.quicklook")
            wait_for("prompt.2026112000009.build_defects")
    finally:
        simulator.close()
        supervisor.stop()
    results = open_results(settings.results)
    science = results.results(2026112000010)
    assert len(science) == 9
    for result in science:
        assert {"bias", "dark", "flat"} <= set(result.provenance.calibs)
        assert {"bias", "dark", "flat"} <= set(result.provenance.applied)
    assert {record.kind for record in results.calibs("SmallCam9")} >= {"bias", "dark", "flat"}
    every = results.calibs("SmallCam9", state=None)
    assert {record.kind for record in every} == {"bias", "dark", "flat", "defects"}
    assert all(record.outcome is not None for record in every), "none is certified without a verification"
    bias = results.calibs("SmallCam9", kind="bias", detector=94)[0]
    assert bias.inputs == [2026112000001, 2026112000002, 2026112000003]
    results.close()
