"""The table: what a row says, and that nothing gets into it that RubinTV cannot draw."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapid.errors import ConfigurationError
from rapid.publish.catalogue import load_catalogue
from rapid.publish.decide import FAILED, PARTIAL, WAITING, Posted, fold_out, merge_rows, product_of, row_of
from rapid.publish.models import INDICATORS, ColumnSpec
from rapid.publish.night import PublishedNight
from rapid.results.models import DetectorState, DetectorStatus
from tests.support.records import make_summary

LSSTCAM = load_catalogue("LSSTCam")
MAIN = LSSTCAM.cameras[0]
INFO = {
    "begin": "2026-11-21T03:00:00",
    "exposure_time_s": 30.0,
    "physical_filter": "r_57",
    "band": "r",
    "airmass": 1.234567,
    "controller": "O",
}


def assert_drawable(table: dict) -> None:
    """What RubinTV's table can show: scalars, flat fold-outs, known colours (``TableView.tsx``)."""
    for number, row in table.items():
        assert number == str(int(number))
        for name, value in row.items():
            if name.startswith("_"):
                assert value in INDICATORS, (name, value)
                continue
            if isinstance(value, dict):
                assert isinstance(value["DISPLAY_VALUE"], str)
                inside = value.values()
            else:
                inside = [value]
            for scalar in inside:
                assert scalar is None or isinstance(scalar, str | int | float | bool), (name, scalar)
                assert not isinstance(scalar, float) or math.isfinite(scalar), (name, scalar)
    json.loads(json.dumps(table, allow_nan=False))


def test_a_row_has_what_rubintvs_clock_and_links_need():
    row = row_of(LSSTCAM, MAIN, make_summary(12, info=INFO))

    assert row["Date begin"] == "2026-11-21T03:00:00"
    assert row["Exposure time"] == 30.0
    assert row["controller"] == "O"
    assert row["Filter"] == "r_57"
    assert row["_Filter"] == "r_color"
    assert row["Airmass"] == 1.235
    assert row["Image type"] == "science"
    assert row["PSF FWHM"] == 0.8
    assert row["Detectors"] == "1/1"
    assert row["_Detectors"] == "ok"


def test_missing_detectors_are_named_with_the_reason():
    summary = make_summary(
        n_finished=1,
        n_expected=3,
        is_complete=False,
        detectors={
            0: DetectorStatus(state=DetectorState.FINISHED),
            1: DetectorStatus(state=DetectorState.FAILED, reason="no bias"),
            2: DetectorStatus(state=DetectorState.WAITING),
        },
    )
    row = row_of(LSSTCAM, MAIN, summary)

    assert row["Detectors"] == "1/3"
    assert row["_Detectors"] == "warning"
    assert row["State"] == "partial"
    assert row["Missing"] == {"DISPLAY_VALUE": "2✗", "001": "failed: no bias", "002": "waiting"}


@pytest.mark.parametrize(("outcome", "colour"), [("pass", "ok"), ("fail", "bad"), ("unheard of", None)])
def test_a_verdict_has_its_colour(outcome, colour):
    row = row_of(LSSTCAM, MAIN, make_summary(image_type="bias", metrics={"verify_outcome": outcome}))

    assert row["Verification"] == outcome
    assert row.get("_Verification") == colour


@pytest.mark.parametrize(("value", "colour"), [(0.9, None), (0.7, "warning"), (0.4, "bad")])
def test_a_number_out_of_its_band_has_a_colour(value, colour):
    row = row_of(LSSTCAM, MAIN, make_summary(metrics={"transparency_median": value}))

    assert row.get("_Transparency") == colour


def test_an_exposure_on_its_way_has_a_row_that_says_so():
    row = row_of(LSSTCAM, MAIN, Posted(2026112000012, 12, "quicklook", "science", INFO, n_expected=189))

    assert row["State"] == "processing"
    assert row["Detectors"] == "0/189"
    assert row["@focal_plane_mosaic"] == WAITING
    assert row["@psf_shape_azel"] == WAITING
    assert "@day_movie" not in row
    assert_drawable({"12": row})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"products": {"mosaic": "a/mosaic.v1.jpg"}}, None),
        ({"products": {}}, PARTIAL),
        ({"products": {}, "is_complete": False, "n_expected": 2}, WAITING),
        ({"products": {}, "n_finished": 0, "is_complete": False}, FAILED),
        ({"products": {"mosaic": "a/mosaic.v1.fits"}}, PARTIAL),
        ({"products": {}, "pipeline": "build_flat"}, None),
    ],
    ids=["there", "not made", "detectors missing", "all failed", "nothing a browser shows", "a build"],
)
def test_an_empty_channel_says_what_is_the_matter(changes, text):
    assert row_of(LSSTCAM, MAIN, make_summary(**changes)).get("@focal_plane_mosaic") == text


def test_a_bias_expects_no_psf_plots():
    row = row_of(LSSTCAM, MAIN, make_summary(image_type="bias", pipeline="bias"))

    assert not {"@psf_shape_azel", "@calexp_mosaic"} & row.keys()


def test_rows_of_two_pipelines_are_one_line_and_builds_come_last():
    merged = merge_rows(
        {
            "build_flat": {"State": "failed", "_State": "bad", "All metrics": {"DISPLAY_VALUE": "1", "a": 2}},
            "flat": {"State": "complete", "All metrics": {"DISPLAY_VALUE": "1", "a": 1}, "Airmass": None},
            "quicklook": {"Airmass": 1.1, "_Airmass": "ok"},
        }
    )

    assert merged["State"] == "complete"
    assert "_State" not in merged
    assert merged["Airmass"] == 1.1
    assert merged["_Airmass"] == "ok"
    assert merged["All metrics"] == {"DISPLAY_VALUE": "1", "a": 1, "a (build_flat)": 2}


def test_an_older_version_changes_nothing():
    night = PublishedNight(LSSTCAM, 20261120)

    assert night.put(make_summary(12, version=2, metrics={"psf_fwhm_arcsec_median": 0.7}))
    assert not night.put(make_summary(12, version=1, metrics={"psf_fwhm_arcsec_median": 0.9}))
    assert not night.put(Posted(2026112000012, 12, "quicklook", "science"))
    assert night.rows_of("lsstcam")["12"]["PSF FWHM"] == 0.7
    assert night.put(make_summary(12, version=2, products={"fwhm_map": "a.png"})), "products came later"


def test_only_exposures_with_aos_products_are_in_the_aos_table():
    night = PublishedNight(LSSTCAM, 20261120)
    night.put(make_summary(1))
    night.put(make_summary(2, image_type="focus", products={"focus_sweep": "a.png"}))

    assert list(night.rows_of("lsstcam")) == ["1", "2"]
    assert list(night.rows_of("lsstcam_aos")) == ["2"]


def test_a_line_belongs_to_the_observatorys_own_exposure():
    night = PublishedNight(LSSTCAM, 20261120)
    night.put(make_summary(3, exposure=7026112000003, info={"controller": "S"}))
    night.put(make_summary(3, info={"controller": "O"}))

    assert night.rows_of("lsstcam")["3"]["controller"] == "O"


def test_rows_are_in_order_of_their_numbers():
    night = PublishedNight(LSSTCAM, 20261120)
    for number in (100, 9, 12):
        night.put(make_summary(number))

    assert list(json.loads(night.document("lsstcam"))) == ["9", "12", "100"]


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "x" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    metrics=st.dictionaries(
        st.text(max_size=8) | st.just("psf_fwhm_arcsec_median"), st.floats() | st.text() | st.none()
    ),
    info=st.dictionaries(st.sampled_from(["band", "physical_filter", "airmass", "object_name", "begin"]), WILD),
)
def test_whatever_comes_in_can_be_drawn(metrics, info):
    night = PublishedNight(LSSTCAM, 20261120)
    summary = make_summary(1).model_copy(update={"metrics": metrics, "info": info})
    night.put(summary)
    night.put(Posted(2026112000002, 2, "quicklook", "science", info))

    for camera in ("lsstcam", "lsstcam_aos", "ra_performance"):
        table = json.loads(night.document(camera))
        assert_drawable(table)
    assert list(json.loads(night.document("lsstcam"))) == ["1", "2"]


def test_a_fold_out_is_flat_and_bounded():
    cell = fold_out("many", {str(number): [number] for number in range(1000)} | {"flag": True})

    assert len(cell) <= 402
    assert cell["…"] == "601 more"
    assert fold_out("x", {"flag": True, "bad": float("nan")}) == {"DISPLAY_VALUE": "x", "flag": "True", "bad": None}


@pytest.mark.parametrize("name", ["LSSTCam", "LSSTComCam", "LATISS", "TestCam205", "LSST-TS8"])
def test_every_camera_has_a_table(name):
    catalogue = load_catalogue(name)

    row = row_of(catalogue, catalogue.cameras[0], make_summary(camera=name, info=INFO))
    assert row["Exposure time"] == 30.0
    assert catalogue.cameras[0].night_report
    known = {"LSSTCam": "lsstcam", "LSSTComCam": "comcam", "LATISS": "auxtel", "LSST-TS8": "lsst_ts8"}
    assert catalogue.cameras[0].name == known.get(name, name.lower())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cameras: {LSSTCam: {cameras: [{name: lsst-cam}]}}", "cameras.0.name"),
        ("cameras: {LSSTCam: {cameras: [{name: a, columns: [b]}]}}", "no group of columns named 'b'"),
        ("cameras: {LSSTCam: {cameras: [{name: a}], colour: 1}}", "colour"),
        ("cameras: {Other: {cameras: [{name: a}]}}", "no camera 'LSSTCam'"),
        ("columns: {}", "no mapping 'cameras'"),
        ("cameras: [", "not YAML"),
    ],
)
def test_a_sites_own_table_is_checked(tmp_path, text, complaint):
    path = tmp_path / "channels.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=complaint):
        load_catalogue("LSSTCam", None, path)


@pytest.mark.parametrize("name", ["_x", "@x"])
def test_a_column_cannot_be_named_as_a_colour(name):
    with pytest.raises(ValueError, match="RubinTV reads"):
        ColumnSpec(name=name, sources=("info.x",))


def test_a_channel_shows_the_first_product_there_is():
    spec = MAIN.channels["focal_plane_mosaic"]

    assert product_of(spec, make_summary(products={"mosaic": "a.v1.JPG"})) == ("mosaic", "a.v1.JPG")
    assert product_of(spec, make_summary(products={"tiles": "a.zip"})) is None
