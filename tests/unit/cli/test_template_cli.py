"""From raws to a difference: quick look, kept images, `rapid template build`, and a worker that subtracts them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from payloads.difference import store
from rapid.cli import app
from rapid.dispatch.models import BatchKey, Job, Priority
from rapid.errors import ConfigurationError
from rapid.pipeline.store import load_pipeline
from rapid.results.store import open_results
from rapid.worker.child import ChildWorker
from rapid.worker.messages import ChildSettings, Preload
from replay import render
from tests.truth.observatory import DETECTOR, FILTER, make_observatory

pytestmark = pytest.mark.timeout(900)
"""Compiling the loops anew takes a minute of a core, and more beside other work."""

RUNNER = CliRunner()
NEW = (400.3, 620.8, 19.6)
"""x, y [px] and magnitude of what is in the last exposure only."""
SITE = """
pipelines:
  - name: kept
    version: "1"
    description: The quick look, with its image.
    steps:
      - payload: isr
      - payload: quality
      - payload: keep_calibrated
"""


def rapid(*arguments, code=0):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


class Night:
    """Exposures of one field, and a worker that processes them."""

    def __init__(self, folder, monkeypatch) -> None:
        monkeypatch.setenv("RAPID_TEMPLATES", "")
        (folder / "pipelines").mkdir()
        (folder / "pipelines/site.yaml").write_text(SITE)
        monkeypatch.setenv("RAPID_PIPELINE_PATH", str(folder / "pipelines"))
        self.folder, self.templates = folder, folder / "templates"
        self.observatory = make_observatory(folder, monkeypatch)
        self.exposures = self.observatory.plan(
            {"kind": "science", "n": 4, "physical_filter": FILTER}, stars_per_detector=120, first_seq_num=5
        )
        self.results = open_results(str(folder / "results.sqlite"))
        self.worker = ChildWorker(
            ChildSettings(
                results_url=str(folder / "results.sqlite"),
                products_url=str(folder / "products"),
                calibs_path=folder / "calibs",
                templates=self.templates,
            )
        )

    def process(self, exposure, pipeline):
        path = self.folder / f"{exposure.obs_id}_R22_S11.fits"
        path.write_bytes(self.observatory.take(exposure)[0])
        job = Job(
            job_id=f"prompt/{exposure.exposure_id}/{pipeline}/{DETECTOR}",
            batch=BatchKey(run="prompt", exposure_id=exposure.exposure_id, pipeline=pipeline),
            detector=DETECTOR,
            raw_uri=str(path),
            camera="TruthCam",
            image_type="science",
            priority=Priority.CURRENT,
            attempt=1,
            token=1,
            lease_ms=10_000,
            time_limit_ms=60_000,
            posted_ms=0,
            claimed_ms=0,
        )
        result = self.worker.run_job(job).result
        self.results.put_result(result)
        return result

    def ids(self, first, last):
        return f"{self.exposures[first].exposure_id}-{self.exposures[last].exposure_id}"

    def build(self, *arguments, code=0):
        where = ["--templates", self.templates, "--camera", "TruthCam", "--data", self.folder]
        return rapid("template", "build", *arguments, *where, code=code)

    def close(self) -> None:
        self.results.close()
        self.worker.results.close()


@pytest.fixture
def night(tmp_path, monkeypatch):
    found = Night(tmp_path, monkeypatch)
    yield found
    found.close()


def with_something_new(monkeypatch):
    """Let the sky have one star more from now on."""
    before = render.catalogue

    def catalogue(*arguments):
        stars = before(*arguments)
        return tuple(np.append(column, value) for column, value in zip(stars, NEW, strict=True))

    monkeypatch.setattr(render, "catalogue", catalogue)


def noted_reads(monkeypatch):
    """Return a list that the files of templates are put into as they are read."""
    seen = []
    read = store.read_template
    monkeypatch.setattr(store, "read_template", lambda path: (seen.append(path), read(path))[1])
    return seen


def test_a_night_becomes_templates_and_the_next_exposure_shows_what_is_new(night, monkeypatch) -> None:
    for exposure in night.exposures[:3]:
        assert "calibrated" in night.process(exposure, "kept").products
    said = night.build("-e", night.ids(0, 2))
    assert "3 exposures" in said
    assert "of them new" in said
    assert "as it was" in night.build("-e", night.ids(0, 2), "--detectors", "R22_S11", "--band", "r")
    with_something_new(monkeypatch)
    payload = night.worker.runner.payloads_of(load_pipeline("difference"))[-1]
    reads = noted_reads(monkeypatch)
    sky = (night.exposures[3].ra_deg, night.exposures[3].dec_deg)
    announced = Preload(group_id="g", camera="TruthCam", detector=DETECTOR, filters=(FILTER,), sky=sky)
    assert not night.worker.preloads.take(announced)
    n_read = len(reads)
    assert n_read >= 1
    result = night.process(night.exposures[3], "difference")
    assert len(reads) == n_read  # all were in memory
    night.worker.preloads.take(Preload(group_id="g", is_release=True))
    assert payload.open_store().n_bytes == 0
    assert result.metrics["template_fraction"] > 0.9, result.metrics["difference_note"]
    assert result.metrics["template_n_exposures"] == 3
    assert "difference" in result.products
    table = json.loads(night.worker.products.get(result.products["difference_sources"]))
    away = np.hypot(np.array(table["x"]) - NEW[0], np.array(table["y"]) - NEW[1])
    assert away.min() < 1.0
    expected = 30.0 * night.exposures[3].transparency * 10 ** (0.4 * (render.ZERO_POINT - NEW[2]))
    assert table["flux_e"][int(away.argmin())] == pytest.approx(expected, rel=0.12)
    assert len(away) <= 4
    listed = json.loads(rapid("template", "list", "--templates", night.templates, "--json"))
    assert listed[0]["exposures"] == [exposure.exposure_id for exposure in night.exposures[:3]]
    assert f"{len(listed)} templates" in rapid("template", "list", "--templates", night.templates, "--band", "r")
    assert "0 templates" in rapid("template", "list", "--templates", night.templates, "--band", "g")


def test_what_is_missing_is_said(night, monkeypatch) -> None:
    night.process(night.exposures[0], "quicklook")
    said = night.build("-e", night.ids(0, 1), code=1)
    assert "keep_calibrated" in said
    assert "no result of it in run prompt" in said
    document = json.loads(night.build("-e", night.ids(0, 0), "--json", code=1))
    assert document["tiles"] == []
    assert document["left_out"][0]["detector_name"] == "R22_S11"
    with pytest.raises(ConfigurationError, match="max_exposures"):
        night.build("-e", night.ids(0, 1), "--min-exposures", 5, "--max-exposures", 4)
    monkeypatch.delenv("RAPID_TEMPLATES")
    with pytest.raises(ConfigurationError, match="RAPID_TEMPLATES"):
        rapid("template", "list")
