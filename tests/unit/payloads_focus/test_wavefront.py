"""Zernikes that were put into simulated donuts come out of the fit."""

import json
import sys
from dataclasses import replace

import batoid
import danish
import numpy as np
import pytest
from focus_images import make_frame

from payloads.focus import optics
from payloads.focus.optics import donut_factory, fwhm_of_zernikes, fwhm_per_um, intrinsic_zernikes_m
from payloads.focus.stamps import from_fits
from payloads.focus.wavefront import NOLL, DonutStamp, bin_stamp, fit_wavefront
from payloads.focus.wavefront_payload import Wavefront, WavefrontConfig, wavefront_metrics
from rapid.camera.geometry import detector_to_focal_plane, focal_plane_to_field_angle
from rapid.camera.store import load_camera
from rapid.errors import PayloadError

CORNER = np.deg2rad(1.125)
N_FULL = 183


def render(zernikes_m, *, defocus_mm, thx, thy, fwhm, flux=2e6, camera_mm=0.0):
    """Return a noiseless full-resolution donut of the fit's own optics."""
    reference = intrinsic_zernikes_m(
        "LSSTCam", band="r", defocus_mm=defocus_mm, camera_mm=camera_mm, thx_rad=thx, thy_rad=thy
    )
    model = danish.SingleDonutModel(
        donut_factory("LSSTCam", pixel_m=10e-6), z_ref=reference, z_terms=NOLL, thx=thx, thy=thy, npix=N_FULL
    )
    return model.model(flux, 0.1, -0.2, fwhm, zernikes_m)


def simulate(zernikes_m, rng, *, defocus_mm, fwhm, sky=1000.0):
    light = render(zernikes_m, defocus_mm=defocus_mm, thx=CORNER, thy=CORNER, fwhm=fwhm, flux=4e6)
    noisy = light + rng.normal(size=light.shape) * np.sqrt(np.maximum(light, 0) + sky)
    return DonutStamp(bin_stamp(noisy, 2), 4 * sky, 20e-6, 0.4, defocus_mm, CORNER, CORNER)


def rss_nm(fit, zernikes_m):
    return 1e3 * float(np.sqrt(((fit.zernikes_um - 1e6 * zernikes_m) ** 2).sum()))


@pytest.mark.slow
def test_a_pair_is_better_than_its_donuts_alone_and_all_find_the_aberrations():
    rng = np.random.default_rng(1)
    alone, together, pulls = [], [], []
    for _ in range(3):
        truth = rng.normal(0, 0.15e-6, len(NOLL))
        fwhm = rng.uniform(0.75, 1.1)
        stamps = [simulate(truth, rng, defocus_mm=sign * 1.5, fwhm=fwhm) for sign in (1, -1)]
        for stamp in stamps:
            fit = fit_wavefront([stamp])
            assert fit.converged
            assert fit.chi2_per_dof == pytest.approx(1.0, abs=0.05)
            assert fit.fwhm_arcsec[0] == pytest.approx(fwhm, rel=0.1)
            alone.append(rss_nm(fit, truth))
            pulls.extend((fit.zernikes_um - 1e6 * truth) / fit.errors_um)
        fit = fit_wavefront(stamps)
        assert len(fit.fwhm_arcsec) == 2
        together.append(rss_nm(fit, truth))
    # The aberrations put in are 650 nm rss.
    assert np.median(alone) < 75.0
    assert max(alone) < 115.0  # 99 nm, give or take what another machine rounds
    assert np.median(together) < 0.9 * np.median(alone)
    assert np.median(together) < 70.0
    assert np.std(pulls) == pytest.approx(1.3, abs=0.4)


def test_an_aligned_telescope_in_focus_has_hardly_any_aberration():
    zernikes = np.array(intrinsic_zernikes_m("LSSTCam", band="r", defocus_mm=0.0, thx_rad=0.0, thy_rad=0.0))
    assert np.abs(zernikes[5:]).max() < 0.06e-6
    defocused = intrinsic_zernikes_m("LSSTCam", band="r", defocus_mm=1.5, thx_rad=0.0, thy_rad=0.0)
    # dz / (16 sqrt3 N^2) for a filled aperture, over 1 - eps^2 for an annular one; paraxial, hence 10 %.
    expected = 1.5e-3 / (16 * np.sqrt(3) * 1.234**2) * (1 - 0.61**2)
    assert defocused[4] == pytest.approx(expected, rel=0.15)


def test_the_model_lies_as_traced_rays_do():
    """Orientation and field-angle signs, without danish: rays through batoid's telescope onto the detector."""
    thx, thy = np.deg2rad([1.125, 0.6])
    telescope = batoid.Optic.fromYaml("LSST_r.yaml").withGloballyShiftedOptic("Detector", [0, 0, 1.5e-3])
    rays = telescope.trace(
        batoid.RayVector.asPolar(
            optic=telescope, wavelength=619e-9, nrad=50, naz=300, theta_x=thx, theta_y=thy, inner=2.55
        )
    )
    chief = telescope.trace(
        batoid.RayVector.fromStop(0, 0, optic=telescope, wavelength=619e-9, theta_x=thx, theta_y=thy)
    )
    assert chief.x[0] > 0
    assert chief.y[0] > 0
    ok = ~rays.vignetted & ~rays.failed
    edges = np.arange(N_FULL + 1) - N_FULL / 2
    spots, _, _ = np.histogram2d((rays.y[ok] - chief.y[0]) * 1e5, (rays.x[ok] - chief.x[0]) * 1e5, bins=[edges, edges])
    model = render(np.zeros(len(NOLL)), defocus_mm=1.5, thx=thx, thy=thy, fwhm=0.8)

    def likeness(image):
        coarse = bin_stamp(image, 6)
        return np.corrcoef(coarse.ravel(), bin_stamp(model, 6).ravel())[0, 1]

    assert likeness(spots) > 0.97
    assert likeness(spots) > max(likeness(spots[::-1]), likeness(spots[:, ::-1]), likeness(spots[::-1, ::-1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["R22_S11", "R44_SW0"], ids=["centre", "wavefront half"])
def test_the_payload_fits_what_lies_on_a_detector(name):
    camera = load_camera("LSSTCam")
    detector = camera.by_name[name]
    # The camera is moved for one, the other half lies 1.5 mm beyond focus.
    focus_z_mm = 1.5 if name == "R22_S11" else None
    moved = {"defocus_mm": 0.0, "camera_mm": 1.5} if focus_z_mm else {"defocus_mm": 1.5}
    truth = np.zeros(len(NOLL))
    truth[[1, 3, 7]] = 0.3e-6, -0.2e-6, 0.15e-6  # Z5, Z7, Z11
    x, y = 700, 600
    x_deg, y_deg = focal_plane_to_field_angle(camera, *detector_to_focal_plane(detector, x, y))
    light = render(truth, **moved, thx=np.radians(y_deg), thy=np.radians(x_deg), fwhm=0.9, flux=4e6)
    # From the camera's axes to the focal plane's, and back by the detector's quarter turns.
    on_chip = np.rot90(light.T, k=detector.n_quarter)
    image = np.full((1200, 1400), 1000.0)
    half = N_FULL // 2
    image[y - half : y + half + 1, x - half : x + half + 1] += on_chip
    image += np.random.default_rng(3).normal(size=image.shape) * np.sqrt(image)
    frame = make_frame(image.astype(np.float32), detector=detector.id, focus_z_mm=focus_z_mm, physical_filter="r_57")
    Wavefront(WavefrontConfig()).run(frame)
    json.dumps({"m": frame.metrics, "t": frame.tables}, allow_nan=False)
    assert frame.metrics["n_wavefronts"] == 1
    (donut,) = from_fits(frame.files["wavefront_stamps"].data).donuts
    assert (donut.stamp.camera_mm, donut.stamp.defocus_mm) == (moved.get("camera_mm", 0.0), moved["defocus_mm"])
    assert donut.zernikes_um[1] == frame.metrics["z5_um"]
    assert frame.metrics["wavefront_chi2_per_dof"] == pytest.approx(1.0, abs=0.1)
    found = np.array([frame.metrics[f"z{j}_um"] for j in NOLL])
    assert np.sqrt(((found - 1e6 * truth) ** 2).sum()) < 0.15
    assert frame.metrics["wavefront_blur_arcsec"] == pytest.approx(0.9, rel=0.1)
    expected = fwhm_of_zernikes(NOLL, 1e6 * truth)
    assert frame.metrics["wavefront_fwhm_arcsec"] == pytest.approx(expected, rel=0.25)


def test_without_donuts_there_is_no_wavefront():
    image = np.random.default_rng(1).normal(1000, 32, (600, 600)).astype(np.float32)
    frame = make_frame(image, focus_z_mm=1.5, physical_filter="r_57")
    Wavefront(WavefrontConfig()).run(frame)
    assert frame.metrics["n_wavefronts"] == 0
    assert frame.metrics["z4_um"] is None
    assert frame.metrics["wavefront_fwhm_arcsec"] is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        pytest.param({"focus_z_mm": 1.5}, "filter", id="no filter"),
        pytest.param({"physical_filter": "r_57"}, "side of focus", id="no defocus"),
    ],
)
def test_what_the_fit_must_know_is_asked_for(facts, message):
    frame = make_frame(np.full((300, 300), 5.0, np.float32), **facts)
    with pytest.raises(PayloadError, match=message):
        Wavefront(WavefrontConfig()).run(frame)


def test_an_image_never_assembled_has_no_wavefront():
    with pytest.raises(PayloadError, match="isr or assemble"):
        Wavefront(WavefrontConfig()).run(make_frame(None))


STAMP = DonutStamp(np.zeros((31, 31)), 100.0, 20e-6, 0.4, 1.5, 0.0, 0.0)


def test_unusable_stamps_are_named():
    with pytest.raises(PayloadError, match="no light"):
        fit_wavefront([STAMP])
    with pytest.raises(PayloadError, match="no optics are known for camera LATISS"):
        fit_wavefront([STAMP], camera="LATISS")
    with pytest.raises(PayloadError, match="no optics are known for band w"):
        fit_wavefront([STAMP], band="w")
    with pytest.raises(ValueError, match="odd"):
        fit_wavefront([replace(STAMP, image=np.zeros((30, 30)))])
    with pytest.raises(ValueError, match="needs a donut"):
        fit_wavefront([])


def test_a_missing_package_is_named(monkeypatch):
    optics.pupil_mask.cache_clear()
    monkeypatch.setitem(sys.modules, "danish", None)
    with pytest.raises(PayloadError, match="batoid and danish"):
        optics.pupil_mask("LSSTCam")


@pytest.mark.parametrize(("j", "expected"), [(4, 0.751), (5, 0.271), (6, 0.271), (9, 0.396), (11, 1.68)])
def test_a_micrometre_of_each_zernike_blurs_by_a_known_amount(j, expected):
    assert fwhm_per_um(j) == pytest.approx(expected, abs=0.003)


def test_binning_adds_up_and_leaves_an_odd_number():
    binned = bin_stamp(np.ones((181, 181)), 2)
    assert binned.shape == (89, 89)
    assert (binned == 4.0).all()


def test_the_mean_of_wavefronts_goes_by_their_errors():
    rng = np.random.default_rng(2)
    base = fit_like(np.zeros(len(NOLL)), 0.05)
    other = fit_like(np.full(len(NOLL), 0.1), 0.05)
    good = fit_like(np.full(len(NOLL), 0.1), 0.005)
    assert wavefront_metrics([base, other])["z7_um"] == pytest.approx(0.05)
    assert wavefront_metrics([base, other])["z7_error_um"] == pytest.approx(0.05)
    assert wavefront_metrics([base, good])["z7_um"] == pytest.approx(0.1, abs=0.002)
    assert wavefront_metrics([fit_like(rng.normal(size=len(NOLL)), 0.1)])["z4_error_um"] == pytest.approx(0.1)


def fit_like(zernikes_um, error_um):
    from payloads.focus.wavefront import WavefrontFit

    return WavefrontFit(zernikes_um, np.full(len(NOLL), error_um), (0.8,), 1.0, 0.1, True)
