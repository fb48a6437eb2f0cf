"""Read what goes wrong in a night from a YAML file beside its recording."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rapid.errors import ConfigurationError
from replay.events import FaultEvent
from replay.faults import AWAIT, Await, fault_event, parse_fault


class _TimedFault(BaseModel):
    """One item of the file: what happens, and when."""

    model_config = ConfigDict(extra="allow")

    at_s: float = Field(ge=0, allow_inf_nan=False)


def load_faults(path: Path) -> list[FaultEvent]:
    """Read faults from YAML: a list, each with ``at_s``, ``kind`` and what its kind takes; ``await`` may stand between them.

    Raises
    ------
    ConfigurationError
        Raised, naming the fault and its field.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except OSError as error:
        raise ConfigurationError("faults", f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError("faults", f"{path} is not YAML: {error}") from error
    if not isinstance(document, list):
        raise ConfigurationError("faults", f"{path} is not a list of faults")
    return [_event(facts, f"faults.{place}") for place, facts in enumerate(document)]


def _event(facts: Any, where: str) -> FaultEvent:
    if not isinstance(facts, dict):
        raise ConfigurationError(where, "is not a fault: at_s, kind, ...")
    try:
        timed = _TimedFault.model_validate({str(name): value for name, value in facts.items()})
        said = timed.model_extra or {}
        if said.get("kind") == AWAIT:
            return fault_event(timed.at_s, Await.model_validate(said))
        return fault_event(timed.at_s, parse_fault(said))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(f"{where}: {'.'.join(map(str, first['loc']))}", first["msg"]) from error
    except ConfigurationError as error:
        raise ConfigurationError(where, error.message) from error
