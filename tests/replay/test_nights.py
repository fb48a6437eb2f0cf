"""Every night that is checked in comes out as it did: its story, its faults, its results."""

import pytest

from replay.check import check, load_tolerances
from replay.events import FaultEvent
from replay.nightbook import NIGHTS, STORIES, TOLERANCES, read_story, record_story, story_names
from replay.recording import read_recording
from replay.report import render_text
from replay.system import replay_night

NAMES = ["bad_flat", "clean", "cloudy", "late_detectors", "ocs_session", "redis_outage", "worker_massacre"]


def test_the_nights_are_all_there_and_each_has_its_story():
    assert story_names() == NAMES
    assert sorted(path.stem for path in STORIES.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_night_is_recorded_as_its_story_is_told(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RAPID_CAMERA_PATH", "")
    night = read_recording(NIGHTS / name)
    told = record_story(read_story(STORIES / f"{name}.yaml"), tmp_path)
    assert len(night.manifest.story) > 100
    assert night.manifest.system == told.manifest.system
    assert night.exposures == told.exposures
    # What became of a request, no story tells.
    untold = {"ended": "", "run": ""}
    asked = [event.model_copy(update=untold) if event.kind == "request" else event for event in night.events]
    assert asked == told.events
    assert sum(path.stat().st_size for path in (NIGHTS / name).iterdir()) < 100_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_night_comes_out_as_it_did(name, tmp_path, monkeypatch):
    for variable in ("RAPID_CAMERA_PATH", "RAPID_PIPELINE_PATH"):
        monkeypatch.setenv(variable, "")
    night = read_recording(NIGHTS / name)
    found = replay_night(night, tmp_path / "system")
    report = check(night, found, load_tolerances(NIGHTS / name / TOLERANCES))
    assert report.is_good, render_text(report)
    assert report.n_values > 0
    # Each invariant was looked at; of workers that were killed on purpose one does not ask whether they were.
    has_faults = any(isinstance(event, FaultEvent) for event in night.events)
    assert report.invariants.keys() >= {f"I{n}" for n in (1, 2, 3, 4, 5, 6, 8, 9, 10)} | (
        set() if has_faults else {"I7"}
    )
