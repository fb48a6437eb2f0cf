"""A night through real processes: what was asked and changed is played too, and it is recorded as it was.

One system for all tests of this file: it takes the longest of all to start.
"""

import math
from datetime import UTC, datetime

import pytest

from rapid.results.control_log import ControlLog
from rapid.results.store import open_results
from replay.check import Tolerances, check
from replay.events import ControlEvent, ExclusionEvent, RawsEvent, RequestEvent, SidecarEvent
from replay.record import Recorder, save, see_stored
from replay.recording import PixelKind, read_recording
from replay.regenerate import Regenerator
from replay.system import SystemOptions, replay_night
from tests.replay.conftest import make_night

DAY = 2026112000000
FIRST, SECOND = DAY + 1, DAY + 2
# Long enough for the verdict on a raw that is cut off: summaries are made when all is settled.
SETTINGS = {"gather_timeout_s": 60.0, "regather_timeout_s": 60.0, "build_calibs": False, "backlog_age_s": 3600.0}


@pytest.fixture(scope="module")
def night(mini_camera):
    """Two exposures; a detector of the second is not read out, one is cut off, one is switched off."""
    asked = {"select": {"exposures": [FIRST]}, "pipeline": "quicklook", "reuse": False, "label": "again"}
    made = make_night(
        [{"kind": "science", "n": 2, "physical_filter": "r_57", "missing": {1: [90]}}],
        extra=[
            # Nothing is left for later, however fast the night goes.
            ControlEvent(at_s=0.0, change={"shedding": {"enabled": False}}, by="ann", door="cli", reason="no shedding"),
            ExclusionEvent(
                at_s=0.0, detector="R22_S22", reason="noisy", author="ann", valid_from=datetime(2026, 11, 1, tzinfo=UTC)
            ),
            ControlEvent(at_s=40.0, change={"timeouts": {"gather_s": 59.0}}, by="bob", door="cli", reason="sooner"),
            RequestEvent(at_s=90.0, request_id="9-9", spec=asked, by="ann", door="http"),
        ],
    )
    for place, event in enumerate(made.events):
        if isinstance(event, RawsEvent) and event.exposure == SECOND:
            made.events[place] = event.model_copy(update={"quarantined": {"R22_S01": "raw_truncated"}})
    return made


@pytest.fixture(scope="module")
def played(night, mini_camera, empty_folder):
    return replay_night(
        night, empty_folder, rate=math.inf, options=SystemOptions(n_workers=1, settings=SETTINGS), stall_s=150.0
    )


def by_exposure(recording):
    return {one.exposure: one for one in recording.summaries if one.run == "prompt"}


def test_the_night_comes_out_as_it_should(played, mini_camera):
    summaries = by_exposure(played)
    number = {name: mini_camera.by_name[name].id for name in ("R22_S01", "R22_S22")}
    assert summaries.keys() == {FIRST, SECOND}
    assert summaries[FIRST].not_finished == {"excluded": (number["R22_S22"],)}
    assert summaries[SECOND].not_finished == {
        "excluded": (number["R22_S22"],),
        "quarantined": (number["R22_S01"],),
    }
    assert (summaries[FIRST].n_finished, summaries[SECOND].n_finished) == (8, 6)
    assert all(summary.latency_s is not None for summary in summaries.values())


def test_every_invariant_was_looked_at_and_holds(played):
    assert set(played.manifest.invariants) == {f"I{n}" for n in range(1, 11)}
    assert {name: problems for name, problems in played.manifest.invariants.items() if problems} == {}


def test_control_changes_and_requests_were_played(played, empty_folder):
    results = open_results(str(empty_folder / "data" / "results.sqlite"))
    changes = ControlLog(results.engine).changes("MiniCam9")
    results.close()
    assert [(one.changed_by, one.door, one.reason) for one in changes] == [
        ("bob", "replay", "sooner"),
        ("ann", "replay", "no shedding"),
    ]
    (request,) = (event for event in played.events if isinstance(event, RequestEvent))
    assert request.ended == "done"
    assert {summary.run for summary in played.summaries} > {"prompt"}


@pytest.fixture(scope="module")
def recorded(played, mini_camera, empty_folder):
    """The system's night, recorded afterwards from its stores."""
    results = open_results(str(empty_folder / "data" / "results.sqlite"))
    seen = see_stored(str(empty_folder / "raws"), camera=mini_camera, day_obs=20261120)
    made = Recorder(mini_camera, results).record(seen)
    yield made, seen
    results.close()


def test_what_was_played_is_recorded_as_it_was(night, recorded):
    made, _ = recorded
    arrived = {event.exposure: set(event.detectors) for event in made.events if isinstance(event, RawsEvent)}
    assert arrived == {event.exposure: set(event.detectors) for event in night.events if isinstance(event, RawsEvent)}
    listed = {event.exposure: set(event.detectors) for event in made.events if isinstance(event, SidecarEvent)}
    assert listed == {event.exposure: set(event.detectors) for event in night.events if isinstance(event, SidecarEvent)}
    (spoilt,) = (event.quarantined for event in made.events if isinstance(event, RawsEvent) and event.quarantined)
    assert spoilt == {"R22_S01": "raw_truncated"}
    controls = [(event.by, event.change) for event in made.events if isinstance(event, ControlEvent)]
    # What was changed before the first raw came is the state that the night begins with.
    assert ("bob", {"timeouts": {"gather_s": 59.0}}) in controls
    assert controls[0] == ("ann", {"shedding": {"enabled": False}})
    (asked,) = (event for event in made.events if isinstance(event, RequestEvent))
    assert (asked.by, asked.ended, asked.spec["label"]) == ("ann", "done", "again")
    (off,) = (event for event in made.events if isinstance(event, ExclusionEvent))
    assert (off.detector, off.reason, off.author) == ("R22_S22", "noisy", "ann")


def test_headers_are_recorded_as_they_were(night, recorded):
    made, _ = recorded
    for exposure in (FIRST, SECOND):
        obs_id = night.exposures[exposure].obs_id
        for name in ("R22_S11", "R22_S21"):
            then = night.headers.header_of(exposure, obs_id, name)
            assert made.headers.header_of(exposure, obs_id, name) == then


def test_the_recording_has_the_same_results_as_the_night(played, recorded):
    made, _ = recorded
    # The clock of a recording is that of the stores: no loop was measured then.
    report = check(played, made, Tolerances(latency=None))
    assert report.is_good, report.findings
    assert report.n_values > 30


def test_kept_pixels_are_the_raws_themselves(recorded, mini_camera, empty_folder, tmp_path):
    made, seen = recorded
    save(made, seen, mini_camera, tmp_path / "night", pixels=PixelKind.RICE)
    again = Regenerator(read_recording(tmp_path / "night"), compress=False).raw(FIRST, "R22_S11")
    raw = next((empty_folder / "raws").rglob(f"*{FIRST % 100_000:06d}_R22_S11.fits"))
    from payloads.raw.segments import SegmentReader
    from rapid.exposure.fits_header import scan

    detector = mini_camera.by_name["R22_S11"]
    then = SegmentReader().read(scan(raw.read_bytes()), detector).pixels.copy()
    assert (SegmentReader().read(scan(again.data), detector).pixels == then).all()


def test_a_recording_without_pixels_is_small(recorded, mini_camera, tmp_path):
    made, seen = recorded
    save(made, seen, mini_camera, tmp_path / "night.zip")
    assert (tmp_path / "night.zip").stat().st_size < 20_000
