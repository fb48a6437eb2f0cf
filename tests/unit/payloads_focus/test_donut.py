"""Donuts of known size are found and measured; what is no donut is not."""

import json

import numpy as np
import pytest
from focus_images import add_donut, make_frame, with_noise

from payloads.focus.annulus import measure_annulus
from payloads.focus.donut import (
    DonutSettings,
    beam_slope,
    defocus_from_diameter_um,
    focus_offset_um,
)
from payloads.focus.payload import DonutQuickLook
from payloads.mask import BAD
from payloads.quality.mode import Mode, commanded_defocus_um
from payloads.quality.payload import ImageQuality, QualityConfig
from rapid.camera.store import load_camera
from rapid.errors import PayloadError

SHAPE = (1200, 1300)
PLACES = [(250.3, 300.8), (700.0, 280.5), (1050.6, 350.1), (300.2, 850.9), (760.7, 900.4)]


def run(image, *, config=None, **facts):
    frame = make_frame(image, **facts)
    DonutQuickLook(config or DonutSettings()).run(frame)
    json.dumps({"m": frame.metrics, "t": frame.tables}, allow_nan=False)
    return frame


def field(radius_px=66.5, *, flux=2e6, **shape):
    light = np.zeros(SHAPE, np.float32)
    for k, (x, y) in enumerate(PLACES):
        add_donut(light, x, y, radius_px=radius_px, flux=flux / (1 + 0.3 * k), **shape)
    return light


@pytest.mark.parametrize("defocus_mm", [-1.5, 1.5, 0.8, 0.5], ids=["intra", "extra", "0.8 mm", "0.5 mm"])
@pytest.mark.parametrize("blur_px", [1.2, 2.5], ids=["good seeing", "bad seeing"])
def test_diameter_centre_and_defocus(defocus_mm, blur_px):
    radius = abs(defocus_mm) / 0.010 * beam_slope(load_camera("LSSTCam").f_ratio)
    frame = run(with_noise(field(radius, blur_px=blur_px)), focus_z_mm=defocus_mm)
    metrics, table = frame.metrics, frame.tables["donuts"]
    assert metrics["n_donuts"] == len(PLACES)
    # Blur rounds the edge of a small ring, whose brightest part then stands lower: 1.2 % at 0.5 mm in bad seeing.
    assert metrics["donut_diameter_px"] == pytest.approx(2 * radius, abs=0.6)
    assert metrics["defocus_um"] == pytest.approx(1000 * defocus_mm, abs=7.0)
    assert metrics["defocus_residual_um"] == pytest.approx(0.0, abs=7.0)
    assert metrics["donut_inner_diameter_px"] == pytest.approx(0.61 * 2 * radius, abs=2.5)
    for k, (x, y) in enumerate(PLACES):
        assert (table["x"][k], table["y"][k]) == pytest.approx((x, y), abs=0.3)
        assert table["flux_e"][k] == pytest.approx(2e6 / (1 + 0.3 * k), rel=0.03)


@pytest.mark.parametrize(("e", "angle"), [(0.04, 0.0), (0.06, np.pi / 4), (0.05, 2.0)], ids=["x", "diagonal", "tilted"])
def test_the_shape_of_the_outer_edge(e, angle):
    metrics = run(with_noise(field(ellipticity=e, angle=angle))).metrics
    assert metrics["donut_e1"] == pytest.approx(e * np.cos(2 * angle), abs=0.004)
    assert metrics["donut_e2"] == pytest.approx(e * np.sin(2 * angle), abs=0.004)
    assert metrics["donut_diameter_px"] == pytest.approx(133.0, rel=0.005)


def test_a_vignetted_donut_keeps_its_size():
    light = field()
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for x, y in PLACES:  # the upper left tenth of each pupil is in the shade
        light[((xx - x) - (yy - y) < -1.7 * 60) & (np.hypot(xx - x, yy - y) < 90)] *= 0.0
    metrics = run(with_noise(light)).metrics
    assert metrics["donut_diameter_px"] == pytest.approx(133.0, rel=0.015)


def test_the_sign_of_a_defocus_that_nobody_commanded_is_not_known():
    metrics = run(with_noise(field())).metrics
    assert metrics["defocus_um"] == pytest.approx(1500.0, rel=0.01)
    assert metrics["defocus_sign_known"] is False
    assert metrics["defocus_residual_um"] is None


@pytest.mark.parametrize(("half", "expected"), [("R00_SW0", 1500.0), ("R00_SW1", -1500.0)], ids=["extra", "intra"])
def test_wavefront_halves_stand_on_either_side_of_focus(half, expected):
    detector = load_camera("LSSTCam").by_name[half]
    assert commanded_defocus_um(make_frame(None, detector=detector.id).info, detector) == expected
    moved = make_frame(None, detector=detector.id, focus_z_mm=0.2)
    assert commanded_defocus_um(moved.info, detector) == pytest.approx(expected + 200.0)


def test_the_offset_of_a_pair_is_half_the_difference_of_their_defocus():
    f_ratio = 1.234
    true_offset_um = 37.0
    diameters = [2 * (1500.0 + sign * true_offset_um) / 1000 / 0.010 * beam_slope(f_ratio) for sign in (-1, 1)]
    assert focus_offset_um(*diameters, f_ratio=f_ratio, pixel_mm=0.010) == pytest.approx(true_offset_um)
    defocus = [defocus_from_diameter_um(d, f_ratio=f_ratio, pixel_mm=0.010) for d in diameters]
    assert (defocus[1] - defocus[0]) / 2 == pytest.approx(true_offset_um)


def test_overlapping_and_cut_donuts_are_left_out():
    light = np.zeros(SHAPE, np.float32)
    add_donut(light, 300.0, 300.0, radius_px=66.5, flux=2e6)
    add_donut(light, 800.0, 800.0, radius_px=66.5, flux=2e6)
    add_donut(light, 880.0, 830.0, radius_px=66.5, flux=1.5e6)
    add_donut(light, 1285.0, 300.0, radius_px=66.5, flux=2e6)
    table = run(with_noise(light), focus_z_mm=1.5).tables["donuts"]
    assert len(table["x"]) == 1
    assert (table["x"][0], table["y"][0]) == pytest.approx((300.0, 300.0), abs=0.3)


def test_a_donut_on_bad_pixels_is_left_out():
    mask = np.zeros(SHAPE, np.int32)
    x, y = PLACES[0]
    mask[round(y) - 30 : round(y) + 30, round(x) - 30 : round(x) + 30] = BAD
    table = run(with_noise(field()), mask=mask).tables["donuts"]
    assert len(table["x"]) == len(PLACES) - 1


def test_a_bad_column_through_a_donut_does_not_move_its_edges():
    light = field()
    image = with_noise(light)
    mask = np.zeros(SHAPE, np.int32)
    image[:, 700] = 6e4
    mask[:, 700] = BAD
    frame = run(image, mask=mask)
    assert frame.metrics["n_donuts"] == len(PLACES)
    assert frame.metrics["donut_diameter_px"] == pytest.approx(133.0, rel=0.005)


STARS = np.zeros(SHAPE, np.float32)
STARS[100:1100:100, 100:1200:100] = 3e5


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(with_noise(np.zeros(SHAPE, np.float32)), id="sky alone"),
        pytest.param(np.zeros(SHAPE, np.float32), id="all zero"),
        pytest.param(np.full(SHAPE, np.nan, np.float32), id="all NaN"),
        pytest.param(with_noise(STARS), id="stars in focus"),
        pytest.param(np.zeros((16, 16), np.float32), id="sixteen pixels"),
    ],
)
def test_without_donuts_the_numbers_are_absent(image):
    metrics = run(image, focus_z_mm=1.5).metrics
    assert metrics["n_donuts"] == 0
    assert metrics["donut_diameter_px"] is None
    assert metrics["defocus_um"] is None


def test_a_frame_that_was_never_assembled_is_a_clear_error():
    with pytest.raises(PayloadError, match="isr or assemble"):
        run(None)


def test_image_quality_measures_donuts_where_stars_are_donuts():
    frame = make_frame(with_noise(field()), focus_z_mm=-1.5)
    ImageQuality(QualityConfig()).run(frame)
    assert frame.metrics["quality_mode"] == Mode.DONUT.value
    assert frame.metrics["defocus_um"] == pytest.approx(-1500.0, rel=0.01)
    assert len(frame.tables["donuts"]["x"]) == len(PLACES)
    assert "psf_fwhm_arcsec" not in frame.metrics


def test_counts_become_electrons():
    image = with_noise(field())
    expected = run(image).metrics
    gain = float(np.median([amp.gain for amp in make_frame(None).detector.amps]))
    found = run(image / np.float32(gain), unit="ADU").metrics
    for key in ("donut_flux_e", "sky_level_e", "donut_diameter_px"):
        assert found[key] == pytest.approx(expected[key], rel=2e-3), key


def test_a_ring_seen_in_too_few_sectors_is_none():
    stamp = np.random.default_rng(1).normal(0, 1, (200, 200))
    assert measure_annulus(stamp, 100.0, 100.0, 60.0, noise=1.0) is None
