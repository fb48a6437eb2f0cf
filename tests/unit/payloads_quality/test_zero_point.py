"""Zero point and transparency from stars of known magnitude."""

import json
from datetime import date

import galsim
import numpy as np
import pytest
from quality_images import make_field, make_frame, make_sky

from payloads.quality.astrometry import Pointing, pixels_to_field_angle, unproject
from payloads.quality.calibrate import CALIBRATION_METRICS
from payloads.quality.catalogue import write_catalogue
from payloads.quality.payload import ImageQuality, QualityConfig
from payloads.quality.profile import StackedProfile
from payloads.quality.zero_point import (
    fit_zero_point,
    load_reference_values,
    magnitude_limit,
)
from rapid.errors import ConfigurationError

POINTING = {"ra_deg": 60.0, "dec_deg": -30.0, "rotator_angle_deg": 12.0}
EXPTIME_S = 30.0
PROFILE = galsim.Moffat(beta=3.5, fwhm=4.0)


@pytest.fixture(scope="module")
def field():
    """Stars of a known field: light [electron] at full transparency, magnitudes for a zero point of 28."""
    light, x, y, flux = make_field(PROFILE, n=100, flux=(4.0, 5.6))
    return light, x, y, 28.0 - 2.5 * np.log10(flux / EXPTIME_S)


def write(folder, field, *, offset_arcsec=(0.0, 0.0), system="AB", scatter=0.0, seed=5, mags=None):
    _, x, y, mag = field
    frame = make_frame(None)
    angles = pixels_to_field_angle(frame.camera, frame.detector, x, y)
    points = Pointing(60.0, -30.0, 12.0).to_plane(*angles) + np.asarray(offset_arcsec)
    ra, dec = unproject(points, centre_ra_deg=60.0, centre_dec_deg=-30.0)
    rng = np.random.default_rng(seed)
    mag = (mag if mags is None else mags) + rng.normal(0, 1, len(mag)) * scatter
    write_catalogue(folder, ra, dec, {"r": mag}, name="truth", system=system, made_on=date(2026, 1, 1))
    return folder


def run(image, **facts):
    config = facts.pop("config")
    frame = make_frame(image, **{"physical_filter": "r_57", "airmass": 1.0, **POINTING, **facts})
    ImageQuality(QualityConfig(**config)).run(frame)
    json.dumps({"m": frame.metrics, "t": frame.tables}, allow_nan=False)
    assert set(CALIBRATION_METRICS) <= set(frame.metrics)
    return frame


def test_zero_point_and_pointing_error_come_out(tmp_path, field):
    light, *_ = field
    write(tmp_path / "c", field, offset_arcsec=(21.0, -13.0))
    frame = run(make_sky(stars=light), config={"reference_catalogue": tmp_path / "c"})
    metrics = frame.metrics
    assert metrics["calibration_note"] is None
    # Whole light, not the aperture's: the wings of this profile beyond it are 2.3 %.
    assert metrics["zero_point_mag"] == pytest.approx(28.0, abs=0.01)
    assert metrics["aperture_loss_mag"] == pytest.approx(0.025, abs=0.01)
    assert metrics["zero_point_error_mag"] < 0.005
    assert metrics["zero_point_system"] == "AB"
    assert metrics["n_zero_point_stars"] > 60
    assert metrics["pointing_offset_ra_arcsec"] == pytest.approx(21.0, abs=0.03)
    assert metrics["pointing_offset_dec_arcsec"] == pytest.approx(-13.0, abs=0.03)
    assert metrics["astrometry_rms_arcsec"] < 0.05
    # 28.36 is the clear sky's: 0.36 mag less arrived.
    assert metrics["transparency"] == pytest.approx(10 ** (-0.4 * 0.36), rel=0.01)
    stars = frame.tables["stars"]
    assert len(stars["ra_deg"]) == len(stars["x"]) == len(stars["kurtosis"])


@pytest.mark.parametrize("transparency", [1.0, 0.6, 0.25])
def test_the_part_of_the_light_that_arrived_is_told_by_a_catalogue_of_our_own(tmp_path, field, transparency):
    light, _, _, mag = field
    # Airmass 1.5 takes its extinction; the rest is cloud.
    extinction = load_reference_values().of("LSSTCam", "r", 20251115).extinction_mag
    arrived = transparency * 10 ** (-0.4 * extinction * 0.5)
    write(tmp_path / "c", field, system="instrument", mags=mag - 28.0)
    frame = run(make_sky(stars=light * arrived), config={"reference_catalogue": tmp_path / "c"}, airmass=1.5)
    assert frame.metrics["transparency"] == pytest.approx(transparency, rel=0.015)
    assert frame.metrics["zero_point_system"] == "instrument"
    clear = load_reference_values().of("LSSTCam", "r", 20251115).zero_point_mag
    assert frame.metrics["zero_point_mag"] == pytest.approx(clear + 2.5 * np.log10(arrived), abs=0.015)


def test_the_magnitude_limit_is_where_a_star_has_signal_to_noise_five(tmp_path, field):
    light, *_ = field
    write(tmp_path / "c", field)
    frame = run(make_sky(stars=light), config={"reference_catalogue": tmp_path / "c"})
    table = frame.tables["stars"]
    snr, mag = np.array(table["snr"]), np.array(table["instrument_mag"]) + frame.metrics["zero_point_mag"]
    noise, sigma = frame.metrics["sky_noise_e"], frame.metrics["psf_sigma_px"]
    for value, star in zip(snr[:40], mag[:40], strict=True):
        same = magnitude_limit(
            frame.metrics["zero_point_mag"],
            sky_noise_e=noise, n_effective_px=4 * np.pi * sigma**2, exposure_time_s=EXPTIME_S, snr=value,
        )  # fmt: skip
        assert same == pytest.approx(star, abs=0.06)
    assert frame.metrics["magnitude_limit_5sigma"] > mag.max()


def test_wrong_stars_and_variable_ones_do_not_move_the_zero_point(tmp_path, field):
    light, _, _, mag = field
    changed = mag.copy()
    changed[::6] += 1.5
    write(tmp_path / "c", field, mags=changed, scatter=0.02)
    metrics = run(make_sky(stars=light), config={"reference_catalogue": tmp_path / "c"}).metrics
    assert metrics["zero_point_mag"] == pytest.approx(28.0, abs=0.02)
    assert 0.001 < metrics["zero_point_error_mag"] < 0.01


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        pytest.param({"physical_filter": "g_6"}, "no band g", id="another band"),
        pytest.param({"physical_filter": "empty"}, "no band of this filter", id="no filter"),
        pytest.param({"ra_deg": None}, "header has no pointing", id="no pointing"),
        pytest.param({"ra_deg": 200.0}, "no stars here", id="elsewhere"),
        pytest.param({"ra_deg": 60.1}, "could not be matched", id="six arcminutes off"),
    ],
)
def test_without_a_zero_point_the_note_says_why_and_the_widths_are_there(tmp_path, field, facts, note):
    light, *_ = field
    write(tmp_path / "c", field)
    metrics = run(make_sky(stars=light), config={"reference_catalogue": tmp_path / "c"}, **facts).metrics
    assert note in metrics["calibration_note"]
    assert metrics["zero_point_mag"] is None
    assert metrics["transparency"] is None
    assert metrics["psf_fwhm_arcsec"] > 0.8


def test_a_damaged_tile_costs_the_zero_point_only(tmp_path, field):
    light, *_ = field
    write(tmp_path / "c", field)
    for tile in (tmp_path / "c/tiles").iterdir():
        tile.write_bytes(b"nonsense")
    metrics = run(make_sky(stars=light), config={"reference_catalogue": tmp_path / "c"}).metrics
    assert "cannot be read" in metrics["calibration_note"]
    assert metrics["psf_fwhm_arcsec"] > 0.8


def test_without_a_catalogue_stars_have_the_headers_places(field):
    light, *_ = field
    frame = run(make_sky(stars=light), config={})
    assert frame.metrics["zero_point_mag"] is None
    assert frame.metrics["calibration_note"] is None
    assert frame.tables["stars"]["ra_deg"][0] == pytest.approx(60.0, abs=0.2)
    frame = run(make_sky(stars=light), config={}, dec_deg=None)
    assert frame.tables["stars"]["ra_deg"][0] is None


def test_without_airmass_or_exposure_time_what_needs_them_is_absent(tmp_path, field):
    light, *_ = field
    write(tmp_path / "c", field)
    config = {"reference_catalogue": tmp_path / "c"}
    metrics = run(make_sky(stars=light), config=config, airmass=None).metrics
    assert metrics["zero_point_mag"] == pytest.approx(28.0, abs=0.01)
    assert metrics["transparency"] is None
    metrics = run(make_sky(stars=light), config=config, exposure_time_s=None).metrics
    assert metrics["zero_point_mag"] is None
    assert metrics["n_astrometry_stars"] > 60


def test_clear_sky_values_have_dates(tmp_path):
    path = tmp_path / "values.yaml"
    entry = "  - {{cameras: [LSSTCam], valid_from: {}, source: here, bands: {{r: {{zero_point_mag: {}, extinction_mag: 0.1}}}}}}\n"
    path.write_text("entries:\n" + entry.format("2026-01-01", 28.0) + entry.format("2026-06-01", 27.5))
    values = load_reference_values(path)
    assert values.of("LSSTCam", "r", 20260531).zero_point_mag == 28.0
    assert values.of("lsstcam", "r", 20260601).zero_point_mag == 27.5
    assert values.of("LSSTCam", "r", 20251231) is None
    assert values.of("LSSTCam", "g", 20260601) is None
    assert values.of("LATISS", "r", 20260601) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("entries: [", "not YAML"), ("entries: [{}]", "cameras"), ("other: 1", "entries"), (None, "cannot be read")],
)
def test_a_bad_file_of_values_is_named(tmp_path, text, message):
    path = tmp_path / f"values{abs(hash(text))}.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_reference_values(path)


def test_a_catalogue_that_is_away_is_used_once_it_is_back(tmp_path, field):
    light, *_ = field
    payload = ImageQuality(QualityConfig(reference_catalogue=tmp_path / "c"))
    image = make_sky(stars=light)

    def look():
        frame = make_frame(image, physical_filter="r_57", airmass=1.0, **POINTING)
        payload.run(frame)
        return frame.metrics

    metrics = look()
    assert "reference_catalogue" in metrics["calibration_note"]
    assert metrics["zero_point_mag"] is None
    assert metrics["psf_fwhm_arcsec"] > 0.8
    write(tmp_path / "c", field)
    assert look()["zero_point_mag"] == pytest.approx(28.0, abs=0.01)


def test_the_error_of_a_zero_point_is_its_scatter_over_many_fields():
    rng = np.random.default_rng(3)
    pulls = []
    for _ in range(400):
        error = rng.uniform(0.01, 0.1, 30)
        difference = 27.0 + rng.normal(0, 1, 30) * np.hypot(error, 0.01)
        found = fit_zero_point(difference, np.zeros(30), error)
        pulls.append((found.zero_point_mag - 27.0) / found.error_mag)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(pulls)) < 0.2


def test_two_stars_make_no_zero_point():
    assert fit_zero_point(np.array([1.0, 2.0, np.nan]), np.zeros(3), np.full(3, 0.1)) is None
    assert fit_zero_point(np.zeros(0), np.zeros(0), np.zeros(0)) is None


@pytest.mark.parametrize("beta", [2.5, 4.0])
def test_the_light_in_an_aperture_is_that_of_the_drawn_profile(beta):
    profile = galsim.Moffat(beta=beta, fwhm=4.0)
    r = np.arange(0.005, 16.0, 0.01)
    ring = np.array([profile.xValue(x, 0.0) for x in r]) * 2 * np.pi * r * 0.01
    for radius in (3.0, 8.0, 15.0):
        assert StackedProfile(4.0, beta).enclosed(radius) == pytest.approx(ring[r < radius].sum(), abs=1e-4)
    assert StackedProfile(4.0, 1.0).enclosed(3.0) == 1.0
