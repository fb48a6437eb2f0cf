"""What failed, or took long, becomes a night in which it does so again, on a system that knows nothing of it."""

import dataclasses
import json
import math
import os
import threading
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from payloads.plugin import PayloadConfig
from rapid.errors import ConfigurationError, PayloadError
from rapid.results.store import open_results
from replay.check import Kind, check
from replay.cli import replay_app
from replay.events import RawsEvent, RequestEvent, SidecarEvent
from replay.pytest_plugin import play_night
from replay.recording import PixelKind, read_recording
from replay.subject import parse_subject
from replay.system import SystemOptions, replay_night

EXPOSURE = 2026112000001
TAKES_S = 1.5


class Fragile:
    """Breaks on what is in one raw, a pixel that no other raw has; takes long over another."""

    name: ClassVar[str] = "fragile"
    version: ClassVar[str] = "1"

    class Config(PayloadConfig):
        brightest_adu: float
        slow_adu: float = -1.0

    def __init__(self, config):
        self.config = config

    def run(self, frame):
        brightest = float(np.max(frame.image))
        frame.metrics["brightest_adu"] = brightest
        if brightest == self.config.brightest_adu:
            raise PayloadError("a pixel like no other")
        if brightest == self.config.slow_adu:
            threading.Event().wait(TAKES_S)


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
        ((exposure, slow), slow_adu), ((_, detector), value) = sorted(brightest.items(), key=lambda item: item[1])[-2:]
        config = {"brightest_adu": value, "slow_adu": slow_adu}
        night = play_night(folder / "night", monkeypatch, **options, config=config)
        assert [row["detector"] for row in night.failures] == [detector]
        night.brightest_adu = value
        yield night, f"prompt.{exposure}.night_fragile.{detector:03d}", (detector, slow)


def record(night, out, subject, *more):
    arguments = ["incident", subject, "--camera", str(night.folder / "MiniCam9.yaml")]
    arguments += ["--data", str(night.folder / "data"), "--raws", str(night.folder / "raws"), "--out", str(out), *more]
    return CliRunner().invoke(replay_app, arguments)


def test_a_dead_letter_is_replayed_and_fails_again_on_the_same_raw(broken_night, tmp_path):
    night, job, (detector, _) = broken_night
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


def test_a_slow_exposure_is_replayed_and_is_slow_again_in_the_same_place(broken_night, tmp_path):
    night, _, (_, slow) = broken_night
    name = night.recording.camera().by_id[slow].name
    result = record(night, tmp_path / "slow", str(EXPOSURE), "--with-raw")
    assert result.exit_code == 0, result.output
    assert f"Its slowest job, {name} under night_fragile" in " ".join(result.output.split())
    made = read_recording(tmp_path / "slow")
    then = made.manifest.incident.slowest[0]
    assert (then.detector, then.step) == (name, "fragile")
    assert then.step_s >= TAKES_S
    options = {"system": tmp_path / "system", "out": tmp_path / "again", "control": tmp_path / "control.sock"}
    given = [word for name, path in options.items() for word in (f"--{name}", str(path))]
    played = CliRunner().invoke(
        replay_app, ["play", str(tmp_path / "slow"), "--speed", "max", "--workers", "1", *given]
    )
    assert played.exit_code == 0, played.output
    assert f"{name} under night_fragile took" in played.output
    found = read_recording(tmp_path / "again")
    now = found.manifest.incident.slowest[0]
    assert (now.detector, now.step) == (name, "fragile")
    assert now.step_s >= TAKES_S
    report = check(made, found)
    assert report.is_good, report.findings


BOOK = """
pipelines:
  - name: mild
    version: "1"
    description: What is done at once goes well, what comes after breaks.
    steps: [{{payload: assemble}}]
    afterburner: [{{payload: fragile, config: {{brightest_adu: {brightest_adu}}}}}]
rules: [{{pipeline: mild, image_types: [science]}}]
"""


@pytest.fixture(scope="module")
def asked_night(broken_night, tmp_path_factory):
    """A night of one image in which an afterburner fails on one detector, and a request, by its settings, on another."""
    before, _, (detector, other) = broken_night
    brightest = {number: value for (_, number), value in before.metric("brightest_adu").items()}
    folder = tmp_path_factory.mktemp("asked")
    (folder / "book").mkdir()
    value = before.brightest_adu
    (folder / "book" / "book.yaml").write_text(BOOK.format(brightest_adu=value))
    asked = {
        "select": {"exposures": [EXPOSURE]},
        "pipeline": "night_fragile",
        "config": {"fragile": {"brightest_adu": brightest[other], "slow_adu": -1.0}},
        "label": "a try",
    }
    request = RequestEvent(at_s=40.0, request_id="1-1", spec=asked, by="ann")
    night = before.recording
    night = dataclasses.replace(night, events=[*night.events, request], results=[], summaries=[])
    with pytest.MonkeyPatch.context() as monkeypatch:
        books = os.pathsep.join((str(folder / "book"), os.environ["RAPID_PIPELINE_PATH"]))
        monkeypatch.setenv("RAPID_PIPELINE_PATH", books)
        found = replay_night(night, folder / "system", options=SystemOptions(n_workers=1), stall_s=120.0)
        results = open_results(str(folder / "system" / "data" / "results.sqlite"))
        letters = {row["pipeline"]: row["job_id"] for row in results.failures("MiniCam9")}
        results.close()
        assert {name: problems for name, problems in found.manifest.invariants.items() if problems} == {}
        assert letters.keys() == {"mild_after", "night_fragile"}
        yield found, folder / "system", letters, (detector, other)


@pytest.mark.parametrize("pipeline", ["mild_after", "night_fragile"])
def test_a_dead_letter_of_an_afterburner_or_a_request_fails_again(asked_night, tmp_path, pipeline):
    _, folder, letters, detectors = asked_night
    arguments = ["incident", letters[pipeline], "--camera", "MiniCam9", "--data", str(folder / "data")]
    arguments += ["--raws", str(folder / "raws"), "--out", str(tmp_path / "bug"), "--with-raw"]
    result = CliRunner().invoke(replay_app, arguments)
    assert result.exit_code == 0, result.output
    made = read_recording(tmp_path / "bug")
    assert made.n_raws == 1
    assert len(made.manifest.incident.errors) == 1
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Where it is replayed nobody knows the pipelines of the night.
        elsewhere = os.environ["RAPID_PIPELINE_PATH"].split(os.pathsep)[1:]
        monkeypatch.setenv("RAPID_PIPELINE_PATH", os.pathsep.join(elsewhere if pipeline == "mild_after" else []))
        found = replay_night(made, tmp_path / "system", options=SystemOptions(n_workers=1), stall_s=120.0)
    (error,) = found.manifest.incident.errors
    detector = detectors[pipeline == "night_fragile"]
    assert error["job_id"].endswith(f".{EXPOSURE}.{pipeline}.{detector:03d}")
    assert error["code"] == "payload_failed"
    report = check(made, found)
    assert report.is_good, report.findings
    mended = found.with_manifest(incident=found.manifest.incident.model_copy(update={"errors": []}).model_dump())
    assert [finding.kind for finding in check(made, mended).findings] == [Kind.FAILURE]


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
