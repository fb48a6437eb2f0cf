"""The nights that are checked in: a story in YAML each, the recording made of it, and what should come of it.

``replay/nights/stories/NAME.yaml`` tells the story; ``replay/nights/NAME/`` is the recording, without pixels, with the results
that the night gave when it was last made, and ``tolerances.yaml``, what a replay may be off by. After a story, or what the
system should make of it, was changed on purpose::

    python -m replay.nightbook clean bad_flat

plays the nights anew and writes both; the difference is for a person to read.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rapid.errors import ConfigurationError
from rapid.wiring.camera import adopt_camera
from replay.check import Tolerances
from replay.events import EVENT, NightEvent
from replay.faults import AWAIT, Await, fault_event, parse_fault
from replay.plan import NightPlan
from replay.planned import recording_of_plan
from replay.recording import NightSystem, Recording, read_recording, write_recording
from replay.system import replay_night

NIGHTS = Path(__file__).parent / "nights"
STORIES = NIGHTS / "stories"
TOLERANCES = "tolerances.yaml"

LIGHT = """\
pipelines:
  - {name: quicklook, version: light, description: Assemble only., steps: [{payload: assemble}]}
  - {name: donut, version: light, description: Assemble only., steps: [{payload: assemble}]}
"""
"""For nights in which the science is not the point: no kernel to compile, no image to measure."""


class Story(BaseModel):
    """A night as it is told."""

    model_config = ConfigDict(extra="forbid")

    title: str
    story: str
    camera_yaml: str = ""
    plan: dict[str, Any]
    light: bool = Field(default=False, description="Run sky images through pipelines that only assemble.")
    system: NightSystem = NightSystem()
    events: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Beside the raws: control changes, requests, exclusions, faults; at_s, or before_exposure and after_raws.",
    )
    tolerances: dict[str, Any] = Field(default_factory=dict)


def story_names() -> list[str]:
    """Return the names of the nights that are checked in."""
    return sorted(path.parent.name for path in NIGHTS.glob("*/recording.json"))


def read_story(path: Path) -> Story:
    """Read a story.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a story that is not valid.
    """
    try:
        return Story.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError("story", f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError("story", f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(".".join(str(part) for part in first["loc"]) or "story", first["msg"]) from error


def record_story(story: Story, folder: Path) -> Recording:
    """Return the recording of a story, without results.

    Parameters
    ----------
    folder
        For the definition of its camera.
    """
    if story.camera_yaml:
        name = yaml.safe_load(story.camera_yaml)["name"]
        path = folder / f"{name}.yaml"
        path.write_text(story.camera_yaml, encoding="utf-8")
        adopt_camera(str(path))
    extra = [_event(facts) for facts in story.events]
    night = recording_of_plan(
        NightPlan.model_validate(story.plan), title=story.title, story=story.story.strip(), extra=extra
    )
    system = story.system.model_copy(update={"pipelines": LIGHT}) if story.light else story.system
    return night.with_manifest(camera_yaml=story.camera_yaml, system=system.model_dump())


def _event(facts: dict[str, Any]) -> NightEvent:
    """Read an event; ``fault`` and ``await`` are said in short."""
    at_s = float(facts["at_s"])
    if "fault" in facts:
        return fault_event(at_s, parse_fault(facts["fault"]))
    if facts.get("kind") == AWAIT:
        return fault_event(at_s, Await.model_validate({k: v for k, v in facts.items() if k != "at_s"}))
    return EVENT.validate_python(facts)


def remake(name: str) -> Recording:
    """Play a night as its story is told now, and keep the recording and what came of it."""
    story = read_story(STORIES / f"{name}.yaml")
    tolerances = Tolerances.model_validate(story.tolerances)
    with tempfile.TemporaryDirectory(prefix="rapid-night-") as scratch:
        folder = Path(scratch)
        night = record_story(story, folder)
        found = replay_night(night, folder / "system")
    night.results, night.summaries = found.results, found.summaries
    # How requests ended is part of what should be.
    night.events = found.events
    night = night.with_manifest(invariants=found.manifest.invariants, loop_s=found.manifest.loop_s)
    write_recording(night, NIGHTS / name, overwrite=True)
    (NIGHTS / name / TOLERANCES).write_text(
        yaml.safe_dump(tolerances.model_dump(mode="json", exclude_unset=True), sort_keys=False), encoding="utf-8"
    )
    return read_recording(NIGHTS / name)


def main() -> int:
    """Remake nights; status 1 if one of them breaks an invariant."""
    parser = argparse.ArgumentParser(
        prog="python -m replay.nightbook", description=__doc__.splitlines()[0] if __doc__ else None
    )
    known = sorted(path.stem for path in STORIES.glob("*.yaml"))
    parser.add_argument("names", nargs="*", default=known, help=", ".join(known))
    status = 0
    for name in parser.parse_args().names:
        night = remake(name)
        n_complete = sum(summary.is_complete for summary in night.summaries)
        sys.stdout.write(f"{name}: {n_complete} of {len(night.summaries)} summaries complete\n")
        for invariant, problems in night.manifest.invariants.items():
            for problem in problems:
                status = 1
                sys.stdout.write(f"  {invariant}: {problem}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
