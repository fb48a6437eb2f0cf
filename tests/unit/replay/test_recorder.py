"""A night is recorded on its own clock, and an incident with what it waited for: from stores that were filled by hand."""

import os
from datetime import UTC, datetime

import pytest

from rapid.camera.store import load_camera
from rapid.control.models import ControlState
from rapid.dispatch.models import Event, EventKind
from rapid.errors import ConfigurationError
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.results.control_log import ControlChangeRecord, ControlLog
from rapid.results.models import (
    DetectorResult,
    DetectorState,
    DetectorStatus,
    ExposureSummary,
    GatherReason,
    Provenance,
)
from rapid.results.store import open_results
from replay.events import ControlEvent, RawsEvent
from replay.incident import record_incident, wait_again
from replay.plan import make_plan
from replay.record import NightNotes, Recorder
from replay.seen import SeenRaw
from replay.simulate import NightSimulator, directory_sink

CAMERA = load_camera("TestCam205")
EPOCH_S = 1_790_000_000.0
FIRST = 2026092100001


@pytest.fixture
def results(tmp_path):
    store = open_results(str(tmp_path / "results.sqlite"))
    yield store
    store.close()


def seen_raw(number: int, at_s: float) -> SeenRaw:
    exposure = FIRST + number
    info = ExposureInfo(
        camera="TestCam205",
        exposure_id=exposure,
        obs_id=f"TS_O_20260921_{number + 1:06d}",
        controller="O",
        day_obs=20260921,
        seq_num=number + 1,
        detector=94,
        detector_name="R22_S11",
        image_type=ImageType.SCIENCE,
        begin=datetime(2026, 9, 21, 22, number, tzinfo=UTC),
    )
    return SeenRaw(f"{exposure}.fits", exposure, "R22_S11", EPOCH_S + at_s, info, {"OBSID": info.obs_id})


def heard(ours_s: float, board_s: float) -> Event:
    ours_ms, board_ms = round((EPOCH_S + ours_s) * 1000), round((EPOCH_S + board_s) * 1000)
    return Event(event_id=f"{ours_ms}-0", kind=EventKind.JOB_FINISHED, at_ms=board_ms)


def gathered(exposure: int, *, at_s: float, pipeline: str = "quicklook", version: int = 1, **more) -> ExposureSummary:
    return ExposureSummary(
        camera="TestCam205",
        exposure=exposure,
        day_obs=20260921,
        seq_num=exposure % 100_000,
        pipeline=pipeline,
        image_type="bias",
        version=version,
        reason=GatherReason.COMPLETE,
        n_finished=1,
        n_expected=1,
        is_complete=True,
        detectors={94: DetectorStatus(state=DetectorState.FINISHED)},
        gathered_at=datetime.fromtimestamp(at_s, UTC),
        **more,
    )


def change(results, version: int, board_s: float, **fields) -> None:
    state = ControlState.model_validate(fields).model_dump(mode="json")
    ControlLog(results.engine).put(
        [
            ControlChangeRecord(
                camera="TestCam205",
                version=version,
                changed_ms=round((EPOCH_S + board_s) * 1000),
                changed_by="ann",
                door="cli",
                change={},
                state=state,
            )
        ]
    )


def night_of(*at_s: float) -> NightNotes:
    notes = NightNotes()
    for number, one in enumerate(at_s):
        notes.take(seen_raw(number, one))
    return notes


def test_a_night_played_ten_times_as_fast_is_recorded_at_its_own_pace(results):
    notes = night_of(1.0, 4.0, 7.0)
    # Ten times as fast from the beginning on.
    notes.hear(heard(at_s / 2, at_s * 5) for at_s in range(20))
    change(results, 1, 25.0, pattern="ccd_checkerboard")  # 2.5 s of ours, between the first and the second raw
    made = Recorder(CAMERA, results).record(notes)
    raws = [event.at_s for event in made.events if isinstance(event, RawsEvent)]
    assert raws == pytest.approx([0.0, 30.0, 60.0], abs=0.05)
    (control,) = (event for event in made.events if isinstance(event, ControlEvent))
    assert control.at_s == pytest.approx(15.0, abs=0.05)
    assert made.manifest.duration_s == pytest.approx(60.0, abs=0.05)


def test_a_night_without_a_board_is_recorded_by_our_clock(results):
    change(results, 1, 2.0, pattern="ccd_checkerboard")
    made = Recorder(CAMERA, results).record(night_of(1.0, 4.0))
    assert [event.at_s for event in made.events] == [0.0, 1.0, 3.0]


def test_a_change_that_was_in_force_before_it_was_made_tells_of_a_moved_clock(results):
    change(results, 1, 500.0, pattern="ccd_checkerboard")
    results.put_summary(gathered(FIRST, at_s=EPOCH_S + 6.0, control={"version": 1}))
    with pytest.raises(ConfigurationError, match=r"the board's clock was not ours.*--redis"):
        Recorder(CAMERA, results).record(night_of(1.0, 4.0))


def test_a_moved_clock_of_which_the_beginning_is_forgotten_is_refused(results):
    notes = night_of(1.0, 4.0)
    notes.hear([heard(400.0, 4000.0), heard(401.0, 4010.0)])
    with pytest.raises(ConfigurationError, match=r"goes back to .* only"):
        Recorder(CAMERA, results).record(notes)


# ---- incidents


@pytest.fixture(scope="module")
def raws(tmp_path_factory):
    """Four exposures of one CCD; when they came, `came` says."""
    folder = tmp_path_factory.mktemp("night")
    plan = make_plan(
        {
            "camera": "TestCam205",
            "day_obs": 20260921,
            "seed": 2,
            "detectors": [94],
            "blocks": [{"kind": "bias", "n": 4}],
        }
    )
    simulator = NightSimulator(plan, directory_sink(folder / "raws"), truth_dir=folder / "truth")
    try:
        for exposure in simulator.exposures:
            list(simulator.take(exposure))
    finally:
        simulator.close()
    return folder / "raws"


def came(raws, *at_s: float) -> None:
    for path, one in zip(sorted(raws.rglob("*.fits")), at_s, strict=True):
        os.utime(path, (EPOCH_S + one, EPOCH_S + one))


def ended(results, number: int, begin_s: float, end_s: float, run: str = "prompt") -> None:
    """Keep the result of a job that ran from one moment to another, and the summary."""
    finished_at = datetime.fromtimestamp(EPOCH_S + end_s, UTC)
    results.put_result(
        DetectorResult(
            camera="TestCam205",
            run=run,
            exposure=FIRST + number,
            day_obs=20260921,
            seq_num=number + 1,
            detector=94,
            detector_name="R22_S11",
            image_type="bias",
            pipeline="bias",
            timings={"total_s": end_s - begin_s, "isr_s": (end_s - begin_s) / 2},
            provenance=Provenance(
                software_version="1",
                pipeline="bias",
                pipeline_version="1",
                config_hash="",
                payloads={},
                raw="",
                raw_sha256="",
            ),
            finished_at=finished_at,
        )
    )
    results.put_summary(gathered(FIRST + number, at_s=EPOCH_S + end_s + 0.1, pipeline="bias", run=run))


def failed(results, job_id: str) -> None:
    """Keep a dead letter."""
    _, exposure, pipeline, detector = job_id.split(".")
    results.put_failure(
        job_id=job_id,
        camera="TestCam205",
        exposure=int(exposure),
        detector=int(detector),
        pipeline=pipeline,
        attempts=1,
        error={"code": "payload_failed", "message": "no stars"},
        failed_at=datetime.fromtimestamp(EPOCH_S, UTC),
    )


def record(results, raws, number: int, **more):
    made, _ = record_incident(str(FIRST + number), camera=CAMERA, results=results, raws=str(raws), **more)
    return made


@pytest.fixture
def one_worker(results, raws):
    """Three exposures at once for one worker, newest first; and one long before."""
    came(raws, -500.0, 0.0, 0.2, 0.4)
    ended(results, 0, -500.0, -495.0)
    ended(results, 1, 10.0, 15.0)
    ended(results, 2, 5.0, 10.0)
    ended(results, 3, 0.5, 5.0)
    return results


def test_an_incident_takes_along_what_it_waited_for(one_worker, raws):
    made = record(one_worker, raws, 1)
    wait = made.manifest.incident.wait
    assert wait is not None
    assert wait.others == (FIRST + 2, FIRST + 3)
    assert wait.n_workers == made.manifest.system.n_workers == 1
    assert (wait.took_s, wait.alone_s) == (15.0, 5.0)
    assert made.manifest.system.max_open == 3
    raws_at_s = [event.at_s for event in made.events if isinstance(event, RawsEvent)]
    assert raws_at_s == pytest.approx([0.0, 0.2, 0.4], abs=0.002)
    assert "it waited for 2 other exposures" in made.manifest.story
    # Of the others it matters that they are there, not what came of them.
    assert {table.exposure for table in made.results} == {FIRST + 1}
    assert {one.exposure for one in made.summaries} == {FIRST + 1, FIRST + 2, FIRST + 3}


def test_an_incident_that_waited_can_be_recorded_alone(one_worker, raws):
    made = record(one_worker, raws, 1, alone=True)
    assert made.n_raws == 1
    assert made.manifest.incident.wait is None


def test_an_exposure_that_was_taken_first_waited_for_nothing(one_worker, raws):
    made = record(one_worker, raws, 3)
    assert made.n_raws == 1
    assert made.manifest.incident.wait is None


def test_an_exposure_that_is_slow_by_itself_is_recorded_alone(results, raws):
    came(raws, -500.0, 0.0, 0.2, 0.4)
    ended(results, 1, 0.5, 60.0)
    ended(results, 2, 1.0, 2.0)
    made = record(results, raws, 1)
    assert made.n_raws == 1
    assert made.manifest.incident.wait is None


def test_what_a_campaign_did_a_day_later_is_no_part_of_it(results, raws):
    came(raws, -500.0, 0.0, 0.2, 0.4)
    ended(results, 1, 0.5, 2.0)
    ended(results, 1, 86_400.0, 86_500.0, run="deep")
    ended(results, 2, 86_300.0, 86_400.0, run="deep")
    failed(results, f"deep.{FIRST + 1}.bias.094")
    made = record(results, raws, 1)
    assert made.manifest.incident.wait is None
    assert made.manifest.incident.slowest[0].total_s == 1.5
    assert {one.run for one in (*made.results, *made.summaries)} == {"prompt"}
    assert made.manifest.incident.errors == []


def test_an_exposures_own_dead_letters_are_part_of_it(results, raws):
    came(raws, -500.0, 0.0, 0.2, 0.4)
    failed(results, f"prompt.{FIRST + 1}.bias.094")
    (error,) = record(results, raws, 1).manifest.incident.errors
    assert error["job_id"] == f"prompt.{FIRST + 1}.bias.094"


def test_an_incident_begins_with_the_control_state_of_its_own_summary(results, raws):
    came(raws, -500.0, 0.0, 0.2, 0.4)
    ended(results, 1, 0.5, 2.0)
    change(results, 1, 9000.0, pattern="ccd_checkerboard")  # on a clock that was moved
    change(results, 2, 9500.0, pattern="raft_checkerboard")
    results.put_summary(gathered(FIRST + 1, at_s=EPOCH_S + 2.5, pipeline="bias", version=2, control={"version": 1}))
    made = record(results, raws, 1)
    (control,) = (event for event in made.events if isinstance(event, ControlEvent))
    assert (control.at_s, control.change) == (0.0, {"pattern": "ccd_checkerboard"})


def test_a_replay_of_an_incident_tells_how_long_it_took_this_time(one_worker, raws):
    was = record(one_worker, raws, 1).manifest.incident.wait
    again = wait_again(was, one_worker.results(FIRST + 2, camera="TestCam205"), EPOCH_S + 1.0)
    assert (again.took_s, again.alone_s, again.others) == (9.0, 5.0, was.others)
    # Nothing of it came out.
    assert wait_again(was, [], EPOCH_S + 1.0).took_s == 0.0
