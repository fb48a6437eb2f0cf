"""The clock of a night that is played: it runs, stands, jumps, or goes step by step.

The player asks it when the next event is due; keys, a control socket or a test move it, from any thread. A board that
plays along gets the same rate (`replay.targets.BoardTarget`), so that time-outs run as fast as the night.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from rapid.errors import ConfigurationError

MAX_RATE = 1000.0
"""Faster than this the clock is the machine's: as fast as possible."""


class Playing(StrEnum):
    """What the clock does."""

    RUNNING = "running"
    PAUSED = "paused"
    STEPPING = "stepping"
    """Stands after every event until the next step is asked for."""

    STOPPED = "stopped"


@dataclass(frozen=True)
class Due:
    """Why the clock lets the player go on.

    Attributes
    ----------
    sought_s
        The night's time that was sought meanwhile; the event that was waited for may no longer be next.
    """

    stopped: bool = False
    sought_s: float | None = None


class NightClock:
    """Tells the time of a night.

    Parameters
    ----------
    rate
        Seconds of the night per second; ``math.inf`` for as fast as possible.
    stepping
        Begin standing: each step lets one event happen.
    now_s
        Monotonic time [s]; tests give their own.

    Raises
    ------
    ConfigurationError
        Raised for a rate that is not positive.
    """

    def __init__(
        self, rate: float = 1.0, *, stepping: bool = False, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._now_s = now_s
        self._changed = threading.Condition()
        self._at_s = 0.0
        self._since_s = now_s()
        self._rate = _checked(rate)
        self._state = Playing.STEPPING if stepping else Playing.RUNNING
        self._steps = 0
        self._sought_s: float | None = None
        self._is_held = False
        self.ends_at_s = math.inf
        """When the night ends: nothing beyond can be sought."""
        self.on_rate: Callable[[float], None] = lambda _rate: None
        """Called with the rate whenever it changes; 0 while the clock stands."""

    @property
    def state(self) -> Playing:
        """What it does."""
        return self._state

    @property
    def rate(self) -> float:
        """Seconds of the night per second while it runs."""
        return self._rate

    @property
    def board_rate(self) -> float:
        """How fast a board's clock should run: as the night; at its own pace if that goes as fast as possible."""
        if self._state in {Playing.PAUSED, Playing.STEPPING}:
            return 0.0
        return self._rate if math.isfinite(self._rate) else 1.0

    @property
    def position_s(self) -> float:
        """The night's time [s]."""
        with self._changed:
            return self._position()

    def late_s(self, at_s: float) -> float:
        """Return how long ago a time of the night was, in real time [s]; 0 while it stands or goes at no pace of its own."""
        with self._changed:
            if self._state is not Playing.RUNNING or not math.isfinite(self._rate):
                return 0.0
            return max((self._position() - at_s) / self._rate, 0.0)

    def _position(self) -> float:
        if self._state is Playing.RUNNING and math.isfinite(self._rate) and not self._is_held:
            return self._at_s + (self._now_s() - self._since_s) * self._rate
        return self._at_s

    def hold(self) -> None:
        """Stand until `begin`, whatever else is asked meanwhile: the night is being got ready."""
        with self._changed:
            self._stand_at(self._at_s)
            self._is_held = True

    def begin(self) -> None:
        """Run from now on: what was spent on getting ready is no time of the night."""
        with self._changed:
            self._is_held = False
            self._since_s = self._now_s()

    def _stand_at(self, at_s: float) -> None:
        self._at_s, self._since_s = at_s, self._now_s()

    def wait_until(self, at_s: float) -> Due:
        """Wait until the night has come to a time, a step is taken, or something else is sought."""
        with self._changed:
            while True:
                if self._state is Playing.STOPPED:
                    return Due(stopped=True)
                if self._sought_s is not None:
                    sought_s, self._sought_s = self._sought_s, None
                    return Due(sought_s=sought_s)
                if self._state is Playing.STEPPING and self._steps > 0:
                    self._steps -= 1
                    self._stand_at(max(at_s, self._at_s))
                    return Due()
                wait_s = self._wait_s(at_s)
                if wait_s is not None and wait_s <= 0:
                    if not math.isfinite(self._rate):
                        self._stand_at(max(at_s, self._at_s))
                    return Due()
                self._changed.wait(wait_s)

    def _wait_s(self, at_s: float) -> float | None:
        """Return how long to wait for a time; None for as long as nobody says anything."""
        if self._state is not Playing.RUNNING:
            return None
        if not math.isfinite(self._rate):
            return 0.0
        return (at_s - self._position()) / self._rate

    def _change(self, do: Callable[[], None]) -> None:
        with self._changed:
            if self._state is Playing.STOPPED:
                return
            self._stand_at(self._position())
            do()
            self._changed.notify_all()
        self.on_rate(self.board_rate)

    def pause(self) -> None:
        """Stand still."""
        self._change(lambda: self._become(Playing.PAUSED))

    def resume(self) -> None:
        """Run on from here, at the same rate."""
        self._change(lambda: self._become(Playing.RUNNING))

    def step(self, n: int = 1) -> None:
        """Let the next events happen, and stand.

        Raises
        ------
        ConfigurationError
            Raised for less than one.
        """
        if n < 1:
            raise ConfigurationError("steps", f"{n} is less than one")

        def take() -> None:
            self._become(Playing.STEPPING)
            self._steps += n

        self._change(take)

    def set_rate(self, rate: float) -> None:
        """Run faster or slower from now on."""
        checked = _checked(rate)

        def change() -> None:
            self._rate = checked

        self._change(change)

    def seek(self, at_s: float) -> None:
        """Go to a time of the night: what lies between does not happen; going back, it happens again.

        Raises
        ------
        ConfigurationError
            Raised for a time before or after the night.
        """
        if not 0 <= at_s <= self.ends_at_s or not math.isfinite(at_s):
            end = f", which ends at {self.ends_at_s:g} s" if math.isfinite(self.ends_at_s) else ""
            raise ConfigurationError("seek", f"{at_s:g} s is not in the night{end}")

        def go() -> None:
            self._at_s = self._sought_s = at_s

        self._change(go)

    def skip_to(self, at_s: float) -> None:
        """Pass idle time: go on to a later time of the night, before which nothing happens."""
        with self._changed:
            if self._state is Playing.RUNNING and self._sought_s is None and at_s > self._position():
                self._stand_at(at_s)
                self._changed.notify_all()

    def stop(self) -> None:
        """End the night."""
        with self._changed:
            self._stand_at(self._position())
            self._state = Playing.STOPPED
            self._changed.notify_all()

    def _become(self, state: Playing) -> None:
        self._state = state
        if state is not Playing.STEPPING:
            self._steps = 0


def _checked(rate: float) -> float:
    if math.isnan(rate) or rate <= 0:
        raise ConfigurationError("speed", f"{rate:g} is not positive")
    return rate if rate <= MAX_RATE else math.inf
