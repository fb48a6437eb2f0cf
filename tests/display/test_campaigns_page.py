"""Campaigns over HTTP and on their page: real board, a real desk, raws in a folder; workers and gather played by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from rapid.campaign.listings import open_listing
from rapid.exposure.naming import raw_key
from tests.display.desk import Desk
from tests.display.stage import DAY_OBS, WAIT_S, Stage

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

TOKEN = "a-long-enough-token"
COMPARE_S = 240_000
"""A comparison is a process of its own, which begins by reading a lot of code."""


def exposure(seq_num: int) -> int:
    return DAY_OBS * 100_000 + seq_num


def work(stage: Stage, *, n_exposures: int, scale: float = 1.0, fail: frozenset[int] = frozenset()) -> None:
    """Process so many exposures of what is queued, under whatever run they are asked for."""
    for _ in range(n_exposures):
        for detector in sorted(stage.camera.science_ids):
            if detector in fail:
                stage.fail(detector, "cosmic weather")
                continue
            job = stage.take(detector)
            number = scale * (0.7 + 0.01 * detector + 0.1 * (job.batch.exposure_id % 10))
            result = stage.result_of(
                detector, job.batch.exposure_id, job.batch.pipeline, metrics=lambda *_, n=number: {"psf_fwhm_arcsec": n}
            ).model_copy(update={"run": job.batch.run})
            stage.results.put_result(result)
            stage.board.complete(job, result.metrics)
        gather(stage)


def gather(stage: Stage, n: int = 1) -> None:
    """Make the summaries that are due."""
    for _ in range(n):
        job = stage.board.next_gather("gather-1", timeout_s=WAIT_S)
        assert job is not None, "no gather is due"
        stage.results.put_summary(stage.summary_of(job).model_copy(update={"run": job.batch.run}))
        stage.board.complete_gather(job, {"day_obs": DAY_OBS, "products": {}})


def put_raws(stage: Stage, raws: Path, seq_num: int) -> None:
    """Store the raws of an exposure: nothing opens those of which a summary tells what they are."""
    for detector in stage.camera.detectors:
        path = raws / raw_key(stage.camera.name, f"CC_O_{DAY_OBS}_{seq_num:06d}", detector.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")


@pytest.fixture
def raws(stage: Stage, tmp_path: Path) -> Path:
    """A night of three exposures that has been processed, and its raws."""
    folder = tmp_path / "raws"
    for seq_num in (1, 2, 3):
        stage.post(seq_num)
        work(stage, n_exposures=1)
        put_raws(stage, folder, seq_num)
    return folder


@pytest.fixture
def desk(stage: Stage, raws: Path) -> Iterator[Desk]:
    with Desk(stage, listing=open_listing(str(raws), stage.camera)) as desk:
        yield desk


@pytest.fixture
def url(stage: Stage, raws: Path, serve) -> str:
    return serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN), "raws_url": str(raws)}))


@pytest.fixture
def ask(url: str) -> Callable[..., httpx.Response]:
    """Ask the display as a script would, with the token unless told otherwise."""

    def send(method: str, path: str, *, token: str = TOKEN, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "X-Rapid-User": "script"} if token else {}
        return httpx.request(method, f"{url}/api/campaigns{path}", headers=headers, timeout=COMPARE_S / 1000, **options)

    return send


@pytest.fixture
def begin(ask, url: str) -> Callable[..., dict[str, Any]]:
    """Begin a campaign, wait until its batches are posted, and return it as it was accepted."""

    def post(run: str = "v2", **order: Any) -> dict[str, Any]:
        answer = ask("POST", "", json={"run": run, "nights": [DAY_OBS], **order})
        assert answer.status_code == 202, answer.text
        found, version = answer.json(), 0
        for _ in range(20):
            asked = {"wait_s": WAIT_S, "after_version": version}
            request = httpx.get(f"{url}/api/requests/{found['request_id']}", params=asked, timeout=2 * WAIT_S).json()
            if request["request"]["state"] == "running":
                return found
            version = request["request"]["version"]
        raise AssertionError(f"never running: {request}")

    return post


@pytest.fixture
def wait_for(url: str, ask) -> Callable[[str, str], dict[str, Any]]:
    """Wait until a campaign is in a final state; return it."""

    def wait(run: str, state: str) -> dict[str, Any]:
        request_id = ask("GET", f"/{run}").json()["request_id"]
        answer = httpx.get(f"{url}/api/requests/{request_id}", params={"wait_s": WAIT_S}, timeout=2 * WAIT_S).json()
        assert answer["request"]["state"] == state, answer
        return ask("GET", f"/{run}").json()

    return wait


def test_a_campaign_is_begun_followed_and_told_of_over_http(ask, begin, wait_for, desk, stage):
    found = begin(where="seq_num < 3", label="two of them")
    assert (found["run"], found["label"], found["asked_by"]) == ("v2", "two of them", "script (token)")
    work(stage, n_exposures=2)
    done = wait_for("v2", "done")
    assert (done["answer"]["n_done"], done["answer"]["n_results"]) == (2, 18)
    (listed,) = ask("GET", "", token="").json()["campaigns"]
    assert (listed["run"], listed["state"], listed["progress"]["exposures_done"]) == ("v2", "done", 2)
    assert ask("GET", f"/{found['request_id']}").json() == done


def test_changes_need_the_token_and_reading_does_not(ask, begin, desk):
    assert ask("POST", "", token="", json={"run": "v2", "nights": [DAY_OBS]}).status_code == 401
    begin()
    assert ask("DELETE", "/v2", token="wrong-but-long-enough").status_code == 401
    assert ask("POST", "/v2/resume", token="").status_code == 401
    assert ask("GET", "/v2", token="").status_code == 200


BAD_ORDERS = [
    ({"run": "v2"}, "nights", "which nights"),
    ({"nights": [DAY_OBS]}, "run", "needs a name"),
    ({"run": "v2", "nights": [20261341]}, "nights.0.first", "no day_obs"),
    ({"run": "v2", "nights": [20260101]}, "nights", "no raw and no result"),
    ({"run": "v2", "nights": [DAY_OBS], "where": "airmass <"}, "where", "too soon"),
    ({"run": "v2", "nights": [DAY_OBS], "where": "psf_fhwm_arcsec_median > 1"}, "where", "did you mean"),
    ({"run": "v2", "nights": [DAY_OBS], "pipeline": "nothing"}, "pipeline", "nothing"),
    ({"run": "v2", "nights": [DAY_OBS], "resume": True}, "resume", "no such field"),
    ({"run": "prompt", "nights": [DAY_OBS]}, "run", "prompt"),
    ([1], "campaign", "object"),
]


def test_an_order_that_makes_no_sense_names_its_field(ask, desk):
    # In one test: each of them would make a night of its own to be refused.
    for order, field, words in BAD_ORDERS:
        answer = ask("POST", "", json=order)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["field"] == field, order
        assert words in answer.json()["error"]["message"]


def test_a_cancelled_campaign_goes_on_over_http(ask, begin, wait_for, desk, stage):
    begin()
    assert ask("POST", "/v2/resume").status_code == 409
    assert ask("DELETE", "/v2").status_code == 202
    wait_for("v2", "cancelled")
    gather(stage, 3)
    assert ask("POST", "/v2/resume").status_code == 202
    work(stage, n_exposures=3)
    assert wait_for("v2", "done")["answer"]["n_results"] == 27
    assert len(ask("GET", "").json()["campaigns"]) == 1
    assert ask("POST", "/v9/resume").status_code == 404


def test_holes_over_http_are_of_the_campaign_or_of_the_night(ask, begin, wait_for, desk, stage, url, raws):
    put_raws(stage, raws, 4)  # nobody has seen it
    begin(where="seq_num < 3")
    work(stage, n_exposures=2)
    wait_for("v2", "done")
    (report,) = ask("GET", "/v2/holes").json()
    assert (report["n_exposures"], report["n_raws"], report["n_missing"]) == (2, 18, 0)
    night = httpx.get(f"{url}/api/holes/{DAY_OBS}", timeout=WAIT_S).json()
    assert (night["n_exposures"], night["n_missing"], night["holes"][0]["exposure_id"]) == (4, 9, exposure(4))
    assert ask("GET", "/v2/holes", params={"night": "tomorrow"}).json()["error"]["field"] == "night"
    assert ask("GET", "/v9/holes").status_code == 404


def test_a_campaign_is_compared_over_http(ask, begin, wait_for, desk, stage):
    begin()
    work(stage, n_exposures=3, scale=1.01)
    wait_for("v2", "done")
    found = ask("GET", "/v2/compare").json()
    assert (found["before"], found["after"], found["n_exposures"], found["is_good"]) == ("prompt", "v2", 3, False)
    (fwhm,) = [one for one in found["metrics"] if one["metric"] == "psf_fwhm_arcsec"]
    assert (fwhm["n"], fwhm["n_outside"]) == (27, 27)
    assert fwhm["median_after"] == pytest.approx(1.01 * fwhm["median_before"])
    page = ask("GET", "/v2/compare", params={"page": True})
    assert page.headers["content-type"].startswith("text/html")
    assert "psf_fwhm_arcsec" in page.text
    nothing = ask("GET", "/v2/compare", params={"before": "v7"})
    assert (nothing.status_code, nothing.json()["error"]["field"]) == (422, "run")


# The page


@pytest.fixture
def open_campaigns(open_page, url) -> Callable[..., Page]:
    def make(*, token: str = TOKEN, query: str = "", **options) -> Page:
        page = open_page(f"{url}/campaigns{query}", **options)
        expect(page.locator("#live")).to_have_text("live")
        if token:
            page.locator("#enter-token").click()
            page.locator("#token-name").fill("ann")
            page.locator("#token").fill(token)
            page.get_by_role("button", name="Go on").click()
            expect(page.locator("#who")).to_contain_text("changes as ann")
        return page

    return make


def line(page: Page, run: str):
    return page.locator(f'#campaigns tr[data-run="{run}"]')


def test_a_campaign_is_begun_and_followed_to_its_end_on_the_page(open_campaigns, desk, stage):
    page = open_campaigns()
    page.evaluate("window.untouched = true")
    page.locator("#c-run").fill("newpsf")
    page.locator("#c-nights").fill(f"{DAY_OBS}")
    page.locator("#c-where").fill("seq_num > 1")
    page.locator("#begin").click()
    expect(line(page, "newpsf")).to_contain_text("where seq_num > 1")
    expect(line(page, "newpsf").locator(".state")).to_have_text("running")
    expect(page.locator("#chosen")).to_contain_text("newpsf")
    work(stage, n_exposures=1)
    expect(line(page, "newpsf")).to_contain_text("1/2")
    work(stage, n_exposures=1)
    expect(line(page, "newpsf").locator(".state")).to_have_text("done")
    expect(line(page, "newpsf")).to_contain_text("2 of 2 exposures whole, 18 results")
    assert page.url.endswith("?run=newpsf")
    assert page.evaluate("window.untouched")


def test_holes_and_changes_are_shown_on_the_page(open_campaigns, begin, wait_for, desk, stage, raws):
    begin("newpsf")
    work(stage, n_exposures=1, fail=frozenset({3}))
    work(stage, n_exposures=2)
    wait_for("newpsf", "done")
    page = open_campaigns(token="", query="?run=newpsf")
    expect(page.locator("#not-done")).to_contain_text("cosmic weather")
    page.locator("#show-holes").click()
    expect(page.locator("#holes")).to_contain_text("R22_S10: failed: cosmic weather")
    expect(page.locator("#holes-note")).to_contain_text("3 exposures, 27 raws, 26 results, 1 missing")
    page.locator("#show-compare").click()
    expect(page.locator("#compare-note")).to_contain_text("prompt and newpsf: 3 exposures", timeout=COMPARE_S)
    expect(page.locator("#changes")).to_contain_text("psf_fwhm_arcsec")
    expect(page.locator("#findings")).to_contain_text("other state")
    page.locator("#holes-run").select_option("prompt")
    page.locator("#holes-go").click()
    expect(page.locator("#holes-note")).to_contain_text("prompt: 3 exposures, 27 raws, 27 results, 0 missing")


def test_mistakes_in_an_order_are_shown_at_their_field(open_campaigns, desk):
    page = open_campaigns(may_complain=True)
    for field, value, says in (
        ("run", "prompt", "prompt"),
        ("nights", "tonight", "night"),
        ("where", "airmass <", "too soon"),
    ):
        for path, good in (("run", "v2"), ("nights", str(DAY_OBS)), ("where", "")):
            page.locator(f"#c-{path}").fill(value if path == field else good)
        page.locator("#begin").click()
        expect(page.locator(f'[data-field="{field}"] .error')).to_contain_text(says)
    expect(page.locator("#campaigns tr[data-run]")).to_have_count(0)


def test_the_campaigns_page_fits_a_phone(open_campaigns, begin, desk):
    begin("a-campaign-of-a-long-name", label="a label that is long enough to need more than one line on a phone")
    page = open_campaigns(token="", width=390, height=844, query="?run=a-campaign-of-a-long-name")
    expect(page.locator("#campaigns tr[data-run]")).to_have_count(1)
    expect(page.locator("#chosen")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
