"""Withdrawing, certifying and redoing on the Calibrations page, clicked through against the real routes and stores."""

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect
from pydantic import SecretStr

from rapid.results.models import CalibRecord, CalibState
from tests.display.stage import DAY_OBS, WAIT_S
from tests.display.test_requests_page import TOKEN, Desk

pytestmark = pytest.mark.browser

CALIB = "LSSTComCam-004-bias-20261120T200000-v1"


def test_a_master_is_certified_then_withdrawn_and_what_it_touched_is_asked_for_again(open_page, stage, serve):
    record = CalibRecord(
        calib_id=CALIB, camera=stage.camera.name, detector=4, kind="bias", valid_from=datetime(2026, 11, 20, 20),  # noqa: DTZ001 - TAI
        version=1, path="b.fits", sha256="b", created_at=datetime.now(UTC), outcome="fail", failures=["C00 NOISE"],
        state=CalibState.REJECTED,
    )  # fmt: skip
    stage.results.add_calib(lambda version: record.model_copy(update={"version": version}))
    stage.post(1, [4])
    stage.finish([4])
    (found,) = stage.results.results(DAY_OBS * 100_000 + 1, camera=stage.camera.name)
    found.provenance.calibs["bias"] = CALIB
    stage.results.put_result(found)
    stage.gather(with_mosaic=False)

    def state() -> CalibRecord:
        return stage.results.calib(stage.camera.name, CALIB)

    address = serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN)}))
    with Desk(stage):
        page = open_page(f"{address}/calibrations", may_complain=True)  # of the 401 that asks for the token
        page.get_by_role("button", name=re.compile("^Detectors of bias")).click()
        page.get_by_role("button", name=f"Certify {CALIB}").click()
        page.locator("#order-go").click()
        expect(page.locator("#order-reason")).to_be_visible()  # not without a reason
        assert state().state is CalibState.REJECTED
        page.locator("#order-reason").fill("it was the dome lamp")
        page.locator("#order-go").click()
        page.locator("#token-name").fill("ann")
        page.locator("#token").fill(TOKEN)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("#masters tr.detail")).to_contain_text("certified, overridden")
        assert (state().state, state().is_overridden) == (CalibState.CERTIFIED, True)

        page.get_by_role("button", name=f"Withdraw {CALIB}").click()
        page.locator("#order-reason").fill("light leak")
        page.locator("#order-go").click()
        expect(page.locator("#masters tr.detail")).to_contain_text("withdrawn")
        assert (state().state, state().state_reason) == (CalibState.WITHDRAWN, "light leak")
        authors = [event.author for event in stage.results.calib_events(stage.camera.name, CALIB)][1:]
        assert authors == ["ann (token)"] * 2

        page.get_by_role("button", name=f"What used {CALIB}").click()
        expect(page.get_by_role("heading", name="1 results of 1 exposures used it")).to_be_visible()
        page.get_by_role("button", name="Do 1 results again").click()
        page.wait_for_url(re.compile(r"/requests\?id=\d+-\d+"), timeout=1000 * WAIT_S)
        expect(page.locator("main")).to_contain_text(f"redo {CALIB}")
        # It was the only bias: there is nothing to do it again with, and whoever asked is told so.
        expect(page.locator("main")).to_contain_text("there is no certified bias in the place of")
        assert (
            stage.results.results(DAY_OBS * 100_000 + 1, camera=stage.camera.name)[0].provenance.calibs["bias"] == CALIB
        )


def test_masters_are_ordered_about_together_and_a_wrong_order_says_what_is_wrong(open_page, stage, serve):
    for detector in (4, 5):
        record = CalibRecord(
            calib_id=f"LSSTComCam-00{detector}-dark-20261120T200000-v1", camera=stage.camera.name, detector=detector,
            kind="dark", valid_from=datetime(2026, 11, 20, 20), version=1, path=f"{detector}.fits", sha256=str(detector),  # noqa: DTZ001 - TAI
            created_at=datetime.now(UTC), outcome="pass",
        )  # fmt: skip
        stage.results.add_calib(lambda version, made=record: made.model_copy(update={"version": version}))

    def states() -> list[str]:
        return [one.state.value for one in stage.results.calibs(stage.camera.name, kind="dark", state=None)]

    address = serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN)}))
    with Desk(stage):
        page = open_page(f"{address}/calibrations", may_complain=True)  # of what is refused below
        page.evaluate(f"sessionStorage.setItem('rapid.token', '{TOKEN}'); sessionStorage.setItem('rapid.name', 'ann')")
        page.get_by_role("button", name=re.compile("^Detectors of dark")).click()
        page.get_by_role("button", name="Withdraw these dark masters").click()
        page.locator("#order-reason").fill("   ")
        page.locator("#order-go").click()
        expect(page.locator("#master-error")).to_contain_text("say why")
        assert states() == ["certified", "certified"]
        page.get_by_role("button", name="Withdraw these dark masters").click()
        page.locator("#order-reason").fill("light leak")
        page.locator("#order-go").click()
        expect(page.locator("#masters tr.detail")).not_to_contain_text("certified", timeout=1000 * WAIT_S)
        assert states() == ["withdrawn", "withdrawn"]
        page.get_by_role("button", name="Certify these dark masters").click()
        page.locator("#order-reason").fill("it was the screen")
        page.locator("#order-go").click()
        expect(page.locator("#masters tr.detail")).not_to_contain_text("withdrawn", timeout=1000 * WAIT_S)
        assert states() == ["certified", "certified"]

        page.locator("#build").click()
        page.locator("#order-kind").select_option("ptc")
        page.locator("#order-exposures").fill(f"{DAY_OBS}00001")
        page.locator("#order-send").click()
        expect(page.locator("dialog .error")).to_contain_text("build_ptc needs 8 exposures")
        page.locator("#order-exposures").fill(f"{DAY_OBS}00001-{DAY_OBS}00008")
        page.locator("#order-send").click()
        page.wait_for_url(re.compile(r"/requests\?id=\d+-\d+"), timeout=1000 * WAIT_S)
        expect(page.locator("main")).to_contain_text("build ptc")


def test_exposures_are_left_out_by_hand_and_by_a_rule_that_was_tried_first(open_page, stage, serve):
    address = serve(stage.settings.model_copy(update={"token": SecretStr(TOKEN)}))
    page = open_page(f"{address}/calibrations", may_complain=True)  # of what is refused below
    page.evaluate(f"sessionStorage.setItem('rapid.token', '{TOKEN}'); sessionStorage.setItem('rapid.name', 'ann')")
    page.locator("#leave-out").click()
    page.locator("#order-exposures").fill(f"{DAY_OBS}00012-x")
    page.locator("#order-reason").fill("shutter stuck")
    page.locator("#order-send").click()
    expect(page.locator("dialog .error")).to_contain_text("no range FIRST-LAST")
    page.locator("#order-exposures").fill(f"{DAY_OBS}00012-{DAY_OBS}00013")
    page.locator("#order-send").click()
    expect(page.locator("#left-out")).to_contain_text("shutter stuck")
    expect(page.locator("#left-out a")).to_have_count(2)

    page.locator("#add-rule").click()
    page.locator("#order-expression").fill("bias_mean_adu > ")
    page.locator("#order-first").fill(str(DAY_OBS))
    page.locator("#order-reason").fill("light leak")
    page.locator("#order-send").click()
    expect(page.locator("dialog .error")).to_contain_text("expression")
    page.locator("#order-expression").fill("bias_mean_adu > 5")
    page.locator("#order-send").click()
    expect(page.locator("dialog [role=status]")).to_contain_text("It finds nothing so far")
    page.get_by_role("button", name="Make the rule").click()
    expect(page.locator("#left-out")).to_contain_text("bias_mean_adu > 5")
