"""From the focal plane to a pixel: the exposure's pictures are those of the raws that were processed."""

import math
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from astropy.table import Table
from playwright.sync_api import expect

from rapid.dispatch.models import BatchKey, EventKind
from rapid.display.images.calibrated import calibrate
from rapid.display.settings import Tolerance
from rapid.gather.pieces import read_binned
from rapid.gather.pyramid import Pyramid
from rapid.worker.run import PipelineRunner, RawInput
from tests.display.real_exposure import RealExposure
from tests.support.night import adopt_small_camera

pytestmark = pytest.mark.browser
TIMEOUT_MS = 60_000
MISSING = [
    ("/api/images/none/94/1/0/0", 404),
    ("/api/images/none/pixels?x=0&y=0", 404),
    ("/tiles/no/such.zip/8/0/0", 404),
    ("/tiles/..%2F..%2Fetc%2Fpasswd/8/0/0", 404),
    ("/tiles/no/such.zip/8/-1/0", 422),
    ("/tiles/no/such.zip/info", 404),
    ("/api/exposures/2026112000001/detectors/999/image", 404),
]


@pytest.fixture
def exposure(make_stage, tmp_path, monkeypatch):
    adopt_small_camera(tmp_path, monkeypatch)
    exposure = RealExposure(make_stage("SmallCam9"), tmp_path)
    exposure.post()
    exposure.process()
    return exposure


@pytest.fixture
def summary(exposure):
    return exposure.gather()


@pytest.fixture
def address(exposure, summary, serve):
    return serve(exposure.settings.model_copy(update={"token": None}))


def pixels_of(exposure: RealExposure, detector: int):
    raw = RawInput(uri=exposure.raws[detector], data=Path(exposure.raws[detector]).read_bytes())
    return PipelineRunner().run(raw, camera=exposure.camera).frame.image


def get(address: str, path: str):
    return httpx.get(f"{address}{path}", timeout=60.0)


def test_mosaics_and_fits_come_with_the_summary_and_plots_later_under_its_version(exposure, summary):
    for kind in ("mosaic", "mosaic_calibrated"):
        pyramid = Pyramid(exposure.stage.products.get(summary.products[f"{kind}_tiles"]))
        assert pyramid.tile(8, 0, 0) is not None
        assert exposure.stage.products.get(summary.products[kind]).startswith(b"\xff\xd8")
    assert summary.metrics["n_detectors_fwhm_field"] == 9
    assert summary.metrics["fwhm_field_centre_error_arcsec"] > 0
    assert 0 <= summary.metrics["moon_illuminated_fraction"] <= 1
    assert "psf_map" not in summary.products, "plots must not be waited for"
    made = exposure.draw(summary)
    assert {"visit_summary", "psf_map", "psf_whiskers_camera", "fwhm_map", "movie", "rollup"} <= made.keys()
    newest = exposure.stage.results.latest_summary(summary.camera, summary.exposure)
    assert newest.version == summary.version
    assert {"mosaic", "psf_map"} <= newest.products.keys()


def test_pixels_over_http_are_those_of_the_pipeline_and_what_is_gone_is_named(exposure, summary, address):
    detector = exposure.camera.witness_detector
    expected = pixels_of(exposure, detector)
    base = f"/api/exposures/{exposure.exposure_id}/detectors/{detector}"
    image = get(address, f"{base}/image").json()
    assert (image["width"], image["height"]) == expected.shape[::-1]
    assert image["notes"] == []
    found = get(address, f"/api/images/{image['image_id']}/pixels?x=100&y=40&width=20&height=10").json()
    np.testing.assert_allclose(np.array(found["values"]), expected[40:50, 100:120], atol=2e-3)
    tile = get(address, f"/api/images/{image['image_id']}/{detector}/1/0/0")
    assert tile.headers["content-type"] == "image/jpeg"
    assert "immutable" in tile.headers["cache-control"]

    calibrated = get(address, f"{base}/image?calibrated=true").json()
    assert (image["is_calibrated"], calibrated["is_calibrated"]) == (False, True)
    assert calibrated["image_id"] != image["image_id"]
    found = get(address, f"/api/images/{calibrated['image_id']}/pixels?x=100&y=40&width=20&height=10").json()
    info = Pyramid(exposure.stage.products.get(summary.products["mosaic_calibrated_tiles"])).info
    (result,) = exposure.stage.results.results(exposure.exposure_id, detector=detector)
    binned = read_binned(exposure.stage.products.get(result.products["binned"]))
    without = calibrate(expected, binned, factor=info.factors[detector])
    assert found["unit"] == calibrated["unit"] == info.unit
    np.testing.assert_allclose(np.array(found["values"]), without[40:50, 100:120], rtol=1e-4, atol=2e-3)
    assert abs(np.median(without)) < 0.2 * abs(np.median(expected) * info.factors[detector]), "the sky is gone"

    for path, status in MISSING:
        answer = get(address, path)
        assert answer.status_code == status, path
        assert answer.json()["error"]["message"]
    detector = min(exposure.raws)
    Path(exposure.raws[detector]).unlink()
    answer = get(address, f"/api/exposures/{exposure.exposure_id}/detectors/{detector}/image")
    assert answer.status_code >= 400
    assert "cannot make the image" in answer.json()["error"]["message"]
    other = max(exposure.raws)
    assert get(address, f"/api/exposures/{exposure.exposure_id}/detectors/{other}/image").status_code == 200


def test_a_page_goes_from_the_focal_plane_to_a_pixels_value(exposure, summary, address, open_page):
    exposure.draw(summary)
    detector = exposure.camera.witness_detector
    page = open_page(f"{address}/exposure/{exposure.exposure_id}?detector={detector}")
    expect(page.locator("#kinds button[aria-pressed=true]")).to_have_text("post-ISR")
    page.locator("#kinds button[data-kind=mosaic]").click()
    page.locator("#zoom-detector").click()
    expect(page.locator("#mosaic")).to_have_attribute("data-images", re.compile(rf"\b{detector}\b"), timeout=TIMEOUT_MS)
    expect(page.locator("#zoom-note")).to_contain_text("post-ISR, made anew from its raw")
    box = page.locator("#mosaic canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#value")).to_contain_text("e⁻", timeout=TIMEOUT_MS)
    words = page.locator("#value").inner_text().split()
    x, y, value = int(words[2]), int(words[4]), float(words[5].replace("−", "-"))
    expected = pixels_of(exposure, detector)
    assert abs(x - expected.shape[1] / 2) < 8
    assert value == pytest.approx(float(expected[y, x]), abs=0.06)
    expect(page.locator("#stars tbody tr").first).to_be_visible()
    page.locator("#kinds button[data-kind=mosaic_calibrated]").click()
    expect(page.locator("#zoom-note")).to_contain_text("calibrated: without sky", timeout=TIMEOUT_MS)
    box = page.locator("#mosaic canvas").bounding_box()  # the list of stars may have moved it
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    unit = Pyramid(exposure.stage.products.get(summary.products["mosaic_calibrated_tiles"])).info.unit
    expect(page.locator("#value")).to_contain_text(unit, timeout=TIMEOUT_MS)
    expect(page.locator("#value")).not_to_have_text(" ".join(words))
    expect(page.locator("#mosaic-open")).to_have_attribute("href", f"/products/{summary.products['mosaic_calibrated']}")


def test_a_detectors_image_is_the_calibrated_one_unless_somebody_chose(exposure, summary, address, open_page):
    detector = exposure.camera.witness_detector
    page = open_page(f"{address}/exposure/{exposure.exposure_id}?detector={detector}")
    expect(page.locator("#kinds button[aria-pressed=true]")).to_have_text("post-ISR")
    page.locator("#zoom-detector").click()
    expect(page.locator("#kinds button[aria-pressed=true]")).to_have_text("calibrated")
    expect(page.locator("#zoom-note")).to_contain_text("calibrated: without sky", timeout=TIMEOUT_MS)
    expect(page.locator("#mosaic")).to_have_attribute("data-images", re.compile(rf"\b{detector}\b"))
    expect(page.locator("#stars tbody tr").first).to_be_visible()


def test_plots_appear_on_an_open_page(exposure, address, open_page, summary):
    page = open_page(f"{address}/exposure/{exposure.exposure_id}")
    expect(page.locator("#counts")).to_contain_text("9/9")
    expect(page.locator("#psf")).to_be_hidden()
    made = exposure.draw(summary)
    key = BatchKey(exposure_id=exposure.exposure_id, pipeline="quicklook")
    exposure.stage.board.publish(EventKind.PRODUCTS_ADDED, batch=key, data={"version": 1, "products": made})
    expect(page.locator("#psf")).to_be_visible(timeout=15_000)
    table = page.locator("#visit-summary")
    expect(table).to_have_attribute("href", f"/products/{made['visit_summary']}")
    answer = get(address, f"/products/{made['visit_summary']}")
    assert answer.headers["content-type"].startswith("text/plain")
    rows = Table.read(answer.text, format="ascii.ecsv")
    assert sorted(rows["detector"]) == sorted(exposure.raws)
    assert rows["psf_fwhm_arcsec"].unit == "arcsec"
    plot = page.locator("#whiskers")
    expect(page.locator("#psf-note")).to_contain_text("whiskers")
    page.locator("#frames button[data-frame=altaz]").click()
    expect(page.locator("#frames button[data-frame=altaz]")).to_have_attribute("aria-pressed", "true")
    assert "alt-az" in plot.get_attribute("aria-label")
    expect(page.locator("#gallery figure")).to_have_count(3)
    expect(page.locator("#gantt-note")).to_contain_text("0 s:")
    lines = page.locator("#gantt").get_attribute("aria-label")
    assert lines.startswith("10 lines"), (
        "nine detectors and the gather; of a simulated night the shutter closed long ago"
    )


def test_the_nights_movie_plays_and_its_columns_are_coloured_and_a_tile_explains_itself(
    exposure, summary, serve, open_page
):
    exposure.draw(summary)
    band = Tolerance(high=0.1, why="the survey wants it", set_by="Ann", since="2026-11-01")
    address = serve(exposure.settings.model_copy(update={"tolerances": {"seeing": band}}))
    page = open_page(f"{address}/night/{summary.day_obs}")
    page.locator("#movie-open").click()
    expect(page.locator("#movie")).to_contain_text("frame 1 of 1")
    expect(page.locator("#movie video")).to_have_js_property("videoWidth", 720, timeout=15_000)
    expect(page.locator("#movie a").first).to_have_attribute("href", f"/exposure/{summary.exposure}")
    page.get_by_role("button", name="Colour FWHM by value").first.click()
    cell = page.locator("#table tbody td[style*=background]").first
    expect(cell).to_have_text(f"{math.floor(summary.metrics['psf_fwhm_arcsec_median'] * 100 + 0.5) / 100:.2f}")
    assert "colour=psf_fwhm_arcsec_median" in page.url
    page.reload()
    expect(page.locator("#table tbody td[style*=background]").first).to_be_visible()

    page.goto(address)
    expect(page.locator("[data-tile=seeing] .note")).to_contain_text("out of tolerance")
    page.locator("[data-tile=seeing]").click()
    for words in ("good: up to 0.10", "the survey wants it", "set by Ann, since 2026-11-01"):
        expect(page.locator(".tip")).to_contain_text(words)
