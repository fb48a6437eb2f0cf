"""Claims, completions, failures: what becomes of a job (I1, I3, I5)."""

from collections.abc import Callable

import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind, Priority, WorkerMode
from rapid.errors import LeaseLostError, NotFoundError, RefusedError
from rapid.results.models import DetectorState
from tests.board.conftest import key_of, spec_of, worker

LEASE_MS = 10_000


def run_all(board: Board, name: str = "w0") -> list[str]:
    """Complete all jobs a worker gets; return their ids in order."""
    done = []
    job = board.claim(worker(name))
    while job is not None:
        done.append(job.job_id)
        job = board.complete(job, {"sky_level_adu": 812.5}, claim_next=True)
    return done


def test_a_job_says_what_to_run_and_for_how_long(board: Board) -> None:
    receipt = board.post(spec_of(7, [94], config={"isr": {"flat": False}}, inputs=(1, 2), time_limit_ms=5_000))
    assert (receipt.created, receipt.queued, receipt.started, receipt.priority) == (True, 1, 0, Priority.CURRENT)
    job = board.claim(worker())
    assert job.job_id == "prompt.2026112000007.quicklook.094"
    assert (job.detector, job.raw_uri, job.camera) == (94, "/raws/7/94.fits", "LSSTCam")
    assert (job.config, job.inputs, job.time_limit_ms) == ({"isr": {"flat": False}}, (1, 2), 5_000)
    assert (job.attempt, job.priority, job.lease_ms) == (1, Priority.CURRENT, LEASE_MS)
    assert 0 <= job.claimed_ms - job.posted_ms < 5_000


def test_posting_twice_is_posting_once(board: Board) -> None:
    board.post(spec_of(1))
    again = board.post(spec_of(1))
    assert (again.created, again.queued) == (False, 0)
    assert len(run_all(board)) == 3
    assert board.post(spec_of(1)).queued == 0
    assert board.claim(worker()) is None


def test_a_raw_that_comes_late_is_queued_once(board: Board) -> None:
    board.post(spec_of(1, [0, 1, 2], arrived=[0]))
    assert board.arrive(key_of(1), {1: "/late/1"}) == 1
    assert board.arrive(key_of(1), {1: "/late/1"}) == 0
    assert board.post(spec_of(1, [0, 1, 2], arrived=[0, 1, 2])).queued == 1
    assert len(run_all(board)) == 3
    assert board.arrive(key_of(9), {1: "/late/1"}) == -1


def test_a_raw_the_pattern_does_not_want_is_told_and_left(board: Board) -> None:
    receipt = board.post(spec_of(1, [0, 1], arrived=[0, 1, 5]))
    assert receipt.unexpected == (5,)
    assert len(run_all(board)) == 2


def test_newest_exposure_goes_first_whatever_the_order_of_posting(board: Board) -> None:
    for seq_num in (5, 3, 9, 4):
        board.post(spec_of(seq_num, [0, 1]))
    board.post(spec_of(20, [0]))
    board.post(spec_of(19, [0]))
    first = board.claim(worker())
    assert first.batch == key_of(20)
    assert first.priority is Priority.CURRENT
    second = board.complete(first, {}, claim_next=True)
    assert (second.batch, second.priority) == (key_of(19), Priority.BACKLOG)
    board.complete(second, {})


def test_jobs_come_newest_exposure_first(board: Board) -> None:
    for seq_num in (5, 3, 9, 4):
        board.post(spec_of(seq_num, [0, 1]))
    order = [int(name.split(".")[1]) % 100_000 for name in run_all(board)]
    assert order == [9, 9, 5, 5, 4, 4, 3, 3]


def test_a_reprocessing_of_the_newest_exposure_waits_behind_it(board: Board) -> None:
    rerun = key_of(2).model_copy(update={"run": "rerun"})
    board.post(spec_of(2, [0], key=rerun, priority=Priority.BACKLOG))
    board.post(spec_of(2, [0]))
    first, second = run_all(board)
    assert first.startswith("prompt.")
    assert second.startswith("rerun.")


def test_a_simulated_exposure_is_not_newer_for_its_thousand_years(board: Board) -> None:
    simulated = key_of(1).model_copy(update={"exposure_id": 3026112000001})
    board.post(spec_of(1, [0], key=simulated))
    assert board.post(spec_of(2, [0])).priority is Priority.CURRENT


def test_i3_a_completion_counts_once_and_may_be_repeated(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    job = board.claim(worker())
    following = board.complete(job, {"n": 1}, claim_next=True)
    # The answer was lost on the way: the worker says it again and gets the same next job.
    assert board.complete(job, {"n": 1}, claim_next=True) == following
    assert board.status().counters["finished"] == 1
    assert board.state(key_of(1)).metrics == {0: {"n": 1}} or board.state(key_of(1)).metrics == {1: {"n": 1}}


def test_i3_the_completion_of_a_lost_lease_is_refused(board: Board) -> None:
    board.post(spec_of(1, [0]))
    frozen = board.claim(worker("frozen"))
    board.advance_clock(LEASE_MS + 1)
    board.tick()
    job = board.claim(worker("other"))
    assert (job.job_id, job.attempt) == (frozen.job_id, 2)
    assert job.token > frozen.token
    with pytest.raises(LeaseLostError):
        board.complete(frozen, {"who": "frozen"})
    with pytest.raises(LeaseLostError):
        board.fail(frozen, {"code": "x"})
    with pytest.raises(LeaseLostError):
        board.release(frozen)
    assert not board.heartbeat("frozen", frozen).held
    board.complete(job, {"who": "other"})
    with pytest.raises(LeaseLostError):
        board.complete(frozen, {"who": "frozen"})
    assert board.state(key_of(1)).metrics == {0: {"who": "other"}}


def test_i3_a_token_from_before_a_flush_is_not_valid_after_it(board: Board) -> None:
    board.post(spec_of(1, [0]))
    before = board.claim(worker("old"))
    board._connection._client.flushall()
    board.post(spec_of(1, [0]))
    after = board.claim(worker("new"))
    assert after.token > before.token
    with pytest.raises(LeaseLostError):
        board.complete(before, {})
    board.complete(after, {})


def test_i7_a_job_longer_than_any_timeout_lives_while_its_worker_beats(board: Board) -> None:
    board.post(spec_of(1, [0]))
    job = board.claim(worker())
    for _ in range(20):
        board.advance_clock(LEASE_MS - 100)
        assert board.heartbeat("w0", job).held
        board.tick()
    board.complete(job, {})


def test_i7_a_worker_too_busy_for_a_heartbeat_is_alive_by_what_it_completes(board: Board) -> None:
    board.post(spec_of(1, range(12)))
    job = board.claim(worker())
    for _ in range(11):
        # Short jobs, each given with the end of the last: for more than three leases it neither beats nor asks.
        board.advance_clock(LEASE_MS // 3)
        board.tick()
        (job,) = board.complete_many([(job, {})], claim_limit=1).following
    board.complete(job, {})
    assert [state.worker_id for state in board.workers()] == ["w0"]
    assert board.status().counters.get("workers_lost", 0) == 0


@pytest.mark.parametrize("end", ["fail", "release"])
def test_i7_what_a_worker_gives_up_is_a_sign_of_life_too(board: Board, end: str) -> None:
    board.post(spec_of(1, [0]))
    job = board.claim(worker())
    board.advance_clock(LEASE_MS // 3)
    if end == "fail":
        board.fail(job, {"code": "no_data", "message": "nothing there", "retry": "ignore"})
    else:
        board.release(job)
    board.advance_clock(3 * LEASE_MS - LEASE_MS // 3 + 1)
    board.tick()
    assert [state.worker_id for state in board.workers()] == ["w0"]


def test_i7_a_heartbeat_renews_only_the_job_it_names(make_board: Callable[..., Board]) -> None:
    board = make_board()
    board.post(spec_of(1, [0]))
    board.claim(worker())  # the answer was lost: the worker does not know of the job
    board.advance_clock(LEASE_MS - 100)
    board.heartbeat("w0")
    board.advance_clock(200)
    board.tick()
    assert make_board().claim(worker("w1")).attempt == 2


def test_i7_a_dead_worker_leaves_and_its_job_returns(board: Board) -> None:
    board.post(spec_of(1, [0]))
    board.claim(worker("dead"))
    board.advance_clock(3 * LEASE_MS + 1)
    board.tick()
    assert [state.worker_id for state in board.workers()] == []
    assert board.claim(worker("w1")).job_id == key_of(1).job_id(0)


def test_a_worker_that_did_not_hear_gets_its_job_again(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    job = board.claim(worker())
    again = board.claim(worker())
    assert (again.job_id, again.token, again.attempt) == (job.job_id, job.token, 1)


def test_a_worker_that_starts_anew_under_its_old_name_has_lost_its_job(make_board: Callable[..., Board]) -> None:
    first, second = make_board(), make_board()
    first.post(spec_of(1, [0]))
    job = first.claim(worker())
    again = second.claim(worker())
    assert (again.job_id, again.attempt) == (job.job_id, 2)
    with pytest.raises(LeaseLostError):
        first.complete(job, {})


def test_a_failure_that_may_pass_is_tried_again_after_a_wait(board: Board) -> None:
    board.post(spec_of(1, [0], retry_backoff_ms=1_000))
    job = board.claim(worker())
    assert board.fail(job, {"code": "calib_missing", "retry": "later"}) == "queued"
    assert board.claim(worker()) is None
    assert board.status().delayed == 1
    board.advance_clock(1_000)
    assert board.claim(worker()).attempt == 2


def test_repeated_failures_end_in_a_dead_letter_with_all_there_is_to_know(board: Board) -> None:
    board.post(spec_of(1, [94], retry_backoff_ms=0, max_attempts=3, config={"isr": {"a": 1}}))
    error = {"code": "payload_crashed", "message": "boom", "traceback": "Traceback...", "retry": "later"}
    outcomes = [board.fail(board.claim(worker()), error) for _ in range(3)]
    assert outcomes == ["queued", "queued", "dead"]
    (letter,) = board.dead_letters()
    assert (letter.job_id, letter.attempts, letter.raw_uri) == (key_of(1).job_id(94), 3, "/raws/1/94.fits")
    assert letter.error == error
    assert letter.spec["config"] == {"isr": {"a": 1}}
    assert (letter.batch, letter.detector) == (key_of(1), 94)
    assert board.state(key_of(1)).detectors[94].state is DetectorState.FAILED
    assert board.state(key_of(1)).detectors[94].reason == "boom"


def test_an_error_that_repeats_is_not_tried_again(board: Board) -> None:
    board.post(spec_of(1, [0]))
    assert board.fail(board.claim(worker()), {"code": "bad", "message": "bad", "retry": "never"}) == "dead"
    assert board.claim(worker()) is None


def test_an_error_to_ignore_settles_without_a_dead_letter(board: Board) -> None:
    board.post(spec_of(1, [0]))
    assert board.fail(board.claim(worker()), {"code": "x", "message": "not needed", "retry": "ignore"}) == "settled"
    assert board.dead_letters() == []
    assert board.state(key_of(1)).detectors[0].state is DetectorState.EXCLUDED


def test_a_dead_letter_is_retried_or_dropped(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    for _ in range(2):
        board.fail(board.claim(worker()), {"code": "bad", "retry": "never"})
    first, second = (letter.job_id for letter in board.dead_letters())
    board.retry_dead_letter(first)
    job = board.claim(worker())
    assert (job.job_id, job.attempt) == (first, 1)
    board.complete(job, {})
    assert board.discard_dead_letter(second)
    assert not board.discard_dead_letter(second)
    assert board.dead_letters() == []
    with pytest.raises(NotFoundError):
        board.retry_dead_letter(first)


def test_a_dead_letter_of_a_forgotten_batch_cannot_be_retried(board: Board) -> None:
    board.post(spec_of(1, [0], ttl_ms=60_000))
    job = board.claim(worker())
    board.fail(job, {"code": "bad", "retry": "never"})
    board.complete_gather(board.next_gather("g", timeout_s=5.0), {})
    board.advance_clock(60_001)
    board.tick()
    with pytest.raises(RefusedError):
        board.retry_dead_letter(job.job_id)


def test_a_batch_is_remembered_as_long_as_the_board_does_unless_it_says_otherwise(
    make_board: Callable[..., Board],
) -> None:
    board = make_board(memory_ms=60_000)
    board.post(spec_of(1, [0]))
    board.post(spec_of(2, [0], ttl_ms=90_000))
    for _ in range(2):
        board.complete(board.claim(worker()), {})
    for _ in range(2):
        board.complete_gather(board.next_gather("g", timeout_s=5.0), {})
    board.advance_clock(60_001)
    board.tick()
    assert [key.exposure_id for key in board.recent(9)] == [key_of(2).exposure_id]
    board.advance_clock(30_000)
    board.tick()
    assert board.recent(9) == []


def test_a_job_that_waits_is_remembered_until_it_leaves_the_backlog(make_board: Callable[..., Board]) -> None:
    board = make_board(memory_ms=60_000, backlog_age_ms=600_000)
    board.post(spec_of(1, [0, 1]))
    job = board.claim(worker())
    board.complete(job, {})
    for _ in range(5):
        board.advance_clock(100_000)
        board.tick()
        assert [key.exposure_id for key in board.recent(9)] == [key_of(1).exposure_id]
    board.advance_clock(100_001)
    board.tick()
    assert {status.state for status in board.state(key_of(1)).detectors.values()} >= {DetectorState.SUPERSEDED}
    board.complete_gather(board.next_gather("g", timeout_s=5.0), {})
    board.advance_clock(60_001)
    board.tick()
    assert board.recent(9) == []


def test_a_released_job_goes_back_with_its_attempt_not_counted(board: Board) -> None:
    board.post(spec_of(1, [0], max_attempts=1))
    for _ in range(5):
        job = board.claim(worker())
        assert job.attempt == 1
        assert board.release(job, reason="the worker stops") == "queued"
    job = board.claim(worker())
    assert board.release(job, count_attempt=True) == "dead"


def test_a_worker_that_leaves_gives_its_job_back(make_board: Callable[..., Board]) -> None:
    first, second = make_board(), make_board()
    first.post(spec_of(1, [0]))
    first.claim(worker("w0"))
    first.leave("w0")
    job = second.claim(worker("w1"))
    assert job.attempt == 1
    assert [state.worker_id for state in second.workers()] == ["w1"]


def test_a_completion_without_a_number_is_none(board: Board) -> None:
    board.post(spec_of(1, [0]))
    board.complete(board.claim(worker()), {"fwhm": float("nan"), "n": 3})
    assert board.state(key_of(1)).metrics == {0: {"fwhm": None, "n": 3}}


def test_what_happens_is_told_in_order(board: Board) -> None:
    last = board.last_event_id()
    board.post(spec_of(1, [0, 1]))
    job = board.claim(worker())
    board.complete(job, {"n": 1})
    board.fail(board.claim(worker()), {"code": "bad", "message": "bad", "retry": "never"})
    events = board.events(last)
    assert [event.kind for event in events] == [
        EventKind.EXPOSURE_POSTED,
        EventKind.WORKER_JOINED,
        EventKind.JOB_STARTED,
        EventKind.JOB_FINISHED,
        EventKind.JOB_STARTED,
        EventKind.JOB_FAILED,
    ]
    assert events[3].data == {"n": 1}
    assert (events[3].exposure_id, events[3].detector) == (2026112000001, job.detector)
    assert board.events(events[-1].event_id, timeout_s=0.01) == []
    assert board.events(events[2].event_id) == events[3:]


def test_status_tells_depths_by_class_and_the_oldest(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    board.post(spec_of(2, [0, 1, 2]))
    board.set_mode(WorkerMode.WAITING)
    job = board.claim(worker())
    status = board.status()
    (queue,) = status.queues
    assert (queue.current, queue.backlog, queue.oldest) == (2, 2, 26112000001)
    assert (status.running, status.mode) == (1, WorkerMode.WAITING)
    assert (status.workers[0].state, status.workers[0].job_id) == ("busy", job.job_id)


def test_a_dead_letter_is_dropped_after_ten_days_and_a_new_one_of_the_same_job_lives_its_own(board: Board) -> None:
    day_ms = 86_400_000
    board.post(spec_of(1, [0], ttl_ms=30 * day_ms))
    bad = {"code": "bad", "message": "bad", "retry": "never"}
    board.fail(board.claim(worker()), bad)
    (letter,) = board.dead_letters()
    board.advance_clock(6 * day_ms)
    board.retry_dead_letter(letter.job_id)
    board.fail(board.claim(worker("w1")), bad)
    board.advance_clock(6 * day_ms)
    board.tick()
    assert [found.job_id for found in board.dead_letters()] == [letter.job_id]
    board.advance_clock(5 * day_ms)
    board.tick()
    assert board.dead_letters() == []
    assert board.status().dead_letters == 0
