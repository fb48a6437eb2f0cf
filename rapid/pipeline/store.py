"""Read pipelines from YAML: those of the package, and a site's own.

A site puts files into the folders named in ``RAPID_PIPELINE_PATH``. A pipeline of the same name replaces
the packaged one; a site's rules are asked before the packaged ones.
"""

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rapid.camera.models import Purpose
from rapid.errors import ConfigurationError, NotFoundError
from rapid.exposure.models import ExposureInfo
from rapid.pipeline.models import Pipeline, PipelineBook, Rule

PACKAGED = Path(__file__).parent / "data"


class _File(BaseModel):
    """One YAML file: pipelines, rules, or both."""

    model_config = ConfigDict(extra="forbid")

    pipelines: list[Pipeline] = []
    rules: list[Rule] = []


def _read(path: Path) -> _File:
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return _File.model_validate(document)
    except yaml.YAMLError as error:
        raise ConfigurationError(str(path), f"not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise ConfigurationError(f"{path.name}: {field}", first["msg"], file=str(path)) from error


def load_book(folders: Iterable[Path]) -> PipelineBook:
    """Read all definitions of some folders; the first folder has the last word.

    Raises
    ------
    ConfigurationError
        Raised, naming file and field, for anything that is not a valid definition, for a rule that
        names a pipeline nobody defines, and for two definitions of a name in one folder.
    """
    pipelines: dict[str, Pipeline] = {}
    rules: list[Rule] = []
    for folder in folders:
        here: set[str] = set()
        for path in sorted(folder.glob("*.yaml")):
            content = _read(path)
            for pipeline in content.pipelines:
                if pipeline.name in here:
                    raise ConfigurationError(f"{path.name}: pipelines", f"{pipeline.name} is defined twice")
                here.add(pipeline.name)
                pipelines.setdefault(pipeline.name, pipeline)
            rules.extend(content.rules)
    for rule in rules:
        if rule.pipeline not in pipelines:
            raise ConfigurationError("rules.pipeline", f"{rule.pipeline} is not defined")
    return PipelineBook(pipelines=tuple(pipelines.values()), rules=tuple(rules))


@lru_cache(maxsize=8)
def _book_of(path: str) -> PipelineBook:
    folders = [Path(part) for part in path.split(os.pathsep) if part]
    return load_book([*folders, PACKAGED])


def default_book() -> PipelineBook:
    """Return the pipelines of this installation: ``RAPID_PIPELINE_PATH`` first, then the package's."""
    return _book_of(os.environ.get("RAPID_PIPELINE_PATH", ""))


def load_pipeline(name: str, book: PipelineBook | None = None) -> Pipeline:
    """Return the pipeline of a name.

    Raises
    ------
    NotFoundError
        Raised for an unknown name; the message lists the known ones.
    """
    book = book or default_book()
    pipeline = book.get(name)
    if pipeline is None:
        raise NotFoundError("pipeline", name, ", ".join(book.names))
    return pipeline


def choose_pipeline(
    info: ExposureInfo,
    header: dict[str, Any],
    book: PipelineBook | None = None,
    *,
    purpose: Purpose = Purpose.SCIENCE,
) -> Pipeline:
    """Return the pipeline that an image gets by the rules.

    Raises
    ------
    NotFoundError
        Raised if no rule is met.
    """
    book = book or default_book()
    for rule in book.rules:
        if rule.is_for(
            camera=info.camera, image_type=info.image_type, header=header, guider=info.is_guider, purpose=purpose
        ):
            return load_pipeline(rule.pipeline, book)
    raise NotFoundError("rule for image type", info.image_type.value)
