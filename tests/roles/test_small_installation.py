"""Roles as processes that really get killed: nothing is lost, nothing counts twice."""

import os
import signal

import redis

from rapid.dispatch.models import EventKind
from rapid.results.models import DetectorState
from tests.support.night import make_plan, take_all

SCIENCE = [{"kind": "science", "n": 1, "physical_filter": "r_57"}]


def run_of(roles, *, workers: int = 1) -> None:
    roles.start("head", "head")
    roles.start("gather", "gather")
    for n in range(workers):
        roles.start("worker", f"worker-{n}")


def test_raws_in_a_directory_become_a_complete_summary(roles):
    run_of(roles)
    (exposure_id,) = take_all(make_plan(SCIENCE), roles.raws)
    event = roles.wait_for_summary(exposure_id)
    assert event.data["is_complete"]
    (summary,) = roles.results.summaries("SmallCam9", day_obs=20261120)
    assert (summary.n_finished, summary.n_expected, summary.is_complete) == (9, 9, True)
    assert summary.metrics["sky_level_e_median"] > 0
    assert (roles.folder / "data/products" / summary.products["mosaic"]).read_bytes()[:2] == b"\xff\xd8"
    for name in ("worker-0", "gather", "head"):
        assert roles.stop(name) == 0


def test_a_killed_workers_job_is_done_by_another(roles):
    run_of(roles)
    roles.wait_for(lambda e: e.kind is EventKind.WORKER_JOINED)
    (exposure_id,) = take_all(make_plan(SCIENCE), roles.raws)
    roles.wait_for(lambda e: e.kind is EventKind.JOB_STARTED)
    roles.kill("worker-0")
    roles.start("worker", "worker-1")
    assert roles.wait_for_summary(exposure_id).data["is_complete"]
    results = roles.results.results(exposure_id)
    assert sorted(result.detector for result in results) == list(range(90, 99))


def test_a_frozen_workers_late_completion_does_not_count(roles):
    run_of(roles)
    roles.wait_for(lambda e: e.kind is EventKind.WORKER_JOINED)
    (exposure_id,) = take_all(make_plan(SCIENCE), roles.raws)
    roles.wait_for(lambda e: e.kind is EventKind.JOB_STARTED)
    frozen = roles.processes["worker-0"]
    os.killpg(frozen.pid, signal.SIGSTOP)
    roles.start("worker", "worker-1")
    assert roles.wait_for_summary(exposure_id).data["is_complete"]
    before = roles.board.status().counters
    os.killpg(frozen.pid, signal.SIGCONT)
    roles.stop("worker-0")
    status = roles.board.status()
    assert status.counters["finished"] == before["finished"] == 9
    assert status.counters["leases_lost"] >= 1


def test_a_standby_head_takes_over_and_nothing_is_lost(roles):
    run_of(roles)
    roles.start("head", "standby")
    first, second = make_plan(SCIENCE), make_plan(SCIENCE, first_seq_num=2)
    (one,) = take_all(first, roles.raws)
    roles.wait_for_summary(one)
    leader = roles.board.status().leader
    roles.kill(leader)
    (two,) = take_all(second, roles.raws)
    assert roles.wait_for_summary(two).data["is_complete"]
    assert roles.board.status().leader not in {leader, ""}


def test_a_flushed_redis_is_rebuilt_and_finished_work_is_not_redone(roles):
    run_of(roles)
    (one,) = take_all(make_plan(SCIENCE), roles.raws)
    roles.wait_for_summary(one)
    roles.stop("worker-0")
    before = {result.detector: result.finished_at for result in roles.results.results(one)}
    (two,) = take_all(make_plan(SCIENCE, first_seq_num=2), roles.raws)
    roles.wait_for(lambda e: e.kind is EventKind.EXPOSURE_POSTED and e.exposure_id == two)
    with redis.Redis.from_url(roles.valkey.url) as client:
        client.flushall()
    roles.hear_from_the_beginning()
    roles.start("worker", "worker-1")
    assert roles.wait_for_summary(two).data["is_complete"]
    assert {result.detector: result.finished_at for result in roles.results.results(one)} == before


def test_a_partial_read_out_is_complete_and_a_missing_raw_is_named(roles):
    run_of(roles)
    blocks = [{"kind": "science", "n": 1, "physical_filter": "r_57", "missing": {0: [90, 91]}}]
    (one,) = take_all(make_plan(blocks), roles.raws)
    roles.wait_for_summary(one, n_finished=7)
    (summary,) = roles.results.summaries("SmallCam9", day_obs=20261120)
    assert (summary.n_finished, summary.n_expected, summary.is_complete) == (7, 7, True)
    (two,) = take_all(make_plan(SCIENCE, first_seq_num=2), roles.raws, keep=lambda key: "R22_S22" not in key)
    event = roles.wait_for_summary(two, n_finished=8)
    assert (event.data["n_finished"], event.data["n_expected"], event.data["is_complete"]) == (8, 9, False)
    newest = roles.results.summaries("SmallCam9", day_obs=20261120)[0]
    assert newest.detectors[98].state is DetectorState.WAITING
    assert "not arrived" in (newest.detectors[98].reason or "")


def test_a_truncated_raw_is_quarantined_and_its_good_copy_completes_the_exposure(roles):
    run_of(roles)
    (one,) = take_all(make_plan(SCIENCE), roles.folder / "elsewhere")
    good = roles.folder / "elsewhere" / "20261120" / "SC_O_20261120_000001"
    folder = roles.raws / "20261120" / good.name
    folder.mkdir(parents=True)
    for path in sorted(good.iterdir()):
        data = path.read_bytes()
        (folder / path.name).write_bytes(data[: len(data) // 2] if "S11" in path.name else data)
    roles.wait_for(lambda e: e.kind is EventKind.RAW_QUARANTINED, timeout_s=90)
    (record,) = roles.results.quarantined("SmallCam9")
    assert record.code == "raw_truncated"
    assert record.reason.startswith(("the file ends", "HDU"))
    assert (record.exposure, record.detector) == (one, 94)
    whole = good / f"{good.name}_R22_S11.fits"
    (folder / "new.part").write_bytes(whole.read_bytes())
    (folder / "new.part").replace(folder / whole.name)
    roles.wait_for(lambda e: e.kind is EventKind.SUMMARY_READY and e.data["is_complete"] and e.exposure_id == one)
