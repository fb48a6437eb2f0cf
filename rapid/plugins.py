"""What installed packages add to us: entry points by group, and folders of definitions.

A package registers Python objects in ``rapid.payloads``, ``rapid.formats`` or ``rapid.gather_steps``, and in
``rapid.definitions`` its own name: the folders ``cameras`` and ``pipelines`` inside it are then read as if a site
had named them. Nothing is imported before it is used.
"""

from functools import lru_cache
from importlib.metadata import EntryPoint, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rapid.errors import ConfigurationError, NotFoundError

DEFINITIONS = "rapid.definitions"
PAYLOADS = "rapid.payloads"
FORMATS = "rapid.formats"
GATHER_STEPS = "rapid.gather_steps"


@lru_cache(maxsize=16)
def entries_of(group: str) -> dict[str, EntryPoint]:
    """Return a group's entry points by name, in the names' order."""
    # Of every distribution, not only of the first of each name as importlib.metadata.entry_points has it: metadata
    # that a build left in the working directory would hide what is installed. The first on the path wins.
    found: dict[str, EntryPoint] = {}
    for distribution in distributions():
        for entry in distribution.entry_points:
            if entry.group == group:
                found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def load_entry(group: str, name: str) -> Any:
    """Return what an entry point refers to, imported now.

    Raises
    ------
    NotFoundError
        Raised for a name that no installed package registers; the message lists the known ones.
    ConfigurationError
        Raised if it cannot be imported.
    """
    kind = group.removeprefix("rapid.").removesuffix("s").replace("_", " ")
    entry = entries_of(group).get(name)
    if entry is None:
        raise NotFoundError(kind, name, ", ".join(entries_of(group)))
    try:
        return entry.load()
    except Exception as error:
        # Not ImportError alone: a module of somebody else's may raise anything while it is imported.
        message = f"cannot import {entry.value}: {type(error).__name__}: {error}"
        raise ConfigurationError(f"{kind} {name}", message) from error


@lru_cache(maxsize=4)
def definition_folders(kind: str) -> tuple[Path, ...]:
    """Return the folders of a kind, ``cameras`` or ``pipelines``, of the packages that have them.

    Raises
    ------
    ConfigurationError
        Raised if a package is registered and cannot be found.
    """
    folders: list[Path] = []
    for name, entry in entries_of(DEFINITIONS).items():
        spec = find_spec(entry.value.split(":")[0])
        if spec is None or not spec.submodule_search_locations:
            raise ConfigurationError(f"definitions {name}", f"{entry.value} is no package that can be found")
        folders += [path for place in spec.submodule_search_locations if (path := Path(place) / kind).is_dir()]
    return tuple(folders)
