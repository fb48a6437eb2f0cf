"""Intra- and extra-focal donuts fitted together, by site, and the field through the sites."""

import json
import os
import subprocess
import sys

import batoid
import numpy as np
import pytest
from pydantic import ValidationError
from test_wavefront import N_FULL, render, rss_nm, simulate

from payloads.focus import joint
from payloads.focus.field import FIELD_RADIUS_DEG, field_basis, fit_field
from payloads.focus.joint import JointInput, JointReport, SiteInput, fit_sites, pair_donuts, spread_over
from payloads.focus.optics import intrinsic_zernikes_m, z4_um_per_mm
from payloads.focus.stamps import DonutFile, FittedDonut, from_fits, to_fits
from payloads.focus.wavefront import NOLL, DonutStamp, bin_stamp, fit_wavefront

ZERO = np.zeros(len(NOLL))


def make_donut(stamp: DonutStamp, x: float = 100.0, y: float = 100.0, fwhm: float = 0.9) -> FittedDonut:
    return FittedDonut(stamp, x, y, fwhm, ZERO)


def simulate_at(thx_deg, thy_deg, truth, rng, *, defocus_mm=0.0, camera_mm=0.0, fwhm=0.85, flux=2e6) -> DonutStamp:
    thx, thy = np.deg2rad([thx_deg, thy_deg])
    light = render(truth, defocus_mm=defocus_mm, camera_mm=camera_mm, thx=thx, thy=thy, fwhm=fwhm, flux=flux)
    noisy = light + rng.normal(size=light.shape) * np.sqrt(np.maximum(light, 0) + 800.0)
    return DonutStamp(bin_stamp(noisy, 2), 3200.0, 20e-6, 0.4, defocus_mm, thx, thy, camera_mm)


def file_of(*donuts: FittedDonut, name: str = "R00", band: str = "r") -> DonutFile:
    return DonutFile("LSSTCam", band, name, donuts)


@pytest.mark.slow
def test_corners_give_their_wavefronts_with_errors_and_the_fields_mean_and_tilt():
    rng = np.random.default_rng(11)
    mean, tilt_x = rng.normal(0, 0.12e-6, len(NOLL)), rng.normal(0, 0.04e-6, len(NOLL))
    files = {}
    for name, (u, v) in {"R00": (-1, -1), "R04": (-1, 1), "R40": (1, -1), "R44": (1, 1)}.items():
        truth = mean + u * tilt_x
        sides = [simulate_at(1.125 * u, 1.125 * v, truth, rng, defocus_mm=dz) for dz in (1.5, -1.5)]
        files[name] = tuple(file_of(make_donut(stamp), name=name) for stamp in sides)
    report, pairs = fit_sites(files, n_pairs=3)
    assert (report.n_pairs, report.n_pairs_possible, report.notes) == (4, 4, [])
    assert [site.name for site in report.sites] == ["R00", "R04", "R40", "R44"]
    for site, pair in zip(report.sites, sorted(pairs, key=lambda pair: pair.site), strict=True):
        truth = mean + (1 if site.thx_deg > 0 else -1) * tilt_x
        assert rss_nm(pair.fit, truth) < 150
        assert 0.9 < site.chi2_per_dof < 1.1
        pulls = (np.array(site.zernikes_um) - 1e6 * truth) / np.array(site.errors_um)
        assert np.abs(np.median(pulls)) < 1.2
        assert np.std(pulls) < 2.5
    field = report.field
    assert len(field.coefficients_um) == 3
    found, errors = np.array(field.coefficients_um), np.array(field.errors_um)
    assert 1e3 * np.sqrt(((found[0] - 1e6 * mean) ** 2).sum()) < 70
    # Noll's Z2 is 2 x on the field's radius.
    expected = 1e6 * tilt_x / 1.125 * FIELD_RADIUS_DEG / 2
    assert np.abs((found[1] - expected) / np.maximum(errors[1], 0.004)).max() < 5
    assert field.focus_offset_um == pytest.approx(1e6 * mean[0] / z4_um_per_mm("LSSTCam", "r") * 1000, abs=1.5)


@pytest.mark.slow
def test_several_pairs_are_better_than_one_and_one_is_better_than_a_donut_alone():
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 0.15e-6, len(NOLL))
    sides = {}
    for sign in (1, -1):
        stamps = [simulate(truth, rng, defocus_mm=1.5 * sign, fwhm=0.9) for _ in range(3)]
        sides[sign] = [make_donut(stamp, x=100 + 500 * k) for k, stamp in enumerate(stamps)]
    alone = [rss_nm(fit_wavefront([donut.stamp]), truth) for donut in (sides[1][0], sides[-1][0])]
    report, pairs = fit_sites({"R00": (file_of(*sides[1]), file_of(*sides[-1]))})
    (site,) = report.sites
    together = [rss_nm(pair.fit, truth) for pair in pairs]
    mean = 1e3 * np.sqrt(((np.array(site.zernikes_um) - 1e6 * truth) ** 2).sum())
    assert site.n_pairs == len(pairs) == 3
    assert np.median(together) < np.mean(alone)
    assert mean < np.median(together)
    assert mean < 80


@pytest.mark.slow
def test_a_moved_camera_is_not_a_moved_detector():
    """FOCUSZ moves the lenses along, which adds astigmatism and coma off the axis."""
    rng = np.random.default_rng(5)
    sides = [simulate_at(1.0, 1.0, ZERO, rng, camera_mm=dz) for dz in (1.5, -1.5)]
    right = fit_wavefront(sides)
    assert right.chi2_per_dof == pytest.approx(1.0, abs=0.05)
    assert rss_nm(right, ZERO) < 110
    wrong = fit_wavefront(
        [
            DonutStamp(s.image, s.sky_variance, s.pixel_m, s.pixel_arcsec, s.camera_mm, s.thx_rad, s.thy_rad)
            for s in sides
        ]
    )
    # What the lenses add has another sign on the other side: no wavefront explains both donuts. (0.011 is a sigma.)
    assert wrong.chi2_per_dof > right.chi2_per_dof + 0.03


@pytest.mark.slow
def test_a_donut_of_the_other_side_of_focus_does_not_fit():
    rng = np.random.default_rng(6)
    stamp = simulate_at(1.0, 1.0, ZERO, rng, camera_mm=1.5)
    flipped = DonutStamp(
        stamp.image, stamp.sky_variance, stamp.pixel_m, stamp.pixel_arcsec, 0.0, stamp.thx_rad, stamp.thy_rad, -1.5
    )
    right, wrong = fit_wavefront([stamp]), fit_wavefront([flipped])
    assert right.chi2_per_dof == pytest.approx(1.0, abs=0.05)
    assert rss_nm(right, ZERO) < 150
    assert wrong.chi2_per_dof > right.chi2_per_dof + 0.05
    assert rss_nm(wrong, ZERO) > 400


@pytest.mark.parametrize("optic", ["Detector", "LSSTCamera"])
@pytest.mark.parametrize("dz_mm", [1.5, -1.5])
def test_positive_is_beyond_focus(optic, dz_mm):
    """By traced rays: beyond focus they run apart, short of it together. Z4 goes with the sign."""
    telescope = batoid.Optic.fromYaml("LSST_r.yaml").withGloballyShiftedOptic(optic, [0, 0, dz_mm * 1e-3])
    rays = telescope.trace(
        batoid.RayVector.asPolar(optic=telescope, wavelength=619e-9, nrad=8, naz=24, theta_x=0, theta_y=0, inner=2.6)
    )
    ok = ~rays.vignetted & ~rays.failed
    apart = float(np.sum(rays.x[ok] * rays.vx[ok] + rays.y[ok] * rays.vy[ok]))
    assert np.sign(apart) == np.sign(dz_mm)
    moved = {"defocus_mm": dz_mm} if optic == "Detector" else {"defocus_mm": 0.0, "camera_mm": dz_mm}
    waves = intrinsic_zernikes_m("LSSTCam", band="r", thx_rad=0.0, thy_rad=0.0, **moved)
    assert np.sign(waves[4]) == np.sign(dz_mm)


# The field


@pytest.mark.parametrize(("n_side", "n_terms"), [(1, 1), (2, 3), (3, 3), (5, 6)])
def test_the_field_gets_as_many_terms_as_the_sites_carry(n_side, n_terms):
    line = np.linspace(-1, 1, n_side) if n_side > 1 else np.zeros(1)
    x, y = (grid.ravel() for grid in np.meshgrid(line, line))
    rng = np.random.default_rng(n_side)
    truth = rng.normal(size=(n_terms, 2))
    errors = np.full((len(x), 2), 0.02)
    fit = fit_field(x, y, field_basis(x, y, n_terms) @ truth + rng.normal(size=(len(x), 2)) * 0.02, errors)
    assert fit.n_terms == n_terms
    assert np.abs((fit.coefficients_um - truth) / fit.errors_um).max() < 4.5
    assert np.isnan(fit.rms_um).all() == (len(x) == n_terms)


def test_sites_on_a_line_have_no_tilt_across_it():
    x = np.linspace(-1, 1, 6)
    fit = fit_field(x, x, np.ones((6, 1)), np.full((6, 1), 0.1))
    assert fit.n_terms == 1
    assert fit.coefficients_um[0, 0] == pytest.approx(1.0)


def test_a_site_with_a_large_error_hardly_counts_and_scatter_makes_errors_larger():
    x = np.zeros(3)
    values = np.array([[1.0], [1.0], [9.0]])
    trusting = fit_field(x, x, values, np.array([[0.1], [0.1], [10.0]]))
    assert trusting.coefficients_um[0, 0] == pytest.approx(1.0, abs=0.01)
    scattered = fit_field(x, x, values, np.full((3, 1), 0.1))
    assert scattered.errors_um[0, 0] == pytest.approx(values.std(ddof=1) / np.sqrt(3), rel=0.01)


def test_a_field_without_a_site_is_refused():
    with pytest.raises(ValueError, match="needs a site"):
        fit_field(np.zeros(0), np.zeros(0), np.zeros((0, 19)), np.zeros((0, 19)))


# Pairs, files, the program

BLANK = DonutStamp(np.zeros((5, 5)), 100.0, 20e-6, 0.4, 1.5, 0.0, 0.0)


def test_the_same_star_is_paired_if_it_can_be_found_else_the_next_brightest():
    extra = tuple(make_donut(BLANK, x=x) for x in (100, 900, 1700))
    intra = tuple(make_donut(BLANK, x=x) for x in (1750, 3000, 110))
    assert [(a.x, b.x) for a, b in pair_donuts(extra, intra, 3)] == [(100, 110), (900, 1750), (1700, 3000)]
    assert len(pair_donuts(extra, intra, 2)) == 2
    assert pair_donuts(extra, (), 3) == []


def test_any_first_part_of_the_order_is_spread_over_the_whole():
    names = [f"{k:02}" for k in range(21)]
    order = spread_over(names)
    assert sorted(order) == names
    thirds = {int(name) // 7 for name in order[:4]}
    assert thirds == {0, 1, 2}


def test_a_file_of_donuts_can_be_read_back(tmp_path):
    stamp = DonutStamp(np.arange(25.0).reshape(5, 5), 99.5, 20e-6, 0.4, 1.5, 0.01, -0.02, -0.3)
    content = file_of(FittedDonut(stamp, 12.5, 13.5, 0.77, np.arange(19.0)), name="R44_SW0", band="i")
    found = from_fits(to_fits(content))
    assert (found.optics, found.band, found.detector_name) == ("LSSTCam", "i", "R44_SW0")
    (donut,) = found.donuts
    assert (donut.x, donut.y, donut.fwhm_arcsec) == (12.5, 13.5, 0.77)
    np.testing.assert_array_equal(donut.zernikes_um, np.arange(19.0))
    np.testing.assert_array_equal(donut.stamp.image, stamp.image)
    assert donut.stamp.camera_mm == -0.3
    for junk in (b"", b"no FITS at all", to_fits(content)[:2880]):
        if junk[:6] != b"SIMPLE":
            with pytest.raises(ValueError, match="not a file of fitted donuts"):
                from_fits(junk)


def test_donuts_of_two_filters_are_not_fitted_together():
    with pytest.raises(ValueError, match="different optics or filters"):
        fit_sites({"R00": (file_of(make_donut(BLANK)), file_of(make_donut(BLANK), band="g"))})


def test_a_pair_that_fails_is_noted_and_the_time_is_kept(monkeypatch):
    files = {name: (file_of(make_donut(BLANK)), file_of(make_donut(BLANK))) for name in ("R00", "R04", "R40")}
    report, pairs = fit_sites(files)
    assert (pairs, report.field, report.n_pairs, report.n_pairs_possible) == ([], None, 0, 3)
    assert len(report.notes) == 3
    assert all("no light" in note for note in report.notes)
    clock = iter([0.0, 0.0, 100.0])
    monkeypatch.setattr(joint.time, "monotonic", lambda: next(clock))
    report, _ = fit_sites(files, budget_s=10.0)
    assert report.notes[-1] == "2 pairs left out: 10 s are over"


def test_the_program_answers_on_standard_output_and_ends_with_its_input(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(to_fits(file_of(make_donut(BLANK))))
    request = tmp_path / "request.json"
    site = SiteInput(name="R00", extra=path, intra=path)
    request.write_text(JointInput(sites=[site], folder=tmp_path).model_dump_json())
    command = [sys.executable, "-m", "payloads.focus.joint"]
    done = subprocess.run([*command, str(request)], capture_output=True, text=True, timeout=200, check=True)
    assert JointReport.model_validate_json(done.stdout).n_pairs_possible == 1
    assert json.loads(done.stdout)["notes"]
    assert subprocess.run(command, capture_output=True, timeout=200, check=False).returncode == 2
    # A request that is never written: it waits to be read, so that only the end of its input can end it.
    fifo = tmp_path / "fifo.fits"
    os.mkfifo(fifo)
    request.write_text(JointInput(sites=[site.model_copy(update={"extra": fifo})], folder=tmp_path).model_dump_json())
    process = subprocess.Popen([*command, str(request), "--while-input"], stdin=subprocess.PIPE)
    process.stdin.close()
    assert process.wait(200) == 1


def test_a_request_names_its_mistakes(tmp_path):
    with pytest.raises(ValidationError, match="sites"):
        JointInput(sites=[], folder=tmp_path)
    assert N_FULL % 2 == 1
