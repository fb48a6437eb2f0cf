"""A mini camera, and a night of it."""

from pathlib import Path

import pytest

from rapid.wiring.camera import adopt_camera
from replay.plan import make_plan
from replay.planned import recording_of_plan
from replay.pytest_plugin import CAMERA, CAMERA_YAML
from replay.recording import Recording
from tests.support.light import use_light_pipelines


@pytest.fixture(scope="module")
def mini_camera(tmp_path_factory: pytest.TempPathFactory):
    """Let this process know the mini camera, and the light pipelines, while a module's tests run."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAPID_CAMERA_PATH", "")
        folder = tmp_path_factory.mktemp("camera")
        use_light_pipelines(folder / "pipelines", environment)
        (folder / f"{CAMERA}.yaml").write_text(CAMERA_YAML)
        yield adopt_camera(str(folder / f"{CAMERA}.yaml"))


def make_night(blocks: list[dict], *, extra=(), **facts: object) -> Recording:
    """Return a recording of a mini night."""
    plan = make_plan(
        {"camera": CAMERA, "day_obs": 20261120, "seed": 5, "stars_per_detector": 10, "blocks": blocks} | facts
    )
    return recording_of_plan(plan, title="a mini night", extra=extra).with_manifest(camera_yaml=CAMERA_YAML)


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that is not there yet."""
    return tmp_path_factory.mktemp("replay") / "system"
