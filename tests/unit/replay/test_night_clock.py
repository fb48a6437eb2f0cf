"""The clock of a played night: runs, stands, jumps, goes step by step, and is steered from outside."""

import json
import math
import socket
import threading

import pytest

from rapid.errors import ConfigurationError, StoreError
from replay.clock import NightClock, Playing
from replay.control import ControlSocket, press, run_command, send_command


class Hands:
    """A monotonic clock that is moved by hand."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def hands():
    return Hands()


def waiting(clock: NightClock, at_s: float):
    """Wait in a thread; returns a function that gives the outcome."""
    found = []
    thread = threading.Thread(target=lambda: found.append(clock.wait_until(at_s)))
    thread.start()

    def outcome():
        thread.join(30)
        assert not thread.is_alive()
        return found[0]

    return outcome


def test_the_night_runs_at_its_rate(hands):
    clock = NightClock(10.0, now_s=hands)
    hands.now_s += 2.0
    assert clock.position_s == 20.0
    clock.set_rate(2.0)
    hands.now_s += 1.0
    assert clock.position_s == 22.0
    assert not clock.wait_until(22.0).stopped


def test_what_is_spent_on_getting_ready_is_no_time_of_the_night(hands):
    clock = NightClock(10.0, now_s=hands)
    hands.now_s += 30.0
    clock.begin()
    assert clock.position_s == 0.0
    hands.now_s += 2.0
    assert clock.position_s == pytest.approx(20.0)
    assert clock.late_s(5.0) == pytest.approx(1.5)
    assert clock.late_s(25.0) == 0.0
    clock.pause()
    assert clock.late_s(5.0) == 0.0


def test_a_night_that_stands_goes_on_where_it_stood(hands):
    clock = NightClock(1.0, now_s=hands)
    hands.now_s += 5.0
    clock.pause()
    hands.now_s += 100.0
    assert (clock.position_s, clock.board_rate) == (5.0, 0.0)
    clock.resume()
    hands.now_s += 1.0
    assert (clock.position_s, clock.board_rate) == (6.0, 1.0)


def test_as_fast_as_possible_waits_for_nothing_and_knows_where_it_is():
    clock = NightClock(math.inf)
    for at_s in (1.0, 50_000.0):
        assert clock.wait_until(at_s).sought_s is None
        assert clock.position_s == at_s
    assert clock.board_rate == 1.0


def test_a_paused_night_waits_until_it_is_resumed():
    clock = NightClock(math.inf)
    clock.pause()
    outcome = waiting(clock, 10.0)
    clock.resume()
    assert not outcome().stopped


def test_each_step_lets_one_event_happen():
    clock = NightClock(1.0, stepping=True)
    clock.step(2)
    assert clock.wait_until(1000.0).sought_s is None
    assert clock.wait_until(2000.0).sought_s is None
    assert clock.position_s == 2000.0
    third = waiting(clock, 3000.0)
    clock.step()
    third()
    assert clock.position_s == 3000.0


def test_seeking_wakes_who_waits_and_says_where_to():
    clock = NightClock(1.0)
    outcome = waiting(clock, 1e6)
    clock.seek(500.0)
    assert outcome().sought_s == 500.0
    assert 500.0 <= clock.position_s < 1000.0


def test_stopping_ends_every_wait():
    clock = NightClock(1.0)
    outcome = waiting(clock, 1e6)
    clock.stop()
    assert outcome().stopped
    clock.resume()
    assert clock.state is Playing.STOPPED


def test_idle_time_is_passed_only_forward(hands):
    clock = NightClock(1.0, now_s=hands)
    clock.skip_to(1000.0)
    assert clock.position_s == 1000.0
    clock.skip_to(10.0)
    assert clock.position_s == 1000.0


def test_who_listens_hears_every_rate():
    clock = NightClock(10.0)
    heard = []
    clock.on_rate = heard.append
    clock.pause()
    clock.resume()
    clock.set_rate(3.0)
    clock.step()
    assert heard == [0.0, 10.0, 3.0, 0.0]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_rate_that_no_night_can_have_is_refused(rate):
    with pytest.raises(ConfigurationError, match="speed"):
        NightClock(rate)


@pytest.mark.parametrize(
    "line", ["", "party", "seek", "seek yesterday", "seek -1", "step 0", "step x", "speed 0", "pause now"]
)
def test_a_command_that_is_none_changes_nothing(line):
    clock = NightClock(1.0)
    with pytest.raises(ConfigurationError):
        run_command(clock, line)
    assert (clock.state, clock.rate) == (Playing.RUNNING, 1.0)


def test_as_fast_as_possible_is_a_speed_too():
    clock = NightClock(10.0)
    run_command(clock, "speed max")
    assert clock.rate == math.inf
    with pytest.raises(ConfigurationError, match="seek 120"):
        run_command(clock, "seek")


def test_keys_steer_the_night():
    clock = NightClock(1.0)
    press(clock, " ")
    assert clock.state is Playing.PAUSED
    press(clock, " ")
    press(clock, "+")
    assert (clock.state, clock.rate) == (Playing.RUNNING, 2.0)
    press(clock, "-")
    press(clock, ">")
    assert (clock.rate, clock.wait_until(1e6).sought_s) == (1.0, pytest.approx(60, abs=30))
    press(clock, "?")
    press(clock, "q")
    assert clock.state is Playing.STOPPED


@pytest.fixture
def listening(tmp_path):
    clock = NightClock(10.0)
    path = tmp_path / "replay.sock"
    with ControlSocket(path, clock, lambda: {"steps": 3, "of": 9}):
        yield clock, path


def test_a_night_is_steered_over_its_socket(listening):
    clock, path = listening
    assert send_command(path, "pause") == {
        "state": "paused",
        "position_s": pytest.approx(0, abs=600),
        "speed": 10.0,
        "steps": 3,
        "of": 9,
    }
    assert clock.state is Playing.PAUSED
    send_command(path, "seek 120")
    assert clock.position_s == 120.0
    assert send_command(path, "speed inf")["speed"] is None
    with pytest.raises(ConfigurationError, match="party"):
        send_command(path, "party")
    assert (path.stat().st_mode & 0o777) == 0o600


def test_rubbish_on_the_socket_is_answered_and_harms_nothing(listening):
    clock, path = listening
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"\xff\x00" * 50 + b"\n")
        assert "error" in json.loads(client.recv(4096))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))  # and goes without a word
    assert send_command(path, "status")["state"] == "running"
    assert clock.state is Playing.RUNNING


def test_where_nobody_listens_is_said(tmp_path):
    with pytest.raises(StoreError, match="no night is played"):
        send_command(tmp_path / "nobody.sock", "pause")


def test_beyond_the_end_of_a_night_nothing_is_sought(hands):
    clock = NightClock(now_s=hands)
    clock.ends_at_s = 60.0
    clock.seek(60.0)
    with pytest.raises(ConfigurationError, match=r"61 s is not in the night, which ends at 60 s"):
        clock.seek(61.0)
    assert clock.position_s == 60.0


def test_while_a_night_is_got_ready_its_clock_stands(hands):
    clock = NightClock(2.0, now_s=hands)
    clock.hold()
    hands.now_s += 20.0
    assert clock.position_s == 0.0
    clock.begin()
    hands.now_s += 3.0
    assert clock.position_s == 6.0
