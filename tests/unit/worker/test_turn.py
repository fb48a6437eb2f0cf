"""How long each job keeps its worker is noted in its result's timings."""

import pytest

from rapid.worker import pace
from rapid.worker.messages import ChildAnswer
from tests.support.records import make_result


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(pace, "time", Clock)
    return now


def test_jobs_that_follow_one_another_count_from_answer_to_answer(clock):
    turn = pace.Turn()
    clock[0] = 110.0  # waits for an exposure
    turn.begin()
    answers = []
    for end in (110.5, 111.25):
        clock[0] = end
        answers.append(ChildAnswer(result=make_result(1, 94)))
        turn.end(answers[-1])
    assert [answer.result.timings["worker_s"] for answer in answers] == [0.5, 0.75]


def test_a_failed_job_and_an_afterburner_have_none_but_are_not_counted_to_the_next(clock):
    turn = pace.Turn()
    for end, answer in (
        (101.0, None),
        (102.0, ChildAnswer(error={"code": "x"})),
        (103.0, ChildAnswer(result=make_result(1, 94), joins="quicklook")),
    ):
        clock[0] = end
        turn.end(answer)
        assert answer is None or answer.result is None or "worker_s" not in answer.result.timings
    clock[0] = 103.5
    last = ChildAnswer(result=make_result(1, 95))
    turn.end(last)
    assert last.result.timings["worker_s"] == 0.5
