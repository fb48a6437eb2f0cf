"""The night in numbers."""

from rapid.gather.rollup import roll_up
from rapid.results.models import DetectorState, DetectorStatus
from tests.support.records import make_summary

FAILED = {
    94: DetectorStatus(state=DetectorState.FAILED, reason="broken amp"),
    95: DetectorStatus(state=DetectorState.EXCLUDED),
}


def test_a_night_is_added_up():
    night = [
        make_summary(1, image_type="bias", metrics={}, info={"begin": "2026-11-20T20:00:00"}),
        make_summary(
            2,
            metrics={"psf_fwhm_arcsec_median": 0.7},
            info={"begin": "2026-11-21T01:00:00", "exposure_time_s": 30.0, "physical_filter": "r_57"},
        ),
        make_summary(
            3,
            metrics={"psf_fwhm_arcsec_median": 0.9},
            info={"exposure_time_s": 15.0, "physical_filter": "i_39"},
            is_complete=False,
        ),
        make_summary(4, metrics={}, n_finished=0, is_complete=False, detectors=FAILED),
    ]
    found = roll_up("LSSTCam", 20261120, night)
    assert (found.n_exposures, found.n_complete, found.n_partial, found.n_failed) == (4, 2, 1, 1)
    assert found.n_by_type == {"bias": 1, "science": 3}
    assert found.n_by_filter == {"i_39": 1, "none": 1, "r_57": 1}
    assert found.open_shutter_s == 45.0
    assert (found.first_begin, found.last_begin) == ("2026-11-20T20:00:00", "2026-11-21T01:00:00")
    assert found.missing_by_reason == {"broken amp": 1}, "what was excluded is not missing"
    fwhm = found.metrics["psf_fwhm_arcsec_median"]
    assert (fwhm.n, fwhm.least, fwhm.median, fwhm.most) == (2, 0.7, 0.8, 0.9)


def test_an_exposure_with_several_pipelines_counts_once():
    night = [
        make_summary(1, n_expected=189),
        make_summary(1, pipeline="wavefront", n_expected=8),
        make_summary(1, pipeline="build_bias"),
    ]
    assert roll_up("LSSTCam", 20261120, night).n_exposures == 1


def test_an_empty_night_is_zeros():
    found = roll_up("LSSTCam", 20261120, [])
    assert (found.n_exposures, found.metrics, found.first_begin) == (0, {}, None)
    one = roll_up("LSSTCam", 20261120, [make_summary(1, metrics={"psf_fwhm_arcsec_median": float("nan")})])
    assert one.metrics == {}
