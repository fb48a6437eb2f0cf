"""An exposure's own page, and the state of the system."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
EXPOSURE = 2026112000001


def test_every_detector_is_listed_with_its_numbers_and_reason(open_page, stage, url):
    stage.post(1, gather_timeout_ms=1)
    results = stage.finish(range(7))
    stage.fail(7, "the fit did not converge")
    stage.gather()
    page = open_page(f"{url}/exposure/{EXPOSURE}")
    expect(page.locator("#detectors tbody tr")).to_have_count(9)
    for result in results:
        row = page.locator(f"#detectors tr[data-detector='{result.detector}']")
        expect(row).to_contain_text(f"{result.metrics['psf_fwhm_arcsec']:.2f}")
        expect(row).to_contain_text(str(result.metrics["n_stars"]))
    expect(page.locator("#detectors tr[data-detector='7']")).to_contain_text("the fit did not converge")
    failures = page.locator("#failures")
    expect(failures).to_contain_text("the fit did not converge")
    failures.locator("summary").first.click()
    expect(failures.locator("pre")).to_contain_text("line 7")


def test_what_failed_alike_is_one_entry_that_names_them_all(open_page, stage, url):
    stage.post(1)
    for detector in range(8):
        stage.fail(detector, "no bias has been certified")
    stage.fail(8, "bad column")
    stage.gather(with_mosaic=False)
    page = open_page(f"{url}/exposure/{EXPOSURE}")
    groups = page.locator("#failures details")
    expect(groups).to_have_count(2)
    expect(groups.first).to_contain_text("8 detectors quicklook no bias has been certified")
    expect(groups.nth(1)).to_contain_text(f"{stage.camera.by_id[8].name} quicklook bad column")
    groups.first.locator("summary").click()
    expect(groups.first.locator("a")).to_have_count(8)
    expect(groups.first.locator("a").first).to_have_text(f"{stage.camera.by_id[0].name} ")
    page.goto(url)
    expect(page.locator("#mosaic")).to_contain_text("This summary has no mosaic")


def test_a_detector_shows_amps_timings_and_provenance(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9))
    page = open_page(f"{url}/exposure/{EXPOSURE}?detector=4")
    detail = page.locator("#detail")
    expect(detail.locator("h1")).to_contain_text(stage.camera.by_id[4].name)
    expect(detail.locator("#amps tbody tr")).to_have_count(len(stage.camera.by_id[4].amps))
    expect(detail.locator("#amps tbody tr").first).to_contain_text("5.25")
    expect(detail).to_contain_text("/raws/1_4.fits")
    expect(detail).to_contain_text("0.500 s")
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()


def test_versions_of_the_summary_are_all_there(open_page, stage, url):
    stage.post(1, gather_timeout_ms=1)
    stage.finish([0, 1])
    stage.gather()
    page = open_page(f"{url}/exposure/{EXPOSURE}")
    expect(page.locator("#about")).to_contain_text("quicklook v1")
    stage.finish(range(2, 9))
    stage.gather()
    expect(page.locator("#about")).to_contain_text("quicklook v2")
    expect(page.locator("#about")).to_contain_text(re.compile("2/9, timeout"))


def test_nothing_is_wider_than_the_page(open_page, stage, url):
    stage.post(1)
    stage.finish(range(9), metrics=lambda *_: {f"a_long_metric_name_{n}_arcsec": 1.5 for n in range(30)})
    stage.gather()
    for width in (1600, 1200, 390):
        page = open_page(f"{url}/exposure/{EXPOSURE}?detector=4", width=width)
        expect(page.locator("#detail h1")).to_be_visible()
        expect(page.locator("#about")).to_contain_text("quicklook v1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_arrow_keys_walk_through_the_night(open_page, stage, serve):
    stage.put_night(3)
    page = open_page(f"{serve(stage.settings)}/exposure/{EXPOSURE + 1}")
    expect(page.locator("#detectors tbody tr")).to_have_count(9)
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/exposure/{EXPOSURE + 2}")
    expect(page.locator("#detectors tbody tr")).to_have_count(9)
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/exposure/{EXPOSURE + 1}")


def test_an_unknown_exposure_is_a_page_with_a_way_back(open_page, url):
    page = open_page(f"{url}/exposure/2026112000099", may_complain=True)
    expect(page.locator("h1")).to_contain_text("2026112000099")
    expect(page.get_by_role("link", name="Night").first).to_be_visible()


def test_the_system_page_shows_queues_workers_and_dead_letters(open_page, stage, url):
    page = open_page(f"{url}/system")
    expect(page.locator("#live")).to_have_text("live")
    stage.post(1)
    expect(page.locator("#queues")).to_contain_text(re.compile(r"science\D*9"))
    stage.take(3)
    row = page.locator("#workers tr", has_text="worker-3")
    expect(row).to_contain_text("busy")
    expect(row).to_contain_text("quicklook.003")
    stage.fail(4, "bad column")
    expect(page.locator("#failures")).to_contain_text("bad column")


def test_the_system_page_lists_raws_in_quarantine(open_page, stage, url):
    from datetime import UTC, datetime

    from rapid.dispatch.models import EventKind
    from rapid.results.models import QuarantineRecord

    page = open_page(f"{url}/system")
    expect(page.locator("#quarantine")).to_contain_text("Every raw could be read.")
    stage.results.put_quarantine(
        QuarantineRecord(
            camera=stage.camera.name,
            uri="/raws/broken.fits",
            code="raw_truncated",
            reason="ends 2880 bytes early",
            size_bytes=1440,
            quarantined_at=datetime(2026, 11, 21, 3, tzinfo=UTC),
        )
    )
    stage.board.publish(EventKind.RAW_QUARANTINED, data={"uri": "/raws/broken.fits"})
    expect(page.locator("#quarantine")).to_contain_text("ends 2880 bytes early")
    expect(page.locator("#quarantine")).to_contain_text("/raws/broken.fits")
