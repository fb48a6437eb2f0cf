"""The table of an exposure's detectors: every expected one a row, with units, as astropy reads it."""

import math

import pytest
from astropy import units as u
from astropy.table import Table

from rapid.camera.store import load_camera
from rapid.gather.studio_child import Artist
from rapid.gather.studio_models import PlotTask
from rapid.gather.visit_summary import make_visit_summary
from rapid.products.store import open_products
from rapid.results.models import DetectorState, DetectorStatus
from rapid.results.store import open_results
from tests.support.records import make_result, make_summary

LSSTCAM = load_camera("LSSTCam")
FINISHED = DetectorStatus(state=DetectorState.FINISHED)
FAILED = DetectorStatus(state=DetectorState.FAILED, reason="no stars, in “R22”\n# not a comment")


def read(data: bytes) -> Table:
    return Table.read(data.decode(), format="ascii.ecsv")


def test_every_expected_detector_is_a_row_with_units_and_its_reason():
    summary = make_summary(
        detectors={94: FINISHED, 95: FAILED, 0: FINISHED},
        n_finished=2,
        n_expected=3,
        version=2,
        info={"azimuth_deg": 119.0, "elevation_deg": 68.0, "rotator_angle_deg": 20.0, "physical_filter": "r_57"},
    )
    results = [
        make_result(1, 94, metrics={"psf_fwhm_arcsec": 0.8, "n_stars": 200, "psf_e": 0.1, "is_good": True}),
        make_result(1, 95, metrics={"psf_fwhm_arcsec": 9.9}),  # of a version before: this one counts it as failed
        make_result(1, 0, metrics={"psf_fwhm_arcsec": math.nan, "n_stars": 7, "sky_level_e": 400, "note": "a, b"}),
        make_result(1, 7, metrics={"psf_fwhm_arcsec": 1.0}),  # not expected
    ]
    table = read(make_visit_summary(LSSTCAM, summary, results))
    assert list(table["detector"]) == [0, 94, 95]
    assert list(table["detector_name"]) == ["R01_S00", "R22_S11", "R22_S12"]
    assert list(table["state"]) == ["finished", "finished", "failed"]
    assert table["reason"][2] == "no stars, in “R22” # not a comment"
    assert list(table["psf_fwhm_arcsec"].mask) == [True, False, True]
    assert table["psf_fwhm_arcsec"][1] == 0.8
    units = [table[name].unit for name in ("psf_fwhm_arcsec", "sky_level_e", "psf_e", "n_stars", "x_mm")]
    assert units == [u.arcsec, u.electron, None, None, u.mm]
    assert table["n_stars"].dtype.kind == "i"
    assert table["x_mm"][1] == pytest.approx(LSSTCAM.by_id[94].x_mm)
    assert table["note"][0] == "a, b"
    assert (table.meta["exposure_id"], table.meta["version"], table.meta["n_finished"]) == (2026112000001, 2, 2)
    assert table.meta["physical_filter"] == "r_57"
    assert -180 <= table.meta["zenith_deg"] < 180


@pytest.mark.parametrize("detectors", [{}, {94: FAILED}], ids=["none expected", "all failed"])
def test_an_exposure_without_results_has_its_table_all_the_same(detectors):
    table = read(make_visit_summary(LSSTCAM, make_summary(detectors=detectors, n_finished=0), []))
    assert len(table) == len(detectors)
    assert "zenith_deg" not in table.meta


def test_it_is_a_product_of_that_version_of_the_summary(tmp_path):
    results, products = open_results(f"sqlite:///{tmp_path / 'r.sqlite'}"), open_products(str(tmp_path / "p"))
    try:
        results.put_result(make_result(1, 94, metrics={"n_stars": 5}))
        for version in (1, 2):
            results.put_summary(make_summary(1, version=version))
        made = Artist(results, products).do(
            PlotTask(camera="LSSTCam", exposure=2026112000001, run="prompt", pipeline="quicklook", version=2)
        )
        assert made["visit_summary"] == "LSSTCam/20261120/000001/prompt/quicklook/visit_summary.v2.ecsv"
        assert read(products.get(made["visit_summary"]))["n_stars"][0] == 5
        stored = {one.version: one.products for one in results.summary_versions("LSSTCam", 2026112000001)}
        assert "visit_summary" not in stored[1]
        assert stored[2]["visit_summary"] == made["visit_summary"]
    finally:
        results.close()
