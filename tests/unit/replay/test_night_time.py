"""The night's own time, told from a board whose clock ran fast, stood, or was moved."""

import pytest

from replay.night_time import NightTime

EPOCH_S = 1_795_000_000.0


def times(*pairs: tuple[float, float]) -> NightTime:
    """Return what was heard of a board: seconds of ours, and of its own."""
    made = NightTime()
    for ours_s, board_s in pairs:
        made.note((EPOCH_S + ours_s) * 1000, (EPOCH_S + board_s) * 1000)
    return made


def test_without_a_word_of_the_board_its_time_is_ours():
    made = times()
    assert made.board_s(EPOCH_S) == EPOCH_S
    assert not made.is_moved


def test_between_two_events_of_a_fast_clock_time_goes_fast():
    made = times((0, 0), (10, 100), (20, 110))
    assert made.is_moved
    assert [made.board_s(EPOCH_S + at) - EPOCH_S for at in (0, 5, 10, 15)] == pytest.approx([0, 50, 100, 105], abs=1e-3)


def test_before_the_first_event_and_after_the_last_it_runs_as_beside_them():
    made = times((0, 0), (10, 100), (20, 200))
    assert made.board_s(EPOCH_S - 1) - EPOCH_S == pytest.approx(-10, abs=1e-3)
    assert made.board_s(EPOCH_S + 21) - EPOCH_S == pytest.approx(210, abs=1e-3)


def test_one_event_alone_tells_how_far_a_clock_was_moved():
    made = times((0, 3600))
    assert made.board_s(EPOCH_S + 5) - EPOCH_S == pytest.approx(3605, abs=1e-3)


def test_while_the_clock_stands_no_time_of_the_night_passes():
    made = times((0, 0), (5, 5), (60, 5), (65, 10))
    assert made.board_s(EPOCH_S + 30) - EPOCH_S == pytest.approx(5, abs=1e-3)


def test_a_night_at_its_own_pace_is_kept_in_two_moments_however_many_are_heard():
    made = times(*((at / 10, at / 10) for at in range(50_000)))
    assert len(made._ours_ms) == 2
    assert made.board_s(EPOCH_S + 777.7) == pytest.approx(EPOCH_S + 777.7, abs=0.01)


def test_moments_may_come_out_of_order():
    made = times((20, 200), (0, 0), (10, 100))
    assert made.begins_s == EPOCH_S
    assert made.board_s(EPOCH_S + 5) - EPOCH_S == pytest.approx(50, abs=1e-3)


def test_a_change_of_pace_among_many_events_is_told_where_it_was():
    slow = [(at / 10, at / 10) for at in range(100)]
    fast = [(10 + at / 10, 10 + at * 0.8) for at in range(100)]
    made = times(*slow, *fast)
    assert made.board_s(EPOCH_S + 5) - EPOCH_S == pytest.approx(5, abs=0.3)
    assert made.board_s(EPOCH_S + 15) - EPOCH_S == pytest.approx(50, abs=0.3)
