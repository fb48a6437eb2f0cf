"""A payload that misbehaves on some raws, so that a night can show what becomes of it.

It runs as the first step of the pipelines that a fault names; `replay.surroundings` puts it there for one night, and
nowhere else is it known. What it does to its process is what science code does by accident: raises, dies of a signal,
never comes back, keeps memory, takes its time.
"""

import os
import signal
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.plugin import Frame, PayloadConfig
from rapid.errors import PayloadError
from replay.faults import PayloadFault, chance_of

NAME = "misbehave"
HANG_S = 3600.0
"""Longer than any pipeline's time limit: whoever hangs is killed before."""

_kept: list[NDArray[np.uint8]] = []
"""What leaked in this process."""


class PlannedFault(PayloadConfig):
    """A payload's fault, and its place in the night: chance is drawn from it."""

    place: int
    fault: PayloadFault


class Misbehave:
    """Does what its configuration's faults say, on the raws that they name."""

    name: ClassVar[str] = NAME
    version: ClassVar[str] = "1"

    class Config(PayloadConfig):
        """Faults in order; the first that touches a raw happens."""

        faults: tuple[PlannedFault, ...]
        seed: int = 1
        folder: str = Field(description="Where attempts are counted, by all workers alike.")

    def __init__(self, config: "Misbehave.Config") -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Misbehave, or do nothing."""
        exposure, detector = frame.info.exposure_id, frame.detector.name
        for planned in self.config.faults:
            fault = planned.fault
            if not fault.touches(exposure, detector):
                continue
            if chance_of(self.config.seed, planned.place, exposure, detector) >= fault.probability:
                continue
            if fault.times and self._attempt(planned.place, exposure, detector) > fault.times:
                continue
            self._do(fault, exposure, detector)
            return

    def _attempt(self, place: int, exposure: int, detector: str) -> int:
        """Count an attempt, and return which it is."""
        folder = Path(self.config.folder)
        folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            number += 1
            try:
                (folder / f"{place}-{exposure}-{detector}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue  # an attempt before
            return number

    def _do(self, fault: PayloadFault, exposure: int, detector: str) -> None:
        match fault.does:
            case "fail":
                raise PayloadError(f"a fault of this night: fails on {exposure} {detector}")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                threading.Event().wait(HANG_S)
            case "slow":
                threading.Event().wait(fault.for_s)
            case "leak":
                _kept.append(np.ones(fault.leak_mb << 20, np.uint8))  # written to, so that it is really there
