"""Encoding and decoding at the border of the board."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rapid.dispatch.commands import BoardCommands, order_of
from rapid.dispatch.models import BatchKey, BatchSpec, DeadLetter, Priority, WorkerMode, WorkerSpec
from rapid.dispatch.replies import decode_jobs
from rapid.dispatch.talk import Command, to_json
from rapid.errors import LeaseLostError, NotFoundError, RefusedError, StoreError

KEY = BatchKey(exposure_id=2026112000012, pipeline="quicklook")


@pytest.fixture
def say() -> BoardCommands:
    return BoardCommands(
        "LSSTCam", boot="b", lease_ms=10_000, grace_ms=1_500, backlog_age_ms=1_000_000, memory_ms=2_000_000
    )


def first_command(talk) -> Command:
    return next(talk)


def test_a_post_is_one_command_whatever_the_number_of_detectors(say: BoardCommands) -> None:
    spec = BatchSpec(
        key=KEY, camera="c", image_type="science", expected=frozenset(range(205)), raws={i: f"/{i}" for i in range(205)}
    )
    talk = say.post(spec)
    command = next(talk)
    assert command.args[:4] == ("FCALL", "rapid_v1_post", 1, "rapid:{LSSTCam}:")
    assert len(json.loads(command.args[9])) == 205
    with pytest.raises(StopIteration) as stop:
        talk.send([1, 3, 202, [], b"current"])
    receipt = stop.value.value
    assert (receipt.started, receipt.queued, receipt.priority) == (3, 205, Priority.CURRENT)


def test_a_posted_summary_without_a_count_is_taken_to_show_all_that_finished(say: BoardCommands) -> None:
    spec = BatchSpec(key=KEY, camera="c", image_type="s", expected=frozenset({1}), finished={1: {"a": 1}}, version=2)
    facts = json.loads(next(say.post(spec)).args[7])
    assert (facts["version"], facts["gathered_n"]) == (2, 1)
    fresh = spec.model_copy(update={"version": 0})
    assert json.loads(next(say.post(fresh)).args[7])["gathered_n"] == 0


def test_a_job_message_is_read_back() -> None:
    spec = {"camera": "LATISS", "image_type": "bias", "time_limit_ms": 9, "config": {"a": 1}, "inputs": [3]}
    head = {
        "batch": KEY.id,
        "jobs": [[7, "s3://b/k\n.fits", 2, "1795247705591123"], [8, "s3://b/l", 1, "1795247705591124"]],
        "priority": "backlog",
        "lease_ms": 10,
        "posted_ms": 1,
        "claimed_ms": 2,
    }
    job, other = decode_jobs(json.dumps(head).encode() + b"\n" + json.dumps(spec).encode())
    assert job.job_id == "prompt.2026112000012.quicklook.007"
    assert (job.raw_uri, job.token, job.config, job.inputs) == ("s3://b/k\n.fits", 1795247705591123, {"a": 1}, (3,))
    assert (other.detector, other.attempt, other.token) == (8, 1, 1795247705591124)


@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.none() | st.text() | st.booleans()))
def test_what_goes_to_the_board_is_valid_json_without_nan(metrics: dict[str, object]) -> None:
    def fail(constant: str) -> None:
        raise AssertionError(constant)

    back = json.loads(to_json(metrics), parse_constant=fail)
    assert set(back) == set(metrics)
    assert "\n" not in to_json(metrics)


@given(st.integers(20_000_101, 20_991_231), st.integers(0, 99_999), st.integers(0, 5))
def test_order_follows_day_and_sequence_whoever_took_the_exposure(day_obs: int, seq_num: int, controller: int) -> None:
    exposure_id = day_obs * 100_000 + seq_num
    simulated = (day_obs + controller * 10_000_000) * 100_000 + seq_num
    assert order_of(simulated) == order_of(exposure_id) < order_of(exposure_id + 1)
    # A score of twice the order and one must be exact as a double: it is kept in a sorted set.
    assert float(2 * order_of(exposure_id) + 1) == 2 * order_of(exposure_id) + 1


def test_who_waits_blocks_on_its_own_list_and_no_longer_than_asked(say: BoardCommands) -> None:
    talk = say.claim(WorkerSpec(worker_id="w0"), 1, 2.0)
    assert next(talk).args[1] == "rapid_v1_claim"
    blocked = talk.send(5_000)
    assert blocked.args[:2] == ("BLPOP", "rapid:{LSSTCam}:wake:w0")
    assert 1.5 < float(blocked.args[2]) <= 2.0
    assert talk.send(None).args[1] == "rapid_v1_claim"


def test_a_waiting_gatherer_blocks_until_the_next_timer(say: BoardCommands) -> None:
    talk = say.next_gather("g0", 60.0, 1_000)
    next(talk)
    blocked = talk.send([1_234])
    assert blocked.args == ("BLPOP", "rapid:{LSSTCam}:gather_wake", "rapid:{LSSTCam}:keeper_wake", "1.234")


def test_a_gather_letter_has_no_detector() -> None:
    letter = DeadLetter(job_id=f"{KEY.id}.gather", error={}, attempts=3, at_ms=1)
    assert (letter.batch, letter.detector) == (KEY, None)
    assert DeadLetter(job_id=KEY.job_id(94), error={}, attempts=3, at_ms=1).detector == 94


@pytest.mark.parametrize("name", ["murderous", "MURDEROUS", "preempting", "PREEMPTING"])
def test_the_old_name_of_the_preempting_mode_is_understood(name: str) -> None:
    assert WorkerMode(name) is WorkerMode.PREEMPTING


@pytest.mark.parametrize("worker_id", ["", "a b", "a|b", "a,b", "a:b"])
def test_a_worker_name_that_would_break_a_key_is_refused(worker_id: str) -> None:
    with pytest.raises(ValidationError):
        WorkerSpec(worker_id=worker_id)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("RAPID lease_lost prompt.1.q.001", LeaseLostError),
        ("RAPID not_found x", NotFoundError),
        ("RAPID expired x", RefusedError),
        ("RAPID not_leader another head leads", RefusedError),
        ("OOM command not allowed", StoreError),
    ],
)
def test_a_refusal_becomes_an_error_of_ours(text: str, error: type[Exception]) -> None:
    from redis.exceptions import ResponseError

    from rapid.dispatch.connection import as_rapid_error

    assert type(as_rapid_error(ResponseError(text))) is error
