"""A job that failed becomes a night that fails again: by its id, with the raw, on a system that knows nothing of it."""

import json
import math
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from payloads.plugin import PayloadConfig
from rapid.errors import ConfigurationError, PayloadError
from replay.check import check
from replay.cli import replay_app
from replay.events import RawsEvent, SidecarEvent
from replay.incident import parse_subject
from replay.pytest_plugin import play_night
from replay.recording import PixelKind, read_recording
from replay.system import SystemOptions, replay_night

EXPOSURE = 2026112000001


class Fragile:
    """Breaks on what is in one raw: a pixel that no other raw has."""

    name: ClassVar[str] = "fragile"
    version: ClassVar[str] = "1"

    class Config(PayloadConfig):
        brightest_adu: float

    def __init__(self, config):
        self.config = config

    def run(self, frame):
        brightest = float(np.max(frame.image))
        frame.metrics["brightest_adu"] = brightest
        if brightest == self.config.brightest_adu:
            raise PayloadError("a pixel like no other")


@pytest.fixture(scope="module")
def broken_night(tmp_path_factory):
    """A night of one image with a detector that fails, for what is in its pixels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in ("RAPID_CAMERA_PATH", "RAPID_PIPELINE_PATH"):
            monkeypatch.setenv(variable, "")
        folder = tmp_path_factory.mktemp("incident")
        options = {"plan": None, "recording": None, "camera": None, "exposures": 1, "payload": Fragile}
        options |= {"after": ("assemble",), "workers": 1, "rate": math.inf, "seed": 5, "stall_s": 120.0, "strict": True}
        options |= {"settings": {"build_calibs": False, "gather_timeout_s": 60.0, "regather_timeout_s": 60.0}}
        # First see what the pixels are, then break on those of one CCD.
        with pytest.MonkeyPatch.context() as once:
            seen = play_night(folder / "first", once, **options, config={"brightest_adu": -1.0})
        brightest = seen.metric("brightest_adu")
        assert len(set(brightest.values())) == len(brightest) == 9
        (exposure, detector), value = max(brightest.items(), key=lambda item: item[1])
        night = play_night(folder / "night", monkeypatch, **options, config={"brightest_adu": value})
        assert [row["detector"] for row in night.failures] == [detector]
        yield night, f"prompt.{exposure}.night_fragile.{detector:03d}", detector


def record(night, out, subject, *more):
    arguments = ["incident", subject, "--camera", str(night.folder / "MiniCam9.yaml")]
    arguments += ["--data", str(night.folder / "data"), "--raws", str(night.folder / "raws"), "--out", str(out), *more]
    return CliRunner().invoke(replay_app, arguments)


def test_a_dead_letter_is_replayed_and_fails_again_on_the_same_raw(broken_night, tmp_path):
    night, job, detector = broken_night
    result = record(night, tmp_path / "bug", job, "--with-raw")
    assert result.exit_code == 0, result.output
    assert "a pixel like no other" in result.output
    made = read_recording(tmp_path / "bug")
    assert made.n_raws == 1
    assert made.manifest.pixels is PixelKind.RICE
    assert [event.kind for event in made.events if isinstance(event, RawsEvent | SidecarEvent)] == [
        "expected_sensors",
        "raws",
    ]
    (error,) = made.manifest.incident.errors
    assert (error["job_id"], error["code"]) == (job, "payload_failed")
    (summary,) = made.summaries
    assert summary.not_finished == {"failed": (detector,)}
    found = replay_night(made, tmp_path / "system", options=SystemOptions(n_workers=1), stall_s=120.0)
    report = check(made, found)
    assert report.is_good, report.findings
    assert found.summaries[0].not_finished == {"failed": (detector,)}


def test_a_slow_exposure_is_recorded_whole_without_pixels(broken_night, tmp_path):
    night, _, _ = broken_night
    result = record(night, tmp_path / "slow.zip", str(EXPOSURE))
    assert result.exit_code == 0, result.output
    made = read_recording(tmp_path / "slow.zip")
    assert made.n_raws == 9
    assert made.manifest.incident.pipeline == "night_fragile"
    assert "night_fragile" in made.manifest.system.pipelines
    assert (tmp_path / "slow.zip").stat().st_size < 20_000


@pytest.mark.parametrize(
    ("subject", "complaint"),
    [
        pytest.param("prompt.2026112000009.quicklook.094", "knows nothing of it", id="an exposure that never was"),
        pytest.param("prompt.2026112000001.quicklook.900", "no", id="a detector that is none"),
        pytest.param("yesterday", "neither an exposure", id="words"),
        pytest.param("prompt.2026112000001.quicklook.abc", "no detector number", id="letters for a number"),
    ],
)
def test_an_incident_that_is_none_is_refused(broken_night, tmp_path, subject, complaint):
    night, _, _ = broken_night
    result = record(night, tmp_path / "none", subject)
    assert result.exit_code != 0
    assert complaint in result.output + str(result.exception)
    assert not (tmp_path / "none").exists()


def test_what_an_incident_is_about_is_read_from_its_name():
    job = parse_subject("prompt.2026112000001.quicklook.094")
    assert (job.exposure, job.pipeline, job.detector) == (EXPOSURE, "quicklook", 94)
    gather = parse_subject("prompt.2026112000001.quicklook.gather")
    assert (gather.pipeline, gather.detector) == ("quicklook", None)
    assert parse_subject("prompt.2026112000001.quicklook").detector is None
    assert parse_subject(json.dumps(EXPOSURE)).pipeline is None
    with pytest.raises(ConfigurationError):
        parse_subject("prompt.quicklook")
