"""The night's table with a thousand exposures."""

import csv
import re

import httpx
import pytest
from playwright.sync_api import expect
from pydantic import SecretStr

from rapid.nightlog.models import Flag
from rapid.nightlog.store import NightLog
from tests.display.stage import DAY_OBS

pytestmark = pytest.mark.browser

TOKEN = "a-long-enough-token"


def sequence_numbers(page) -> list[int]:
    return [int(text) for text in page.locator("#table tbody tr[data-id] td:first-child a").all_inner_texts()]


def test_an_empty_night_says_so(open_page, url):
    page = open_page(f"{url}/night/20261119")
    expect(page.locator("#empty")).to_have_text("Nothing has been taken this night")


def test_a_night_fills_live_newest_first(open_page, stage, url):
    page = open_page(f"{url}/night/{DAY_OBS}")
    expect(page.locator("#live")).to_have_text("live")
    for seq_num in (1, 2, 3):
        stage.post(seq_num)
    expect(page.locator("#count")).to_have_text("3")
    expect(page.locator("#table tbody tr[data-id]")).to_have_count(3)
    assert sequence_numbers(page) == [3, 2, 1]


def test_a_thousand_exposures_scroll_with_few_rows_in_the_document(open_page, stage, serve):
    stage.put_night(1000, day_obs=20261118)
    stage.put_night(1)
    page = open_page(f"{serve(stage.settings)}/night/20261118")
    expect(page.locator("#count")).to_have_text("1000")
    assert sequence_numbers(page)[0] == 1000
    # Rows in the document are what a frame costs: counted at every step, for a busy machine's clock says little.
    most = page.evaluate(
        """async () => {
          const box = document.querySelector('#scroll');
          let most = 0;
          for (let n = 0; n < 60; n += 1) {
            box.scrollTop += 450;
            await new Promise(requestAnimationFrame);
            await new Promise(requestAnimationFrame);
            most = Math.max(most, document.querySelectorAll('#table tbody tr').length);
          }
          return most;
        }"""
    )
    assert 10 < most < 120
    assert sequence_numbers(page)[0] < 200


def test_numbers_are_filtered_by_ranges_and_words_by_parts(open_page, stage, serve):
    stage.put_night(60)
    page = open_page(f"{serve(stage.settings)}/night/{DAY_OBS}")
    expect(page.locator("#count")).to_have_text("60")
    page.get_by_label(re.compile("^Filter Seq")).fill("10..12")
    expect(page.locator("#count")).to_have_text("3 of 60")
    assert sequence_numbers(page) == [12, 11, 10]
    page.get_by_label(re.compile("^Filter Filter")).fill("r_57")
    expect(page.locator("#count")).to_have_text("1 of 60")
    assert "f.seq_num=10..12" in page.url
    page.reload()
    expect(page.locator("#count")).to_have_text("1 of 60")
    page.locator("#clear").click()
    expect(page.locator("#count")).to_have_text("60")


def test_a_column_is_sorted_by_its_head_both_ways(open_page, stage, serve):
    stage.put_night(17)
    page = open_page(f"{serve(stage.settings)}/night/{DAY_OBS}")
    expect(page.locator("#count")).to_have_text("17")
    head = page.get_by_role("button", name=re.compile("^FWHM"))
    by_fwhm = sorted(range(1, 18), key=lambda seq_num: seq_num % 17)
    head.first.click()
    expect(page.locator("#table tbody tr[data-id]").first).to_contain_text("16")
    assert sequence_numbers(page) == by_fwhm[::-1]
    head.first.click()
    expect(page.locator("#table tbody tr[data-id]").first).to_contain_text("17")
    assert sequence_numbers(page) == by_fwhm


def test_the_download_holds_what_is_on_show(open_page, stage, serve, tmp_path):
    stage.put_night(20)
    page = open_page(f"{serve(stage.settings)}/night/{DAY_OBS}?f.seq_num=>15")
    expect(page.locator("#count")).to_have_text("5 of 20")
    with page.expect_download() as got:
        page.locator("#csv").click()
    got.value.save_as(tmp_path / "night.csv")
    rows = list(csv.DictReader((tmp_path / "night.csv").read_text().splitlines()))
    assert [int(row["seq_num"]) for row in rows] == [20, 19, 18, 17, 16]
    assert rows[0]["exposure_id"] == f"{DAY_OBS}00020"


def test_the_keyboard_leads_to_an_exposure(open_page, stage, serve):
    stage.put_night(5)
    page = open_page(f"{serve(stage.settings)}/night/{DAY_OBS}")
    expect(page.locator("#count")).to_have_text("5")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("tr[aria-selected=true]")).to_contain_text("4")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/exposure/{DAY_OBS}00004")


def test_the_calendar_leads_to_other_nights(open_page, stage, serve):
    stage.put_night(2, day_obs=20261117)
    stage.put_night(3)
    page = open_page(f"{serve(stage.settings)}/night/{DAY_OBS}")
    expect(page.locator("#count")).to_have_text("3")
    page.locator("#calendar a[href='/night/20261117']").click()
    page.wait_for_url("**/night/20261117")
    expect(page.locator("#count")).to_have_text("2")


def test_a_chosen_column_stays_chosen(open_page, stage, serve):
    stage.put_night(2)
    page = open_page(f"{serve(stage.settings)}/night/{DAY_OBS}")
    expect(page.locator("#count")).to_have_text("2")
    assert page.locator("thead th[title=program]").count() == 0
    page.locator("#columns").click()
    page.locator("#chooser label[title=program] input").check()
    expect(page.locator("thead th[title=program]")).to_be_visible()
    page.reload()
    expect(page.locator("thead th[title=program]")).to_be_visible()


def test_flags_of_the_night_log_are_a_column_live_and_to_be_filtered(open_page, stage, serve):
    stage.put_night(5)
    address = serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN)}))
    log = NightLog(stage.results.engine)
    log.write(
        stage.camera.name, DAY_OBS, author="ann", now=stage.now, exposure_id=DAY_OBS * 100_000 + 2, flag=Flag.JUNK
    )
    page = open_page(f"{address}/night/{DAY_OBS}")
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("tr[data-id] .flag")).to_have_text(["junk"])
    body = {"exposure_id": DAY_OBS * 100_000 + 4, "flag": "questionable"}
    answer = httpx.post(f"{address}/api/log", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20.0)
    assert answer.is_success, answer.text
    expect(page.locator("tr[data-id] .flag")).to_have_text(["questionable", "junk"])
    page.get_by_label("Filter Flag").fill("junk")
    expect(page.locator("#count")).to_have_text("1 of 5")
    assert sequence_numbers(page) == [2]
    page.get_by_label("Filter Flag").fill("-")
    expect(page.locator("#count")).to_have_text("3 of 5")
    assert sequence_numbers(page) == [5, 3, 1]
    assert "f.flag=-" in page.url
