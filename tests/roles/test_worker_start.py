"""A worker that is told to stop before it was ever ready."""

import signal
import time

import psutil


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


def wait_for_child(process: psutil.Process) -> psutil.Process:
    """Return the payload process as soon as there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.is_running()
        children = [one for one in process.children() if "rapid.worker.child" in " ".join(one.cmdline())]
        if children:
            return children[0]
    raise AssertionError("no payload process was started")
