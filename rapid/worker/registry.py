"""Find payload classes by name, in the entry-point group ``rapid.payloads``.

The framework never imports a payload by its module: what a site installs beside us is found the same
way as what comes with us.
"""

from functools import lru_cache
from importlib.metadata import entry_points

from pydantic import ValidationError

from payloads.plugin import Payload
from rapid.errors import ConfigurationError, NotFoundError
from rapid.pipeline.models import Pipeline, Step

GROUP = "rapid.payloads"


@lru_cache(maxsize=1)
def payload_names() -> tuple[str, ...]:
    """Return the names of all installed payloads, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


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
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        raise NotFoundError("payload", name, ", ".join(payload_names()))
    try:
        payload: type[Payload] = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"payload {name}", f"cannot import {found[0].value}: {error}") from error
    missing = [what for what in ("name", "version", "Config", "run") if not hasattr(payload, what)]
    if missing:
        raise ConfigurationError(f"payload {name}", f"{found[0].value} lacks {', '.join(missing)}")
    return payload


def make_payload(step: Step) -> Payload:
    """Build the payload of a pipeline's step with its checked configuration.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a configuration that the payload does not accept.
    """
    payload = load_payload(step.payload)
    try:
        config = payload.Config.model_validate(step.config)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join([step.payload, *(str(part) for part in first["loc"])])
        raise ConfigurationError(field, first["msg"]) from error
    return payload(config)


def make_payloads(pipeline: Pipeline) -> list[Payload]:
    """Build all payloads of a pipeline, in order."""
    return [make_payload(step) for step in pipeline.steps]
