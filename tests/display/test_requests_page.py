"""The requests page: real board, a real desk that takes requests in, workers and gather played by hand."""

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from tests.display.desk import Desk
from tests.display.stage import DAY_OBS, WAIT_S

pytestmark = pytest.mark.browser

TOKEN = "a-long-enough-token"


@pytest.fixture
def desk(stage) -> Iterator[Desk]:
    with Desk(stage) as desk:
        yield desk


@pytest.fixture
def url(stage, serve):
    return serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN)}))


@pytest.fixture
def ask(url) -> Callable[..., str]:
    """Post a request as a script would; returns its id."""

    def post(**spec: object) -> str:
        headers = {"Authorization": f"Bearer {TOKEN}", "X-Rapid-User": "script"}
        answer = httpx.post(f"{url}/api/requests", json=spec, headers=headers, timeout=WAIT_S)
        assert answer.status_code == 202, answer.text
        return answer.json()["request"]["request_id"]

    return post


@pytest.fixture
def open_requests(open_page, url) -> Callable[..., Page]:
    def make(*, token: str = TOKEN, query: str = "", **options) -> Page:
        page = open_page(f"{url}/requests{query}", **options)
        expect(page.locator("#live")).to_have_text("live")
        if token:
            page.locator("#enter-token").click()
            page.locator("#token-name").fill("ann")
            page.locator("#token").fill(token)
            page.get_by_role("button", name="Go on").click()
            expect(page.locator("#who")).to_contain_text("changes as ann")
        return page

    return make


def line(page, request_id: str):
    return page.locator(f'#requests tr[data-id="{request_id}"]')


def exposure(seq_num: int) -> int:
    return DAY_OBS * 100_000 + seq_num


def take(stage, seq_num: int) -> None:
    stage.post(seq_num)
    stage.finish(sorted(stage.camera.science_ids))
    stage.gather()


def test_nobody_has_asked_for_anything(open_requests):
    page = open_requests(token="")
    expect(page.locator("#requests")).to_contain_text("Nobody has asked for anything yet")
    expect(page.locator("#summary")).to_have_text("0 open")


def test_a_request_shows_as_it_is_posted_and_its_answer_as_it_comes(open_requests, stage, desk, ask):
    page = open_requests(token="")
    page.evaluate("window.untouched = true")
    waiting = ask(select={"exposures": [exposure(1)]}, label="look again")
    expect(line(page, waiting)).to_contain_text("look again")
    expect(line(page, waiting)).to_contain_text("script (token)")
    expect(line(page, waiting).locator(".state")).to_have_text("waiting")
    take(stage, 2)
    done = ask(select={"exposures": [exposure(2)]})
    expect(line(page, done).locator(".state")).to_have_text("done")
    expect(line(page, done)).to_contain_text("9/9")
    expect(line(page, done)).to_contain_text("1 exposure, complete")
    line(page, done).get_by_role("button").first.click()
    detail = page.locator("tr.detail")
    expect(detail.get_by_role("link", name=str(exposure(2)))).to_have_attribute("href", f"/exposure/{exposure(2)}")
    expect(detail.get_by_role("link", name="mosaic")).to_be_visible()
    expect(detail).to_contain_text("0.74")
    assert page.url.endswith(f"?id={done}")
    assert page.evaluate("window.untouched")
    page.locator("[data-filter=open]").click()
    expect(page.locator("#requests tr[data-id]")).to_have_count(1)
    expect(page.locator("#summary")).to_contain_text("1 open")


def test_progress_moves_as_jobs_finish(open_requests, stage, desk, ask):
    take(stage, 1)
    page = open_requests(token="")
    request_id = ask(select={"exposures": [exposure(1)]}, reuse=False, pipeline="quicklook")
    expect(line(page, request_id)).to_contain_text("0/9")
    stage.finish([0, 1, 2])
    expect(line(page, request_id)).to_contain_text("3/9")
    expect(line(page, request_id).locator(".state")).to_have_text("running")


def test_a_request_is_composed_posted_and_cancelled_on_the_page(open_requests, desk, stage):
    page = open_requests()
    page.locator("label", has_text="next").click()
    page.locator("#q-select-next-n").fill("2")
    page.locator("#q-select-next-image_type").select_option("bias")
    page.locator("#q-label").fill("two biases")
    page.locator("#q-detectors").fill("R22_S11")
    page.locator("#as-json summary").click()
    expect(page.locator("#body")).to_contain_text('"image_type": "bias"')
    page.locator("#send").click()
    expect(page.locator("#form-note")).to_contain_text(re.compile("accepted|waiting"))
    row = page.locator("#requests tr[data-id]")
    expect(row).to_contain_text("two biases")
    expect(row).to_contain_text("next 2 bias · on R22_S11")
    expect(row).to_contain_text("ann (token)")
    row.get_by_role("button", name="Cancel", exact=True).click()
    expect(row.locator(".state")).to_have_text("cancelled")
    expect(row.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


def test_mistakes_are_shown_at_their_field(open_requests, desk):
    page = open_requests(may_complain=True)
    page.locator("summary", has_text="More").click()
    good = str(exposure(1))
    for path, value, says in (
        ("select.exposures", "", "at least 1"),
        ("select.exposures", "12-x", "select"),
        ("detectors", "R22 & (", "at column"),
        ("deadline_s", "-5", "greater than 0"),
        ("config", "{", "no JSON"),
        ("client_key", "../x", "pattern"),
    ):
        page.locator("#q-select-exposures").fill(good)
        page.locator(f'[data-field="{path}"]').locator("input, textarea").fill(value)
        page.locator("#send").click()
        error = page.locator(f'[data-field="{path}"] .error')
        expect(error).to_be_visible()
        if says != "select":
            expect(error).to_contain_text(says)
        page.locator(f'[data-field="{path}"]').locator("input, textarea").fill("")
    expect(page.locator("#requests tr[data-id]")).to_have_count(0)


def test_without_a_head_a_request_lies_in_the_inbox_and_says_so(open_requests):
    page = open_requests()
    page.locator("#q-select-exposures").fill(str(exposure(1)))
    page.locator("#send").click()
    expect(page.locator("#form-note")).to_contain_text("no head node has taken it yet", timeout=15_000)
    expect(page.locator("#requests tr[data-id] .state")).to_have_text("posted")


def test_a_link_opens_the_request_it_names(open_requests, desk, stage, ask):
    take(stage, 1)
    request_id = ask(select={"exposures": [exposure(1)]}, client_key="night-1")
    page = open_requests(token="", query=f"?id={request_id}")
    expect(page.locator("tr.detail")).to_contain_text("night-1")


def test_the_page_fits_a_phone(open_requests, desk, ask):
    ask(select={"exposures": [exposure(1)]}, label="a label that is long enough to need more than one line on a phone")
    page = open_requests(token="", width=390, height=844)
    expect(page.locator("#requests tr[data-id]")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_excluded_in_an_answer_is_not_called_missing(open_requests, desk, stage, ask):
    stage.post(1, excluded={8: "noisy (ann)"})
    stage.finish(range(8))
    stage.gather()
    request_id = ask(select={"exposures": [exposure(1)]})
    page = open_requests(token="", query=f"?id={request_id}")
    expect(line(page, request_id)).to_contain_text("1 exposure, complete")
    off = page.locator('tr.detail [data-state="excluded"]')
    expect(off).to_have_text("R22_S22")
    expect(off).to_have_attribute("title", "noisy (ann)")
