"""Focus, calibrations, the cluster and the night log, as people use them; numbers are checked against the stores."""

import asyncio
import re
import threading
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from rapid.dispatch.board import AsyncBoard
from rapid.head.orders import OrderDesk
from rapid.nightlog.store import NightLog
from rapid.operations.models import SupervisorRecord
from rapid.operations.store import OperationsStore
from tests.display.stage import DAY_OBS, WAIT_S, Stage, serve_display
from tests.display.story import put, tell_bias, tell_night, tell_sweep_point

pytestmark = pytest.mark.browser

TOKEN = "a-long-enough-token"
EXPOSURE = DAY_OBS * 100_000


@pytest.fixture
def url(stage: Stage, serve):
    tell_night(stage)
    return serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN)}))


@pytest.fixture
def log(stage: Stage) -> NightLog:
    return NightLog(stage.results.engine)


@pytest.fixture
def desk(stage: Stage) -> Iterator[None]:
    """The leading head's desk for orders, in a thread of its own."""
    ready, ended = threading.Event(), threading.Event()
    state: dict[str, object] = {}

    async def main() -> None:
        state["stop"] = (asyncio.get_running_loop(), asyncio.current_task())
        async with asyncio.timeout(10 * WAIT_S):
            board = AsyncBoard(stage.settings.redis_url, stage.camera.name)
            try:
                await board.load()
                ready.set()
                await OrderDesk(stage.camera, board, stage.results, look_again_s=1.0).run()
            finally:
                await board.close()

    def run() -> None:
        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        finally:
            ready.set()
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ready.wait(WAIT_S)
    yield
    loop, task = state["stop"]  # type: ignore[misc]
    loop.call_soon_threadsafe(task.cancel)
    assert ended.wait(WAIT_S)


def go(open_page, address: str, **options) -> Page:
    page = open_page(address, **options)
    expect(page.locator("#live")).to_have_text("live")
    return page


def give_token(page: Page, token: str = TOKEN) -> None:
    page.locator("#token-name").fill("ann")
    page.locator("#token").fill(token)
    page.get_by_role("button", name="Go on").click()


# ---- focus ---------------------------------------------------------------------------------------


def test_the_focus_page_shows_the_stored_best_focus_and_zernikes(open_page, url):
    page = go(open_page, f"{url}/focus/{DAY_OBS}")
    expect(page.locator("#sweep-facts")).to_contain_text("20.0 ± 1.5 µm")
    expect(page.locator("#sweep-facts")).to_contain_text("0.70 ″")
    expect(page.locator("#sweep")).to_have_attribute("data-points", "5")
    expect(page.locator("#front-facts")).to_contain_text("5.3 ± 0.5 µm")
    expect(page.locator("#sites tbody tr")).to_have_count(5)
    expect(page.locator("#sites tbody tr").nth(1)).to_contain_text("R00")
    expect(page.locator("#history")).to_have_attribute("data-points", "2")


def test_a_new_sweep_point_appears_without_a_reload(open_page, stage, url):
    page = go(open_page, f"{url}/focus")
    expect(page.locator("#sweep")).to_have_attribute("data-points", "5")
    key = stage.post(20, [3], image_type="focus")
    stage.finish([3])
    job = stage.board.next_gather("gather-1", timeout_s=WAIT_S)
    assert job is not None
    tell_sweep_point(stage, 20, 0.14, has_fit=True)
    stage.board.complete_gather(job, {"day_obs": DAY_OBS, "products": {}})
    expect(page.locator("#sweep")).to_have_attribute("data-points", "6")
    assert key.exposure_id == EXPOSURE + 20


def test_a_night_without_focus_says_so(open_page, url):
    page = go(open_page, f"{url}/focus/20261119")
    expect(page.locator("#pairs")).to_contain_text("No donuts in this night")
    expect(page.locator("#sweep")).to_have_attribute("aria-label", re.compile("No focus sweep"))


# ---- calibrations --------------------------------------------------------------------------------


def test_failing_amps_are_named_and_what_was_not_measured_looks_different(open_page, url):
    page = go(open_page, f"{url}/calibrations")
    expect(page.locator("#subjects tbody tr")).to_have_count(2)
    expect(page.locator("#failing")).to_contain_text("R22_S00 C03 NOISE")
    expect(page.locator("#plane")).to_have_attribute("aria-label", re.compile("1 fail"))
    page.goto(f"{url}/calibrations?detector=0")
    noise = page.locator("#detail tbody tr", has_text="NOISE")
    expect(noise.locator('td[data-outcome="fail"]')).to_have_text("✕ 12.50")
    expect(noise.locator('td[data-outcome="not_measured"]')).to_have_text("– —")
    expect(noise.locator('td[data-outcome="pass"]').first).to_have_text("5.50")


def test_another_exposure_and_test_can_be_chosen_by_address(open_page, url):
    page = go(open_page, f"{url}/calibrations?of={EXPOSURE + 11}:bias")
    expect(page.locator("#failing")).to_contain_text("No amp fails.")
    page.locator("#test").select_option("MEAN")
    expect(page.locator("#plane")).to_have_attribute("aria-label", re.compile("9 pass"))
    page.keyboard.press("z")
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")


def test_a_bias_that_arrives_joins_the_list(open_page, stage, url):
    page = go(open_page, f"{url}/calibrations")
    expect(page.locator("#subjects tbody tr")).to_have_count(2)
    stage.post(21, [3], image_type="bias", pipeline="bias")
    stage.finish([3])
    job = stage.board.next_gather("gather-1", timeout_s=WAIT_S)
    assert job is not None
    tell_bias(stage, 21, is_bad=False)
    stage.board.complete_gather(job, {"day_obs": DAY_OBS, "products": {}})
    expect(page.locator("#subjects tbody tr")).to_have_count(3)


# ---- the cluster ---------------------------------------------------------------------------------


def test_workers_are_shown_on_the_focal_plane_and_in_the_table(open_page, stage, url):
    page = go(open_page, f"{url}/cluster")
    stage.post(30)
    stage.take(3)
    row = page.locator("#workers tr", has_text="worker-3")
    expect(row).to_contain_text("busy")
    expect(row).to_contain_text("quicklook.003")
    expect(row).to_contain_text("R22_S10")
    # Every worker is pinned, so nobody would take the others.
    expect(page.locator("#plane")).to_have_attribute("aria-label", re.compile("1 busy, 8 missing|8 missing, 1 busy"))
    stage.finish([4])
    expect(page.locator("#latencies")).to_contain_text("one job")


def test_a_dead_letter_is_queued_again_by_order_and_the_log_says_who(open_page, stage, url, desk):
    stage.post(31, [4])
    stage.fail(4, "bad column")
    page = go(open_page, f"{url}/cluster", may_complain=True)  # of the 401 that asks for the token
    row = page.locator("#letters tr", has_text="bad column")
    row.get_by_role("button", name="Retry").click()
    page.locator("#order-reason").fill("was the network")
    page.locator("#order-go").click()
    give_token(page)
    expect(page.locator("#orders")).to_contain_text("queued again (was the network)")
    expect(page.locator("#orders")).to_contain_text("ann")
    expect(page.locator("#letters")).to_contain_text("No dead letter")
    assert stage.take(4).attempt >= 1


def test_without_a_token_nothing_is_ordered(open_page, stage, url):
    stage.post(32, [4])
    stage.fail(4, "bad column")
    page = go(open_page, f"{url}/cluster", may_complain=True)
    page.get_by_role("button", name="Discard").click()
    page.locator("#order-go").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#order-error")).to_contain_text("needs a token")
    assert len(stage.board.dead_letters(10)) == 1
    assert OperationsStore(stage.results.engine).recent(stage.camera.name) == []


def test_orders_that_cannot_be_are_refused_with_the_field(stage, url, log):
    store = OperationsStore(stage.results.engine)
    store.put_supervisor(
        stage.camera.name, SupervisorRecord(name="vm:/d", host="vm", n_workers=2, max_workers=4, seen_at=stage.now)
    )
    head = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=url, headers=head, timeout=WAIT_S) as client:

        def order(**body: object) -> tuple[int, str | None]:
            answer = client.post("/api/cluster/orders", json=body)
            return answer.status_code, answer.json().get("error", {}).get("field")

        assert order(kind="scale", target="vm:/d", value=5) == (422, "value")
        assert order(kind="scale", target="elsewhere", value=2) == (404, None)
        assert order(kind="retry", target="prompt.1.quicklook.001") == (404, None)
        assert order(kind="restart_worker", target="nobody") == (404, None)
        assert order(kind="restart_workers", target="no pool") == (422, "target")
        assert order(kind="explode") == (422, "kind")
        assert order(kind="scale", target="vm:/d", value=4) == (202, None)
    assert [one.target for one in store.recent(stage.camera.name)] == ["vm:/d"]


# ---- the night log -------------------------------------------------------------------------------


def test_a_comment_is_seen_by_another_viewer_at_once(open_page, stage, url, log):
    writer = go(open_page, f"{url}/log/{DAY_OBS}", may_complain=True)  # of the 401 that asks for the token
    reader = go(open_page, f"{url}/log/{DAY_OBS}")
    expect(reader.locator("#entries")).to_contain_text("Nobody has written anything")
    writer.locator("#comment-text").fill("trail through R22_S11\n<b>bold</b>")
    writer.locator("#comment-seq").fill("2")
    writer.locator("#comment-flag").select_option("questionable")
    writer.get_by_role("button", name="Write").click()
    give_token(writer)
    entry = reader.locator("article")
    expect(entry).to_contain_text("<b>bold</b>")
    expect(entry).to_contain_text("seq 000002")
    expect(entry.locator(".flag")).to_have_text("questionable")
    (stored,) = log.entries(stage.camera.name, day_obs=DAY_OBS)
    assert (stored.exposure_id, stored.author) == (EXPOSURE + 2, "ann (token)")
    writer.get_by_role("button", name="take back").click()
    expect(reader.locator("#entries")).to_contain_text("Nobody has written anything")
    reader.locator("#with-history").click()
    expect(reader.locator("article")).to_contain_text("taken back by ann")


def test_a_comment_stands_on_its_exposures_page(open_page, stage, url, log):
    page = go(open_page, f"{url}/exposure/{EXPOSURE + 2}", may_complain=True)  # of the 401 that asks for the token
    comments = page.locator("#comments")
    expect(comments).to_contain_text("none")
    comments.locator("summary").click()
    page.locator("#comment-text").fill("out of focus")
    page.locator("#comment-flag").select_option("junk")
    page.get_by_role("button", name="Write").click()
    give_token(page)
    expect(comments.locator("article")).to_contain_text("out of focus")
    expect(comments.locator("article")).to_contain_text("junk")
    (stored,) = log.entries(stage.camera.name, exposure_id=EXPOSURE + 2)
    assert stored.flag is not None
    assert stored.flag.value == "junk"


def test_the_log_is_exported_and_in_the_report(stage, url, log):
    log.write(stage.camera.name, DAY_OBS, author="ann", now=stage.now, text="a, b", exposure_id=EXPOSURE + 1)
    with httpx.Client(base_url=url, timeout=WAIT_S) as client:
        csv = client.get(f"/api/log/{DAY_OBS}/csv")
        assert csv.headers["content-type"].startswith("text/csv")
        assert '"a, b"' in csv.text
        report = client.get(f"/api/nights/{DAY_OBS}/report").json()
        assert [entry["text"] for entry in report["comments"]] == ["a, b"]
        assert report["n_exposures"] == 10
        page = client.get(f"/night/{DAY_OBS}/report")
        assert "a, b" in page.text
        assert f"/exposure/{EXPOSURE + 1}" in page.text
        kept = client.get(f"/night/{DAY_OBS}/report", params={"download": True})
        assert "attachment" in kept.headers["content-disposition"]


def test_what_is_not_valid_is_refused_at_its_field(url):
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=WAIT_S) as client:

        def write(**body: object) -> tuple[int, str]:
            answer = client.post("/api/log", json=body)
            return answer.status_code, answer.json().get("error", {}).get("field")

        assert write(text="x") == (422, "exposure_id")
        assert write(day_obs=DAY_OBS) == (422, "text")
        assert write(day_obs=DAY_OBS, flag="junk") == (422, "flag")
        assert write(day_obs=20261119, exposure_id=EXPOSURE + 1, text="x") == (422, "day_obs")
        assert write(exposure_id=EXPOSURE + 1, flag="bad") == (422, "flag")
        assert write(exposure_id=EXPOSURE + 1, text="x", replaces=99)[0] == 404
        assert client.delete("/api/log/99").status_code == 404
    assert httpx.post(f"{url}/api/log", json={"day_obs": DAY_OBS, "text": "x"}, timeout=WAIT_S).status_code == 401


# ---- all of them ---------------------------------------------------------------------------------


def test_keys_lead_from_page_to_page(open_page, url):
    page = go(open_page, f"{url}/cluster")
    for key, path in (("f", "**/focus*/**"), ("v", "**/calibrations"), ("s", "**/cluster")):
        page.keyboard.press(key)
        page.wait_for_url(path if key != "f" else re.compile(r"/focus"))
        expect(page.locator("#live")).to_have_text("live")


def test_the_old_address_of_the_system_page_still_leads_somewhere(url):
    answer = httpx.get(f"{url}/system", timeout=WAIT_S)
    assert (answer.status_code, answer.headers["location"]) == (308, "/cluster")


def test_an_empty_store_has_empty_pages(open_page, make_stage, serve):
    stage = make_stage("LATISS")
    address = serve(stage.settings)
    for path, says in (
        ("/focus", "No donuts in this night"),
        ("/calibrations", "No calibration exposure in this night"),
        ("/cluster", "No worker has introduced itself"),
        ("/log", "There is no night yet."),
    ):
        page = go(open_page, address + path)
        expect(page.locator("main")).to_contain_text(says)
    put(stage, 1)  # and the stage is still good for something


# ---- a lost connection ---------------------------------------------------------------------------


def test_a_lost_connection_dims_every_page_then_they_catch_up_without_a_reload(open_page, stage, log):
    tell_night(stage)
    paths = (f"/focus/{DAY_OBS}", "/calibrations", "/cluster", f"/log/{DAY_OBS}")
    with serve_display(stage.settings) as address:
        pages = [go(open_page, address + path, may_complain=True) for path in paths]
        focus, calibrations, cluster, night_log = pages
        expect(focus.locator("#sweep")).to_have_attribute("data-points", "5")
        expect(calibrations.locator("#subjects tbody tr")).to_have_count(2)
        expect(night_log.locator("#entries")).to_contain_text("Nobody has written anything")
        for page in pages:
            page.evaluate("window.untouched = true")
    for page in pages:
        expect(page.locator("#lost")).to_contain_text(re.compile(r"Connection lost since \d\d:\d\d:\d\d UTC"))
        expect(page.locator("main")).to_have_css("opacity", "0.45")
        expect(page.locator("#live")).to_have_text("lost")
    # What happens meanwhile, nobody tells the pages of: it is there once they have asked again.
    tell_sweep_point(stage, 20, 0.14, has_fit=True)
    tell_bias(stage, 21, is_bad=False)
    stage.post(22)
    stage.take(3)
    log.write(stage.camera.name, DAY_OBS, author="ann", now=stage.now, text="clouds came in")
    with serve_display(stage.settings, port=int(address.rsplit(":", 1)[1])):
        for page in pages:
            expect(page.locator("#lost")).to_be_hidden(timeout=20_000)
            expect(page.locator("main")).to_have_css("opacity", "1")
            expect(page.locator("#live")).to_have_text("live")
        expect(focus.locator("#sweep")).to_have_attribute("data-points", "6")
        expect(calibrations.locator("#subjects tbody tr")).to_have_count(3)
        expect(cluster.locator("#workers tr", has_text="worker-3")).to_contain_text("busy")
        expect(night_log.locator("article")).to_contain_text("clouds came in")
        assert all(page.evaluate("window.untouched") for page in pages), "a page was loaded anew"
