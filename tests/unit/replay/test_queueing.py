"""What an exposure waited for, told from when others were in the system."""

import pytest

from replay.queueing import JobRun, Span, count_workers, find_queue, has_waited, own_s

SPANS = {
    1: Span(0.0, 1.0, 9.0),  # gone before 3 came, but 2 waited for it
    2: Span(5.0, 6.0, 14.0),
    3: Span(10.0, 11.0, 30.0),  # the subject
    4: Span(12.0, 13.0, 20.0),  # newer, and taken first
    5: Span(31.0, 32.0, 40.0),  # came afterwards
    0: Span(-20.0, -19.0, -10.0),  # the workers stood idle since
}


def test_a_busy_period_goes_back_to_when_the_workers_last_stood_idle():
    assert find_queue(3, SPANS) == (1, 2, 4)


def test_an_exposure_that_had_the_workers_to_itself_has_no_queue():
    assert find_queue(0, SPANS) == ()


def test_of_a_long_queue_the_nearest_are_taken():
    assert find_queue(3, SPANS, most=2) == (2, 4)


@pytest.mark.parametrize(
    ("runs", "workers"),
    [
        ([], 1),
        ([(0, 2), (2, 4)], 1),
        ([(0, 3), (2, 4), (3, 5)], 2),
        ([(0, 5), (1, 5), (2, 5)], 3),
    ],
    ids=["none", "one after the other", "two at a time", "three at a time"],
)
def test_workers_are_counted_by_what_ran_at_one_time(runs, workers):
    assert count_workers(JobRun(*run) for run in runs) == workers


def test_own_jobs_take_as_long_as_the_longest_at_least():
    assert own_s([JobRun(0, 4), JobRun(0, 1), JobRun(1, 2)], 2) == 4
    assert own_s([JobRun(0, 2), JobRun(2, 4)], 1) == 4
    assert own_s([], 3) == 0


def test_an_exposure_has_waited_only_if_it_took_much_longer_than_its_jobs():
    assert has_waited(20.0, 4.0)
    assert not has_waited(6.0, 4.0)
    assert not has_waited(1.9, 0.1)


def test_what_took_no_time_after_its_last_raw_took_none():
    assert Span(0.0, 5.0, 4.0).took_s == 0.0
