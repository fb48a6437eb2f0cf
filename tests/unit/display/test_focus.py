"""What a night's summaries tell of focus: sweeps, pairs, wavefronts, history."""

import pytest

from rapid.display.focus.assemble import focus_of_night, wavefront_detail
from tests.support.records import make_summary

BEST_MM, FWHM0, SLOPE = 0.02, 0.7, 12.0


def sweep(positions, *, group="g1", first=1, best=True, **changes):
    made = []
    for at, z in enumerate(positions):
        metrics = {
            "psf_fwhm_arcsec_median": (FWHM0**2 + (SLOPE * (z - BEST_MM)) ** 2) ** 0.5,
            "psf_fwhm_arcsec_scatter": 0.02,
            "psf_e1_median": 0.5 * (z - BEST_MM),
            "psf_e2_median": 0.0,
        }
        if best and at >= 3:
            metrics |= {"best_focus_mm": BEST_MM, "best_focus_error_mm": 0.001, "best_fwhm_arcsec": FWHM0}
        info = {"group_id": group, "focus_z_mm": z, "physical_filter": "r_57", "begin": "2026-11-21T02:00:00"}
        made.append(make_summary(first + at, image_type="focus", metrics=metrics, info=info, **changes))
    return made


def test_a_sweep_has_its_points_its_best_focus_and_a_curve_through_it():
    (found,) = focus_of_night(20261120, sweep([-0.06, -0.02, 0.02, 0.06, 0.10])).sweeps
    assert (found.best_focus_mm, found.best_focus_error_mm, found.group_id) == (BEST_MM, 0.001, "g1")
    assert [point.z_mm for point in found.points] == [-0.06, -0.02, 0.02, 0.06, 0.10]
    assert all(point.is_used for point in found.points)
    z, fwhm = min(found.curve, key=lambda point: point[1])
    assert z == pytest.approx(BEST_MM, abs=0.004)
    assert fwhm == pytest.approx(FWHM0, abs=0.02)
    assert found.astigmatism.zero_mm[0] == pytest.approx(BEST_MM, abs=0.003)
    assert found.astigmatism.zero_mm[1] is None


def test_an_outlier_is_shown_as_unused():
    summaries = sweep([-0.06, -0.04, -0.02, 0.0, 0.02, 0.06, 0.10])
    summaries[1].metrics["psf_fwhm_arcsec_median"] = 4.0
    (found,) = focus_of_night(20261120, summaries).sweeps
    assert [point.is_used for point in found.points] == [True, False, *[True] * 5]


def test_a_sweep_of_too_few_points_says_why_it_has_no_best_focus():
    (found,) = focus_of_night(20261120, sweep([-0.02, 0.02], best=False)).sweeps
    assert found.best_focus_mm is None
    assert found.note == "2 of at least 4 points measured"
    assert found.curve == []


def test_a_gather_that_found_no_minimum_is_quoted():
    summaries = sweep([0.1, 0.2, 0.3, 0.4], best=False)
    summaries[-1].metrics["focus_note"] = "the image size does not pass through a minimum"
    (found,) = focus_of_night(20261120, summaries).sweeps
    assert found.note == "the image size does not pass through a minimum"


def test_an_exposure_that_was_not_measured_keeps_its_place():
    summaries = sweep([-0.06, -0.02, 0.02, 0.06, 0.10])
    del summaries[2].metrics["psf_fwhm_arcsec_median"]
    (found,) = focus_of_night(20261120, summaries).sweeps
    assert found.points[2].fwhm_arcsec is None
    assert found.best_focus_mm == BEST_MM


def donut(seq_num, z_mm, *, group="p1", pipeline="donut", **metrics):
    info = {"group_id": group, "focus_z_mm": z_mm, "begin": "2026-11-21T03:00:00"}
    return make_summary(seq_num, image_type="cwfs", pipeline=pipeline, metrics=metrics, info=info)


def test_a_pair_is_whole_when_both_sides_are_measured():
    one = donut(7, -1.5, donut_diameter_px_median=132.0)
    two = donut(8, 1.5, donut_diameter_px_median=133.0, focus_offset_um=2.5)
    (half,) = focus_of_night(20261120, [one]).pairs
    (whole,) = focus_of_night(20261120, [one, two]).pairs
    assert (half.is_complete, half.focus_offset_um) == (False, None)
    assert (whole.is_complete, whole.focus_offset_um) == (True, 2.5)


def test_a_wavefront_beside_a_donut_is_one_exposure_of_the_pair():
    facts = {
        "wavefront_n_pairs": 9,
        "wavefront_z4_um": 0.1,
        "wavefront_z4_error_um": 0.01,
        "wavefront_focus_offset_um": 5.0,
    }
    summaries = [
        donut(8, 1.5, donut_diameter_px_median=133.0),
        donut(8, 1.5, pipeline="wavefront_fam", donut_diameter_px_median=133.0, **facts),
    ]
    night = focus_of_night(20261120, summaries)
    assert len(night.pairs[0].sides) == 1
    (found,) = night.wavefronts
    assert (found.noll, found.zernikes_um, found.errors_um) == ([4], [0.1], [0.01])
    assert [(point.kind, point.focus_offset_um) for point in night.history] == [("wavefront", 5.0)]


def test_places_of_the_field_come_from_the_report():
    summary = donut(8, 1.5, wavefront_n_pairs=1, wavefront_z4_um=0.1, wavefront_z4_error_um=0.01)
    site = {"name": "R00", "thx_deg": 1.2, "thy_deg": -1.2, "n_pairs": 3, "zernikes_um": [0.2], "errors_um": [0.02]}
    report = {"noll": [4], "sites": [site], "field": {"coefficients_um": [[0.1]], "errors_um": [[0.01]]}}
    found = wavefront_detail(summary, report)
    assert found.sites[0].name == "R00"
    assert found.field_terms_um == [[0.1]]
    assert wavefront_detail(summary, {}).sites == []


def test_an_empty_night_is_empty():
    night = focus_of_night(20261120, [])
    assert (night.sweeps, night.pairs, night.wavefronts, night.history) == ([], [], [], [])
