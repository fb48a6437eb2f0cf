"""What a control state has to be before it may come into force: pure, no I/O.

A change is a patch, as JSON merge patch has it (RFC 7386): objects are merged, null takes a value back to its
default or an entry out of a table, anything else replaces. The whole state that comes of it is checked: its form by
the models, then by what this camera and these pipelines can carry out. Every refusal names the field by its dotted
path.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from rapid.camera.models import Camera
from rapid.control.models import ControlChange, ControlState, SheddingPolicy
from rapid.errors import ConfigurationError
from rapid.exposure.models import ImageType
from rapid.patterns import PatternError, check_saved_name, parse_pattern
from rapid.pipeline.models import PipelineBook

PAIR_FIELD = f"pipelines.{ImageType.CWFS.value}"
"""The pipeline of full-array intra-/extra-focal pairs: both halves of one have to go through the same."""

MAX_REASON = 1000
MAX_NAME = 200


def merge(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON document with a patch merged into it; neither is modified.

    Examples
    --------
    >>> merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}, "d": 4})
    {'a': {'c': 2}, 'd': 4}
    """
    merged = dict(document)
    for name, value in patch.items():
        known = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(known, Mapping):
            merged[name] = merge(known, value)
        else:
            merged[name] = value
    return merged


def patch_state(state: ControlState, patch: Mapping[str, Any]) -> ControlState:
    """Return a state with a patch applied, its form checked.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a field that does not exist or a value it cannot have.
    """
    if not isinstance(patch, Mapping):
        raise ConfigurationError("change", "must be an object of fields and values")
    _refuse_yes_and_no(patch, ControlState)
    try:
        return ControlState.model_validate(merge(state.model_dump(mode="json"), patch))
    except ValidationError as error:
        raise _named(error) from None  # the cause would show the input
    except RecursionError:
        raise ConfigurationError("change", "is nested too deeply") from None


def validate_state(state: ControlState, camera: Camera, book: PipelineBook) -> None:
    """Check that a camera and a book of pipelines can carry a state out.

    Raises
    ------
    ConfigurationError
        Raised, naming the field by its dotted path, for a pattern that selects no detector of this camera, a saved
        name that is taken, a pipeline that does not exist or cannot run on single images, a detector that the camera
        does not have, or a number that cannot be an exposure's.
    """
    for name, text in state.patterns.items():
        try:
            check_saved_name(name, camera)
        except PatternError as error:
            raise ConfigurationError(f"patterns.{name[:64]}", error.message) from error
        check_pattern(f"patterns.{name}", text, camera, state.patterns)
    check_pattern("pattern", state.pattern, camera, state.patterns)
    # The ladder everybody begins with is LSSTCam's: what a camera does not have of it is passed over.
    ladder = state.shedding.ladder if state.shedding.ladder != SheddingPolicy().ladder else ()
    for place, text in enumerate(ladder):
        check_pattern(f"shedding.ladder.{place}", text, camera, state.patterns)
    for image_type, pipeline in state.pipelines.items():
        check_pipeline(f"pipelines.{image_type.value}", pipeline, book)
    if state.wavefront_pipeline is not None:
        check_pipeline("wavefront_pipeline", state.wavefront_pipeline, book)
    if state.witness_detector is not None and state.witness_detector not in camera.by_id:
        known_ids = f"{min(camera.by_id)} to {max(camera.by_id)}"
        raise ConfigurationError(
            "witness_detector", f"{camera.name} has no detector {state.witness_detector} ({known_ids})"
        )
    for exposure_id in sorted(state.guaranteed):
        _check_exposure_id("guaranteed", exposure_id)


def check_pattern(field: str, text: str, camera: Camera, named: Mapping[str, str]) -> frozenset[int]:
    """Return the detectors that a pattern selects, of all its phases.

    Raises
    ------
    ConfigurationError
        Raised if it is not valid, or selects nothing, for this camera.
    """
    try:
        pattern = parse_pattern(text)
        n_phases = pattern.phases(camera, named)
        selected = [pattern.detectors(camera, phase, named) for phase in range(n_phases)]
    except PatternError as error:
        raise ConfigurationError(field, error.message) from error
    return frozenset().union(*selected)


def check_pipeline(field: str, name: str, book: PipelineBook) -> None:
    """Check that a pipeline can be chosen for images.

    Raises
    ------
    ConfigurationError
        Raised if there is none of that name, or if it builds a calib from several exposures.
    """
    usable = sorted(pipeline.name for pipeline in book.pipelines if pipeline.builds is None)
    if name not in usable:
        near = difflib.get_close_matches(name, usable, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(usable)}"
        raise ConfigurationError(field, f"no pipeline {name[:64]!r} runs on single images ({hint})")


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return what differs between two states as JSON: old and new value by dotted path, None for what is not there.

    Examples
    --------
    >>> changed_fields({"a": {"b": 1}, "c": 2}, {"a": {"b": 5}, "c": 2})
    {'a.b': (1, 5)}
    """
    changes: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes |= changed_fields(old, new, f"{path}{name}.")
        elif old != new:
            changes[f"{path}{name}"] = (old, new)
    return changes


def as_patch(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields by dotted path as a patch.

    Examples
    --------
    >>> as_patch({"timeouts.gather_s": 8, "pattern": "all"})
    {'timeouts': {'gather_s': 8}, 'pattern': 'all'}

    Raises
    ------
    ConfigurationError
        Raised for an empty name, and for a name that is given both a value and parts.
    """
    patch: dict[str, Any] = {}
    for path, value in fields.items():
        *parents, last = path.split(".")
        if not all([*parents, last]):
            raise ConfigurationError(path, "is no field")
        place = patch
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigurationError(path, f"{parent} is given a value of its own as well")
        if last in place:
            raise ConfigurationError(path, "is given twice")
        place[last] = value
    return patch


def replay(state: ControlState, changes: Iterable[ControlChange]) -> list[ControlState]:
    """Return the states after each of some changes, made one after the other."""
    states = []
    for change in changes:
        state = patch_state(state, as_patch(change.after))
        states.append(state)
    return states


def _refuse_yes_and_no(patch: Mapping[str, Any], model: type[BaseModel] | None, path: str = "") -> None:
    """Refuse true and false where a number is meant: they would pass for 1 and 0."""
    for name, value in patch.items():
        kind = None if model is None or name not in model.model_fields else model.model_fields[name].annotation
        inner = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        if isinstance(value, Mapping) and (inner is not None or model is not None):
            _refuse_yes_and_no(value, inner, f"{path}{name}.")
        elif kind is not bool and any(
            isinstance(item, bool) for item in (value if isinstance(value, list) else [value])
        ):
            raise ConfigurationError(f"{path}{name}"[:200] or "change", "cannot be true or false")


def _check_exposure_id(field: str, exposure_id: int) -> None:
    day, month = exposure_id // 100_000 % 100, exposure_id // 10_000_000 % 100
    year = exposure_id // 1_000_000_000
    if not (1990 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= 31):
        raise ConfigurationError(field, f"{exposure_id} is no exposure id: day_obs * 100000 + seq_num")


def _named(error: ValidationError) -> ConfigurationError:
    """Return a model's first complaint, with the field's dotted path and, if the name is unknown, the nearest one."""
    first = error.errors(include_input=False, include_url=False)[0]
    parts = [str(part)[:64] for part in first["loc"] if part != "[key]"]
    field = ".".join(parts) or "change"
    if first["type"] == "extra_forbidden":
        known = _fields_at(parts[:-1])
        near = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return ConfigurationError(field, f"there is no such field ({hint})")
    return ConfigurationError(field, first["msg"].removeprefix("Value error, "))


def _fields_at(parents: list[str]) -> list[str]:
    model: type[BaseModel] = ControlState
    for parent in parents:
        field = model.model_fields.get(parent)
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return sorted(model.model_fields)
