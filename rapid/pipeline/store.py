"""Read pipelines from YAML: those of the package, and a site's own.

A site puts files into the folders named in ``RAPID_PIPELINE_PATH``; an installed package may bring a folder of them
(`rapid.plugins`). A pipeline of the same name replaces the packaged one; a site's rules are asked before the packaged
ones.
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
from rapid.pipeline.models import AFTER, Pipeline, PipelineBook, Rule, base_of
from rapid.plugins import definition_folders

PACKAGED = Path(__file__).parent / "data"


class _File(BaseModel):
    """One YAML file: pipelines, rules, or both."""

    model_config = ConfigDict(extra="forbid")

    pipelines: list[Pipeline] = []
    rules: list[Rule] = []


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand only once: of two, YAML would silently keep the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _read(path: Path) -> _File:
    try:
        document: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader) or {}  # noqa: S506 - a safe loader
        content = _File.model_validate(document)
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(str(path), f"not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{path.name}: {field}", reason, file=str(path)) from error
    content.pipelines = [
        pipeline.model_copy(update={"source": f"{path.name}: pipelines.{place}"})
        for place, pipeline in enumerate(content.pipelines)
    ]
    content.rules = [
        rule.model_copy(update={"source": f"{path.name}: rules.{place}"}) for place, rule in enumerate(content.rules)
    ]
    return content


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
                if base_of(pipeline.name) is not None:
                    raise ConfigurationError(
                        f"{pipeline.source}.name",
                        f"{pipeline.name}: names that end in {AFTER} are those of afterburners",
                    )
                if pipeline.name in here:
                    raise ConfigurationError(f"{path.name}: pipelines", f"{pipeline.name} is defined twice")
                here.add(pipeline.name)
                pipelines.setdefault(pipeline.name, pipeline)
            rules.extend(content.rules)
    for rule in rules:
        if base_of(rule.pipeline) is not None:
            raise ConfigurationError(f"{rule.source}.pipeline", f"{rule.pipeline} runs by itself, after its pipeline")
        if rule.pipeline not in pipelines:
            known = ", ".join(sorted(pipelines))
            raise ConfigurationError(f"{rule.source}.pipeline", f"{rule.pipeline} is not defined (known: {known})")
    return PipelineBook(pipelines=tuple(pipelines.values()), rules=tuple(rules))


@lru_cache(maxsize=8)
def _book_of(path: str) -> PipelineBook:
    folders = [Path(part) for part in path.split(os.pathsep) if part]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError("RAPID_PIPELINE_PATH", f"{folder} is no folder")
    return load_book([*folders, *definition_folders("pipelines"), PACKAGED])


def default_book() -> PipelineBook:
    """Return the pipelines of this installation.

    The site's own in ``RAPID_PIPELINE_PATH`` first, then those of installed packages, then ours.
    """
    return _book_of(os.environ.get("RAPID_PIPELINE_PATH", ""))


@lru_cache(maxsize=1)
def packaged_book() -> PipelineBook:
    """Return the pipelines that come with us, whatever a site has put in their place."""
    return load_book([PACKAGED])


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


def choose_pipelines(
    info: ExposureInfo,
    header: dict[str, Any],
    book: PipelineBook | None = None,
    *,
    purpose: Purpose = Purpose.SCIENCE,
) -> tuple[Pipeline, ...]:
    """Return the pipelines that an image gets by the rules: the chosen one, then those that run beside it.

    Raises
    ------
    NotFoundError
        Raised if no rule chooses one.
    """
    book = book or default_book()
    met = [
        rule
        for rule in book.rules
        if rule.is_for(
            camera=info.camera, image_type=info.image_type, header=header, guider=info.is_guider, purpose=purpose
        )
    ]
    chosen = next((rule.pipeline for rule in met if not rule.beside), None)
    if chosen is None:
        raise NotFoundError("rule for image type", info.image_type.value)
    names = dict.fromkeys([chosen, *(rule.pipeline for rule in met if rule.beside)])
    return tuple(load_pipeline(name, book) for name in names)


def choose_pipeline(
    info: ExposureInfo,
    header: dict[str, Any],
    book: PipelineBook | None = None,
    *,
    purpose: Purpose = Purpose.SCIENCE,
) -> Pipeline:
    """Return the one pipeline that the rules choose for an image; see `choose_pipelines`."""
    return choose_pipelines(info, header, book, purpose=purpose)[0]
