"""Images without stars, without sky or with holes: numbers stay absent, nothing fails, nothing is NaN."""

import json

import galsim
import numpy as np
import pytest
from quality_images import make_field, make_frame, make_sky

from payloads.mask import BAD, EDGE, NO_DATA, SAT
from payloads.quality.mode import Mode, choose_mode
from payloads.quality.payload import PSF_METRICS, ImageQuality, QualityConfig
from payloads.quality.sky import clipped_scatter
from payloads.quality.standard import band_of, standardise_fwhm
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType

SHAPE = (1100, 1060)
NOISE = make_sky(SHAPE)


def run(image, *, mask=None, config=None, **facts):
    frame = make_frame(image, mask=mask, **facts)
    ImageQuality(config or QualityConfig()).run(frame)
    json.dumps({"m": frame.metrics, "t": frame.tables}, allow_nan=False)
    return frame


def masked(bits):
    return np.full(SHAPE, bits, dtype=np.int32)


@pytest.mark.parametrize(
    ("image", "mask", "note"),
    [
        pytest.param(NOISE, None, "no sources detected", id="sky without a source"),
        pytest.param(np.zeros(SHAPE, np.float32), None, "no sources detected", id="all zero"),
        pytest.param(np.full(SHAPE, 7.5, np.float32), None, "no sources detected", id="all the same"),
        pytest.param(NOISE, masked(BAD), "no usable pixels", id="all masked"),
        pytest.param(NOISE, masked(NO_DATA), "no usable pixels", id="no data at all"),
        pytest.param(np.full(SHAPE, 2e5, np.float32), masked(SAT), "no usable pixels", id="all saturated"),
        pytest.param(np.full(SHAPE, np.nan, np.float32), None, "no usable pixels", id="all NaN"),
        pytest.param(np.zeros((8, 8), np.float32), None, "no sources detected", id="a stamp of eight pixels"),
    ],
)
def test_without_stars_the_numbers_are_absent_and_the_reason_is_given(image, mask, note):
    frame = run(image, mask=mask)
    assert frame.metrics["quality_note"] == note
    assert [frame.metrics[key] for key in PSF_METRICS] == [None] * len(PSF_METRICS)
    assert frame.metrics["star_count_ok"] is False
    assert frame.metrics["n_psf_stars"] == 0
    assert all(column == [] for column in frame.tables["stars"].values())


def test_saturated_and_bad_pixels_are_counted():
    mask = np.zeros(SHAPE, np.int32)
    mask[10:20, 10:20] = SAT
    mask[500, :] = BAD
    metrics = run(NOISE, mask=mask).metrics
    assert (metrics["n_saturated_px"], metrics["n_bad_px"]) == (100, 1060)


@pytest.mark.parametrize("n", [1, 2], ids=["one star", "two stars"])
def test_too_few_stars_make_no_psf(n):
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0), n=n, shape=SHAPE)
    frame = run(make_sky(SHAPE, stars=light))
    assert frame.metrics["quality_note"] == f"too few stars ({n})"
    assert frame.metrics["psf_fwhm_arcsec"] is None
    assert len(frame.tables["stars"]["x"]) == n


def test_four_faint_stars_are_enough_for_a_width():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0), n=4, shape=SHAPE, flux=(3.7, 3.8))
    metrics = run(make_sky(SHAPE, stars=light)).metrics
    assert metrics["psf_fwhm_arcsec"] == pytest.approx(0.8, rel=0.15)
    assert metrics["star_count_ok"] is False


@pytest.mark.parametrize("bits", [BAD, SAT, EDGE, NO_DATA], ids=["bad", "saturated", "edge", "no data"])
def test_stars_on_masked_pixels_are_not_measured(bits):
    light, x, y, _ = make_field(galsim.Gaussian(fwhm=4.0), n=36, shape=SHAPE, flux=(4.6, 5.5))
    mask = np.zeros(SHAPE, np.int32)
    for k in range(10):
        mask[round(y[k]), round(x[k])] = bits
    table = run(make_sky(SHAPE, stars=light), mask=mask).tables["stars"]
    for k in range(36):
        found = any(np.hypot(a - x[k], b - y[k]) < 2 for a, b in zip(table["x"], table["y"], strict=True))
        assert found is (k >= 10), k


def test_a_dead_amp_does_not_spoil_the_rest():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0), shape=SHAPE)
    image = make_sky(SHAPE, stars=light)
    mask = np.zeros(SHAPE, np.int32)
    image[:, :500], mask[:, :500] = 0.0, BAD
    metrics = run(image, mask=mask).metrics
    assert metrics["psf_fwhm_arcsec"] == pytest.approx(0.8, rel=0.01)
    assert metrics["sky_level_e"] == pytest.approx(1000.0, abs=1.5)


def test_a_field_crowded_beyond_the_buffers_still_has_an_answer():
    rng = np.random.default_rng(1)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    # A fine chequerboard of light: every other block of pixels is far above the threshold.
    image = (NOISE + 5000.0 * (((yy // 3) + (xx // 3)) % 2) + rng.normal(0, 1, SHAPE)).astype(np.float32)
    run(image, config=QualityConfig(bin_factor=1))


def test_an_image_that_was_never_assembled_is_a_clear_error():
    with pytest.raises(PayloadError, match="isr or assemble"):
        run(None)


def test_an_image_without_a_mask_is_measured_all_the_same():
    light, *_ = make_field(galsim.Gaussian(fwhm=4.0), shape=SHAPE)
    frame = make_frame(make_sky(SHAPE, stars=light))
    frame.mask = None
    ImageQuality(QualityConfig()).run(frame)
    assert frame.metrics["psf_fwhm_arcsec"] == pytest.approx(0.8, rel=0.01)


def test_the_image_is_left_as_it_was():
    image = NOISE.copy()
    run(image)
    np.testing.assert_array_equal(image, NOISE)


@pytest.mark.parametrize(
    ("facts", "detector", "mode"),
    [
        pytest.param({}, 94, Mode.PHOTO, id="science"),
        pytest.param({"image_type": ImageType.FOCUS, "focus_z_mm": 0.1}, 94, Mode.PHOTO, id="a step of a focus sweep"),
        pytest.param({"image_type": ImageType.BIAS}, 94, Mode.SKIP, id="bias"),
        pytest.param({"image_type": ImageType.FLAT}, 94, Mode.SKIP, id="flat"),
        pytest.param({"image_type": ImageType.CWFS}, 94, Mode.DONUT, id="curvature wavefront sensing"),
        pytest.param({"focus_z_mm": -1.5}, 94, Mode.DONUT, id="camera 1.5 mm from focus"),
        pytest.param({}, 192, Mode.DONUT, id="wavefront half in focus"),
        pytest.param({"physical_filter": "empty_1~holo4_003"}, 94, Mode.SPECTRUM, id="behind a hologram"),
    ],
)
def test_headers_choose_what_is_measured(facts, detector, mode):
    frame = make_frame(NOISE, detector=detector, **facts)
    assert choose_mode(frame.info, frame.camera, frame.detector) is mode


def test_a_calibration_exposure_only_says_that_it_was_skipped():
    assert run(NOISE, image_type=ImageType.DARK).metrics == {"quality_mode": "skip"}


def test_a_spectrum_has_sky_numbers_and_no_psf():
    metrics = run(NOISE, config=QualityConfig(mode=Mode.SPECTRUM)).metrics
    assert metrics["sky_level_e"] == pytest.approx(1000.0, abs=1.0)
    assert "psf_fwhm_arcsec" not in metrics


@pytest.mark.parametrize(
    ("band", "physical_filter", "expected"),
    [("g", None, "g"), (None, "y_10", "y"), (None, "SDSSg_65mm", "g"), (None, "empty", None), ("white", None, None)],
)
def test_the_band_is_read_from_either_header(band, physical_filter, expected):
    assert band_of(band, physical_filter) == expected


def test_no_standard_width_without_airmass_or_filter():
    assert standardise_fwhm(0.8, airmass=None, band="r") is None
    assert standardise_fwhm(0.8, airmass=1.2, band=None) is None
    assert standardise_fwhm(0.8, airmass=1.0, band="r") == pytest.approx(0.8 * (618.6 / 500) ** 0.2)


def test_clipping_does_not_make_gaussian_noise_smaller():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400_000).astype(np.float32)
    assert clipped_scatter(values) == pytest.approx(2.0, rel=0.005)
    assert clipped_scatter(values[:1]) == 0.0
