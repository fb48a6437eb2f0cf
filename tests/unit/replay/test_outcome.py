"""What became of an exposure, when a job failed after its last summary."""

from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from rapid.errors import ConfigurationError
from rapid.results.models import DetectorState, DetectorStatus, ExposureSummary
from replay.cli import replay_app
from replay.outcome import summary_facts
from replay.plan import make_plan
from replay.planned import recording_of_plan
from replay.recording import write_recording

EXPOSURE = 2026112000001


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(DetectorState.RUNNING, {"failed": (4,)}, id="running when it was gathered"),
        pytest.param(DetectorState.FINISHED, {}, id="tried again with success"),
        pytest.param(DetectorState.EXCLUDED, {"excluded": (4,)}, id="switched off since"),
    ],
)
def test_a_job_that_failed_after_the_last_summary_has_failed(state, expected):
    summary = make_summary(state)
    (facts,) = summary_facts([summary], failed={("prompt", "quicklook", 4)})
    assert facts.not_finished == expected


def test_a_job_of_another_pipeline_that_failed_is_another():
    (facts,) = summary_facts([make_summary(DetectorState.RUNNING)], failed={("prompt", "other", 4)})
    assert facts.not_finished == {"running": (4,)}


def make_summary(state: DetectorState) -> ExposureSummary:
    return ExposureSummary.model_construct(
        exposure=EXPOSURE,
        run="prompt",
        pipeline="quicklook",
        image_type="science",
        version=1,
        n_finished=0,
        n_expected=1,
        is_complete=False,
        detectors={4: DetectorStatus(state=state)},
        metrics={},
        control={},
        gathered_at=datetime(2026, 11, 20, tzinfo=UTC),
    )


@pytest.mark.parametrize("options", [["--straight"], ["--out", "x.zip"], ["--workers", "2"]], ids=lambda one: one[0])
def test_options_of_a_system_of_its_own_are_refused_without_one(tmp_path, options):
    plan = make_plan({"camera": "LSSTComCam", "day_obs": 20261120, "blocks": [{"kind": "bias", "n": 1}]})
    write_recording(recording_of_plan(plan), tmp_path / "n.zip")
    ended = CliRunner().invoke(replay_app, ["play", str(tmp_path / "n.zip"), "--to", str(tmp_path / "raws"), *options])
    assert isinstance(ended.exception, ConfigurationError)
    assert ended.exception.field == options[0].removeprefix("--")
    assert not (tmp_path / "raws").exists()
