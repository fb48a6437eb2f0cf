"""Announced visits: a payload that asks is told which detector is made ready, and how the camera lies on the sky."""

import pytest

from rapid.calibs.store import CalibCache, CalibStore
from rapid.next_visit.models import NextVisit
from rapid.results.store import open_results
from rapid.worker.messages import Preload
from rapid.worker.preload import _preload
from rapid.worker.preparing import Preloads

MESSAGE = {
    "groupId": "g",
    "instrument": "LSSTCam",
    "coordinateSystem": 2,
    "position": [60.0, -30.0],
    "rotationSystem": 2,
    "cameraAngle": 12.5,
    "filters": "r_57",
}


class Asks:
    """A payload that wants to know the place."""

    def __init__(self) -> None:
        self.told = []

    def preload(self, sky, bands, *, camera=None, detector=None, angle_deg=None) -> None:
        self.told.append((sky, bands, camera.name, detector.name, angle_deg))


class DoesNotAsk:
    """A payload of before."""

    def __init__(self) -> None:
        self.told = []

    def preload(self, sky, bands) -> None:
        self.told.append((sky, bands))


@pytest.fixture
def preloads(tmp_path):
    results = open_results(str(tmp_path / "results.sqlite"))
    payloads = [Asks(), DoesNotAsk()]
    cache = CalibCache(CalibStore(tmp_path / "calibs", results), results)
    yield Preloads(results, cache, lambda: payloads), payloads
    results.close()


def test_a_payload_that_asks_is_told_detector_and_angle(preloads) -> None:
    takes, (asks, does_not) = preloads
    assert not takes.take(_preload(NextVisit.model_validate(MESSAGE), "LSSTCam", 94))
    sky, bands = (60.0, -30.0), frozenset({"r"})
    assert asks.told == [(sky, bands, "LSSTCam", "R22_S11", 12.5)]
    assert does_not.told == [(sky, bands)]


def test_a_camera_that_is_not_known_here_stops_nothing(preloads) -> None:
    takes, (asks, does_not) = preloads
    assert not takes.take(Preload(group_id="g", camera="NoCam", detector=1, sky=(1.0, 2.0), filters=("r",)))
    assert asks.told == []
    assert len(does_not.told) == 1


@pytest.mark.parametrize(
    "changes",
    [{"rotationSystem": 4}, {"rotationSystem": 1}, {"cameraAngle": float("nan")}, {"coordinateSystem": 4}],
    ids=["of the mount", "none", "no number", "no place on the sky"],
)
def test_an_angle_that_is_not_of_the_sky_is_not_known(changes) -> None:
    assert NextVisit.model_validate({**MESSAGE, **changes}).sky_angle_deg is None
    assert NextVisit.model_validate(MESSAGE).sky_angle_deg == 12.5
