"""What patterns there are, for people, pages and programs."""

from collections.abc import Mapping
from typing import Any

from rapid.camera.models import Camera
from rapid.patterns.catalogue import BUILT_INS, BuiltIn
from rapid.patterns.errors import PatternError
from rapid.patterns.pattern import parse_pattern


def list_patterns(camera: Camera | None = None) -> tuple[BuiltIn, ...]:
    """Return the built-in patterns: all, or those that select something of a camera.

    What needs arguments, as ``raft(RAFT)``, is always among them.
    """
    if camera is None:
        return BUILT_INS
    return tuple(known for known in BUILT_INS if known.needs_arguments or _sizes(known.name, camera, {}))


def describe_patterns(camera: Camera, named: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return facts about every built-in and saved pattern, ready for JSON.

    Each has ``name``, ``usage``, ``aliases``, ``description``, ``needs_arguments``, ``saved``, ``expression`` (of
    saved ones), ``sizes`` (detectors in each phase; `None` if it needs arguments or selects nothing here) and ``phases``.
    """
    saved = {} if named is None else named
    rows: list[dict[str, Any]] = [
        {
            "name": known.name,
            "usage": known.usage,
            "aliases": list(known.aliases),
            "description": known.description,
            "needs_arguments": known.needs_arguments,
            "saved": False,
            "expression": None,
            **_counts(None if known.needs_arguments else _sizes(known.name, camera, {})),
        }
        for known in BUILT_INS
    ]
    rows += [
        {
            "name": name,
            "usage": name,
            "aliases": [],
            "description": "saved by name",
            "needs_arguments": False,
            "saved": True,
            "expression": text,
            **_counts(_sizes(name, camera, saved)),
        }
        for name, text in sorted(saved.items())
    ]
    return rows


def _counts(sizes: list[int] | None) -> dict[str, Any]:
    return {"sizes": sizes or None, "phases": len(sizes) if sizes else None}


def _sizes(text: str, camera: Camera, named: Mapping[str, str]) -> list[int]:
    """Return how many detectors each phase has; nothing if the pattern cannot be used or is empty here."""
    try:
        sizes = [len(phase) for phase in parse_pattern(text).cycle(camera, named)]
    except PatternError:
        return []
    return sizes if any(sizes) else []
