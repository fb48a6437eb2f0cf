"""Short jobs are taken, and their results given, several at a time."""

import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind, Priority
from rapid.errors import LeaseLostError
from tests.board.conftest import key_of, spec_of, worker


def test_a_worker_takes_no_more_than_it_asked_for_and_no_more_than_its_share(board: Board):
    board.post(spec_of(1, range(40)))
    assert len(board.claim_many(worker("w0"), 5)) == 5
    # 35 wait, two workers are known: half of an equal share, so that nobody ends long after the others.
    assert len(board.claim_many(worker("w1"), 1000)) == 9


def test_several_are_of_the_newest_exposure_only(board: Board):
    board.post(spec_of(1, range(3)))
    board.post(spec_of(2, range(3)))
    jobs = board.claim_many(worker("w0"), 100)
    assert {job.batch for job in jobs} == {key_of(2)}
    assert len({job.token for job in jobs}) == len(jobs)


def test_backlog_is_given_singly_so_that_it_can_be_taken_back_singly(board: Board):
    board.post(spec_of(1, range(20), priority=Priority.BACKLOG))
    assert len(board.claim_many(worker("w0"), 100)) == 1


def test_who_asks_again_gets_all_it_holds_again(board: Board):
    board.post(spec_of(1, range(40)))
    first = board.claim_many(worker("w0"), 4)
    again = board.claim_many(worker("w0"), 1)
    assert [job.token for job in again] == [job.token for job in first]


def test_one_lost_lease_does_not_spoil_the_other_results(board: Board):
    board.post(spec_of(1, range(40)))
    jobs = board.claim_many(worker("w0"), 4)
    board.release(jobs[1], reason="given back meanwhile")
    answer = board.complete_many([(job, {"n": 1.0}) for job in jobs])
    assert answer.refused == {jobs[1].job_id}
    state = board.state(key_of(1))
    assert state is not None
    assert state.finished == {job.detector for job in jobs} - {jobs[1].detector}
    with pytest.raises(LeaseLostError):
        board.complete(jobs[1], {})


def test_the_same_result_twice_in_one_call_counts_once(board: Board):
    board.post(spec_of(1, range(4)))
    (job,) = board.claim_many(worker("w0"), 1)
    board.complete_many([(job, {"n": 1.0}), (job, {"n": 1.0})])
    assert board.status().counters["finished"] == 1


def test_part_of_the_results_leaves_the_rest_in_hand(board: Board):
    board.post(spec_of(1, range(40)))
    jobs = board.claim_many(worker("w0"), 4)
    answer = board.complete_many([(jobs[0], {})], claim_limit=10)
    assert {job.job_id for job in answer.following} == {job.job_id for job in jobs[1:]}
    (state,) = board.workers()
    assert set(state.jobs) == {job.job_id for job in jobs[1:]}


def test_a_silent_worker_loses_all_it_holds_and_a_heartbeat_keeps_all(board: Board):
    board.post(spec_of(1, range(40)))
    jobs = board.claim_many(worker("w0"), 3)
    board.advance_clock(6_000)
    assert board.heartbeat("w0", *jobs).held
    board.advance_clock(6_000)
    board.tick()
    assert board.status().running == 3
    assert board.heartbeat("w0", *jobs[:2]).held
    board.advance_clock(6_000)
    board.tick()
    assert board.heartbeat("w0", *jobs).lost == {jobs[2].job_id}


def test_every_detector_has_events_of_its_own(board: Board):
    board.post(spec_of(1, range(40)))
    jobs = board.claim_many(worker("w0"), 3)
    board.complete_many([(job, {"n": float(job.detector)}) for job in jobs])
    events = board.events("0-0", timeout_s=0)
    for kind in (EventKind.JOB_STARTED, EventKind.JOB_FINISHED):
        assert {e.detector for e in events if e.kind is kind} == {job.detector for job in jobs}
    told = {e.detector: e.data["n"] for e in events if e.kind is EventKind.JOB_FINISHED}
    assert told == {job.detector: float(job.detector) for job in jobs}


def test_a_waiting_worker_is_handed_its_own_jobs_at_once(board: Board):
    board.post(spec_of(1, range(6)))
    jobs = board.claim_many(worker("w0"), 100)
    while jobs:
        jobs = board.complete_many([(job, {}) for job in jobs], claim_limit=100).following
    assert not board.claim_many(worker("w0"), 100), "it waits now"
    board.post(spec_of(2, range(6)))
    (state,) = board.workers()
    assert len(state.jobs) == 6
    assert len(board.claim_many(worker("w0"), 100)) == 6
