"""A short night of faults, and the proof that its bookkeeping sees what is wrong."""

from pathlib import Path

import pytest

from rapid.dispatch import keys
from tests.chaos.night import CAMERA, ChaosNight, detectors_of, set_environment, stays
from tests.chaos.report import KILLS
from tests.chaos.schedule import FaultKind, Scale, describe, make_schedule
from tests.support.light import use_light_pipelines

CACHE = Path(__file__).resolve().parents[2] / "build" / "pycache"
SHORT = Scale(kills=20, exposures=2, detectors=detectors_of(CAMERA), workers=3, outages=0, gap_s=0.5, disordered=8)


def test_the_same_seed_gives_the_same_night_and_another_one_another():
    assert describe(make_schedule(7, SHORT)) == describe(make_schedule(7, SHORT))
    assert describe(make_schedule(7, SHORT)) != describe(make_schedule(8, SHORT))


def test_a_night_has_the_faults_that_were_asked_for_and_ten_second_outages():
    schedule = make_schedule(7, SHORT.model_copy(update={"kills": 300, "outages": 2, "exposures": 30}))
    kills = schedule.count(*KILLS) - schedule.count(FaultKind.OUTAGE)
    assert (kills, schedule.count(FaultKind.FREEZE), schedule.count(FaultKind.OUTAGE)) == (300, 100, 2)
    assert {fault.for_s for fault in schedule.faults if fault.kind is FaultKind.OUTAGE} == {10.0}
    roles = {fault.target.partition("-")[0] for fault in schedule.faults}
    assert roles == {"head", "worker", "gather", "valkey"}
    assert sorted(scene.seq_num for scene in schedule.scenes) == list(range(1, 31))
    assert [scene.seq_num for scene in schedule.scenes] != sorted(scene.seq_num for scene in schedule.scenes)


def test_what_may_stay_on_an_idle_board_is_bounded_and_nothing_else():
    staying = {spec.name for spec in keys.KEYS if stays(spec)}
    assert {"fence", "leader", "counters", "events", "affinity:POOL", "control_log"} <= staying
    assert not staying & {"batch:BATCH", "leases:BATCH", "dead", "dead:LETTER", "worker:WORKER", "timers", "gathers"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_night_of_faults_is_accounted_for(tmp_path, monkeypatch):
    use_light_pipelines(tmp_path / "pipelines", monkeypatch)
    set_environment(CACHE, monkeypatch)
    schedule = make_schedule(11, SHORT)  # a seed that has every kind of fault, a power cut among them
    assert {fault.kind for fault in schedule.faults} == set(FaultKind) - {FaultKind.OUTAGE}
    print(describe(schedule))
    report = ChaosNight(schedule, SHORT, tmp_path / "night").play()
    print(report.text())
    assert report.problems == []
    assert (report.kills, report.freezes) == (20, 6)
    assert report.raws == 2 * 205
    assert sum(report.fates.values()) == report.raws
    assert report.fates["quarantined"] == report.truncated
