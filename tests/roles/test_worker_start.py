"""A worker that is told to stop before it was ever ready."""

import signal
import time

import psutil

from rapid.dispatch.models import BatchKey, BatchSpec, EventKind

LEASE_MS = 4000


def test_a_worker_told_to_stop_while_its_payloads_load_ends_at_once_and_leaves_nobody(roles):
    roles.start("worker", "worker-0", pools="science")
    worker = roles.processes.pop("worker-0")
    process = psutil.Process(worker.pid)
    child = wait_for_child(process)
    child.suspend()  # it will not become ready
    worker.send_signal(signal.SIGTERM)
    try:
        assert worker.wait(60) == 0
        _, alive = psutil.wait_procs([child], timeout=10)
    finally:
        if child.is_running():
            child.kill()
    assert not alive or alive[0].status() == psutil.STATUS_ZOMBIE, (roles.folder / "worker-0.log").read_text()


def test_a_payload_process_that_takes_longer_to_start_than_a_lease_lasts_costs_no_lease(roles):
    roles.start("worker", "worker-0", pools="science", lease_ms=LEASE_MS)
    roles.wait_for(lambda event: event.kind is EventKind.WORKER_JOINED)
    worker = psutil.Process(roles.processes["worker-0"].pid)
    first = wait_for_child(worker)
    first.kill()
    # Its next job finds no process, comes back, and waits for the next one.
    key = BatchKey(exposure_id=2026112000001, pipeline="quicklook")
    raws = {0: str(roles.raws / "nowhere.fits")}
    spec = BatchSpec(key=key, camera="SmallCam9", image_type="bias", expected=frozenset(raws), raws=raws)
    roles.board.post(spec)
    second = wait_for_child(worker, other_than=first.pid)
    second.suspend()
    try:
        roles.wait_for(lambda event: event.kind is EventKind.JOB_STARTED and event.data["attempt"] == 2)
        until_ms = roles.board.now_ms() + 1.5 * LEASE_MS
        last = roles._seen
        heard = []
        while roles.board.now_ms() < until_ms:
            events = roles.board.events(last, timeout_s=1.0)
            last = events[-1].event_id if events else last
            heard += [(event.kind, event.data) for event in events]
    finally:
        second.resume()
    assert not [data for kind, data in heard if kind is EventKind.JOB_RETURNED], heard
    # The raw is not there: that is what the payload process says, not that it had no time.
    failed = roles.wait_for(lambda event: event.kind in {EventKind.JOB_RETURNED, EventKind.JOB_FAILED})
    assert failed.data["code"] == "not_found", failed.data


def wait_for_child(process: psutil.Process, *, other_than: int | None = None) -> psutil.Process:
    """Return the payload process as soon as there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.is_running()
        children = [
            one
            for one in process.children()
            if one.pid != other_than and "rapid.worker.child" in " ".join(one.cmdline())
        ]
        if children:
            return children[0]
    raise AssertionError("no payload process was started")
