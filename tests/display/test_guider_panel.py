"""The page of an exposure shows what its guiders saw: a movie of the star, and how it moved."""

import json

import numpy as np
import pytest
from playwright.sync_api import expect

from rapid.camera.store import load_camera
from rapid.pipeline.store import load_pipeline
from rapid.products.naming import detector_key
from rapid.worker.run import PipelineRunner, RawInput
from tests.display.stage import DAY_OBS, Stage
from tests.support.guider import GUIDER_NAME, make_guider_raw, make_stamps

pytestmark = pytest.mark.browser


@pytest.fixture
def stage(make_stage) -> Stage:
    return make_stage("LSSTCam")


def put_guider(stage: Stage) -> int:
    """Process a guider file, and store and complete what came of it as a worker does; return the exposure's id."""
    x = 25 + 0.5 * np.sin(np.arange(12))
    raw = make_guider_raw(make_stamps(x, 50 + 0 * x), seq_num=1)
    run = PipelineRunner().run(
        RawInput(uri=f"/raws/{GUIDER_NAME}", data=raw), pipeline=load_pipeline("guider"), camera=load_camera("LSSTCam")
    )
    result = run.result
    for name, file in run.frame.files.items():
        result.products[name] = key = detector_key(result, kind=name, extension=file.extension)
        stage.products.put(key, file.data, content_type=file.content_type)
    for name, table in run.frame.tables.items():
        result.products[name] = key = detector_key(result, kind=name, extension="json")
        stage.products.put(key, json.dumps(table, default=float).encode())
    stage.post(1, [result.detector], pipeline="guider")
    job = stage.take(result.detector)
    stage.results.put_result(result)
    stage.board.complete(job, result.metrics)
    return result.exposure


def test_the_guiders_movie_and_numbers_are_on_the_exposures_page(open_page, stage, url):
    stage.post(1, [94])
    stage.finish([94])
    assert put_guider(stage) == DAY_OBS * 100_000 + 1
    page = open_page(f"{url}/exposure/{DAY_OBS * 100_000 + 1}")
    figure = page.locator('#guiders [data-guider="R00_SG0"]')
    expect(figure).to_contain_text("FWHM")
    expect(figure).to_contain_text("motion adds")
    page.wait_for_function("() => document.querySelector('#guiders video')?.readyState >= 1")
    assert page.evaluate("document.querySelector('#guiders video').duration") > 0


def test_an_exposure_without_guiders_has_no_panel_of_them_until_one_is_done(open_page, stage, url):
    stage.post(1, [94])
    stage.finish([94])
    page = open_page(f"{url}/exposure/{DAY_OBS * 100_000 + 1}")
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#guiders")).to_be_hidden()
    put_guider(stage)
    expect(page.locator('#guiders [data-guider="R00_SG0"]')).to_contain_text("FWHM")
