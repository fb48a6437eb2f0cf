"""Let a camera that was given as a file be known by its name, here and in the processes started from here."""

import os
from pathlib import Path

from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError, NotFoundError


def adopt_camera(name_or_path: str) -> Camera:
    """Return a camera; if it is given as a file, add its folder to ``RAPID_CAMERA_PATH``.

    Jobs and results carry a camera's name, so every role must find it by that.

    Raises
    ------
    ConfigurationError
        Raised if the file is not named as the camera is.
    """
    camera = load_camera(name_or_path)
    if not name_or_path.endswith((".yaml", ".yml")):
        return camera
    path = Path(name_or_path).absolute()
    folders = [part for part in os.environ.get("RAPID_CAMERA_PATH", "").split(os.pathsep) if part]
    if str(path.parent) not in folders:
        os.environ["RAPID_CAMERA_PATH"] = os.pathsep.join([str(path.parent), *folders])
    try:
        found = load_camera(camera.name)
    except NotFoundError:
        found = None
    if found != camera:
        raise ConfigurationError("camera", f"the file of camera {camera.name} must be called {camera.name}.yaml")
    return camera
