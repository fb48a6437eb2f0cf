"""Check what a request says against what there is: detectors, pipelines, settings of payloads.

A name that is not there is refused before anything is posted. Exposures are another matter: one that is not there may be
on its way (`rapid.requests.decide`).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rapid.camera.models import Camera, Purpose
from rapid.errors import ConfigurationError, NotFoundError
from rapid.patterns import PatternError, parse_pattern
from rapid.pipeline.models import Pipeline, PipelineBook, base_of
from rapid.pipeline.store import load_pipeline
from rapid.plugins import PAYLOADS, load_entry
from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestRecord, RequestSpec


def wanted_detectors(
    detectors: object, camera: Camera, *, named: Mapping[str, str] | None = None
) -> frozenset[int] | None:
    """Return the detectors that a request asks for; None for all science detectors.

    Parameters
    ----------
    detectors
        As in a request: a pattern expression, a list of numbers and names, or None.
    named
        Patterns saved by name, for expressions that use one.

    Raises
    ------
    BadRequestError
        Raised for a detector that the camera does not have, a pattern that cannot be read, or one without detectors.
    """
    if detectors is None:
        return None
    if isinstance(detectors, str):
        try:
            found = parse_pattern(detectors).detectors(camera, 0, named or {})
        except PatternError as error:
            raise BadRequestError("detectors", error.message, column=getattr(error, "column", None)) from error
        if not found:
            raise BadRequestError("detectors", f"{detectors[:60]!r} selects no detector of {camera.name}")
        return frozenset(found)
    chosen: set[int] = set()
    for place, item in enumerate(detectors if isinstance(detectors, list | tuple) else ()):
        text = str(item).strip()
        known = camera.by_name.get(text) or (
            camera.by_id.get(int(text)) if text.isdecimal() and len(text) < 9 else None
        )
        if known is None:
            raise BadRequestError(f"detectors.{place}", f"{camera.name} has no detector {text[:60]!r}")
        chosen.add(known.id)
    return frozenset(chosen)


def check_config(pipeline: Pipeline, config: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that every payload accepts its changed settings.

    Raises
    ------
    BadRequestError
        Raised, naming payload and setting, for one that is not valid.
    """
    after = pipeline.afterburner if pipeline.after_runs == "every" else ()
    known = [step.payload for step in (*pipeline.steps, *after)]
    for name in config:
        if name not in known:
            payloads = ", ".join(known)
            raise BadRequestError(
                f"config.{name[:60]}", f"pipeline {pipeline.name} has no such payload (it has {payloads})"
            )
    changed = pipeline.with_config({name: dict(values) for name, values in config.items()})
    for step in (*changed.steps, *changed.afterburner):
        if step.payload not in config:
            continue
        try:
            load_entry(PAYLOADS, step.payload).Config.model_validate(step.config)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(str(part) for part in ("config", step.payload, *first["loc"]))
            raise BadRequestError(path[:200], first["msg"].removeprefix("Value error, ")) from error
        except (NotFoundError, ConfigurationError) as error:
            raise BadRequestError(f"config.{step.payload}", error.message) from error


def check_spec(
    spec: RequestSpec, camera: Camera, book: PipelineBook, *, named: Mapping[str, str] | None = None
) -> frozenset[int] | None:
    """Check a request as far as it can be without looking for its exposures.

    Returns
    -------
    detectors
        From `wanted_detectors`.

    Raises
    ------
    BadRequestError
        Raised, naming the field, for anything that is not there.
    """
    detectors = wanted_detectors(spec.detectors, camera, named=named)
    if spec.pipeline is not None:
        try:
            pipeline = load_pipeline(spec.pipeline, book)
        except NotFoundError as error:
            raise BadRequestError("pipeline", error.message) from error
        if base_of(pipeline.name) is not None:
            raise BadRequestError(
                "pipeline", f"{pipeline.name} runs by itself, after {base_of(pipeline.name)}: ask for that"
            )
        if pipeline.builds:
            raise BadRequestError(
                "pipeline", f"{pipeline.name} builds a calib: ask for combine: build_{pipeline.builds}"
            )
        check_config(pipeline, spec.config)
    elif spec.config and spec.combine is not None and spec.combine.builds is not None:
        check_config(load_pipeline(spec.combine.value, book), spec.config)
    elif spec.config:
        raise BadRequestError("pipeline", "must be named for its settings to be changed")
    if detectors is not None and spec.combine is not None and spec.combine.builds is not None:
        guiders = [
            camera.by_id[number].name for number in sorted(detectors) if camera.by_id[number].purpose is Purpose.GUIDER
        ]
        if guiders:
            raise BadRequestError("detectors", f"{guiders[0]} is a guider: no calib is built for it")
    return detectors


def check_run(spec: RequestSpec, other: RequestRecord | None, *, is_open: bool) -> None:
    """Check that results can be stored under the name that a request gives them.

    Parameters
    ----------
    other
        The newest request of that name, or None.
    is_open
        Whether that one has not ended.

    Raises
    ------
    BadRequestError
        Raised if the name is another request's; a campaign may go on with its own.
    """
    campaign = spec.select.campaign
    if other is None:
        if campaign is not None and campaign.resume:
            raise BadRequestError("run", f"there is no campaign {spec.run} to resume")
        return
    before = other.spec.select.campaign if other.spec is not None else None
    if campaign is None or before is None or not campaign.resume:
        hint = "; resume goes on with it" if campaign is not None and before is not None else ""
        raise BadRequestError("run", f"{spec.run} is the name of request {other.request_id}{hint}")
    if is_open:
        raise BadRequestError("run", f"campaign {spec.run} is under way ({other.request_id})")
    if before.model_copy(update={"resume": True}) != campaign or other.spec is None:
        raise BadRequestError("select.campaign", f"is not what campaign {spec.run} was begun with")
    for name in ("pipeline", "config", "detectors"):
        if getattr(other.spec, name) != getattr(spec, name):
            raise BadRequestError(name, f"is not what campaign {spec.run} was begun with")
