"""What is switched off is shown as excluded, with its reason, and never as missing: on every page and in every answer."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.display.stage import DAY_OBS, WAIT_S

pytestmark = pytest.mark.browser

EXPOSURE = DAY_OBS * 100_000 + 1
WHY = "noisy since the power cut (ann, since 2026-11-20 20:00 UTC)"
AMPS = {"R22_S11": {"C03": "dead (bob, since 2026-11-01 12:00 UTC)"}}


def take_with_exclusions(stage):
    info = {**stage.info(1), "excluded_amps": AMPS}
    stage.info = lambda *_: info
    stage.post(1, excluded={8: WHY}, control={"version": 7, "pattern": "R22", "guaranteed": False})
    stage.finish(range(8))
    summary = stage.gather()
    assert summary.n_expected == 9  # the hand that plays the gather counts all; the row is what counts here
    return summary


def test_an_exposure_with_excluded_detectors_is_complete_everywhere(open_page, stage, url):
    take_with_exclusions(stage)
    row = httpx.get(f"{url}/api/exposures/{EXPOSURE}", timeout=WAIT_S).json()["row"]
    assert (row["state"], row["n_finished"], row["n_expected"]) == ("complete", 8, 8)
    assert (row["missing"], row["n_excluded"], row["n_excluded_amps"]) == ([], 1, 1)
    assert [(one["name"], one["reason"]) for one in row["excluded"]] == [("R22_S22", WHY)]
    csv = httpx.get(f"{url}/api/nights/{DAY_OBS}/csv", timeout=WAIT_S).text.splitlines()
    facts = dict(zip(csv[0].split(","), csv[1].split(","), strict=True))
    assert (facts["state"], facts["n_excluded"], facts["n_excluded_amps"]) == ("complete", "1", "1")

    now = open_page(url)
    pipeline = now.locator("#pipeline")
    expect(pipeline).to_contain_text("8/8")
    expect(pipeline).to_contain_text("complete")
    expect(pipeline).to_contain_text("1 detector and 1 amp excluded")
    name = pipeline.locator(".missing a", has_text="R22_S22")
    expect(name).to_have_attribute("title", f"excluded: {WHY}")
    expect(name).to_have_attribute("data-state", "excluded")
    expect(now.locator("#mosaic-note")).to_have_text("")
    expect(now.locator("#plane")).to_have_attribute("aria-label", re.compile("1 excluded"))

    night = open_page(f"{url}/night/{DAY_OBS}")
    expect(night.locator("#table tbody tr").first).to_contain_text("complete, 1 detector and 1 amp excluded")

    page = open_page(f"{url}/exposure/{EXPOSURE}")
    expect(page.locator("#counts")).to_contain_text("complete, version 1, 1 detector and 1 amp excluded")
    expect(page.locator("#about")).to_contain_text(WHY)
    expect(page.locator("#about")).to_contain_text("R22_S11/C03")
    expect(page.locator("#about")).to_contain_text("dead (bob")
    expect(page.locator("#about tr", has_text="pattern").first).to_contain_text("R22")
    expect(page.locator("#about")).not_to_contain_text("[object Object]")
    expect(page.locator('#detectors tr[data-detector="8"]')).to_contain_text(WHY)
