"""Best focus is where it is, with an honest error."""

import numpy as np
import pytest

from payloads.focus.astigmatism import fit_astigmatism
from payloads.focus.plot import plot_focus_sweep
from payloads.focus.sweep import fit_focus_sweep, infer_sweep_axis
from payloads.focus.tilt import fit_focal_plane_tilt
from rapid.errors import PayloadError

K = 11.2
"""Growth of the image with defocus [arcsec/mm]."""


def curve(z, *, best=0.05, fwhm=0.8):
    return np.hypot(fwhm, K * (z - best))


@pytest.mark.parametrize(
    ("reach_mm", "best_mm", "parabola_bias_um"),
    [
        pytest.param(0.1, 0.05, 5.0, id="sweep of 0.1 mm, focus half way out"),
        pytest.param(0.3, 0.08, -7.5, id="sweep of 0.3 mm, focus a quarter out"),
    ],
)
def test_a_thousand_noisy_sweeps_are_unbiased_where_a_parabola_in_fwhm_is_not(reach_mm, best_mm, parabola_bias_um):
    rng = np.random.default_rng(5)
    z = np.linspace(-reach_mm, reach_mm, 9)
    ours, errors, parabola = [], [], []
    for _ in range(1000):
        fwhm = curve(z, best=best_mm) * (1 + 0.03 * rng.normal(size=9))
        fit = fit_focus_sweep(z, fwhm)
        ours.append(1000 * (fit.best_focus_mm - best_mm))
        errors.append(1000 * fit.best_focus_error_mm)
        p = np.polyfit(z, fwhm, 2)
        parabola.append(1000 * (-p[1] / (2 * p[0]) - best_mm))
    assert abs(np.mean(ours)) < 1.0
    assert abs(np.mean(ours)) < 0.3 + 3 * np.std(ours) / np.sqrt(1000)
    assert np.std(ours) == pytest.approx(np.mean(errors), rel=0.15)
    assert np.mean(parabola) == pytest.approx(parabola_bias_um, abs=1.0)
    assert abs(np.mean(parabola)) > 10 * abs(np.mean(ours))


def test_a_perfect_sweep_returns_its_curve():
    z = np.linspace(-0.1, 0.1, 5)
    fit = fit_focus_sweep(z, curve(z))
    assert fit.best_focus_mm == pytest.approx(0.05, abs=1e-9)
    assert fit.best_fwhm_arcsec == pytest.approx(0.8, abs=1e-6)
    assert fit.slope_arcsec_per_mm == pytest.approx(K, rel=1e-6)
    assert fit.is_outside_sweep is False
    np.testing.assert_allclose(fit.fwhm_at(z), curve(z), rtol=1e-6)


def test_given_errors_make_chi2_and_weigh():
    rng = np.random.default_rng(6)
    z = np.linspace(-0.1, 0.1, 12)
    error = np.where(np.arange(12) % 2, 0.01, 0.08)
    pulls, chi2 = [], []
    for _ in range(300):
        fit = fit_focus_sweep(z, curve(z) + error * rng.normal(size=12), error)
        pulls.append((fit.best_focus_mm - 0.05) / fit.best_focus_error_mm)
        chi2.append(fit.chi2 / fit.n_dof)
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.1)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("outlier", [0, 4, 8], ids=["first", "middle", "last"])
def test_an_outlier_is_left_out_and_named(outlier):
    rng = np.random.default_rng(7)
    z = np.linspace(-0.1, 0.1, 9)
    fwhm = curve(z, best=0.01) * (1 + 0.01 * rng.normal(size=9))
    fwhm[outlier] *= 2.0
    fit = fit_focus_sweep(z, fwhm)
    assert list(np.flatnonzero(~fit.used)) == [outlier]
    assert fit.best_focus_mm == pytest.approx(0.01, abs=0.004)


def test_missing_sizes_are_left_out():
    z = np.linspace(-0.1, 0.1, 7)
    fwhm = curve(z)
    fwhm[[1, 5]] = np.nan, np.inf
    fit = fit_focus_sweep(z, fwhm)
    assert fit.best_focus_mm == pytest.approx(0.05, abs=1e-6)
    assert fit.used.sum() == 5


def test_best_focus_outside_the_sweep_is_flagged():
    rng = np.random.default_rng(8)
    z = np.linspace(-0.1, 0.1, 9)
    fit = fit_focus_sweep(z, curve(z, best=0.14) * (1 + 0.002 * rng.normal(size=9)))
    assert fit.is_outside_sweep
    assert fit.best_focus_mm == pytest.approx(0.14, abs=0.02)


@pytest.mark.parametrize(
    ("z", "fwhm", "message"),
    [
        pytest.param([], [], "not 0", id="nothing"),
        pytest.param([0.0, 0.1, 0.2], [1.0, 0.8, 1.0], "not 3", id="three points"),
        pytest.param([0, 0, 0.1, 0.1], [1.0, 1.1, 0.8, 0.9], "three different positions", id="two positions"),
        pytest.param([0, 0.1, 0.2, 0.3], [1, np.nan, 1, 1], "not 3", id="three points and a NaN"),
        pytest.param([0, 0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0, 1.0], "minimum", id="no change with focus"),
        pytest.param([0, 0.1, 0.2, 0.3, 0.4], [0.8, 1.0, 1.1, 1.0, 0.8], "minimum", id="upside down"),
    ],
)
def test_what_has_no_best_focus_says_why(z, fwhm, message):
    with pytest.raises(PayloadError, match=message):
        fit_focus_sweep(z, fwhm)


def test_bad_arguments_are_the_callers_mistake():
    with pytest.raises(ValueError, match="as many"):
        fit_focus_sweep([0, 1, 2, 3], [1, 1, 1])
    with pytest.raises(ValueError, match="positive"):
        fit_focus_sweep([0, 1, 2, 3], [2, 1, 1, 2], [0.1, 0.0, 0.1, 0.1])


def test_the_swept_axis_is_the_one_that_moves_steadily():
    rng = np.random.default_rng(9)
    seq = np.arange(101, 110)
    axes = {
        "camera x": rng.normal(12.0, 3.0, 9),
        "camera z": np.linspace(-100, 100, 9) + rng.normal(0, 0.5, 9),
        "camera u": np.full(9, 0.013),
        "mirror z": rng.normal(0, 0.4, 9),
        "mirror y": np.full(9, np.nan),
    }
    assert infer_sweep_axis(seq, axes) == "camera z"
    with pytest.raises(PayloadError, match="no axis moved steadily"):
        infer_sweep_axis(seq, {key: axes[key] for key in ("camera u", "mirror z", "mirror y")})
    with pytest.raises(PayloadError, match="fewer than three"):
        infer_sweep_axis(seq[:2], {"camera z": [0, 1]})
    with pytest.raises(ValueError, match="camera z"):
        infer_sweep_axis(seq, {"camera z": [0, 1, 2]})


def test_astigmatism_flips_at_focus():
    z = np.linspace(-0.1, 0.1, 9)
    fwhm = curve(z, best=0.02)
    trace = 2 * fwhm**2 / (8 * np.log(2))  # for small ellipticities
    fit = fit_astigmatism(z, fwhm, 0.4 * (z - 0.03) / trace, np.zeros(9))
    assert fit.slope_arcsec2_per_mm[0] == pytest.approx(0.4, rel=0.02)
    assert fit.zero_mm[0] == pytest.approx(0.03, abs=0.002)
    assert fit.zero_mm[1] is None
    with pytest.raises(PayloadError, match="4 images"):
        fit_astigmatism(z[:3], fwhm[:3], z[:3], z[:3])


def test_a_tilted_focal_plane():
    rng = np.random.default_rng(10)
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-250, 250, 5), np.linspace(-250, 250, 5)))
    z = 0.03 + 1e-4 * x - 5e-5 * y + rng.normal(0, 0.002, 25)
    z[3], z[7] = np.nan, 0.5
    fit = fit_focal_plane_tilt(x, y, z)
    to_arcsec = 3600 * 180 / np.pi
    assert fit.n_detectors == 23
    assert fit.piston_mm == pytest.approx(0.03, abs=4 * fit.piston_error_mm)
    assert fit.tilt_x_arcsec == pytest.approx(1e-4 * to_arcsec, abs=4 * fit.tilt_error_arcsec)
    assert fit.tilt_y_arcsec == pytest.approx(-5e-5 * to_arcsec, abs=4 * fit.tilt_error_arcsec)
    assert fit.scatter_mm == pytest.approx(0.002, rel=0.4)
    with pytest.raises(PayloadError, match="4 detectors"):
        fit_focal_plane_tilt(x[:3], y[:3], z[:3])
    with pytest.raises(PayloadError, match="on a line"):
        fit_focal_plane_tilt(x[:3].repeat(2), x[:3].repeat(2), [0.1] * 6)


@pytest.mark.parametrize("best", [0.02, 0.14, 0.4], ids=["inside", "just outside", "far outside"])
def test_the_plot_is_a_picture(best):
    z = np.linspace(-0.1, 0.1, 9)
    fwhm = curve(z, best=best)
    fwhm[2] = np.nan
    fit = fit_focus_sweep(z, fwhm)
    png = plot_focus_sweep(z, fwhm, fit, error_arcsec=np.full(9, 0.02))
    assert png.startswith(b"\x89PNG")
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    assert (width, height) == (1200, 750)
