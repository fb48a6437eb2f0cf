"""Find and load cameras: those of the package and a site's own.

``RAPID_CAMERA_PATH`` names folders with a site's YAML files; they are searched first, then those that installed
packages bring (`rapid.plugins`), then ours.
"""

import csv
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rapid.camera.definition import CameraDefinition
from rapid.camera.models import Camera
from rapid.errors import ConfigurationError, NotFoundError
from rapid.plugins import definition_folders

PACKAGED = Path(__file__).parent / "data"

MAX_BASES = 4
"""Cameras based on each other, one behind the other; more is a circle."""


def _folders() -> list[Path]:
    own = os.environ.get("RAPID_CAMERA_PATH", "")
    return [*(Path(part) for part in own.split(os.pathsep) if part), *definition_folders("cameras"), PACKAGED]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(str(path), f"not YAML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "not UTF-8 text") from error
    if not isinstance(document, dict):
        raise ConfigurationError(str(path), "a camera definition is a mapping")
    return document


def _read_table(path: Path, *, field: str) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # A cell too many has no column's name: it is given one, for the message about it.
            return [{key: cell for key, cell in row.items() if cell} for row in csv.DictReader(file, restkey="extra")]
    except OSError as error:
        raise ConfigurationError(field, f"table {path} cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(field, f"table {path} is not CSV: {error}") from error


def _definition_of(path: Path, depth: int = 0) -> CameraDefinition:
    document = _read_yaml(path)
    document.setdefault("name", path.stem)
    base = document.pop("base", None)
    for field in ("detectors", "amps"):
        if isinstance(document.get(field), str):
            document[field] = _read_table(path.parent / Path(document[field]).name, field=f"{path.name}: {field}")
    if base is None:
        return CameraDefinition.model_validate(document)
    if depth > MAX_BASES:
        raise ConfigurationError(f"{path.name}: base", "cameras are based on each other in a circle")
    return _definition_of(_find(str(base)), depth + 1).derived(document)


def _definition_files() -> dict[str, Path]:
    """Return the definition files by name; a site's own hides the package's of the same name."""
    files: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def _find(name: str) -> Path:
    files = _definition_files()
    wanted = name.lower()
    for stem, path in files.items():
        if stem.lower() == wanted:
            return path
    for path in files.values():
        try:
            aliases = _read_yaml(path).get("aliases")
        except ConfigurationError:
            continue  # it says so when it is asked for; the others must stay usable
        if isinstance(aliases, list) and wanted in {str(alias).lower() for alias in aliases}:
            return path
    raise NotFoundError("camera", name, ", ".join(sorted(files)))


@lru_cache(maxsize=32)
def _load(path: Path) -> Camera:
    try:
        return _definition_of(path).to_camera()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "camera"
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{path.name}: {field}", reason, file=str(path)) from error
    except ValueError as error:
        raise ConfigurationError(f"{path.name}: only, scale_down", str(error), file=str(path)) from error


@lru_cache(maxsize=128)
def _path_of(name_or_path: str, _search_path: str) -> Path:
    if name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    return _find(name_or_path)


def load_camera(name_or_path: str) -> Camera:
    """Return a camera by name, alias (both without regard to case), or path of a YAML file.

    Raises
    ------
    NotFoundError
        Raised for an unknown name; the message lists the known ones.
    ConfigurationError
        Raised, naming file and field, for a definition that is not valid.
    """
    return _load(_path_of(name_or_path, os.environ.get("RAPID_CAMERA_PATH", "")))


def portable_definition(name_or_path: str) -> str:
    """Return the definition of a camera as one YAML text that needs no file beside it; empty if the package has it.

    Raises
    ------
    NotFoundError
        Raised for an unknown name.
    ConfigurationError
        Raised for a definition that is not valid.
    """
    load_camera(name_or_path)  # for its words about what is not valid
    path = _path_of(name_or_path, os.environ.get("RAPID_CAMERA_PATH", ""))
    if path.parent == PACKAGED:
        return ""
    document = _read_yaml(path)
    base = document.get("base")
    is_whole = not any(isinstance(document.get(field), str) for field in ("detectors", "amps"))
    if is_whole and (base is None or _find(str(base)).parent == PACKAGED):
        return path.read_text(encoding="utf-8")
    return yaml.safe_dump(_definition_of(path).model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def list_cameras() -> list[str]:
    """Return the names of all cameras that can be loaded by name."""
    return sorted(_definition_files())
