"""The control page, as an operator uses it: real board, real control state, real exclusions."""

import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from rapid.control.store import ControlStore
from rapid.exclusions.store import ExclusionStore
from rapid.pipeline.store import default_book

pytestmark = pytest.mark.browser

TOKEN = "a-long-enough-token"


@pytest.fixture
def url(stage, serve):
    return serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN)}))


@pytest.fixture
def control(stage):
    return ControlStore(stage.board.connection, stage.camera, default_book())


@pytest.fixture
def exclusions(stage):
    return ExclusionStore(stage.results.engine)


@pytest.fixture
def open_control(open_page, url) -> Callable[..., Page]:
    def make(*, token: str = TOKEN, **options) -> Page:
        page = open_page(url + "/control", **options)
        expect(page.locator("#live")).to_have_text("live")
        expect(page.locator("#f-pattern")).not_to_have_value("")
        if token:
            give_token(page, token)
        return page

    return make


def give_token(page, token=TOKEN):
    page.locator("#enter-token").click()
    page.locator("#token-name").fill("ann")
    page.locator("#token").fill(token)
    page.get_by_role("button", name="Go on").click()


def plane_says(page, text: str) -> None:
    expect(page.locator("#plane")).to_have_attribute("aria-label", re.compile(text))


def centre(page, stage, name: str) -> tuple[float, float]:
    """Return where a detector is on the screen, found by hovering as a person would."""
    box = page.locator("#plane").bounding_box()
    places = stage.camera.detectors
    halves = [(p, p.focal_plane_size_mm[0] / 2, p.focal_plane_size_mm[1] / 2) for p in places]
    x0, x1 = min(p.x_mm - w for p, w, _ in halves), max(p.x_mm + w for p, w, _ in halves)
    y0, y1 = min(p.y_mm - h for p, _, h in halves), max(p.y_mm + h for p, _, h in halves)
    scale = min((box["width"] - 8) / (x1 - x0), (box["height"] - 8) / (y1 - y0))
    place = stage.camera.by_name[name]
    x = box["x"] + box["width"] / 2 + (place.x_mm - (x0 + x1) / 2) * scale
    y = box["y"] + box["height"] / 2 - (place.y_mm - (y0 + y1) / 2) * scale
    page.mouse.move(x, y)
    expect(page.locator("#plane")).to_have_attribute("data-detector", name)
    return x, y


def click_detector(page, stage, name: str) -> None:
    page.mouse.click(*centre(page, stage, name))


def field(page, path: str):
    return page.locator(f'[data-field="{path}"]')


def test_the_page_shows_what_is_in_force_and_who_made_it_so(open_control, control):
    control.change({"pattern": "R22_S11,R22_S00", "visit_mode": "alternating"}, by="bob", door="cli", reason="cirrus")
    page = open_control(token="")
    expect(page.locator("#in-force")).to_contain_text("version 1 by bob")
    expect(page.locator("#in-force")).to_contain_text("cirrus")
    expect(page.locator("#f-pattern")).to_have_value("R22_S11,R22_S00")
    expect(field(page, "visit_mode").get_by_role("radio", name="alternating", exact=True)).to_be_checked()
    plane_says(page, "2 selected")
    log = page.locator("#log tbody tr")
    expect(log).to_have_count(1)
    expect(log.first).to_contain_text("pattern all → R22_S11,R22_S00")
    expect(page.locator("#who")).to_contain_text("read only")


def test_a_change_is_previewed_applied_with_the_token_and_read_back(open_control, control):
    page = open_control()
    expect(page.locator("#who")).to_contain_text("changes as ann (token)")
    page.locator("#f-pattern").fill("ccd_checkerboard")
    plane_says(page, "5 selected|4 selected")
    page.locator("#phases button").nth(1).click()
    expect(page.locator("#plane-note")).to_contain_text("of 9 science detectors")
    field(page, "worker_mode").locator("label", has_text="preempting").click()
    field(page, "pipelines.science").locator("select").select_option("donut")
    page.locator("summary", has_text="Timeouts").click()
    field(page, "timeouts.gather_s").locator("input").fill("8")
    diff = page.locator("#diff li")
    expect(diff).to_have_count(4)
    expect(diff.first).to_contain_text("pattern all → ccd_checkerboard")
    assert control.read().version == 0, "nothing changes before it is applied"
    page.locator("#reason").fill("clouds")
    page.locator("#apply").click()
    expect(page.locator("#form-note")).to_contain_text("In force")
    found = control.read()
    assert (found.state.pattern, found.state.worker_mode.value) == ("ccd_checkerboard", "preempting")
    assert (found.state.pipelines, found.state.timeouts.gather_s) == ({"science": "donut"}, 8.0)
    assert (found.changed_by, found.reason) == ("ann (token)", "clouds")
    expect(page.locator("#in-force")).to_contain_text("version 1 by ann (token)")
    expect(page.locator("#log tbody tr").first).to_contain_text("clouds")
    expect(diff).to_have_count(0)
    expect(page.locator("#apply")).to_be_disabled()


def test_the_token_is_asked_for_when_it_is_needed_and_kept_for_the_tab(open_control, control):
    page = open_control(token="", may_complain=True)
    page.locator("#f-pattern").fill("minimal")
    page.locator("#apply").click()
    page.locator("#token").fill("a-wrong-token-it-is")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#token-error")).to_have_text("wrong token")
    page.locator("#token").fill(TOKEN)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#form-note")).to_contain_text("In force")
    assert control.read().state.pattern == "minimal"
    page.reload()
    expect(page.locator("#who")).to_contain_text("changes as token")
    page.get_by_role("button", name="Forget").click()
    expect(page.locator("#who")).to_contain_text("read only")


def test_without_a_token_nothing_is_changed(open_control, control):
    page = open_control(token="", may_complain=True)
    page.locator("#f-pattern").fill("minimal")
    page.locator("#apply").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#form-error")).to_contain_text("Nothing was changed")
    assert control.read().version == 0


def test_a_pattern_that_is_none_is_told_at_the_field_while_it_is_typed(open_control):
    page = open_control(may_complain=True)
    page.locator("#f-pattern").fill("ccd_checkerboard & (e2v")
    error = field(page, "pattern").locator(".error")
    expect(error).to_contain_text("at column")
    expect(page.locator("#apply")).to_be_disabled()
    plane_says(page, "0 selected")
    page.locator("#f-pattern").fill("R22_S11")
    expect(error).to_be_hidden()
    plane_says(page, "1 selected")
    expect(page.locator("#apply")).to_be_enabled()


def test_a_refusal_is_shown_at_its_field_and_changes_nothing(open_control, control):
    page = open_control(may_complain=True)
    for summary in ("Timeouts", "Load shedding", "Guaranteed"):
        page.locator("summary", has_text=summary).click()
    for path, value, says in (
        ("timeouts.gather_s", "-1", "greater than 0"),
        ("timeouts.regather_s", "soon", "number"),
        ("shedding.ladder", "minimal, no_such_pattern", "no_such_pattern"),
        ("witness_detector", "4000", "no detector 4000"),
        ("guaranteed", "12", "no exposure id"),
    ):
        field(page, path).locator("input").fill(value)
        page.locator("#apply").click()
        expect(field(page, path).locator(".error")).to_contain_text(says)
        expect(field(page, path).locator("input")).to_have_attribute("aria-invalid", "true")
        page.locator("#discard").click()
        expect(field(page, path).locator(".error")).to_be_hidden()
    assert control.read().version == 0


def test_of_two_operators_the_second_is_told(open_control, control):
    page = open_control(may_complain=True)
    page.locator("#f-pattern").fill("R22_S11")
    page.route("**/api/control", lambda route: route.continue_() if route.request.method != "GET" else route.abort())
    control.change({"worker_mode": "waiting"}, by="bob", door="cli")
    page.locator("#apply").click()
    expect(page.locator("#form-error")).to_contain_text("Somebody else has changed")
    assert control.read().state.pattern == "all"
    page.unroute("**/api/control")
    control.change({"witness_detector": 5}, by="bob", door="cli")
    expect(page.locator("#in-force")).to_contain_text("version 2 by bob")
    expect(page.locator("#f-pattern")).to_have_value("R22_S11")  # the draft is kept
    page.locator("#apply").click()
    expect(page.locator("#in-force")).to_contain_text("version 3 by ann")
    assert control.read().state.worker_mode.value == "waiting"


def test_a_pattern_is_drawn_by_clicking_and_dragging_saved_and_used(open_control, control, stage):
    page = open_control()
    page.locator("[data-mode=draw]").click()
    plane_says(page, "9 selected")
    page.locator("#draw-none").click()
    expect(page.locator("#save")).to_be_disabled()
    click_detector(page, stage, "R22_S11")
    plane_says(page, "1 selected")
    page.mouse.move(*centre(page, stage, "R22_S00"))
    page.mouse.down()
    page.mouse.move(*centre(page, stage, "R22_S02"), steps=2)
    page.mouse.up()
    plane_says(page, "4 selected")
    expect(page.locator("#expression")).to_have_text("0-2,4")
    page.mouse.click(*centre(page, stage, "R22_S01"))
    plane_says(page, "3 selected")
    page.locator("#save-name").fill("my_corner")
    page.locator("#save-use").click()
    expect(page.locator("#f-pattern")).to_have_value("my_corner")
    found = control.read().state
    assert (found.pattern, found.patterns) == ("my_corner", {"my_corner": "0,2,4"})
    plane_says(page, "3 selected")
    expect(page.locator("#saved")).to_contain_text("my_corner")


def test_rafts_are_painted_as_a_whole(open_page, make_stage, serve):
    stage = make_stage("LSSTCam")
    page = open_page(serve(stage.settings) + "/control")
    expect(page.locator("#f-pattern")).to_have_value("all")
    page.locator("[data-mode=draw]").click()
    page.locator("#draw-none").click()
    page.locator("#by-raft").click()
    click_detector(page, stage, "R22_S20")
    plane_says(page, "9 selected")
    expect(page.locator("#expression")).to_have_text("R22")
    page.locator("#by-detector").click()
    page.keyboard.down("Shift")
    click_detector(page, stage, "R12_S20")
    page.keyboard.up("Shift")
    plane_says(page, "18 selected")
    click_detector(page, stage, "R22_S11")
    plane_says(page, "17 selected")
    page.locator("#draw-invert").click()
    plane_says(page, "172 selected")


def test_a_pattern_is_drawn_with_the_keyboard(open_control):
    page = open_control(token="")
    page.keyboard.press("d")
    page.locator("#draw-none").click()
    page.locator("#plane").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    plane_says(page, "2 selected")
    page.keyboard.press("Space")
    plane_says(page, "1 selected")


def test_a_name_that_cannot_be_is_refused_at_the_field(open_control, control):
    page = open_control(may_complain=True)
    page.locator("[data-mode=draw]").click()
    for name, says in (("", "needed"), ("all", "always there"), ("../x", "small letters"), ("R22", "small letters")):
        page.locator("#save-name").fill(name)
        page.locator("#save").click()
        expect(page.locator("#save-error")).to_contain_text(says)
    assert control.read().version == 0


def test_a_saved_pattern_is_used_by_a_click_and_forgotten_by_another(open_control, control):
    control.change({"patterns": {"corner": "R22_S00"}}, by="bob", door="cli")
    page = open_control(may_complain=True)
    page.locator("#saved").get_by_role("button", name="corner", exact=True).click()
    plane_says(page, "1 selected")
    page.locator("#apply").click()
    expect(page.locator("#in-force")).to_contain_text("version 2")
    page.get_by_role("button", name="Forget corner").click()
    expect(page.locator("#form-note")).to_contain_text("in use")
    control.change({"pattern": "all"}, by="bob", door="cli")
    expect(page.locator("#f-pattern")).to_have_value("all")
    page.get_by_role("button", name="Forget corner").click()
    expect(page.locator("#saved")).to_be_hidden()
    assert control.read().state.patterns == {}


def test_a_detector_is_switched_off_by_a_click_with_a_reason_and_on_again(open_control, exclusions, stage):
    page = open_control()
    click_detector(page, stage, "R22_S11")
    expect(page.locator("#chosen")).to_contain_text("R22_S11")
    page.locator("#x-apply").click()
    expect(page.locator('#exclude-form [data-field="reason"] .error')).to_contain_text("say why")
    page.locator("#x-reason").fill("noisy since the power cut")
    page.locator("#x-apply").click()
    plane_says(page, "1 excluded")
    row = page.locator("#off tbody tr")
    expect(row).to_contain_text("noisy since the power cut")
    (made,) = exclusions.history(stage.camera.name)
    assert (made.name, made.author) == ("R22_S11", "ann (token)")
    row.get_by_role("button", name="Switch on").click()
    page.locator("#end-reason").fill("board replaced")
    page.get_by_role("dialog").get_by_role("button", name="Switch on").click()
    plane_says(page, "0 excluded")
    (ended,) = exclusions.history(stage.camera.name)
    assert (ended.ended_by, ended.end_reason) == ("ann (token)", "board replaced")
    page.locator("#off-history").click()
    expect(row).to_contain_text("ended: board replaced")


def test_several_detectors_or_one_amp_are_switched_off(open_control, exclusions, stage):
    page = open_control(may_complain=True)
    page.keyboard.press("x")
    for name in ("R22_S00", "R22_S01"):
        click_detector(page, stage, name)
    expect(page.locator("#x-amp")).to_be_hidden()
    page.locator("#x-reason").fill("warm")
    page.locator("#x-from").fill("20261120")
    page.locator("#x-to").fill("whenever")
    page.locator("#x-apply").click()
    expect(page.locator('#exclude-form [data-field="valid_to"] .error')).to_contain_text("neither an ISO time")
    assert exclusions.history(stage.camera.name) == []
    page.locator("#x-to").fill("2090-01-01")
    page.locator("#x-apply").click()
    expect(page.locator("#off tbody tr")).to_have_count(2)
    click_detector(page, stage, "R22_S22")
    page.locator("#x-amp").select_option("C05")
    page.locator("#x-reason").fill("dead")
    page.locator("#x-apply").click()
    expect(page.locator("#off tbody tr")).to_have_count(3)
    assert {one.name for one in exclusions.history(stage.camera.name)} == {"R22_S00", "R22_S01", "R22_S22/C05"}
    centre(page, stage, "R22_S22")
    expect(page.locator(".tip")).to_contain_text("amp C05 excluded: dead (ann (token))")


def test_what_another_switches_off_shows_without_reload(open_control, url):
    page = open_control(token="")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    httpx.post(f"{url}/api/exclusions", json={"targets": [4], "reason": "noisy"}, headers=headers, timeout=20)
    plane_says(page, "1 excluded")
    expect(page.locator("#plane-note")).to_contain_text("1 of them excluded")
    expect(page.locator("#off tbody tr")).to_contain_text("R22_S11")


def test_where_no_token_is_configured_the_page_says_so(open_page, stage, serve):
    page = open_page(serve(stage.settings) + "/control", may_complain=True)
    expect(page.locator("#who")).to_contain_text("no token is configured here")
    page.locator("#f-pattern").fill("minimal")
    page.locator("#apply").click()
    expect(page.locator("#form-error")).to_contain_text("changes are switched off here")


@pytest.mark.parametrize("camera", ["LSSTCam", "LATISS"])
def test_the_page_fits_a_phone(open_page, make_stage, serve, camera):
    stage = make_stage(camera)
    page = open_page(serve(stage.settings) + "/control", width=390, height=844)
    expect(page.locator("#f-pattern")).to_have_value("all")
    plane_says(page, f"{len(stage.camera.science_ids)} selected")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
