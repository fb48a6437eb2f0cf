"""PipelineTasks of the observatory's middleware, run on our image; results as of any payload."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from payloads.lsst_pipeline.payload import LsstPipeline, LsstPipelineConfig
from payloads.lsst_pipeline.repository import open_repository
from payloads.plugin import Frame
from rapid.camera.store import load_camera
from rapid.errors import PayloadError
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.pipeline.store import PACKAGED, load_book, load_pipeline
from rapid.worker.run import PipelineRunner, RawInput
from tests.plugins import pipeline_tasks
from tests.support.night import adopt_small_camera, make_plan, take_all

PIPELINE = str(Path(__file__).with_name("pipeline.yaml"))
INPUTS = {"quick_image": "image", "quick_header": "header"}
SKY = 120.0


def make_frame(image: np.ndarray | None, **facts: object) -> Frame:
    camera = load_camera("LSSTCam")
    info = ExposureInfo(
        camera="LSSTCam", exposure_id=2026112000012, obs_id="MC_O_20261120_000012", controller="O", day_obs=20261120,
        seq_num=12, detector=94, detector_name="R22_S11", image_type=ImageType.SCIENCE, **facts,
    )  # fmt: skip
    return Frame(
        raw=None, info=info, header={"OBJECT": "M 33"}, camera=camera, detector=camera.by_id[94], image=image
    )  # fmt: skip


def make_image() -> np.ndarray:
    image = np.random.default_rng(3).normal(SKY, 4.0, (200, 300)).astype(np.float32)
    image[50, 60] = image[150, 160] = 5000.0
    return image


def run(frame: Frame, **config: object) -> Frame:
    LsstPipeline(LsstPipelineConfig(**{"pipeline": PIPELINE, "inputs": INPUTS} | config)).run(frame)
    return frame


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("rapid-lsst-*"))


def test_two_tasks_run_on_the_image_and_their_results_are_ours():
    before, image = folders(), make_image()
    frame = run(make_frame(image, physical_filter="r_57", band="r", exposure_time_s=30.0))
    json.dumps({"m": frame.metrics, "t": frame.tables}, allow_nan=False)
    assert frame.metrics["quick_sky_level"] == pytest.approx(SKY, abs=0.2)
    assert frame.metrics["quick_sky_is_dark"] is False
    assert frame.metrics["quick_summary_noise"] == pytest.approx(4.0, rel=0.05)
    assert (frame.metrics["quick_summary_n"], frame.metrics["quick_summary_object"]) == (2, "M 33")
    assert frame.metrics["quick_summary_limits_low"] is None
    assert (frame.metrics["lsst_n_quanta"], frame.metrics["lsst_missing"]) == (2, None)
    assert frame.metrics["lsst_sky_cpu_s"] >= 0
    assert (frame.tables["quick_peaks"]["x"], frame.tables["quick_peaks"]["y"]) == ([60, 160], [50, 150])
    assert frame.image is image  # an intermediate image takes its place only if told to
    assert "quick_subtracted" not in frame.files
    (applied,) = frame.applied
    assert applied.startswith("lsst_pipeline sky,peaks sha256:")
    assert folders() == before


def test_a_payload_runs_again_and_again_and_overrides_are_part_of_what_was_applied():
    payload = LsstPipeline(
        LsstPipelineConfig(
            pipeline=PIPELINE, inputs=INPUTS, overrides={"peaks": {"threshold": 4.0}}, image="quick_subtracted"
        )
    )
    first, second = make_frame(make_image()), make_frame(make_image() + np.float32(50.0))
    payload.run(first)
    payload.run(second)
    assert first.metrics["quick_sky_level"] == pytest.approx(SKY, abs=0.2)
    assert second.metrics["quick_sky_level"] == pytest.approx(SKY + 50, abs=0.2)
    assert float(np.median(second.image)) == pytest.approx(0.0, abs=0.01)
    assert second.image.dtype == np.float32
    assert first.metrics["quick_summary_n"] >= 2
    assert first.applied == second.applied != run(make_frame(make_image())).applied


def test_outputs_that_are_asked_for_come_as_files_too():
    frame = run(make_frame(make_image()), outputs=("quick_subtracted", "quick_sky"))
    assert frame.files["quick_subtracted"].data.startswith(b"SIMPLE  =")
    assert "quick_peaks" not in frame.tables
    assert "quick_sky_level" in frame.metrics


def test_a_task_with_nothing_to_do_leaves_its_outputs_missing():
    frame = run(make_frame(np.full((20, 20), -1.0, np.float32)))
    assert frame.metrics["lsst_missing"] == "quick_sky, quick_peaks, quick_summary"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"pipeline": "/nowhere/p.yaml"}, "/nowhere/p.yaml cannot be used", id="no such file"),
        pytest.param({"overrides": {"pekas": {"threshold": 1.0}}}, "no task pekas .*peaks, sky", id="no such task"),
        pytest.param({"overrides": {"sky": {"percent": 1.0}}}, "cannot be used.*percent", id="no such field"),
        pytest.param({"overrides": {"sky": {"percentile": 101.0}}}, "cannot be used.*percentile", id="out of range"),
        pytest.param({"inputs": {"quick_image": "image"}}, "reads quick_header: name what it is", id="input lacking"),
        pytest.param({"inputs": INPUTS | {"x": "mask"}}, "has no mask", id="plane lacking"),
        pytest.param({"inputs": INPUTS | {"x": "info"}}, "does not read x", id="input too many"),
        pytest.param({"outputs": ("quick_pekas",)}, "does not write quick_pekas", id="no such output"),
        pytest.param({"image": "quick_sky"}, "quick_sky is no image", id="a mapping for an image"),
    ],
)
def test_a_mistake_is_named(config, message):
    before = folders()
    with pytest.raises(PayloadError, match=message):
        run(make_frame(make_image()), **config)
    assert folders() == before


def test_a_task_that_fails_fails_the_job_with_its_cause():
    with pytest.raises(PayloadError, match="ValueError: pixels that are no numbers") as caught:
        run(make_frame(np.full((20, 20), np.nan, np.float32)))
    assert caught.value.retry.value == "never"
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_task_that_exits_fails_the_job_and_not_the_process(monkeypatch):
    def leave(self, image):
        raise SystemExit(3)

    monkeypatch.setattr(pipeline_tasks.SubtractSkyTask, "run", leave)
    with pytest.raises(PayloadError, match="SystemExit: 3"):
        run(make_frame(make_image()))


def test_configuration_is_checked_without_the_middleware():
    with pytest.raises(ValidationError, match="pipeline"):
        LsstPipelineConfig(inputs=INPUTS)
    with pytest.raises(ValidationError, match="quick_image"):
        LsstPipelineConfig(pipeline="p.yaml", inputs={"quick_image": "picture"})


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lsst.pipe.base", None)
    with pytest.raises(PayloadError, match=r"pip install 'rapid-analysis\[lsst\]'"):
        run(make_frame(make_image()))


def test_the_folder_of_a_killed_process_is_removed():
    orphan = Path(tempfile.gettempdir()) / "rapid-lsst-999999999-killed"
    orphan.mkdir()
    with open_repository(make_frame(make_image())):
        assert not orphan.exists()


def test_a_raw_goes_through_a_sites_pipeline_with_it(tmp_path, monkeypatch):
    camera = adopt_small_camera(tmp_path, monkeypatch)
    take_all(make_plan([{"kind": "science", "n": 1, "physical_filter": "r_57"}]), tmp_path / "raws")
    raw = next((tmp_path / "raws").rglob("*R22_S11.fits"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "site.yaml").write_text(
        f"""
pipelines:
  - name: siblings
    version: "3"
    description: d
    steps:
      - payload: assemble
      - {{payload: lsst_pipeline, config: {{pipeline: {PIPELINE}, inputs: {{quick_image: image, quick_header: header}}}}}}
rules:
  - {{pipeline: siblings, beside: true, image_types: [science]}}
"""
    )
    book = load_book([site, PACKAGED])
    result = (
        PipelineRunner(book=book)
        .run(RawInput(uri=str(raw), data=raw.read_bytes()), pipeline=load_pipeline("siblings", book), camera=camera)
        .result
    )
    assert result.metrics["quick_summary_n"] > 0
    assert result.metrics["lsst_n_quanta"] == 2
    assert result.timings["lsst_pipeline_s"] > 0
    assert result.provenance.payloads == {"assemble": "1", "lsst_pipeline": "1"}
    assert (result.provenance.pipeline, result.provenance.pipeline_version) == ("siblings", "3")
    assert "lsst_pipeline sky,peaks sha256:" in result.provenance.applied[-1]
