"""Who gets a job: waiting workers, affinity, pins, pools, modes and pre-emption (I5)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import Order, Priority, WorkerMode
from tests.board.conftest import key_of, spec_of, worker

GRACE_MS = 1_500


def test_a_waiting_worker_is_handed_a_job_by_the_post_itself(make_board: Callable[..., Board]) -> None:
    board, waiting = make_board(), make_board()
    with ThreadPoolExecutor() as pool:
        claimed = pool.submit(waiting.claim, worker(), timeout_s=20)
        wait_until_parked(board, 1)
        receipt = board.post(spec_of(1, [0, 1]))
        assert (receipt.started, receipt.queued) == (1, 2)
        job = claimed.result(timeout=5)
    assert job.batch == key_of(1)
    assert waiting.complete(job, {}, claim_next=True).batch == key_of(1)


def wait_until_parked(board: Board, n: int) -> None:
    """Wait for n workers to say on the event stream that they joined."""
    last, joined = "0", 0
    while joined < n:
        events = board.events(last, timeout_s=5)
        assert events, "the workers did not join"
        last = events[-1].event_id
        joined += sum(event.kind.value == "worker_joined" for event in events)


def test_overflow_spreads_over_all_waiting_workers(make_board: Callable[..., Board]) -> None:
    board = make_board()
    names = [f"w{i}" for i in range(6)]
    for name in names:
        assert board.claim(worker(name)) is None
    receipt = board.post(spec_of(1, range(20)))
    assert (receipt.started, receipt.queued) == (6, 20)
    jobs = [board.claim(worker(name)) for name in names]
    assert len({job.detector for job in jobs}) == 6


def test_a_worker_gets_the_detectors_whose_calibs_it_has(board: Board) -> None:
    had = run_once(board, 1, ["a", "b"], range(8))
    assert board.claim(worker("a")) is None
    assert board.claim(worker("b")) is None
    board.post(spec_of(2, range(8)))
    for name in ("a", "b"):
        job, got = board.claim(worker(name)), set()
        while job is not None:
            got.add(job.detector)
            job = board.complete(job, {}, claim_next=True)
        assert got == had[name]


def run_once(board: Board, seq_num: int, names: list[str], detectors: range) -> dict[str, set[int]]:
    """Run an exposure with workers in turn; return which detectors each ran."""
    board.post(spec_of(seq_num, detectors))
    had: dict[str, set[int]] = {name: set() for name in names}
    jobs = {name: board.claim(worker(name)) for name in names}
    while any(jobs.values()):
        for name, job in jobs.items():
            if job is not None:
                had[name].add(job.detector)
                jobs[name] = board.complete(job, {}, claim_next=True)
    return had


def test_anyone_takes_a_preferred_workers_job_after_the_grace_time(board: Board) -> None:
    had = run_once(board, 1, ["a", "b"], range(4))
    board.post(spec_of(2, range(4)))
    board.claim(worker("a"))  # a runs a long job; its other detector waits for it
    job, got = board.claim(worker("b")), set()
    while job is not None:
        got.add(job.detector)
        job = board.complete(job, {}, claim_next=True)
    assert got == had["b"]
    board.advance_clock(GRACE_MS)
    job = board.claim(worker("b"))
    assert job is not None
    assert job.detector in had["a"]


def test_a_newer_image_goes_before_an_older_one_with_cached_calibs(board: Board) -> None:
    run_once(board, 1, ["a"], range(2))
    board.post(spec_of(2, [0]))
    board.post(spec_of(3, [7]))
    assert board.claim(worker("a")).batch == key_of(3)


def test_the_jobs_of_a_worker_that_dies_go_to_anyone(board: Board) -> None:
    run_once(board, 1, ["a", "b"], range(4))
    board.advance_clock(25_000)
    board.heartbeat("b")
    board.post(spec_of(2, range(4)))
    board.advance_clock(6_000)
    board.tick()
    assert [state.worker_id for state in board.workers()] == ["b"]
    job, got = board.claim(worker("b")), set()
    while job is not None:
        got.add(job.detector)
        job = board.complete(job, {}, claim_next=True)
    assert got == set(range(4))


def test_a_pinned_worker_owns_its_detectors_and_takes_no_others(board: Board) -> None:
    pinned = worker("p", pinned=frozenset({3, 4}))
    assert board.claim(pinned) is None
    board.post(spec_of(1, range(6)))
    job, others = board.claim(worker("any")), set()
    while job is not None:
        others.add(job.detector)
        job = board.complete(job, {}, claim_next=True)
    assert others == {0, 1, 2, 5}
    job, own = board.claim(pinned), set()
    while job is not None:
        own.add(job.detector)
        job = board.complete(job, {}, claim_next=True)
    assert own == {3, 4}


def test_a_pinned_worker_that_joins_late_finds_its_jobs(board: Board) -> None:
    board.post(spec_of(1, range(6)))
    assert board.claim(worker("p", pinned=frozenset({4}))).detector == 4


def test_the_detectors_of_a_pinned_worker_that_dies_go_to_anyone(board: Board) -> None:
    board.claim(worker("p", pinned=frozenset({1})))
    board.post(spec_of(1, [1]))  # handed to it; it never looks
    assert board.claim(worker("any")) is None
    board.advance_clock(30_001)
    board.tick()
    job = board.claim(worker("any"))
    assert (job.detector, job.attempt) == (1, 1)


def test_workers_take_jobs_of_their_pools_only(board: Board) -> None:
    board.post(spec_of(1, [0]))
    board.post(spec_of(1, [191], key=key_of(1, "donut"), pool="wavefront"))
    assert board.claim(worker("w", pools=("wavefront",))).detector == 191
    assert board.claim(worker("b", pools=("build",))) is None
    assert board.claim(worker("both", pools=("wavefront", "science"))).detector == 0


def test_mode_waiting_takes_current_jobs_only_and_can_be_switched_at_run_time(board: Board) -> None:
    assert board.set_mode(WorkerMode.WAITING) is WorkerMode.WAITING
    board.post(spec_of(1, [0]))
    board.post(spec_of(2, [0]))
    assert board.claim(worker()).batch == key_of(2)
    assert board.claim(worker("w1")) is None
    board.set_mode(WorkerMode.CONSUMING)
    assert board.claim(worker("w1")).batch == key_of(1)


def test_a_switch_of_mode_wakes_waiting_workers(make_board: Callable[..., Board]) -> None:
    board, waiting = make_board(), make_board()
    board.set_mode(WorkerMode.WAITING)
    board.post(spec_of(1, [0, 5]))
    board.post(spec_of(2, []))
    with ThreadPoolExecutor() as pool:
        anyone = pool.submit(waiting.claim, worker("w0"), timeout_s=20)
        pinned = pool.submit(make_board().claim, worker("w1", pinned=frozenset({5})), timeout_s=20)
        wait_until_parked(board, 2)
        board.set_mode(WorkerMode("MURDEROUS"))
        assert anyone.result(timeout=3).detector == 0
        assert pinned.result(timeout=3).detector == 5


@pytest.fixture
def preempting(board: Board) -> Board:
    board.set_mode(WorkerMode.PREEMPTING)
    board.post(spec_of(5, []))
    return board


def test_i5_a_current_job_preempts_a_backlog_job(preempting: Board) -> None:
    board = preempting
    board.post(spec_of(1, [0, 1]))
    job = board.claim(worker())
    assert job.priority is Priority.BACKLOG
    assert board.wait_for_order("w0", timeout_s=0.01) is None
    board.post(spec_of(6, [0]))
    assert board.heartbeat("w0", job).preempt
    told = board.wait_for_order("w0", timeout_s=1)
    assert (told.order, told.job_id, told.token) == (Order.PREEMPT, job.job_id, job.token)
    current = board.preempted(job)
    assert (current.batch, current.priority) == (key_of(6), Priority.CURRENT)
    assert not board.heartbeat("w0", current).preempt
    # The abandoned one is back at once, its attempt not counted.
    following = board.complete(current, {}, claim_next=True)
    assert {following.job_id, job.job_id} <= {key_of(1).job_id(0), key_of(1).job_id(1)}
    assert following.attempt == 1


def test_i5_a_current_job_is_never_preempted(preempting: Board) -> None:
    board = preempting
    board.post(spec_of(6, [0]))
    job = board.claim(worker())
    assert job.priority is Priority.CURRENT
    board.post(spec_of(7, [0]))
    assert not board.heartbeat("w0", job).preempt
    assert board.wait_for_order("w0", timeout_s=0.01) is None


def test_i5_no_more_workers_are_preempted_than_current_jobs_wait(preempting: Board) -> None:
    board = preempting
    board.post(spec_of(1, range(4)))
    jobs = {name: board.claim(worker(name)) for name in ("a", "b", "c", "d")}
    board.post(spec_of(6, [10, 11], arrived=[10]))
    board.arrive(key_of(6), {10: "again"})
    board.arrive(key_of(6), {11: "x"})
    asked = [name for name, job in jobs.items() if board.heartbeat(name, job).preempt]
    assert len(asked) == 2
    assert board.status().counters["preemptions"] == 2


def test_i5_a_free_worker_goes_before_a_preemption(preempting: Board) -> None:
    board = preempting
    board.post(spec_of(1, [0]))
    job = board.claim(worker("busy"))
    assert board.claim(worker("free")) is None
    board.post(spec_of(6, [9]))
    assert not board.heartbeat("busy", job).preempt
    assert board.claim(worker("free")).batch == key_of(6)


def test_i5_the_worker_with_the_calibs_is_preempted_for_its_detector(preempting: Board) -> None:
    board = preempting
    run_once(board, 6, ["a", "b"], range(2))
    board.post(spec_of(1, range(20, 24)))
    jobs = {name: board.claim(worker(name)) for name in ("a", "b")}
    board.post(spec_of(7, range(2)))
    assert all(board.heartbeat(name, job).preempt for name, job in jobs.items())
    assert {board.preempted(job).batch for job in jobs.values()} == {key_of(7)}


def test_an_order_for_a_job_that_has_ended_is_gone(preempting: Board) -> None:
    board = preempting
    board.post(spec_of(1, [0]))
    job = board.claim(worker())
    board.post(spec_of(6, [0]))
    current = board.complete(job, {}, claim_next=True)
    assert current.batch == key_of(6)
    assert board.wait_for_order("w0", timeout_s=0.01) is None


def test_in_other_modes_nobody_is_preempted(board: Board) -> None:
    board.post(spec_of(5, []))
    board.post(spec_of(1, [0]))
    job = board.claim(worker())
    board.post(spec_of(6, [0]))
    assert not board.heartbeat("w0", job).preempt


def test_many_workers_at_once_lose_and_repeat_nothing(make_board: Callable[..., Board]) -> None:
    board = make_board()
    n_exposures, names = 6, [f"w{i}" for i in range(8)]
    done: list[str] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        own = make_board()
        job = own.claim(worker(name), timeout_s=10)
        while job is not None:
            with lock:
                done.append(job.job_id)
                is_last = len(done) == n_exposures * 40
            job = own.complete(job, {}, claim_next=not is_last)
            if job is None and len(done) < n_exposures * 40:
                job = own.claim(worker(name), timeout_s=0.5)

    with ThreadPoolExecutor(len(names)) as pool:
        futures = [pool.submit(work, name) for name in names]
        for seq_num in range(n_exposures):
            board.post(spec_of(seq_num + 1, range(40)))
        for future in futures:
            future.result(timeout=60)
    assert len(done) == len(set(done)) == n_exposures * 40
