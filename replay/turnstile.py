"""Lets a camera be only so many exposures ahead of the system, when a night goes as fast as possible."""

import math
import threading

from replay.events import RawsEvent
from replay.recording import Recording
from replay.witness import Witness


class Turnstile:
    """Lets a camera be only so many exposures ahead of the system.

    Parameters
    ----------
    max_open
        Exposures begun and not done.
    """

    def __init__(self, witness: Witness, recording: Recording, *, max_open: int, stall_s: float) -> None:
        self._witness = witness
        self._expected = _on_time(recording)
        self._max_open = max_open
        self._stall_s = stall_s
        self._begun: list[int] = []
        self.stalled = threading.Event()

    def __call__(self, exposure: int) -> None:
        """Wait until the next exposure may begin."""
        heard = self._witness

        def has_room() -> bool:
            settled = heard.heard.settled_of
            open_ = [e for e in self._begun if len(settled.get(e, ())) < self._expected.get(e, 1)]
            self._begun = open_
            return len(open_) < self._max_open

        if not self.stalled.is_set() and not heard.wait_until(has_room, timeout_s=self._stall_s):
            self.stalled.set()  # the rest is delivered all the same: nothing is lost by it, and the report tells
        self._begun.append(exposure)


def _on_time(recording: Recording) -> dict[int, int]:
    """Return how many raws of each exposure arrive before the next exposure does: nobody waits for what is late."""
    arrivals = [event for event in recording.events if isinstance(event, RawsEvent)]
    first_s: dict[int, float] = {}
    for event in arrivals:
        first_s.setdefault(event.exposure, event.at_s)
    on_time: dict[int, set[str]] = {}
    for event in arrivals:
        begun = [at_s for exposure, at_s in first_s.items() if at_s > first_s[event.exposure]]
        if event.at_s < min(begun, default=math.inf):
            # What is spoilt is quarantined: no job of it ever ends.
            on_time.setdefault(event.exposure, set()).update(set(event.detectors) - event.quarantined.keys())
    return {exposure: len(detectors) for exposure, detectors in on_time.items()}
