"""Faults do to a night of real processes what they say, and the system keeps its promises all the same."""

import json
import statistics
from pathlib import Path

import pytest

from rapid.results.models import GatherReason
from rapid.results.store import open_results
from replay.events import ControlEvent, FaultEvent
from replay.faults import Await, ClockSkew, FullDisk, PayloadFault, S3Outage, Slow, fault_event
from replay.system import SystemOptions, replay_night
from tests.replay.conftest import make_night
from tests.support.s3 import serve_s3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIRST, SECOND, THIRD, FOURTH = (2026112000000 + n for n in (1, 2, 3, 4))
CALM = ControlEvent(at_s=0.0, change={"shedding": {"enabled": False}}, by="ann", reason="all detectors")
SKEW_S = 900.0
LEAK_MB = 300
SETTINGS = {
    "lease_ms": 3000,
    "grace_ms": 200,
    "gather_timeout_s": 60.0,
    "regather_timeout_s": 60.0,
    "build_calibs": False,
}


class Seen:
    """The system that a night was played through, for what only it heard."""

    def around(self, system, target):
        self.system = system
        return target


def science(n: int, faults: list[FaultEvent], **facts: object):
    return make_night(
        [{"kind": "science", "n": n, "physical_filter": "r_57"}], extra=[CALM, *faults], stars_per_detector=5, **facts
    )


def kept(recording) -> dict[str, list[str]]:
    """Return which promises were broken."""
    return {name: problems for name, problems in recording.manifest.invariants.items() if problems}


def said(folder: Path, role: str) -> list[dict]:
    """Return what a role's log says."""
    lines = (folder / "data" / "logs" / f"{role}.log").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def bad_night(mini_camera, tmp_path_factory):
    """Four images; with each something else goes wrong."""
    folder = tmp_path_factory.mktemp("bad") / "system"
    posted = [fault_event(at_s, Await(exposure=one, until="posted")) for at_s, one in ((33, FIRST), (101, THIRD))]
    # One image after the other: what hits one is not to be taken for what hits the next.
    done = [fault_event(at_s, Await(exposure=one, until="complete")) for at_s, one in ((60, FIRST), (95, SECOND))]
    done.append(fault_event(130, Await(exposure=THIRD, until="complete")))
    faults = [
        # Long enough that a disk is full, or a clock jumps, while jobs are in hand.
        fault_event(0, PayloadFault(does="slow", for_s=0.4, exposures=(1, 4))),
        fault_event(0, PayloadFault(does="hang", exposures=(2,), detectors=("R22_S00",), times=1, time_limit_s=6)),
        fault_event(0, PayloadFault(does="leak", exposures=(2,), detectors=("R22_S22",), leak_mb=LEAK_MB)),
        *posted,
        # A job that fails twice for it is begun for the last time when there is room again: it waits for 1 s, then 4 s.
        fault_event(33, FullDisk(target="worker-0", for_s=4.5)),
        fault_event(101, Slow(target="worker-0", share=0.3, for_s=2.0)),
        *done,
        fault_event(135, Await(exposure=FOURTH, until="result")),
        fault_event(135, ClockSkew(by_s=SKEW_S)),
    ]
    seen = Seen()
    options = SystemOptions(n_workers=2, settings=SETTINGS)
    found = replay_night(science(4, faults), folder, options=options, stall_s=120.0, around=seen.around)
    results = open_results(str(folder / "data" / "results.sqlite"))
    by_exposure = {one: results.results(one, camera=mini_camera.name) for one in (FIRST, SECOND, THIRD, FOURTH)}
    versions = results.summary_versions(mini_camera.name, FOURTH)
    failures = results.failures(mini_camera.name, limit=100)
    results.close()
    return found, folder, seen.system, by_exposure, versions, failures


def test_whatever_went_wrong_every_image_is_complete_and_every_promise_kept(bad_night):
    found, *_, failures = bad_night
    assert kept(found) == {}
    assert {one.exposure: one.is_complete for one in found.summaries} == dict.fromkeys(
        (FIRST, SECOND, THIRD, FOURTH), True
    )
    assert failures == []


def test_what_hangs_is_ended_after_its_time_limit_and_tried_again(bad_night, mini_camera):
    _, folder, system, *_ = bad_night
    number = mini_camera.by_name["R22_S00"].id
    failed = [line for n in (0, 1) for line in said(folder, f"worker-{n}") if line.get("code") == "time_limit"]
    assert [(line["exposure_id"], line["detector"]) for line in failed] == [(SECOND, number)]
    assert "6 s" in failed[0]["message"]
    assert len(system.witness.heard.starts[f"prompt.{SECOND}.quicklook", number]) >= 2


def test_what_leaks_is_in_the_memory_of_its_process(bad_night, mini_camera):
    *_, by_exposure, _, _ = bad_night
    memory = {one.detector: one.resources["max_rss_mb"] for one in by_exposure[SECOND]}
    before = [one.resources["max_rss_mb"] for one in by_exposure[FIRST]]
    assert memory[mini_camera.by_name["R22_S22"].id] > max(before) + 0.9 * LEAK_MB


def test_what_is_slow_takes_longer_and_nothing_else_does(bad_night):
    *_, by_exposure, _, _ = bad_night
    assert min(one.timings["total_s"] for one in by_exposure[FIRST]) >= 0.4
    assert statistics.median(one.timings["total_s"] for one in by_exposure[THIRD]) < 0.4


def test_on_a_full_disk_no_result_is_kept_and_the_job_is_tried_again(bad_night):
    _, folder, system, *_ = bad_night
    starts = system.witness.heard.starts
    # What it could not write is tried again, by whomever; the worker itself, whose log cannot be written, goes on.
    again = [begun for job, begun in starts.items() if f".{FIRST}." in job[0] and len(begun) > 1]
    assert "worker-0" in {begun[0][1] for begun in again}
    assert [line["event"] for line in said(folder, "worker-0")].count("worker ready") == 1


def test_a_clock_that_jumps_ends_waits_and_not_jobs(bad_night):
    _, _, system, by_exposure, versions, _ = bad_night
    heard = system.witness.heard
    began_ms = [begun[0][0] for (batch, _), begun in heard.starts.items() if f".{THIRD}." in batch]
    ended_ms = [at_ms for (batch, _), at_ms in heard.ends.items() if f".{FOURTH}." in batch]
    assert max(ended_ms) - max(began_ms) > SKEW_S * 1000
    # With the first result in, the others are waited for no longer; they come all the same.
    first, *_, last = sorted(versions, key=lambda summary: summary.version)
    assert (first.reason, first.is_complete) == (GatherReason.TIMEOUT, False)
    assert last.is_complete
    # Nothing but the board's clock jumped.
    assert max(one.timings["total_s"] for one in by_exposure[FOURTH]) < SKEW_S


@pytest.fixture(scope="module")
def s3():
    with serve_s3() as server:
        yield server


def test_a_night_whose_bucket_is_out_of_reach_for_a_while_is_complete(s3, mini_camera, tmp_path):
    # What is in hand when the bucket goes away cannot be read then; what is put into it meanwhile comes afterwards.
    faults = [
        fault_event(0, PayloadFault(does="slow", for_s=0.3, exposures=(1,))),
        fault_event(33, Await(exposure=FIRST, until="posted")),
        fault_event(33, S3Outage(for_s=4.0)),
    ]
    seen = Seen()
    options = SystemOptions(n_workers=1, settings=SETTINGS, raws=s3.make_bucket("night") + "&region=us-east-1")
    found = replay_night(science(2, faults), tmp_path / "system", options=options, stall_s=120.0, around=seen.around)
    assert kept(found) == {}
    assert {one.exposure: one.is_complete for one in found.summaries} == {FIRST: True, SECOND: True}
    assert seen.system.gate.n_refused > 0
    assert not any((tmp_path / "system" / "raws").iterdir())
