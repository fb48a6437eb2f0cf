"""What is said of workers, and how long things took."""

import pytest

from rapid.dispatch.models import Event, EventKind, WorkerState
from rapid.dispatch.worker_facts import WorkerFacts
from rapid.display.cluster.assemble import condition_of
from rapid.display.cluster.latencies import N_KEPT, Latencies

BATCH = "prompt.2026112000012.quicklook"


def event(kind, at_ms, detector=None, batch=BATCH, **data):
    return Event(
        event_id=f"{at_ms}-0", kind=kind, at_ms=at_ms, batch_id=batch, exposure_id=1, detector=detector, data=data
    )


def spreads(*events):
    latencies = Latencies()
    latencies.take(events)
    return {(one.name, one.step): one for one in latencies.spreads()}


def test_a_job_waits_runs_and_its_exposure_is_summed_up():
    found = spreads(
        event(EventKind.EXPOSURE_POSTED, 1000),
        event(EventKind.JOB_STARTED, 1200, 3),
        event(EventKind.JOB_FINISHED, 2700, 3),
        event(EventKind.SUMMARY_READY, 4000, version=1),
        event(EventKind.SUMMARY_READY, 9000, version=2),
    )
    assert {step: one.p50_s for (_, step), one in found.items()} == {"wait": 0.2, "run": 1.5, "total": 3.0}


def test_a_job_that_came_back_is_timed_from_its_next_start():
    found = spreads(
        event(EventKind.JOB_STARTED, 1000, 3),
        event(EventKind.JOB_RETURNED, 5000, 3),
        event(EventKind.JOB_STARTED, 6000, 3),
        event(EventKind.JOB_FAILED, 6500, 3),
    )
    assert found["quicklook", "run"].max_s == 0.5


def test_the_99th_percentile_is_of_the_last_jobs():
    events = []
    for n in range(N_KEPT + 50):
        events += [
            event(EventKind.JOB_STARTED, n * 10, n),
            event(EventKind.JOB_FINISHED, n * 10 + (9000 if n < 50 else 100), n),
        ]
    found = spreads(*events)["quicklook", "run"]
    assert (found.n, found.p99_s, found.max_s) == (N_KEPT, 0.1, 0.1)


def test_an_end_whose_start_was_not_heard_is_not_timed():
    assert spreads(event(EventKind.JOB_FINISHED, 5000, 3)) == {}


@pytest.mark.parametrize(
    ("state", "jobs", "facts", "condition"),
    [
        ("parked", (), WorkerFacts(), "free"),
        ("idle", (), WorkerFacts(n_own=2), "queued"),
        ("busy", ("a.1.b.001",), WorkerFacts(), "busy"),
        ("busy", ("a.1.b.001",), WorkerFacts(is_restarting=True), "restarting"),
        ("silent", ("a.1.b.001",), WorkerFacts(is_restarting=True), "missing"),
    ],
)
def test_a_worker_is_told_by_what_an_operator_should_know(state, jobs, facts, condition):
    worker = WorkerState(worker_id="w", state=state, jobs=jobs, seen_ms=0)
    assert condition_of(worker, facts) == condition
