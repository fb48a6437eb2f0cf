"""Stars rendered through the whole camera come out with the width, shape, light and place they were given."""

from datetime import date

import galsim
import numpy as np
import pytest

from payloads.focus.sweep import fit_focus_sweep
from payloads.quality.astrometry import Pointing, pixels_to_field_angle, unproject
from payloads.quality.catalogue import write_catalogue
from payloads.quality.payload import ImageQuality, QualityConfig
from replay import kernels
from replay.render import BETA, FOCUS_BLUR_ARCSEC_PER_UM, ZERO_POINT
from tests.truth.observatory import FILTER

SCALE = 0.2
CASES = [
    pytest.param(0.6, 0.0, 0.0, id="0.6 arcsec, round"),
    pytest.param(0.8, 0.06, -0.03, id="0.8 arcsec"),
    pytest.param(1.1, -0.10, 0.08, id="1.1 arcsec"),
    pytest.param(1.8, 0.02, 0.05, id="1.8 arcsec"),
]


def expose(observatory, seeing, *, e1=0.0, e2=0.0, seq_num=1, n_stars=120, **changes):
    exposure = observatory.plan(
        {"kind": "science", "n": 1, "physical_filter": FILTER, "seeing_arcsec": seeing, "exposure_time_s": 150.0},
        stars_per_detector=n_stars, first_seq_num=seq_num,
    )[0]  # fmt: skip
    return exposure.model_copy(update={"e1": e1, "e2": e2, **changes})


def adaptive_truth(stars):
    """Return FWHM [arcsec], e1 and e2 that adaptive moments give for a star without noise."""
    image = np.zeros((121, 121), np.float32)
    alpha = stars.fwhm_px / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    one = np.ones(1)
    kernels.add_stars(
        image, 60 * one, 60 * one, 1e5 * one, alpha * one, stars.e1 * one, stars.e2 * one, BETA, np.array([60])
    )
    found = galsim.hsm.FindAdaptiveMom(galsim.Image(image.astype(float)))
    return 2.3548 * found.moments_sigma * SCALE, found.observed_shape.e1, found.observed_shape.e2


@pytest.mark.parametrize(("seeing", "e1", "e2"), CASES)
def test_width_within_one_percent_and_ellipticity_within_five_thousandths(observatory, seeing, e1, e2):
    widths, direct = [], []
    for seq_num in (11, 12, 13):
        exposure = expose(observatory, seeing, e1=e1, e2=e2, seq_num=seq_num)
        run, stars = observatory.run(exposure, calibs=observatory.calibs)
        metrics = run.result.metrics
        fwhm, true_e1, true_e2 = adaptive_truth(stars)
        assert metrics["n_psf_stars"] >= 15
        snr = np.array(run.frame.tables["stars"]["snr"])[run.frame.tables["stars"]["is_psf_star"]]
        assert np.median(snr) > 50
        assert metrics["psf_e1"] == pytest.approx(true_e1, abs=0.005)
        assert metrics["psf_e2"] == pytest.approx(true_e2, abs=0.005)
        widths.append(metrics["psf_fwhm_arcsec"] / fwhm - 1)
        direct.append(metrics["psf_fwhm_direct_arcsec"] / (stars.fwhm_px * SCALE) - 1)
    assert np.abs(widths).max() < 0.01
    assert np.abs(direct).max() < 0.01
    assert abs(np.mean(widths)) < 0.005


def test_single_stars_scatter_as_their_signal_to_noise_says(observatory):
    """At S/N 50 and more the error of e is about 2 over it, and nothing pulls the mean."""
    pulls, shifts = [], []
    for seq_num in range(21, 25):
        exposure = expose(observatory, 0.9, e1=0.03, e2=0.04, seq_num=seq_num, n_stars=150)
        run, stars = observatory.run(exposure, calibs=observatory.calibs)
        fwhm, e1, e2 = adaptive_truth(stars)
        table = {name: np.array(values) for name, values in run.frame.tables["stars"].items() if values[0] is not None}
        good = table["is_psf_star"] & (table["snr"] > 50)
        pulls += [*((table["e1"] - e1) * table["snr"] / 2)[good], *((table["e2"] - e2) * table["snr"] / 2)[good]]
        shifts += list((table["fwhm_arcsec"] / fwhm - 1)[good])
    assert len(shifts) > 100
    assert abs(np.median(pulls)) < 0.25
    # Pixel response and cosmic rays' unseen rims add to the brightest stars' photon noise.
    assert 0.5 < 1.4826 * np.median(np.abs(pulls)) < 1.6
    assert abs(np.median(shifts)) < 0.004


def test_sky_and_fluxes_are_those_that_fell_in(observatory):
    exposure = expose(observatory, 0.8, seq_num=31)
    run, stars = observatory.run(exposure, calibs=observatory.calibs)
    metrics, norm = run.result.metrics, observatory.shade().mean()
    assert metrics["sky_level_e"] == pytest.approx(exposure.level_e * norm, rel=0.003)
    read_noise = np.median([amp.read_noise for amp in observatory.truth.amps])
    assert metrics["sky_noise_e"] == pytest.approx(np.hypot(read_noise, np.sqrt(exposure.level_e * norm)), rel=0.02)
    table = run.frame.tables["stars"]
    ratios = []
    for x, y, flux, snr in zip(table["x"], table["y"], table["flux_e"], table["snr"], strict=True):
        nearest = int(np.argmin((stars.x - x) ** 2 + (stars.y - y) ** 2))
        if snr > 100:
            ratios.append(flux / (stars.flux_e[nearest] * norm))
    whole = np.median(ratios) * 10 ** (0.4 * metrics["aperture_loss_mag"])
    assert whole == pytest.approx(1.0, abs=0.01)


def make_catalogue(observatory, folder, exposure, *, offset_arcsec, system, shift_mag=0.0):
    _, stars = observatory.take(exposure)
    points = Pointing(exposure.ra_deg, exposure.dec_deg, 0.0).to_plane(
        *pixels_to_field_angle(observatory.camera, observatory.detector, stars.x, stars.y)
    )
    ra, dec = unproject(
        points + np.asarray(offset_arcsec), centre_ra_deg=exposure.ra_deg, centre_dec_deg=exposure.dec_deg
    )
    mag = ZERO_POINT - 2.5 * np.log10(stars.flux_e / exposure.exposure_time_s / exposure.transparency)
    facts = {"name": "truth", "made_on": date(2026, 11, 20), "system": system}
    write_catalogue(folder, ra, dec, {"r": mag + shift_mag}, **facts)


@pytest.mark.parametrize("transparency", [1.0, 0.4])
def test_zero_point_and_pointing_against_the_true_catalogue(observatory, tmp_path, transparency):
    exposure = expose(observatory, 0.9, seq_num=41, transparency=transparency)
    make_catalogue(observatory, tmp_path / "c", exposure, offset_arcsec=(-17.0, 9.0), system="AB")
    run, _ = observatory.run(exposure, calibs=observatory.calibs)
    frame = run.frame
    ImageQuality(QualityConfig(reference_catalogue=tmp_path / "c")).run(frame)
    lost = 2.5 * np.log10(transparency * observatory.shade().mean())
    assert frame.metrics["zero_point_mag"] == pytest.approx(ZERO_POINT + lost, abs=0.015)
    assert frame.metrics["pointing_offset_ra_arcsec"] == pytest.approx(-17.0, abs=0.03)
    assert frame.metrics["pointing_offset_dec_arcsec"] == pytest.approx(9.0, abs=0.03)
    assert abs(frame.metrics["zero_point_mag"] - ZERO_POINT - lost) < 5 * frame.metrics["zero_point_error_mag"]


def test_clouds_show_as_lost_light_against_a_clear_exposure_of_the_same_field(observatory, tmp_path):
    clear = expose(observatory, 0.8, seq_num=51)
    make_catalogue(
        observatory, tmp_path / "c", clear, offset_arcsec=(0, 0), system="instrument",
        shift_mag=-ZERO_POINT - 2.5 * np.log10(observatory.shade().mean()),
    )  # fmt: skip
    found = []
    for transparency in (1.0, 0.7, 0.35):
        exposure = clear.model_copy(update={"transparency": transparency, "elevation_deg": 90.0})
        run, _ = observatory.run(exposure, calibs=observatory.calibs)
        ImageQuality(QualityConfig(reference_catalogue=tmp_path / "c")).run(run.frame)
        found.append(run.frame.metrics["transparency"])
    np.testing.assert_allclose(found, [1.0, 0.7, 0.35], rtol=0.02)


def test_a_focus_sweep_through_the_camera_ends_at_best_focus(observatory):
    best_mm = 0.03
    sweep = observatory.plan(
        {"kind": "focus_sweep", "positions_mm": list(np.linspace(-0.07, 0.11, 9)), "physical_filter": FILTER},
        best_focus_mm=best_mm, stars_per_detector=100, first_seq_num=61,
    )  # fmt: skip
    z, fwhm, ratio = [], [], []
    for exposure in sweep:
        # The same air for all: what a breath of seeing does to a sweep is for its error to say.
        run, stars = observatory.run(exposure.model_copy(update={"seeing_arcsec": 0.8}), calibs=observatory.calibs)
        ratio.append(adaptive_truth(stars)[0] / (stars.fwhm_px * SCALE))
        z.append(run.info.focus_z_mm)
        fwhm.append(run.result.metrics["psf_fwhm_arcsec"])
    fit = fit_focus_sweep(z, fwhm)
    # The detector is 0.06 of the field's radius beside the axis: the camera's tilt moves its focus.
    u = observatory.detector.x_mm / (np.hypot(observatory.detector.x_mm, observatory.detector.y_mm) + 1)
    true_um = 1000 * best_mm - 6.0 * u
    assert 1000 * fit.best_focus_mm == pytest.approx(true_um, abs=1.0)
    # Adaptive moments are wider than the half maximum of these profiles, all by the same part.
    assert fit.slope_arcsec_per_mm == pytest.approx(1000 * FOCUS_BLUR_ARCSEC_PER_UM * np.mean(ratio), rel=0.02)
