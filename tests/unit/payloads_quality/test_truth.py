"""What was put into the image comes out of it."""

import galsim
import numpy as np
import pytest
from quality_images import add_stars, make_field, make_frame, make_sky

from payloads.quality.measure import measure_quality
from payloads.quality.payload import ImageQuality, QualityConfig

SCALE = 0.2
PROFILES = [
    pytest.param(galsim.Gaussian(fwhm=3.0), id="round, 0.6 arcsec"),
    pytest.param(galsim.Gaussian(fwhm=4.0).shear(e1=0.1, e2=-0.05), id="elliptical, 0.8 arcsec"),
    pytest.param(galsim.Gaussian(fwhm=8.0).shear(e1=-0.02, e2=0.15), id="bad seeing, 1.6 arcsec"),
]


def run(image, **facts):
    config = facts.pop("config", QualityConfig())
    frame = make_frame(image, **facts)
    ImageQuality(config).run(frame)
    return frame


@pytest.mark.parametrize("profile", PROFILES)
def test_width_and_ellipticity_of_gaussian_stars(profile):
    light, *_ = make_field(profile)
    frame = run(make_sky(stars=light))
    moments = galsim.hsm.FindAdaptiveMom(profile.drawImage(nx=81, ny=81, scale=1.0, method="no_pixel"))
    truth_fwhm = 2.3548 * moments.moments_sigma * SCALE
    assert frame.metrics["psf_fwhm_arcsec"] == pytest.approx(truth_fwhm, rel=0.01)
    assert frame.metrics["psf_fwhm_direct_arcsec"] == pytest.approx(truth_fwhm, rel=0.01)
    assert frame.metrics["psf_e1"] == pytest.approx(moments.observed_shape.e1, abs=0.005)
    assert frame.metrics["psf_e2"] == pytest.approx(moments.observed_shape.e2, abs=0.005)
    assert frame.metrics["psf_fwhm_scatter_arcsec"] < 0.01 * truth_fwhm
    assert frame.metrics["n_psf_stars"] > 40


@pytest.mark.parametrize("beta", [2.5, 3.5], ids=["broad wings", "moderate wings"])
def test_the_direct_width_is_the_half_maximum_of_a_moffat_where_moments_are_wider(beta):
    profile = galsim.Moffat(beta=beta, fwhm=4.0)
    light, *_ = make_field(profile)
    frame = run(make_sky(stars=light))
    moments = galsim.hsm.FindAdaptiveMom(profile.drawImage(nx=81, ny=81, scale=1.0, method="no_pixel"))
    assert frame.metrics["psf_fwhm_direct_arcsec"] == pytest.approx(0.8, rel=0.01)
    assert frame.metrics["psf_fwhm_arcsec"] == pytest.approx(2.3548 * moments.moments_sigma * SCALE, rel=0.01)
    assert frame.metrics["psf_fwhm_arcsec"] > 1.05 * frame.metrics["psf_fwhm_direct_arcsec"]


def test_each_star_has_its_place_flux_and_signal_to_noise():
    light, x, y, flux = make_field(galsim.Gaussian(fwhm=4.0))
    frame = run(make_sky(stars=light))
    table = frame.tables["stars"]
    assert {len(column) for column in table.values()} == {len(table["x"])}
    for k in range(len(table["x"])):
        away = np.hypot(x - table["x"][k], y - table["y"][k])
        nearest = int(away.argmin())
        assert away[nearest] < 10.0 / table["snr"][k]
        assert abs(table["flux_e"][k] - flux[nearest]) < 5.0 * table["flux_error_e"][k]
        n_eff = 4 * np.pi * (4.0 / 2.3548) ** 2
        expected = flux[nearest] / np.sqrt(flux[nearest] + n_eff * 1036.0)
        assert table["snr"][k] == pytest.approx(expected, rel=0.12)
        assert table["instrument_mag"][k] == pytest.approx(-2.5 * np.log10(flux[nearest] / 30.0), abs=0.1)
    assert table["flux_e"] == sorted(table["flux_e"], reverse=True) or len(table["x"]) > 50


def test_sky_level_and_noise_are_those_put_in():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0))
    metrics = run(make_sky(level=1000.0, read_noise=6.0, stars=light)).metrics
    assert metrics["sky_level_e"] == pytest.approx(1000.0, abs=1.0)
    assert metrics["sky_noise_e"] == pytest.approx(np.sqrt(1036.0), rel=0.01)
    assert metrics["sky_gradient_e"] < 10.0


def test_an_image_in_adu_gives_electrons_by_the_nominal_gain():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0))
    image = make_sky(stars=light)
    gain = float(np.median([amp.gain for amp in make_frame(image).detector.amps]))
    electrons, counts = run(image).metrics, run(image / np.float32(gain), unit="ADU").metrics
    for key in ("sky_level_e", "sky_noise_e", "psf_fwhm_arcsec"):
        assert counts[key] == pytest.approx(electrons[key], rel=1e-3), key


def test_cosmic_rays_and_galaxies_do_not_move_the_width():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0), n=40)
    rng = np.random.default_rng(8)
    galaxies = rng.uniform(60, 960, (25, 2))
    light = add_stars(light, galaxies[:, 0], galaxies[:, 1], 10 ** rng.uniform(4.2, 5, 25), galsim.Gaussian(fwhm=8.0))
    image = make_sky(stars=light)
    for _ in range(150):
        x, y, angle = rng.integers(30, 1000), rng.integers(30, 980), rng.uniform(0, 2 * np.pi)
        for t in np.arange(0, rng.integers(1, 15), 0.7):
            image[int(y + t * np.sin(angle)), int(x + t * np.cos(angle))] += rng.uniform(500, 4000)
    metrics = run(image).metrics
    assert metrics["psf_fwhm_arcsec"] == pytest.approx(0.8, rel=0.01)
    assert metrics["psf_e"] < 0.01


def test_a_trailed_image_keeps_its_stars_and_says_how_long_they_are():
    profile = galsim.Gaussian(fwhm=4.0).shear(e1=0.75)
    light, *_ = make_field(profile)
    metrics = run(make_sky(stars=light)).metrics
    assert metrics["n_psf_stars"] > 40
    assert metrics["psf_e1"] == pytest.approx(0.75, abs=0.01)


def test_the_width_at_the_zenith_takes_airmass_and_filter_out():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0))
    image = make_sky(stars=light)
    metrics = run(image, airmass=1.5, physical_filter="i_39").metrics
    expected = metrics["psf_fwhm_arcsec"] * 1.5**-0.6 * (753.5 / 500.0) ** 0.2
    assert metrics["psf_fwhm_zenith_arcsec"] == pytest.approx(expected, rel=1e-6)
    assert run(image, physical_filter="i_39").metrics["psf_fwhm_zenith_arcsec"] is None


def test_a_full_detector_with_few_stars_works_on_blocks_of_four_pixels():
    profile = galsim.Gaussian(fwhm=3.5)
    light, *_ = make_field(profile, shape=(2048, 2048), n=60)
    metrics = run(make_sky((2048, 2048), stars=light)).metrics
    assert metrics["psf_fwhm_arcsec"] == pytest.approx(0.7, rel=0.01)
    assert metrics["n_stars"] == pytest.approx(60, abs=3)


@pytest.mark.parametrize("fwhm_px", [4.0, 10.0])
def test_the_wings_of_stars_are_not_taken_for_sky(fwhm_px):
    profile = galsim.Moffat(beta=3.0, fwhm=fwhm_px)
    light, *_ = make_field(profile, n=30, flux=(5.0, 5.6))
    metrics = run(make_sky(stars=light)).metrics
    moments = galsim.hsm.FindAdaptiveMom(profile.drawImage(nx=161, ny=161, scale=1.0, method="no_pixel"))
    assert metrics["psf_fwhm_arcsec"] == pytest.approx(2.3548 * moments.moments_sigma * SCALE, rel=0.01)


def test_stars_on_amps_of_different_level_have_the_sky_around_them():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0))
    image = make_sky(stars=light)
    image += np.float32(400) * (np.arange(image.shape[1]) // 275 % 2).astype(np.float32)[None, :]
    metrics = run(image).metrics
    assert metrics["n_psf_stars"] > 30
    assert metrics["psf_fwhm_arcsec"] == pytest.approx(0.8, rel=0.01)


def test_an_image_as_a_file_gives_it_is_measured_as_any_other():
    """Of the other byte order, read-only, and a mask that is a part of a larger one."""
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0))
    image = make_sky(stars=light)
    mask = np.zeros((image.shape[0] + 10, image.shape[1] + 10), np.int32)[5:-5, 5:-5]
    expected = measure_quality(image, np.ascontiguousarray(mask), pixel_scale_arcsec=SCALE)
    as_read = image.astype(">f4")
    as_read.flags.writeable = False
    found = measure_quality(as_read, mask, pixel_scale_arcsec=SCALE)
    assert expected.has_psf
    np.testing.assert_array_equal(found.stars.sigma_px, expected.stars.sigma_px)
