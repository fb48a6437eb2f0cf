"""What a recorded night is run under: settings, workers, pipelines, and payloads that misbehave.

Held in the manifest, so that a night checked in runs anywhere as it was meant to. Definitions are written below the
night's own folder and known to the processes that are started for it; afterwards nothing is left of them.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rapid.errors import ConfigurationError
from rapid.pipeline.store import default_book
from rapid.plugins import entries_of
from replay import misbehave
from replay.events import RawsEvent
from replay.faults import PayloadFault, faults_of
from replay.recording import Recording

DEFINITIONS = "definitions"
"""Folder below the night's."""


@contextlib.contextmanager
def surroundings(recording: Recording, folder: Path) -> Iterator[None]:
    """Let this process, and those it starts, know the night's pipelines; forget them in the end.

    The night's camera must be known.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for pipelines or faults that are not valid.
    """
    root = folder / DEFINITIONS
    root.mkdir(parents=True, exist_ok=True)
    before = {name: os.environ.get(name) for name in ("RAPID_PIPELINE_PATH", "PYTHONPATH")}
    try:
        if recording.manifest.system.pipelines:
            _write_book(root / "night", recording.manifest.system.pipelines)
        faults = _payload_faults(recording)
        if faults:
            _register(root)
            _write_book(root / "faulty", _faulty_book(faults, recording.manifest.seed, root / "attempts"))
        default_book()  # a mistake is told before anything starts
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if str(root) in sys.path:
            sys.path.remove(str(root))
            entries_of.cache_clear()


def _write_book(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "night.yaml").write_text(text, encoding="utf-8")
    _prepend("RAPID_PIPELINE_PATH", str(folder))


def _prepend(variable: str, folder: str) -> None:
    before = os.environ.get(variable)
    os.environ[variable] = f"{folder}{os.pathsep}{before}" if before else folder


def _register(root: Path) -> None:
    """Register the payload that misbehaves, as an installed package would; for this night alone."""
    facts = root / "rapid_night_faults-0.dist-info"
    facts.mkdir(exist_ok=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: rapid-night-faults\nVersion: 0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text(
        f"[rapid.payloads]\n{misbehave.NAME} = {misbehave.__name__}:{misbehave.Misbehave.__name__}\n", encoding="utf-8"
    )
    _prepend("PYTHONPATH", str(root))
    sys.path.append(str(root))
    entries_of.cache_clear()


def _payload_faults(recording: Recording) -> list[misbehave.PlannedFault]:
    """Return the faults of payloads, each with the exposures that arrive while it lasts."""
    arrivals = [event for event in recording.events if isinstance(event, RawsEvent)]
    planned = []
    for place, (from_s, fault) in enumerate(faults_of(recording)):
        if not isinstance(fault, PayloadFault):
            continue
        exposures = {
            event.exposure
            for event in arrivals
            if from_s <= event.at_s and (fault.until_s is None or event.at_s <= fault.until_s)
        }
        wanted = tuple(
            sorted(number for number in exposures if fault.model_copy(update={"detectors": ()}).touches(number, ""))
        )
        if wanted:
            planned.append(misbehave.PlannedFault(place=place, fault=fault.model_copy(update={"exposures": wanted})))
    return planned


def _faulty_book(faults: list[misbehave.PlannedFault], seed: int, attempts: Path) -> str:
    """Return definitions of the pipelines that faults name, with the payload that misbehaves before all others."""
    book = default_book()
    definitions: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for planned in faults for name in planned.fault.pipelines):
        pipeline = book.get(name)
        if pipeline is None:
            raise ConfigurationError("fault payload: pipelines", f"{name} is not defined")
        mine = [planned for planned in faults if name in planned.fault.pipelines]
        step = {
            "payload": misbehave.NAME,
            "config": {
                "faults": [planned.model_dump(mode="json") for planned in mine],
                "seed": seed,
                "folder": str(attempts),
            },
        }
        definition = pipeline.model_dump(mode="json")
        definition["steps"] = [step, *definition["steps"]]
        limits = [planned.fault.time_limit_s for planned in mine if planned.fault.time_limit_s is not None]
        if limits:
            definition["time_limit_s"] = min(limits)
        definitions.append(definition)
    return yaml.safe_dump({"pipelines": definitions})
