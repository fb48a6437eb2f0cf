"""The report of a night: hours, counts, quality, what is missing and why, calibrations, comments."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from rapid.camera.store import load_camera
from rapid.nightlog.models import Flag
from rapid.nightlog.page import render_report
from rapid.nightlog.report import night_report
from rapid.nightlog.store import NightLog
from rapid.results.models import DetectorState, DetectorStatus, QuarantineRecord
from rapid.results.store import open_results
from tests.support.records import make_summary

DAY = 20261120
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BEGIN = datetime(2026, 11, 21, 2, 0)  # noqa: DTZ001 - TAI, as headers write it
CAMERA = load_camera("LSSTCam")


@pytest.fixture
def results(tmp_path):
    store = open_results(str(tmp_path / "results.sqlite"))
    yield store
    store.close()


def put(results, seq_num, *, fwhm=0.8, physical_filter="r_57", image_type="science", after_s=None, **changes):
    begin = BEGIN + timedelta(seconds=40 * seq_num if after_s is None else after_s)
    info = {"begin": begin.isoformat(), "exposure_time_s": 30.0, "physical_filter": physical_filter}
    metrics = {"psf_fwhm_arcsec_median": fwhm} | changes.pop("metrics", {})
    results.put_summary(make_summary(seq_num, image_type=image_type, info=info, metrics=metrics, **changes))


def test_a_night_without_exposures_is_empty_and_says_so(results):
    report = night_report(CAMERA, results, DAY, now=NOW)
    assert (report.n_exposures, report.counts, report.quality, report.series) == (0, [], [], [])
    assert report.efficiency.open_fraction == 0.0
    assert "Nothing was taken this night." in render_report(report)


def test_hours_counts_and_gaps_are_those_of_the_exposures(results):
    for seq_num in (1, 2, 3):
        put(results, seq_num)
    put(results, 4, physical_filter="i_39", after_s=40 * 3 + 30 + 600)
    put(results, 5, image_type="bias", physical_filter=None, pipeline="bias")
    report = night_report(CAMERA, results, DAY, now=NOW)
    used = report.efficiency
    assert (used.n_sky, used.open_hours) == (4, pytest.approx(120 / 3600))
    assert used.first == datetime(2026, 11, 21, 2, 0, 3, tzinfo=UTC)  # TAI is 37 s ahead
    assert used.typical_gap_s == pytest.approx(10.0)
    assert [(gap.after_seq_num, gap.minutes) for gap in used.long_gaps] == [(3, pytest.approx(10.0))]
    assert used.open_fraction == pytest.approx(120 / 3600 / used.night_hours)
    assert {(c.image_type, c.physical_filter): c.n for c in report.counts} == {
        ("science", "r_57"): 3,
        ("science", "i_39"): 1,
        ("bias", None): 1,
    }


def test_quality_is_told_by_filter_and_for_all(results):
    for seq_num, (fwhm, physical_filter) in enumerate([(0.7, "r_57"), (0.9, "r_57"), (0.6, "i_39")], start=1):
        put(results, seq_num, fwhm=fwhm, physical_filter=physical_filter)
    put(results, 4, fwhm=3.0, image_type="focus")
    spreads = {s.physical_filter: s for s in night_report(CAMERA, results, DAY, now=NOW).quality}
    assert spreads["r_57"].median == pytest.approx(0.8)
    assert (spreads[None].n, spreads[None].best, spreads[None].worst) == (3, 0.6, 0.9)


def test_missing_detectors_are_named_with_the_reason(results):
    states = {
        94: DetectorStatus(state=DetectorState.FINISHED),
        95: DetectorStatus(state=DetectorState.FAILED, reason="no stars in the image"),
        96: DetectorStatus(state=DetectorState.WAITING),
        97: DetectorStatus(state=DetectorState.EXCLUDED, reason="hot"),
    }
    put(results, 1, detectors=states, n_finished=1, n_expected=3, is_complete=False)
    report = night_report(CAMERA, results, DAY, now=NOW)
    assert (report.n_complete, report.n_partial, report.n_failed) == (0, 1, 0)
    assert {(m.state, m.reason, tuple(m.detectors)) for m in report.missing} == {
        ("failed", "no stars in the image", ("R22_S12",)),
        ("waiting", "its raw has not come", ("R22_S20",)),
    }


def test_a_failed_exposure_and_a_raw_in_quarantine_are_told(results):
    put(
        results,
        1,
        detectors={94: DetectorStatus(state=DetectorState.FAILED, reason="x")},
        n_finished=0,
        is_complete=False,
    )
    record = QuarantineRecord(
        camera="LSSTCam",
        uri="/raws/broken.fits",
        code="raw_truncated",
        reason="ends early",
        exposure=DAY * 100_000 + 2,
        quarantined_at=NOW,
    )
    results.put_quarantine(record)
    report = night_report(CAMERA, results, DAY, now=NOW)
    assert report.n_failed == 1
    assert report.quarantined == ["broken.fits: ends early"]


def test_the_wide_pipeline_stands_for_an_exposure_not_what_runs_beside(results):
    put(results, 1, n_expected=189, n_finished=189)
    put(results, 1, n_expected=189, n_finished=189, pipeline="build_flat", fwhm=9.0)
    report = night_report(CAMERA, results, DAY, now=NOW)
    assert report.n_exposures == 1
    assert report.quality[0].median == pytest.approx(0.8)


def test_calibration_exposures_that_failed_have_a_line_each(results):
    verdict = {"verify_outcome": "fail", "verify_failures": "R22_S11 C00 NOISE"}
    put(results, 1, image_type="bias", pipeline="bias", metrics=verdict)
    put(results, 2, image_type="bias", pipeline="bias", metrics={"verify_outcome": "pass"})
    put(results, 3, image_type="bias", pipeline="bias", metrics={"verify_outcome": "pass"})
    lines = night_report(CAMERA, results, DAY, now=NOW).calibrations
    assert [(line.name, line.outcome, line.failures) for line in lines] == [
        ("000001", "fail", ["R22_S11 C00 NOISE"]),
        ("2 exposures", "pass", []),
    ]


def test_the_page_is_whole_in_itself_and_shows_comments_as_text(results):
    put(results, 1)
    put(results, 2, fwhm=0.9)
    log = NightLog(results.engine)
    log.write(
        "LSSTCam",
        DAY,
        author="ann",
        now=NOW,
        text="<script>alert(1)</script>",
        exposure_id=DAY * 100_000 + 1,
        flag=Flag.JUNK,
    )
    report = night_report(CAMERA, results, DAY, now=NOW)
    assert report.flags == {DAY * 100_000 + 1: Flag.JUNK}
    page = render_report(report)
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"<script|src=|<link(?! rel=\"icon\" href=\"data:,\")|url\(|@import", page)
    assert page.count("<circle") >= 2
    assert "href=" not in page.split("<main>")[1]
    assert f'href="http://here/exposure/{DAY * 100_000 + 1}"' in render_report(report, link_to="http://here")


def test_a_json_report_reads_back(results):
    put(results, 1, fwhm=float("nan"))
    report = night_report(CAMERA, results, DAY, now=NOW)
    assert type(report).model_validate_json(report.model_dump_json()) == report
