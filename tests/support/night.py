"""A small night for tests with processes: nine detectors of 250 x 248 pixels."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rapid.camera.models import Camera
from rapid.wiring.camera import adopt_camera
from replay.plan import NightPlan
from replay.simulate import NightSimulator, directory_sink

CAMERA = """
name: SmallCam9
base: TestCam205
only: R22
code: SC
"""


def adopt_small_camera(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Camera:
    """Define the small camera and let this process, and those it starts, know it by name."""
    path = folder / "SmallCam9.yaml"
    path.write_text(CAMERA)
    monkeypatch.setenv("RAPID_CAMERA_PATH", os.environ.get("RAPID_CAMERA_PATH", ""))
    return adopt_camera(str(path))


def make_plan(blocks: list[dict], **changes) -> NightPlan:
    """Return a plan of the small camera."""
    facts = {"camera": "SmallCam9", "day_obs": 20261120, "seed": 5, "stars_per_detector": 25, "blocks": blocks}
    return NightPlan.model_validate(facts | changes)


def take_all(plan: NightPlan, raws: Path, *, keep: Callable[[str], bool] = lambda _key: True) -> list[int]:
    """Take a whole night at once; return the exposure ids. Raws whose key ``keep`` refuses are lost on the way."""
    put = directory_sink(raws)

    def sink(key: str, data: bytes) -> None:
        if keep(key):
            put(key, data)

    simulator = NightSimulator(plan, sink)
    try:
        for exposure in simulator.exposures:
            for _ in simulator.take(exposure):
                pass
        return [exposure.exposure_id for exposure in simulator.exposures]
    finally:
        simulator.close()
