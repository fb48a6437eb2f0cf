"""Surfaces over the focal plane: what was put in comes out, with errors that mean it."""

import numpy as np
import pytest

from rapid.camera.geometry import focal_plane_to_field_angle
from rapid.camera.store import load_camera
from rapid.gather.field import field_metrics, fit_surface

CAMERA = load_camera("LSSTCam")
SCIENCE = sorted(CAMERA.science_ids)


def angles(numbers):
    return focal_plane_to_field_angle(
        CAMERA, [CAMERA.by_id[n].x_mm for n in numbers], [CAMERA.by_id[n].y_mm for n in numbers]
    )


def test_a_tilted_curved_surface_is_found_within_its_errors():
    x, y = angles(SCIENCE)
    rng = np.random.default_rng(8)
    pulls = []
    for _ in range(40):
        values = 0.8 + 0.03 * x - 0.02 * y + 0.05 * (x * x + y * y) + rng.normal(0, 0.02, len(x))
        fit = fit_surface(x, y, values)
        found = [fit.centre, fit.tilt_x, fit.tilt_y, fit.curvature]
        errors = [fit.centre_error, fit.tilt_x_error, fit.tilt_y_error, fit.curvature_error]
        pulls.append((np.array(found) - [0.8, 0.03, -0.02, 0.05]) / errors)
        assert fit.scatter == pytest.approx(0.02, rel=0.25)
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.5
    assert 0.75 < np.std(pulls) < 1.25


def test_a_few_bad_detectors_do_not_bend_it():
    x, y = angles(SCIENCE)
    values = 0.8 + 0.03 * x + np.random.default_rng(2).normal(0, 0.01, len(x))
    values[:9] += 2.0
    values[20] = np.nan
    fit = fit_surface(x, y, values)
    assert fit.tilt_x == pytest.approx(0.03, abs=0.005)
    assert fit.n <= len(x) - 10


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([0.0], [0.0]), ([0, 1, 0, 1], [0, 0, 1, 1]), (np.arange(9.0), np.zeros(9)), (np.zeros(9), np.zeros(9))],
    ids=["none", "one", "four", "on a line", "all at one place"],
)
def test_too_few_places_make_no_surface(x, y):
    assert fit_surface(x, y, np.ones(len(x))) is None


def test_a_raft_of_five_gives_a_plane_without_curvature():
    fit = fit_surface([0, 1, 0, 1, 0.5], [0, 0, 1, 1, 0.4], [1.0, 2.0, 1.1, 2.0, 1.5])
    assert fit.curvature is None
    assert fit.tilt_x == pytest.approx(0.95, abs=0.1)


def test_perfect_values_are_no_trouble():
    x, y = angles(SCIENCE)
    fit = fit_surface(x, y, np.full(len(x), 0.8))
    assert fit.centre == pytest.approx(0.8)
    assert abs(fit.tilt_x) < 1e-9


def test_the_summary_gets_named_numbers_from_science_detectors_alone():
    x, _ = angles(SCIENCE)
    metrics = {
        n: {"psf_fwhm_arcsec": 0.7 + 0.02 * float(a), "zero_point_mag": 28.0} for n, a in zip(SCIENCE, x, strict=True)
    }
    metrics[192] = {"psf_fwhm_arcsec": 9.0}  # a wavefront sensor, out of focus by design
    found = field_metrics(CAMERA, metrics)
    assert found["fwhm_field_tilt_x_arcsec_per_deg"] == pytest.approx(0.02, abs=1e-6)
    assert found["n_detectors_fwhm_field"] == len(SCIENCE)
    assert found["zero_point_field_centre_mag"] == pytest.approx(28.0)
    assert field_metrics(CAMERA, {94: {"psf_fwhm_arcsec": 0.7}}) == {}
    assert field_metrics(CAMERA, {}) == {}
