"""The page that is open all night, as an observer sees it."""

import math
import re

import pytest
from playwright.sync_api import expect

from rapid.gather.sky_angles import zenith_of
from tests.display.stage import serve_display

SEQ = re.compile(r"^\d{6}$")
POINTING = {"azimuth_deg": 119.0, "elevation_deg": 68.0, "rotator_angle_deg": 20.0}


def plane_says(page, text: str) -> None:
    expect(page.locator("#plane")).to_have_attribute("aria-label", re.compile(text))


def tile(page, name: str):
    return page.locator(f"[data-tile={name}] .value span")


@pytest.mark.browser
def test_an_empty_night_says_so_with_dashes_and_no_error(open_page, url):
    page = open_page(url)
    expect(page.locator("#live")).to_have_text("live")
    expect(tile(page, "seeing")).to_have_text("—")
    expect(page.locator("#age")).to_have_text("no image yet")
    expect(page.locator("#mosaic")).to_contain_text("Nothing has been taken tonight")


@pytest.mark.browser
def test_the_page_fills_in_detector_by_detector(open_page, stage, url):
    page = open_page(url)
    stage.post(1)
    expect(page.locator("#seq")).to_have_text("000001")
    plane_says(page, "9 queued")
    for n in range(1, 10):
        stage.finish([n - 1])
        expect(page.locator("#pipeline .value > span").first).to_have_text(f"{n}/9")
        plane_says(page, f"{n} finished")
    stage.gather()
    expect(page.locator("#pipeline")).to_contain_text("complete")


@pytest.mark.browser
def test_the_numbers_on_the_page_are_those_of_the_store(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9))
    summary = stage.gather()
    page = open_page(url)
    stored = stage.results.latest_summary(stage.camera.name, summary.exposure)
    assert stored is not None
    expect(tile(page, "seeing")).to_have_text(f"{stored.metrics['psf_fwhm_arcsec_median']:.2f}")
    sky = stored.metrics["sky_level_e_median"]
    expect(tile(page, "sky")).to_have_text(str(math.floor(sky + 0.5)))  # a browser rounds halves up
    expect(page.locator("[data-tile=mount]")).to_be_hidden()  # nobody measures it here
    page.locator("#plane").focus()
    page.keyboard.press("d")
    result = next(r for r in stage.results.results(summary.exposure) if r.detector == stage.camera.witness_detector)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".tip")).to_contain_text(f"{result.metrics['psf_fwhm_arcsec']:.2f} ″")


@pytest.mark.browser
def test_a_tile_shows_medians_so_far_and_says_of_how_many(open_page, stage, url):
    page = open_page(url)
    stage.post(1)
    stage.finish([0, 1, 2])
    expect(page.locator("[data-tile=seeing] .note")).to_contain_text("of 3 so far")
    expect(tile(page, "seeing")).to_have_text("0.73")


@pytest.mark.browser
def test_partial_results_name_the_missing_detectors_and_why(open_page, stage, url):
    page = open_page(url)
    stage.post(1, gather_timeout_ms=1, excluded={8: "noisy amp, switched off by Ann"})
    stage.finish([0, 1, 2, 3, 4, 5])
    stage.fail(6, "the raw has no overscan")
    stage.gather()
    pipeline = page.locator("#pipeline")
    expect(pipeline).to_contain_text("6/8")
    expect(pipeline).to_contain_text("partial")
    failed = pipeline.locator(".missing a", has_text=stage.camera.by_id[6].name)
    expect(failed).to_have_attribute("title", re.compile("failed: .*no overscan"))
    expect(pipeline.locator(".missing a", has_text=stage.camera.by_id[7].name)).to_have_attribute(
        "data-state", "queued"
    )
    expect(page.locator("#legend")).to_contain_text("excluded")
    plane_says(page, "1 excluded")
    expect(page.locator("#mosaic-note")).to_have_text("partial, 6 of 8 detectors")


@pytest.mark.browser
def test_a_regather_replaces_numbers_and_mosaic_without_reload(open_page, stage, url):
    page = open_page(url)
    page.evaluate("window.untouched = true")
    stage.post(1, gather_timeout_ms=1)
    stage.finish([0, 1, 2])
    first = stage.gather()
    expect(page.locator("#mosaic img")).to_have_attribute("src", re.compile(first.products["mosaic"]))
    stage.finish([3, 4, 5, 6, 7, 8])
    second = stage.gather()
    assert second.version == 2
    expect(page.locator("#mosaic img")).to_have_attribute("src", re.compile(second.products["mosaic"]))
    expect(page.locator("#pipeline")).to_contain_text("complete")
    assert page.evaluate("window.untouched")


@pytest.mark.browser
def test_the_page_follows_the_newest_unless_the_user_stepped_back(open_page, stage, url):
    page = open_page(url)
    for seq_num in (1, 2):
        stage.post(seq_num)
        stage.finish(range(9))
        stage.gather()
    expect(page.locator("#seq")).to_have_text("000002")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#seq")).to_have_text("000001")
    expect(page.locator("#live")).to_have_text("held")
    stage.post(3)
    expect(page.locator("#night-note")).to_have_text("3 exposures")
    expect(page.locator("#seq")).to_have_text("000001")
    page.keyboard.press("l")
    expect(page.locator("#seq")).to_have_text("000003")
    expect(page.locator("#live")).to_have_text("live")


@pytest.mark.browser
def test_an_older_exposure_finishing_late_does_not_take_the_page(open_page, stage, url):
    page = open_page(url)
    stage.post(1)
    stage.post(2)
    expect(page.locator("#seq")).to_have_text("000002")
    stage.finish([0])  # of 2, the newest
    stage.finish([0])  # of 1
    expect(page.locator("#pipeline .value > span").first).to_have_text("1/9")
    expect(page.locator("#seq")).to_have_text("000002")


@pytest.mark.browser
def test_a_lost_connection_dims_the_page_and_says_since_when_then_catches_up(open_page, stage):
    with serve_display(stage.settings) as url:
        page = open_page(url, may_complain=True)
        page.evaluate("window.untouched = true")
        stage.post(1)
        expect(page.locator("#seq")).to_have_text("000001")
    expect(page.locator("#lost")).to_be_visible()
    expect(page.locator("#lost")).to_contain_text(re.compile(r"Connection lost since \d\d:\d\d:\d\d UTC"))
    expect(page.locator("main")).to_have_css("opacity", "0.45")
    stage.finish(range(9))
    stage.gather()
    stage.post(2)
    with serve_display(stage.settings, port=int(url.rsplit(":", 1)[1])):
        expect(page.locator("#lost")).to_be_hidden(timeout=20_000)
        expect(page.locator("#seq")).to_have_text("000002")
        expect(page.locator("#night-note")).to_have_text("2 exposures")
        expect(page.locator("main")).to_have_css("opacity", "1")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#pipeline")).to_contain_text("9/9")
        assert page.evaluate("window.untouched"), "the page was loaded anew"


@pytest.mark.browser
@pytest.mark.parametrize("camera", ["LSSTCam", "LSSTComCam", "LATISS"])
def test_every_camera_is_drawn_from_its_definition(open_page, make_stage, serve, camera):
    stage = make_stage(camera)
    detectors = [detector.id for detector in stage.camera.detectors]
    key = stage.post(1, detectors)
    stage.finish(detectors)
    stage.gather()
    page = open_page(serve(stage.settings))
    plane_says(page, f"{len(detectors)} finished")
    expect(page.locator("#pipeline .value > span").first).to_have_text(f"{len(detectors)}/{len(detectors)}")
    witness = stage.camera.by_id[stage.camera.witness_detector]
    page.locator("#plane").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tip")).to_contain_text(witness.name)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/exposure/{key.exposure_id}?detector={witness.id}")
    expect(page.locator("#detail h1")).to_contain_text(witness.name)


@pytest.mark.browser
def test_the_metric_can_be_changed_by_menu_and_key(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9))
    page = open_page(url)
    expect(page.locator("#metric")).to_have_value("psf_fwhm_arcsec")
    page.keyboard.press("m")
    expect(page.locator("#metric")).not_to_have_value("psf_fwhm_arcsec")
    chosen = page.locator("#metric").input_value()
    title = page.locator(f"#metric option[value={chosen}]").inner_text().split(" [")[0]
    plane_says(page, re.escape(title))


@pytest.mark.browser
def test_a_calibration_exposure_has_its_own_tiles(open_page, stage, url):
    page = open_page(url)
    stage.post(1, image_type="bias", pipeline="calib_check")
    stage.finish(range(9), metrics=lambda detector, _: {"mean_e": 0.5 + detector, "stdev_e": 8.25})
    expect(page.locator("[data-tile=level] h2")).to_have_text("Level")
    expect(tile(page, "level")).to_have_text("4.5")
    expect(tile(page, "scatter")).to_have_text("8.25")


@pytest.mark.browser
def test_words_from_a_header_are_text_never_markup(open_page, stage, url):
    page = open_page(url)
    stage.post(1)
    evil = "<img src=x onerror=alert(1)>"
    stage.fail(0, evil)
    page.goto(f"{url}/exposure/2026112000001")
    expect(page.locator("#failures")).to_contain_text(evil)
    assert page.locator("#failures img").count() == 0


@pytest.mark.browser
def test_a_board_that_is_away_is_named_and_what_is_stored_is_shown(open_page, make_stage):
    stage = make_stage("LSSTComCam")
    away = stage.settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})
    stage.put_night(2)
    with serve_display(away) as url:
        page = open_page(url, may_complain=True)
        expect(page.locator("#sources")).to_contain_text(re.compile("board not reachable since"))
        expect(page.locator("#seq")).to_have_text("000002")
        expect(page.locator("#night-note")).to_have_text("2 exposures")


@pytest.mark.browser
def test_a_phone_shows_everything_in_one_column(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9))
    stage.gather()
    page = open_page(url, width=390, height=844)
    expect(tile(page, "seeing")).to_have_text("0.73")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    plane = page.locator("#plane").bounding_box()
    assert plane is not None
    assert plane["width"] > 300
    assert plane["height"] > 300


@pytest.mark.browser
def test_the_focal_plane_turns_to_alt_az_where_the_headers_tell_the_zenith(open_page, make_stage, serve):
    stage = make_stage("LATISS")
    address = serve(stage.settings)
    page = open_page(address)
    altaz = page.locator("#plane-frames [data-frame=altaz]")
    expect(altaz).to_be_disabled()
    stage.post(1)
    expect(page.locator("#seq")).to_have_text("000001")
    expect(altaz).to_be_disabled()
    expect(altaz).to_have_attribute("title", re.compile("do not tell where the zenith is"))
    told = stage.info
    stage.info = lambda *args: {**told(*args), **POINTING}
    stage.post(2)
    expect(page.locator("#seq")).to_have_text("000002")
    expect(altaz).to_be_enabled()
    altaz.click()
    plane_says(page, "azimuth to the right and altitude up")
    expect(altaz).to_have_attribute("aria-pressed", "true")
    assert page.url.endswith("?frame=altaz")
    row = page.request.get(f"{address}/api/now").json()["exposure"]["row"]
    assert row["zenith_deg"] == pytest.approx(zenith_of(POINTING, stage.camera))
    # What has no pointing is shown as the camera sees it; the wish stays for the next that has one.
    stage.info = told
    stage.post(3)
    expect(page.locator("#seq")).to_have_text("000003")
    expect(altaz).to_be_disabled()
    expect(page.locator("#plane")).not_to_have_attribute("aria-label", re.compile("azimuth"))
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#seq")).to_have_text("000002")
    plane_says(page, "azimuth to the right and altitude up")


@pytest.mark.browser
def test_in_alt_az_the_pointer_and_the_keys_find_the_detector_that_is_seen(open_page, stage, url):
    told = stage.info
    stage.info = lambda *args: {**told(*args), **POINTING}
    stage.post(1)
    page = open_page(f"{url}/?frame=altaz")
    plane_says(page, "azimuth to the right and altitude up")
    zenith = math.radians(zenith_of(POINTING, stage.camera))

    places = page.request.get(f"{url}/api/camera").json()["detectors"]

    def on_sky(place, dx=0.0, dy=0.0) -> tuple[float, float]:
        x, y = place["x_mm"] + dx * place["width_mm"] / 2, place["y_mm"] + dy * place["height_mm"] / 2
        return y * math.sin(zenith) - x * math.cos(zenith), x * math.sin(zenith) + y * math.cos(zenith)

    corners = [on_sky(place, dx, dy) for place in places for dx in (-1, 1) for dy in (-1, 1)]
    reach = max(abs(value) for corner in corners for value in corner)
    plane = page.locator("#plane")
    box = plane.bounding_box()
    scale = (min(box["width"], box["height"]) - 8) / (2 * reach)
    for place in places:
        u, v = on_sky(place)
        page.mouse.move(box["x"] + box["width"] / 2 + u * scale, box["y"] + box["height"] / 2 - v * scale)
        expect(plane).to_have_attribute("data-detector", place["name"])
    # Up on the screen is towards the zenith: from the middle, the neighbour that lies highest.
    middle = min(places, key=lambda place: math.hypot(place["x_mm"], place["y_mm"]))
    u, v = on_sky(middle)
    page.mouse.move(box["x"] + box["width"] / 2 + u * scale, box["y"] + box["height"] / 2 - v * scale)
    expect(plane).to_have_attribute("data-detector", middle["name"])
    plane.focus()
    page.keyboard.press("ArrowUp")
    above = next(place for place in places if place["name"] == plane.get_attribute("data-detector"))
    assert on_sky(above)[1] > v + middle["height_mm"] / 2
