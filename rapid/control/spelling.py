"""RubinTV's words for what the control state says, and back: pure.

Its admin page writes a value under a ``RUBINTV_CONTROL_`` key and shows what it finds under the same key with
``_READBACK``. Words come in capitals with underscores; older pages send them in small letters with hyphens. Names of
wavefront pipelines come without the prefix that the readback is expected to have.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rapid.camera.models import Camera, Purpose
from rapid.control.models import ControlState
from rapid.dispatch.models import WorkerMode
from rapid.errors import ConfigurationError
from rapid.exposure.models import ImageType
from rapid.patterns import VisitMode, parse_pattern
from rapid.pipeline.models import PipelineBook

PREFIX = "RUBINTV_CONTROL_"
READBACK = "_READBACK"
REJECTED_BETWEEN_PAIR = "REJECTED_BETWEEN_PAIR!"
MAX_VALUE = 4096
MAX_READBACK = 200

RESET_HEAD = f"{PREFIX}RESET_HEAD_NODE"

RESET_POOLS: Mapping[str, str] = MappingProxyType(
    {
        **{f"{PREFIX}RESET_SFM_SET_{n}": "science" for n in range(2)},
        **{f"{PREFIX}RESET_AOS_SET_{n}": "wavefront" for n in range(4)},
        f"{PREFIX}RESET_SPAREWORKERS_SET_0": "",
    }
)
"""Worker groups by key; empty for all workers. Our workers of one pool are one group, whichever set was meant."""

RESET_GATHERS = frozenset({f"{PREFIX}RESET_SFM_STEP1B_SET_0", f"{PREFIX}RESET_AOS_STEP1B_SET_0"})
"""What used to gather a visit's detectors. Our gathers keep nothing from one exposure to the next."""

OURS: Mapping[str, str] = MappingProxyType({"DANISH": "wavefront"})
"""Wavefront pipelines of ours that do what RubinTV's word says."""


@dataclass(frozen=True)
class Control:
    """One key of the admin page.

    Attributes
    ----------
    path
        The field of the control state, dotted.
    from_word
        Returns the field's value for a word; `ConfigurationError` if it means nothing here.
    to_word
        Returns the word for the state's value; empty if it has none.
    shown
        Returns what the page expects to read back for a word that was accepted.
    """

    path: str
    from_word: Callable[[str, Camera, PipelineBook], Any]
    to_word: Callable[[ControlState, Camera, PipelineBook], str]
    shown: Callable[[str], str] = str


def patch_of(control: Control, value: Any) -> dict[str, Any]:
    """Return the patch that sets a control's field."""
    *parents, last = control.path.split(".")
    patch: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        patch = {parent: patch}
    return patch


def rejection(reason: str) -> str:
    """Return the readback of a refusal: one line, not endless.

    Examples
    --------
    >>> rejection("no such pattern")
    'REJECTED: no such pattern'
    """
    first = reason.strip().splitlines()[0] if reason.strip() else "not valid"  # the rest of it points into the text
    return f"REJECTED: {' '.join(first.split())}"[:MAX_READBACK]


def _visit_mode(word: str, _camera: Camera, _book: PipelineBook) -> str:
    try:
        return VisitMode(word).value
    except ValueError:
        raise ConfigurationError(
            "visit_mode", f"{word!r} is none of CONSTANT, ALTERNATING, ALTERNATING_IN_TWOS"
        ) from None


def _visit_word(state: ControlState, _camera: Camera, _book: PipelineBook) -> str:
    is_twos = state.visit_mode is VisitMode.ALTERNATING_BY_TWOS
    return "ALTERNATING_IN_TWOS" if is_twos else state.visit_mode.value.upper()


def _worker_mode(word: str, _camera: Camera, _book: PipelineBook) -> str:
    try:
        return WorkerMode(word).value
    except ValueError:
        raise ConfigurationError(
            "worker_mode", f"{word!r} is none of WAITING, CONSUMING, PREEMPTING (MURDEROUS)"
        ) from None


def _witness(word: str, camera: Camera, _book: PipelineBook) -> int:
    if word.isascii() and word.isdigit():
        return int(word[:9])
    detector = camera.by_name.get(word.upper())
    if detector is None:
        raise ConfigurationError("witness_detector", f"{camera.name} has no detector {word[:32]!r}")
    return detector.id


def _witness_word(state: ControlState, camera: Camera, _book: PipelineBook) -> str:
    return str(camera.witness_detector if state.witness_detector is None else state.witness_detector)


def _pipeline_reader(field: str, *prefixes: str) -> Callable[[str, Camera, PipelineBook], str]:
    def read(word: str, _camera: Camera, book: PipelineBook) -> str:
        plain = word.strip().upper()
        for prefix in prefixes:
            plain = plain.removeprefix(prefix.upper())
        names = [*(f"{prefix}{plain}".lower() for prefix in prefixes), plain.lower(), OURS.get(plain, "")]
        for name in names:
            pipeline = book.get(name)
            if pipeline is not None and pipeline.builds is None:
                return name
        known = ", ".join(sorted(pipeline.name for pipeline in book.pipelines if pipeline.builds is None))
        raise ConfigurationError(field, f"no pipeline {names[0][:64]} here (known: {known})")

    return read


def _pipeline_word(name: str | None, prefix: str) -> str:
    if not name:
        return ""
    plain = next((word for word, ours in OURS.items() if ours == name), name.upper())
    return f"{prefix}{plain.removeprefix(prefix)}"


def _by_rules(book: PipelineBook, camera: Camera, image_type: ImageType, purpose: Purpose) -> str | None:
    """Return the pipeline that the rules name for a kind of image, whatever its header says."""
    for rule in book.rules:
        is_meant = image_type in rule.image_types if rule.image_types else True
        is_there = purpose in rule.purposes if rule.purposes else purpose is Purpose.SCIENCE
        if (
            is_meant
            and is_there
            and not (rule.guider or rule.beside or rule.header)
            and rule.is_for_camera(camera.name)
        ):
            return rule.pipeline
    return None


def _wavefront_word(state: ControlState, camera: Camera, book: PipelineBook) -> str:
    ruled = _by_rules(book, camera, ImageType.SCIENCE, Purpose.WAVEFRONT)
    return _pipeline_word(state.wavefront_pipeline or ruled, "AOS_")


def _pairs_word(state: ControlState, camera: Camera, book: PipelineBook) -> str:
    ruled = _by_rules(book, camera, ImageType.CWFS, Purpose.SCIENCE)
    return _pipeline_word(state.pipelines.get(ImageType.CWFS) or ruled, "AOS_FAM_")


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda word: word if word.startswith(prefix) else f"{prefix}{word}"


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        f"{PREFIX}AOS_PIPELINE": Control(
            "wavefront_pipeline",
            _pipeline_reader("wavefront_pipeline", "aos_"),
            _wavefront_word,
            _prefixed("AOS_"),
        ),
        f"{PREFIX}AOS_FAM_PIPELINE": Control(
            "pipelines.cwfs",
            _pipeline_reader("pipelines.cwfs", "aos_fam_"),
            _pairs_word,
            _prefixed("AOS_FAM_"),
        ),
        f"{PREFIX}CHIP_SELECTION": Control(
            "pattern",
            lambda word, _camera, _book: str(parse_pattern(word)),
            lambda state, _camera, _book: state.pattern.upper(),
        ),
        f"{PREFIX}VISIT_PROCESSING_MODE": Control("visit_mode", _visit_mode, _visit_word),
        f"{PREFIX}WORKER_PROCESSING_MODE": Control(
            "worker_mode", _worker_mode, lambda state, _camera, _book: state.worker_mode.value.upper()
        ),
        f"{PREFIX}WITNESS_DETECTOR": Control("witness_detector", _witness, _witness_word),
    }
)
"""The page's controls that set a field, by key."""

KNOWN_KEYS = (*CONTROLS, RESET_HEAD, *RESET_POOLS, *sorted(RESET_GATHERS))
