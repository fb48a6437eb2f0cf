"""Find payload classes by name, in the entry-point group ``rapid.payloads``.

The framework never imports a payload by its module: what a site installs beside us is found the same
way as what comes with us.
"""

import difflib
import hashlib
import json
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from payloads.plugin import Payload, PayloadConfig
from rapid.camera.store import list_cameras
from rapid.errors import ConfigurationError
from rapid.pipeline.models import Pipeline, PipelineBook, Step
from rapid.plugins import PAYLOADS, entries_of, load_entry


def payload_names() -> tuple[str, ...]:
    """Return the names of all installed payloads, sorted."""
    return tuple(entries_of(PAYLOADS))


@lru_cache(maxsize=64)
def load_payload(name: str) -> type[Payload]:
    """Return the payload class of a name.

    Raises
    ------
    NotFoundError
        Raised for a name that no installed package registers.
    ConfigurationError
        Raised if the registered object cannot be imported or is not a payload class.
    """
    payload: type[Payload] = load_entry(PAYLOADS, name)
    missing = [what for what in ("name", "version", "Config", "run") if not hasattr(payload, what)]
    if missing:
        raise ConfigurationError(f"payload {name}", f"{entries_of(PAYLOADS)[name].value} lacks {', '.join(missing)}")
    if payload.name != name:
        raise ConfigurationError(f"payload {name}", f"calls itself {payload.name}: entry point and class must agree")
    return payload


def resolve_config(step: Step) -> PayloadConfig:
    """Return the whole configuration of a step: what the pipeline gives, checked, and the payload's defaults.

    Raises
    ------
    NotFoundError
        Raised for a payload that is not installed.
    ConfigurationError
        Raised, naming the field, for a configuration that the payload does not accept.
    """
    payload = load_payload(step.payload)
    try:
        return payload.Config.model_validate(step.config)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join([step.payload, *(str(part) for part in first["loc"])])
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), payload.Config.model_fields, n=1)
            known = ", ".join(sorted(payload.Config.model_fields)) or "none"
            reason = f"no such setting{f', {near[0]} perhaps' if near else ''} (known: {known})"
        raise ConfigurationError(field, reason) from error


def make_payload(step: Step) -> Payload:
    """Build the payload of a pipeline's step with its checked configuration; raises as `resolve_config`."""
    return load_payload(step.payload)(resolve_config(step))


def make_payloads(pipeline: Pipeline) -> list[Payload]:
    """Build all payloads of a pipeline, in order."""
    return [make_payload(step) for step in pipeline.steps]


def resolved_steps(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return name, version and whole configuration of a pipeline's payloads, in order, as JSON facts."""
    return [
        {
            "payload": step.payload,
            "version": load_payload(step.payload).version,
            "config": resolve_config(step).model_dump(mode="json"),
        }
        for step in pipeline.steps
    ]


def resolved_hash(pipeline: Pipeline) -> str:
    """Return sha256 over all that decides a pipeline's result: payloads, versions, whole configuration.

    Unlike `Pipeline.config_hash` it changes with a payload's defaults, and not with what merely repeats them; it is
    the hash that results carry.
    """
    text = json.dumps([pipeline.name, pipeline.version, pipeline.builds, resolved_steps(pipeline)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_book(book: PipelineBook, *, trusted: PipelineBook | None = None) -> None:
    """Check what only the payloads themselves can: that every step's payload is there and accepts its configuration.

    Pipelines that need what is not installed are checked as well: loading a payload's class imports no more than it
    needs to say what its configuration is.

    Parameters
    ----------
    trusted
        Pipelines that are equal to those of this book are not checked: importing their payloads takes seconds.

    Raises
    ------
    ConfigurationError
        Raised, naming file and field, for the first mistake.
    """
    for pipeline in book.pipelines:
        if trusted is not None and pipeline == trusted.get(pipeline.name):
            continue
        steps = [("steps", place, step) for place, step in enumerate(pipeline.steps)]
        steps += [("afterburner", place, step) for place, step in enumerate(pipeline.afterburner)]
        for part, place, step in steps:
            at = f"{pipeline.source}.{part}.{place}"
            if step.payload not in payload_names():
                raise ConfigurationError(
                    f"{at}.payload", f"no payload named {step.payload} (known: {', '.join(payload_names())})"
                )
            try:
                resolve_config(step)
            except ConfigurationError as error:
                raise ConfigurationError(f"{at}.config: {error.field}", error.message.split(": ", 1)[-1]) from error
    known = set(list_cameras())
    for rule in book.rules:
        for camera in sorted(rule.cameras - known):
            names = ", ".join(sorted(known))
            raise ConfigurationError(f"{rule.source}.cameras", f"no camera named {camera} (known: {names})")
