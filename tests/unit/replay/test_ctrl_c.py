"""Ctrl-C while a night is played through a system of its own: a real signal, to this process."""

import os
import signal

import pytest

from replay.clock import NightClock, Playing
from replay.commands.play import _ended_by_ctrl_c


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_once_ends_the_night_and_twice_leaves_it(capsys):
    before = signal.getsignal(signal.SIGINT)
    clock = NightClock(1.0)
    with _ended_by_ctrl_c(clock):
        press_ctrl_c()
        assert clock.state is Playing.STOPPED
        assert "Ctrl-C once more leaves it" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_night_that_is_over_leaves_ctrl_c_as_it_was():
    before = signal.getsignal(signal.SIGINT)
    with _ended_by_ctrl_c(NightClock(1.0)):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
