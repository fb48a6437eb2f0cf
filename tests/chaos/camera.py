"""A camera whose raws arrive late, twice, out of order, and cut off."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

from rapid.exposure.naming import parse_raw_name
from replay.delivered import Delivered, Delivery
from replay.plan import NightPlan, PlannedExposure
from replay.simulate import NightSimulator, directory_sink
from tests.chaos.schedule import Disorder, Scene

COPIES = "copies"
"""Folder below the raws in which second copies lie."""


class ChaosCamera:
    """Takes the exposures of a night, one scene after the other.

    Parameters
    ----------
    raws
        Folder that the head watches.
    stopped
        Set when the camera should stop in the middle.
    """

    def __init__(self, plan: NightPlan, raws: Path, stopped: threading.Event) -> None:
        self.delivered = Delivered()
        self._simulator = NightSimulator(plan, directory_sink(raws), n_threads=1)
        self._exposures = {exposure.seq_num: exposure for exposure in self._simulator.exposures}
        self._names = self._simulator.camera.by_name
        self._root = raws
        self._put = directory_sink(raws)
        self._stopped = stopped
        self._later: list[Callable[[], None]] = []

    @property
    def exposures(self) -> list[PlannedExposure]:
        """Return the exposures of the night."""
        return self._simulator.exposures

    def take(self, scene: Scene) -> None:
        """Deliver a scene's exposure, and then what was held back of the one before."""
        held_back, self._later = self._later, []
        exposure = self._exposures[scene.seq_num]
        (sidecar_key, sidecar), *raws = self._simulator.raws(exposure)
        random.Random(scene.shuffle).shuffle(raws)
        if not scene.sidecar_last:
            self._put(sidecar_key, sidecar)
        for key, data in raws:
            if self._stopped.is_set():
                return
            name = parse_raw_name(key)
            assert name is not None
            assert name.detector_name is not None
            detector = self._names[name.detector_name].id
            self._deliver(exposure.exposure_id, detector, key, data, scene.disorder.get(detector))
        if scene.sidecar_last:
            self._put(sidecar_key, sidecar)
        for deliver in held_back:
            deliver()

    def finish(self) -> None:
        """Deliver whatever is still held back."""
        for deliver in self._later:
            deliver()
        self._later = []

    def close(self) -> None:
        """Stop rendering."""
        self._simulator.close()

    def _deliver(self, exposure_id: int, detector: int, key: str, data: bytes, disorder: Disorder | None) -> None:
        def put(content: bytes, *, is_whole: bool = True) -> None:
            # Recorded first: what is on disk must be accounted for.
            delivery = Delivery.of(key, content, is_whole=is_whole)
            self.delivered.raws.setdefault(exposure_id, {})[detector] = delivery
            self._put(key, content)

        match disorder:
            case Disorder.LATE:
                self.delivered.n_late += 1
                self._later.append(lambda: put(data))
            case Disorder.TWICE:
                self.delivered.n_duplicates += 1
                put(data)
                self._later.append(lambda: put(data))
                put(data)
            case Disorder.COPIED:
                self.delivered.n_duplicates += 1
                put(data)
                folder, _, rest = key.partition("/")
                self._put(f"{folder}/{COPIES}/{rest}", data)
            case Disorder.TRUNCATED:
                self.delivered.n_truncated += 1
                put(data[: len(data) * 2 // 3], is_whole=False)
            case Disorder.MENDED:
                self.delivered.n_mended += 1
                put(data[: len(data) * 2 // 3], is_whole=False)
                self._later.append(lambda: put(data))
            case None:
                put(data)
