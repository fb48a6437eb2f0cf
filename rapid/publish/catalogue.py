"""Which channels and columns a camera has: packaged data, or a site's own file."""

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rapid.errors import ConfigurationError
from rapid.publish.models import Catalogue

PACKAGED = "rubintv.yaml"


@lru_cache(maxsize=8)
def load_catalogue(camera: str, base: str | None = None, file: Path | None = None) -> Catalogue:
    """Return what is published of a camera.

    Parameters
    ----------
    camera, base
        Our name of it; a camera that is not listed is published as its ``base``, else in the general way under its
        own name in small letters.
    file
        A site's own table, in place of the packaged one.

    Raises
    ------
    ConfigurationError
        Raised, naming the file and field, if it cannot be used.
    """
    name = str(file) if file is not None else PACKAGED
    try:
        if file is not None:
            text = file.read_text(encoding="utf-8")
        else:
            text = (resources.files("rapid.publish") / "data" / PACKAGED).read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(name, f"cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(name, f"is not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("cameras"), dict):
        raise ConfigurationError(name, "has no mapping 'cameras'")
    known: dict[str, Any] = document["cameras"]
    entry = known.get(camera)
    if entry is None and base is not None and base in known:
        entry = _renamed(known[base], camera)
    if entry is None:
        entry = _renamed(known["ANY"], camera) if "ANY" in known else None
    if entry is None:
        raise ConfigurationError(name, f"has no camera {camera!r} and none named ANY")
    try:
        return Catalogue.model_validate({**entry, "columns": document.get("columns", {})})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(name, f"camera {camera}, {field}: {first['msg']}") from error


def _renamed(entry: dict[str, Any], camera: str) -> dict[str, Any]:
    """Return an entry whose first camera is called after ours: two cameras must not share a table."""
    own = "".join(letter if letter.isalnum() else "_" for letter in camera.lower())
    first, *_ = entry["cameras"]
    return {**entry, "cameras": [{**first, "name": own}], "consdb": ""}
