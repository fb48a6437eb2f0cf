"""Completion sets and gather timers (I4)."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind, GatherJob
from rapid.errors import LeaseLostError
from rapid.results.models import DetectorState, GatherReason
from tests.board.conftest import key_of, spec_of, worker
from tests.board.test_board_jobs import run_all


def gather(board: Board) -> GatherJob | None:
    return board.next_gather("g0", timeout_s=0)


def finish_one(board: Board) -> None:
    board.complete(board.claim(worker()), {"n": 1})


def fail_one(board: Board) -> int:
    job = board.claim(worker())
    board.fail(job, {"code": "bad", "message": "bad", "retry": "never"})
    return job.detector


def test_i4_a_complete_batch_is_gathered_once(board: Board) -> None:
    board.post(spec_of(1, [0, 1], info={"band": "r"}))
    finish_one(board)
    assert gather(board) is None
    finish_one(board)
    due = gather(board)
    assert (due.reason, due.version, due.batch) == (GatherReason.COMPLETE, 1, key_of(1))
    assert due.finished == due.expected == frozenset({0, 1})
    assert due.results == {0: {"n": 1}, 1: {"n": 1}}
    assert due.info == {"band": "r"}
    assert due.first_result_ms <= due.last_result_ms
    assert gather(board) is None
    assert board.complete_gather(due, {"day_obs": 20261120}) == 1
    assert gather(board) is None
    (event,) = [event for event in board.events("0") if event.kind is EventKind.SUMMARY_READY]
    assert event.data["day_obs"] == 20261120
    assert (event.data["version"], event.data["n_finished"], event.data["n_expected"]) == (1, 2, 2)


def test_i4_a_late_detector_is_waited_for_until_the_timeout_and_gathered_again(board: Board) -> None:
    board.post(spec_of(1, [0, 1, 2], gather_timeout_ms=5_000, regather_timeout_ms=45_000))
    finish_one(board)
    board.advance_clock(4_900)
    assert gather(board) is None
    board.advance_clock(100)
    due = gather(board)
    assert (due.reason, due.version, len(due.finished)) == (GatherReason.TIMEOUT, 1, 1)
    states = {status.state for status in due.detectors.values()}
    assert states == {DetectorState.FINISHED, DetectorState.QUEUED}
    board.complete_gather(due)
    # Nothing changed: no re-gather, ever.
    board.advance_clock(60_000)
    assert gather(board) is None
    finish_one(board)
    assert gather(board) is None
    finish_one(board)
    due = gather(board)
    assert (due.reason, due.version, len(due.finished)) == (GatherReason.REGATHER, 2, 3)
    board.complete_gather(due)
    assert gather(board) is None


def test_i4_a_regather_comes_at_its_timeout_if_the_set_changed(board: Board) -> None:
    board.post(spec_of(1, [0, 1, 2]))
    finish_one(board)
    board.advance_clock(5_000)
    board.complete_gather(gather(board))
    finish_one(board)
    board.advance_clock(39_000)
    assert gather(board) is None
    board.advance_clock(1_000)
    due = gather(board)
    assert (due.reason, due.version, len(due.finished)) == (GatherReason.REGATHER, 2, 2)
    board.complete_gather(due)


def test_i4_a_failed_detector_settles_and_its_later_success_redraws(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    bad = fail_one(board)
    finish_one(board)
    due = gather(board)
    assert due.reason is GatherReason.COMPLETE
    assert due.detectors[bad].state is DetectorState.FAILED
    board.complete_gather(due)
    board.retry_dead_letter(key_of(1).job_id(bad))
    assert gather(board) is None
    finish_one(board)
    due = gather(board)
    assert (due.reason, due.version, len(due.finished)) == (GatherReason.REGATHER, 2, 2)
    board.complete_gather(due)


def test_i4_a_second_failure_of_a_retried_detector_redraws_nothing(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    bad = fail_one(board)
    finish_one(board)
    board.complete_gather(gather(board))
    board.retry_dead_letter(key_of(1).job_id(bad))
    fail_one(board)
    board.advance_clock(100_000)
    assert gather(board) is None


def test_i4_a_result_that_comes_while_a_gather_runs_is_gathered_after_it(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    finish_one(board)
    board.advance_clock(5_000)
    first = gather(board)
    finish_one(board)
    assert gather(board) is None
    board.complete_gather(first)
    second = gather(board)
    assert (second.version, len(second.finished)) == (2, 2)
    board.complete_gather(second)


def test_i4_if_no_raw_ever_comes_the_deadline_gathers_what_there_is(board: Board) -> None:
    board.post(spec_of(1, [0, 1], arrived=[], deadline_ms=120_000))
    board.advance_clock(119_000)
    assert gather(board) is None
    board.advance_clock(1_000)
    due = gather(board)
    assert (due.reason, due.finished) == (GatherReason.TIMEOUT, frozenset())
    assert {status.state for status in due.detectors.values()} == {DetectorState.WAITING}
    board.complete_gather(due)


def test_i4_a_batch_that_expects_nothing_is_complete_at_once(board: Board) -> None:
    board.post(spec_of(1, []))
    assert gather(board).reason is GatherReason.COMPLETE


def test_i4_an_unknown_expected_set_is_never_complete(board: Board) -> None:
    board.post(spec_of(1, [0], is_expected_final=False))
    board.arrive(key_of(1), {7: "/raws/7"})
    run_all(board)
    assert gather(board) is None
    assert board.expect(key_of(1), [0, 7, 8]) == 3
    assert gather(board) is None
    assert board.expect(key_of(1), [0, 7]) == 2
    due = gather(board)
    assert (due.reason, due.finished) == (GatherReason.COMPLETE, frozenset({0, 7}))


def test_i4_a_partial_read_out_completes_without_the_detectors_never_read(board: Board) -> None:
    board.post(spec_of(1, range(10), arrived=[0, 1]))
    run_all(board)
    assert gather(board) is None
    assert board.expect(key_of(1), [1, 2]) == 3  # 0 has arrived: it stays
    board.arrive(key_of(1), {2: "x"})
    run_all(board)
    assert gather(board).reason is GatherReason.COMPLETE


def test_i4_excluded_and_quarantined_detectors_are_settled_with_their_reason(board: Board) -> None:
    board.post(spec_of(1, [0, 1, 2], arrived=[0], excluded={1: "off by Ann: noisy"}))
    assert board.settle(key_of(1), DetectorState.QUARANTINED, {2: "raw_truncated"}) == 1
    finish_one(board)
    due = gather(board)
    assert due.reason is GatherReason.COMPLETE
    assert due.detectors[1].reason == "off by Ann: noisy"
    assert (due.detectors[2].state, due.detectors[2].reason) == (DetectorState.QUARANTINED, "raw_truncated")
    board.complete_gather(due)
    # A good copy of the quarantined raw comes after all.
    assert board.arrive(key_of(1), {2: "good"}) == 1
    finish_one(board)
    assert gather(board).version == 2


def test_i4_a_queued_detector_that_is_excluded_is_not_run(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    assert board.settle(key_of(1), DetectorState.EXCLUDED, {0: "off", 1: "off", 5: "?"}) == 2
    assert board.claim(worker()) is None
    assert gather(board).finished == frozenset()
    assert board.settle(key_of(9), DetectorState.EXCLUDED, {0: "off"}) == -1


def test_i4_a_running_detector_is_not_excluded_under_its_worker(board: Board) -> None:
    board.post(spec_of(1, [0]))
    job = board.claim(worker())
    assert board.settle(key_of(1), DetectorState.EXCLUDED, {0: "off"}) == 0
    board.complete(job, {})


def test_i1_shed_detectors_are_settled_and_stay_on_the_backlog(board: Board) -> None:
    board.post(spec_of(1, range(4), superseded={2: "shed", 3: "shed"}))
    board.post(spec_of(2, [0], key=key_of(2)))
    assert board.claim(worker("x")).batch == key_of(2)
    first = board.claim(worker())
    second = board.complete(first, {}, claim_next=True)
    assert {first.detector, second.detector} == {0, 1}
    third = board.complete(second, {}, claim_next=True)
    due = gather(board)
    assert due.reason is GatherReason.COMPLETE
    assert {due.detectors[d].state for d in (2, 3)} <= {DetectorState.SUPERSEDED, DetectorState.RUNNING}
    board.complete_gather(due)
    fourth = board.complete(third, {}, claim_next=True)
    board.complete(fourth, {})
    due = gather(board)
    assert (due.version, len(due.finished)) == (2, 4)


def test_i1_a_batch_superseded_late_goes_to_the_backlog(board: Board) -> None:
    board.post(spec_of(1, [0, 1]))
    assert board.settle(key_of(1), DetectorState.SUPERSEDED, {1: "shed"}) == 1
    assert [job.rpartition(".")[2] for job in run_all(board)] == ["000", "001"]


def test_i1_a_job_too_old_leaves_the_backlog_as_superseded(make_board: Callable[..., Board]) -> None:
    board = make_board(backlog_age_ms=3_600_000)
    board.post(spec_of(1, [0, 1, 2], arrived=[0, 1], deadline_ms=10_000_000))
    finish_one(board)
    board.advance_clock(3_600_001)
    board.tick()
    assert board.claim(worker()) is None
    state = board.state(key_of(1))
    states = sorted(status.state.value for status in state.detectors.values())
    assert states == ["finished", "superseded", "waiting"]
    assert board.status().counters["expired"] == 1


def test_gathers_are_taken_newest_first(board: Board) -> None:
    for seq_num in (2, 3, 1):
        board.post(spec_of(seq_num, [0]))
    run_all(board)
    assert [gather(board).batch.exposure_id % 10 for _ in range(3)] == [3, 2, 1]


def test_i3_a_gather_whose_lease_ran_out_is_given_to_another_and_its_end_refused(board: Board) -> None:
    board.post(spec_of(1, [0]))
    run_all(board)
    frozen = board.next_gather("g0", timeout_s=0, lease_ms=10_000)
    board.advance_clock(9_000)
    board.renew_gather(frozen)
    board.advance_clock(9_000)
    assert board.next_gather("g1", timeout_s=0) is None
    board.advance_clock(1_001)
    again = board.next_gather("g1", timeout_s=0)
    assert (again.batch, again.version) == (frozen.batch, 1)
    with pytest.raises(LeaseLostError):
        board.complete_gather(frozen)
    with pytest.raises(LeaseLostError):
        board.renew_gather(frozen)
    assert board.complete_gather(again) == 1
    assert board.complete_gather(again) == 1  # the answer was lost; it is said again
    assert board.status().counters["gathers"] == 1


def test_a_gather_that_fails_is_tried_again_and_ends_in_a_dead_letter(board: Board) -> None:
    board.post(spec_of(1, [0]))
    run_all(board)
    ends = []
    for _ in range(3):
        due = gather(board)
        ends.append(board.fail_gather(due, error={"code": "disk_full", "message": "no room"}, wait_ms=1_000))
        assert gather(board) is None
        board.advance_clock(10_000)
    assert ends == ["queued", "queued", "dead"]
    assert gather(board) is None
    (letter,) = board.dead_letters()
    assert (letter.batch, letter.detector, letter.error["code"]) == (key_of(1), None, "disk_full")
    board.retry_dead_letter(letter.job_id)
    board.complete_gather(gather(board))


def test_i2_after_a_flush_finished_detectors_are_not_redone(board: Board) -> None:
    finished = {0: {"n": 1}, 1: {"n": 2}}
    board.post(spec_of(1, [0, 1, 2], finished=finished, version=1))
    assert gather(board) is None
    (job,) = run_all(board)
    assert job == key_of(1).job_id(2)
    due = gather(board)
    assert (due.version, due.results) == (2, {**finished, 2: {"sky_level_adu": 812.5}})


def test_i2_after_a_flush_a_summary_that_shows_all_is_not_redone(board: Board) -> None:
    board.post(spec_of(1, [0, 1], finished={0: {}, 1: {}}, version=3))
    board.advance_clock(200_000)
    assert gather(board) is None
    board.post(spec_of(2, [0, 1], finished={0: {}, 1: {}}, version=1, summary_finished=1))
    assert (gather(board).version) == 2
    board.post(spec_of(3, [0, 1], finished={0: {}, 1: {}}))
    assert (gather(board).version) == 1


def test_a_waiting_gatherer_is_woken_by_the_last_completion(make_board: Callable[..., Board]) -> None:
    board, waiting = make_board(), make_board()
    board.post(spec_of(1, [0]))
    with ThreadPoolExecutor() as pool:
        due = pool.submit(waiting.next_gather, "g0", timeout_s=20)
        run_all(board)
        assert due.result(timeout=3).reason is GatherReason.COMPLETE


def test_a_waiting_gatherer_wakes_when_the_timeout_comes(make_board: Callable[..., Board]) -> None:
    board, waiting = make_board(), make_board()
    board.post(spec_of(1, [0, 1], gather_timeout_ms=300))
    with ThreadPoolExecutor() as pool:
        due = pool.submit(waiting.next_gather, "g0", timeout_s=20)
        begin = time.monotonic()
        finish_one(board)
        assert due.result(timeout=3).reason is GatherReason.TIMEOUT
    assert 0.25 < time.monotonic() - begin < 1.0


def test_two_waiting_gatherers_share_what_is_due_at_once(make_board: Callable[..., Board]) -> None:
    board = make_board()
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(make_board().next_gather, f"g{i}", timeout_s=20) for i in range(2)]
        board.post(spec_of(1, []))
        board.post(spec_of(2, []))
        found = {future.result(timeout=3).batch for future in waiting}
    assert found == {key_of(1), key_of(2)}


def test_whoever_waits_for_gathers_brings_back_the_jobs_of_the_dead(make_board: Callable[..., Board]) -> None:
    board = make_board(lease_ms=200)
    board.post(spec_of(1, [0]))
    board.claim(worker("dead"))
    with ThreadPoolExecutor() as pool:
        pool.submit(make_board().next_gather, "g0", timeout_s=2)
        assert make_board(lease_ms=5_000).claim(worker("w1"), timeout_s=3).attempt == 2
