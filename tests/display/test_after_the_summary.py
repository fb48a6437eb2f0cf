"""What happens to a summary once it is out, on the pages: publishing, plots; and numbers that not every site has."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import expect

from rapid.nightlog.models import Flag
from rapid.nightlog.store import NightLog
from rapid.publish.status import DeadParcel, DestinationStatus, PublishStatus, SentRow
from rapid.publish.store import put_sent, put_status
from tests.display.stage import DAY_OBS, WAIT_S, sky_metrics

EXPOSURE = DAY_OBS * 100_000 + 1
WHEN = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)


def tell_status(stage, *destinations, **facts) -> None:
    status = PublishStatus(
        name="publish.here",
        camera=stage.camera.name,
        at_ms=stage.board.now_ms(),
        destinations=list(destinations),
        **facts,
    )
    stage.board.connection.run(put_status(stage.board.prefix, status))


def publishing(url: str) -> dict | None:
    return httpx.get(f"{url}/api/cluster", timeout=WAIT_S).raise_for_status().json()["publish"]


@pytest.mark.browser
def test_the_cluster_page_tells_how_publishing_stands(open_page, stage, url):
    assert publishing(url) is None
    page = open_page(f"{url}/cluster")
    panel = page.get_by_role("region", name="Publishing")
    expect(panel).to_contain_text("Nobody publishes")
    dead = DeadParcel(key="lsstcomcam/x/metadata.json", error="refused: no such bucket", failures=6, at=WHEN)
    down = DestinationStatus(
        name="consdb",
        is_up=False,
        down_since=WHEN,
        error="ConsDB does not answer",
        n_waiting=7,
        oldest_s=90.0,
        n_sent=3,
    )
    tell_status(
        stage,
        DestinationStatus(name="rubintv", n_sent=12, n_dead=1, last_sent=WHEN, dead=[dead]),
        down,
        behind_s=0.4,
        troubles=["04:00:00 lost a source: away"],
    )
    assert publishing(url)["status"]["destinations"][1]["n_waiting"] == 7
    stage.post(1)  # whatever happens on the board: the page looks again
    rows = page.locator("#publish tbody tr")
    expect(rows).to_have_count(2)
    for text in ("consdb", "down since 04:00:00", "7", "90 s", "ConsDB does not answer"):
        expect(rows.nth(1)).to_contain_text(text)
    expect(rows.nth(0)).to_contain_text("04:00:00")
    expect(page.locator("#publish-note")).to_contain_text("a row 0.4 s after its summary")
    expect(page.locator("#publish-dead summary")).to_have_text("1 given up, 1 not understood")
    page.locator("#publish-dead summary").click()
    expect(page.locator("#publish-dead")).to_contain_text("no such bucket")
    expect(page.locator("#publish-dead")).to_contain_text("lost a source")


@pytest.mark.browser
def test_the_gantt_has_bars_for_plots_and_publishing(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9))
    summary = stage.gather()
    stage.results.add_to_summary(summary, timings={"plots_s": 2.0, "plots_after_s": 0.25})
    ms = int(summary.gathered_at.timestamp() * 1000)
    row = SentRow(
        destination="rubintv", exposure=EXPOSURE, pipeline="quicklook", version=1, begin_ms=ms + 10, end_ms=ms + 400
    )
    stage.board.connection.run(put_sent(stage.board.prefix, DAY_OBS, [row]))
    lanes = httpx.get(f"{url}/api/exposures/{EXPOSURE}/timeline", timeout=WAIT_S).raise_for_status().json()["lanes"]
    bars = [bar for lane in lanes if lane["name"] == "gather quicklook v1" for bar in lane["bars"]]
    assert [bar["kind"] for bar in bars] == ["gather", "plots", "publish"]
    assert [bar["name"] for bar in bars][1:] == ["plots", "to rubintv"]
    page = open_page(f"{url}/exposure/{EXPOSURE}")
    for name in ("gather", "plots", "publish"):
        expect(page.locator("#gantt-legend")).to_contain_text(name)


@pytest.mark.browser
def test_work_left_for_later_does_not_squeeze_the_first_summary(open_page, stage, url):
    stage.post(1)
    first = stage.finish(range(9))
    stage.gather()
    late = first[0].model_copy(update={"detector": 8, "finished_at": datetime.now(UTC) + timedelta(minutes=7)})
    stage.results.put_result(late)
    page = open_page(f"{url}/exposure/{EXPOSURE}")
    button = page.locator("#gantt-whole")
    expect(button).to_have_text("and 1 later")
    narrow = page.locator("#gantt").get_attribute("aria-label")
    button.click()
    expect(button).to_have_text("up to the first summary")
    expect(page.locator("#gantt")).not_to_have_attribute("aria-label", narrow)
    button.click()
    expect(page.locator("#gantt")).to_have_attribute("aria-label", narrow)


@pytest.mark.browser
def test_a_mosaic_says_how_many_detectors_it_shows_not_how_many_have_come_since(open_page, stage, url):
    page = open_page(url)
    stage.post(1, gather_timeout_ms=1)
    stage.finish([0, 1])
    stage.gather()
    expect(page.locator("#mosaic-note")).to_have_text("partial, 2 of 9 detectors")
    stage.finish([2, 3])
    expect(page.locator("#pipeline .value > span").first).to_have_text("4/9")
    expect(page.locator("#mosaic-note")).to_have_text("partial, 2 of 9 detectors")
    stage.finish(range(4, 9))
    stage.gather()
    expect(page.locator("#mosaic-note")).to_have_text("")


@pytest.mark.browser
def test_mount_motion_is_shown_where_it_is_measured(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9))
    stage.gather()
    page = open_page(url)
    expect(page.locator("#pipeline")).to_contain_text("complete")
    tile = page.locator('[data-tile="mount"]')
    expect(tile).to_be_hidden()
    stage.post(2)
    stage.finish(range(9), metrics=lambda *at: {**sky_metrics(*at), "mount_motion_image_degradation_arcsec": 0.125})
    stage.gather()
    expect(tile).to_be_visible()
    expect(tile.locator(".value")).to_have_text("0.125″")
    page.keyboard.press("ArrowLeft")  # this one has none, but the night has: the place is kept
    expect(page.locator("#seq")).to_have_text("000001")
    expect(tile.locator(".value")).to_have_text("—")


def test_a_nights_csv_has_the_flags_of_its_log(stage, url):
    stage.post(1)
    stage.finish(range(9))
    stage.gather()
    log = NightLog(stage.results.engine)
    log.write(
        stage.camera.name, DAY_OBS, author="ann", now=WHEN, text="a satellite", exposure_id=EXPOSURE, flag=Flag.JUNK
    )
    text = httpx.get(f"{url}/api/nights/{DAY_OBS}/csv", timeout=WAIT_S).raise_for_status().text
    header, line = text.splitlines()
    found = dict(zip(header.split(","), line.split(","), strict=True))
    assert (found["flag"], found["comments"]) == ("junk", "ann: a satellite")
