"""Settings: from the command line, the environment, files with secrets, and a YAML file, in that order.

A role's settings are a subclass of `Settings`, its fields described with their units; docs and
``rapid config`` are made from it. A field ``redis_url`` is ``RAPID_REDIS_URL`` in the environment; its value
can be in a file named by ``RAPID_REDIS_URL_FILE``, as orchestrators mount secrets. An unknown name is an
error, with the nearest known one.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rapid.errors import ConfigurationError

PREFIX = "RAPID_"
CONFIG_VARIABLE = "RAPID_CONFIG"
"""Names the YAML file when the command line does not."""

MAX_SECRET_BYTES = 64 * 1024
"""A secret is a line; a longer file is the wrong one."""


class Settings(BaseSettings):
    """Base of every role's settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, case_sensitive=False)


SomeSettings = TypeVar("SomeSettings", bound=BaseSettings)


@dataclass(frozen=True)
class SettingFact:
    """One setting, for docs.

    Attributes
    ----------
    default
        As text; empty if it has to be given. A secret's is never shown.
    """

    name: str
    variable: str
    kind: str
    default: str
    description: str
    is_secret: bool


def load_settings(
    kind: type[SomeSettings],
    given: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> SomeSettings:
    """Return settings: what is given, else the environment, else secret files, else the YAML file, else defaults.

    Parameters
    ----------
    given
        From the command line; None leaves a field to the others.
    file
        A YAML file with a mapping of names to values; ``RAPID_CONFIG`` names it otherwise.
    environment
        Variables to read for names of files; the process's own if left out. pydantic reads the values
        themselves from the process's.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for an unknown name, a value that is not valid, or a file that cannot be
        read. No secret is repeated in it.
    """
    variables = os.environ if environment is None else environment
    if file is None and variables.get(CONFIG_VARIABLE):
        file = Path(variables[CONFIG_VARIABLE])
    values = _from_yaml(kind, file) if file is not None else {}
    values.update(_from_secret_files(kind, variables))
    in_environment = {name for name in values if variables.get(_variable(name)) is not None}
    values = {name: value for name, value in values.items() if name not in in_environment}
    values.update({name: value for name, value in (given or {}).items() if value is not None})
    _refuse_unknown(kind, values, "settings")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigurationError(field, first["msg"]) from None  # the cause would show the values
    except SettingsError as error:
        # pydantic-settings names the field in a sentence of its own; the values of these are JSON.
        named = next((name for name in kind.model_fields if f'"{name}"' in str(error)), "settings")
        raise ConfigurationError(named, f"{_variable(named)} is not valid JSON") from None


def describe_settings(kind: type[BaseSettings]) -> list[SettingFact]:
    """Return every setting of a role, in the order of its class."""
    return [_fact(name, field) for name, field in kind.model_fields.items()]


def unknown_variables(*kinds: type[BaseSettings], environment: Mapping[str, str] | None = None) -> list[str]:
    """Return variables of the environment that look like ours and name no setting: misspellings, mostly."""
    known = {CONFIG_VARIABLE, f"{PREFIX}CAMERA_PATH", f"{PREFIX}PIPELINE_PATH"}
    for kind in kinds:
        for name in kind.model_fields:
            known |= {_variable(name), f"{_variable(name)}_FILE"}
    variables = os.environ if environment is None else environment
    return sorted(name for name in variables if name.startswith(PREFIX) and name not in known)


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _fact(name: str, field: FieldInfo) -> SettingFact:
    is_secret = "SecretStr" in str(field.annotation) or field.annotation is SecretStr
    default = "" if field.default is PydanticUndefined or field.default is None else str(field.default)
    return SettingFact(
        name=name,
        variable=_variable(name),
        kind=getattr(field.annotation, "__name__", None) or str(field.annotation).replace("typing.", ""),
        default="" if is_secret else default,
        description=field.description or "",
        is_secret=is_secret,
    )


def _from_yaml(kind: type[BaseSettings], file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(file), f"cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        # Not the error's own text: it repeats the line.
        raise ConfigurationError(str(file), f"is not YAML{place}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(str(file), "must hold a mapping of setting names to values")
    values = {str(name): value for name, value in document.items()}
    _refuse_unknown(kind, values, str(file))
    return values


def _from_secret_files(kind: type[BaseSettings], variables: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name in kind.model_fields:
        path = variables.get(f"{_variable(name)}_FILE")
        if not path:
            continue
        try:
            with Path(path).open("rb") as file:
                content = file.read(MAX_SECRET_BYTES + 1)
            if len(content) > MAX_SECRET_BYTES:
                raise ConfigurationError(name, f"{path} is too long for a secret")
            values[name] = content.decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(name, f"{path} cannot be read") from error
    return values


def _refuse_unknown(kind: type[BaseSettings], values: Mapping[str, Any], where: str) -> None:
    for name in values:
        if name not in kind.model_fields:
            near = difflib.get_close_matches(name, kind.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(name, f"is no setting ({where}){hint}")
