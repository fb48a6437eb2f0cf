"""What the simulated silicon and electronics did is found, and undone, by the chain built on its own raws."""

import numpy as np
import pytest

from payloads.combine.payload import BuildConfig, BuildFlat
from payloads.isr.inputs import layout_of
from payloads.isr.payload import Isr, IsrConfig
from payloads.mask import CR
from payloads.quality.crosstalk import measure_crosstalk
from rapid.worker.run import RawInput, make_frame
from replay import kernels
from replay.render import BETA
from tests.truth.observatory import DARK_TIME_S, FILTER, N_BIAS, N_DARK, Calibs


def per_amp(observatory, facts):
    return np.array(
        [facts(amp, truth) for amp, truth in zip(observatory.detector.amps, observatory.truth.amps, strict=True)]
    )


@pytest.fixture(scope="module")
def sky(observatory):
    """A calibrated empty field, and its true light in electrons on the flat's scale."""
    exposure = observatory.plan(
        {"kind": "science", "n": 1, "physical_filter": FILTER, "sky_e_s": 100.0}, stars_per_detector=0
    )[0]
    frame = observatory.isr(exposure, observatory.calibs)
    return frame, exposure.level_e * observatory.shade().mean()


def test_every_correction_was_applied(sky):
    frame, _ = sky
    assert frame.applied == [
        "serial_overscan", "saturation", "gain", "crosstalk", "parallel_overscan", "linearity", "assemble", "bias",
        "dark", "variance", "flat", "interpolate", "cosmic_rays",
    ]  # fmt: skip
    assert set(frame.calib_ids) == {"bias", "dark", "flat", "crosstalk", "linearity", "ptc"}


def test_pulls_of_sky_pixels_are_standard_normal_in_every_amp(observatory, sky):
    frame, level_e = sky
    pulls = (frame.image - level_e) / np.sqrt(frame.variance)
    for amp in observatory.detector.amps:
        part = pulls[amp.trimmed.slices][frame.mask[amp.trimmed.slices] == 0]
        inner = part[np.abs(part) < 6]
        # 64000 pixels: the mean is good to 0.004 of the noise, the width to 0.3 %. Beyond that are the row and column
        # levels from 58 and 42 overscan pixels, and the flat's own noise.
        assert abs(inner.mean()) < 0.03, amp.name
        assert abs(inner.std() - 1) < 0.012, amp.name
        assert abs(np.mean(np.abs(part) < 1) - 0.6827) < 0.008, amp.name
        assert abs(np.mean(np.abs(part) > 3) - 0.0027) < 0.001, amp.name
        assert len(part) - len(inner) <= 3, amp.name
    good = pulls[frame.mask == 0]
    assert abs(good[np.abs(good) < 6].mean()) < 0.015
    assert good[np.abs(good) < 6].std() == pytest.approx(1.0, abs=0.006)


def test_pulls_under_the_stars_are_standard_normal_too(observatory):
    exposure = observatory.plan({"kind": "science", "n": 1, "physical_filter": FILTER}, stars_per_detector=150)[0]
    raw, stars = observatory.take(exposure)
    frame, _ = make_frame(RawInput("sky", raw), camera=observatory.camera)
    frame.calibs = observatory.calibs
    Isr(IsrConfig()).run(frame)
    light = np.zeros(frame.image.shape, np.float32)
    alpha = stars.fwhm_px / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    each = np.ones(len(stars.x))
    radius = np.clip(stars.fwhm_px * (2.5 + 0.8 * np.log10(np.maximum(stars.flux_e, 10) / 10)), 4, 60).astype(np.int64)
    kernels.add_stars(
        light, stars.x, stars.y, stars.flux_e, alpha * each, stars.e1 * each, stars.e2 * each, BETA, radius
    )
    truth = (light + exposure.level_e) * observatory.shade().mean()
    rays = (frame.mask & CR) != 0
    near_ray = rays.copy()
    for axis in (0, 1):
        near_ray |= np.roll(near_ray, 1, axis) | np.roll(near_ray, -1, axis)
    bright = (light > 300) & (frame.mask == 0) & ~near_ray
    assert bright.sum() > 2000
    # With the true variance: one from the measured counts is smaller where the noise is negative.
    noise = np.sqrt(frame.variance + np.maximum(truth - frame.image, -0.9 * frame.variance))
    pulls = ((frame.image - truth) / noise)[bright]
    assert abs(np.median(pulls)) < 0.1
    assert pulls[np.abs(pulls) < 6].std() == pytest.approx(1.0, abs=0.05)
    assert np.mean(np.abs(pulls) > 6) < 2e-3


def test_gains_are_those_of_the_electronics(observatory):
    """From pairs of flats alone, calibrated with the nominal gains, which are wrong by a percent."""
    night = observatory.calibration_night
    frame, _ = observatory.frame(night[-1])
    known = Calibs(bias=observatory.calibs.get("bias"))
    frame.inputs = [(lambda e=exposure: observatory.frame(e, known)[0]) for exposure in night[N_BIAS + N_DARK :]]
    BuildFlat(BuildConfig()).run(frame)
    found = per_amp(observatory, lambda amp, _: frame.amps[amp.name]["gain_pair_electron_per_adu"])
    true = per_amp(observatory, lambda _, truth: truth.gain)
    nominal = per_amp(observatory, lambda amp, _: amp.gain)
    assert np.abs(found / true - 1).max() < 0.025  # eight pairs of 8000 pixels: 0.7 %
    assert np.std(found / true) < 0.011
    assert abs(np.mean(found / true) - 1) < 0.0045  # a common error of half a percent would show
    assert np.std(found / true) < np.std(nominal / true)


def test_read_noise_is_that_of_the_electronics(observatory, sky):
    frame, _ = sky
    found = per_amp(observatory, lambda amp, _: frame.amps[amp.name]["read_noise_electron"])
    true = per_amp(observatory, lambda _, truth: truth.read_noise)
    assert np.abs(found / true - 1).max() < 0.03  # 29000 overscan pixels of whole counts: 0.5 %, rounding more
    assert abs(np.mean(found / true) - 1) < 0.006


def test_a_bias_exposure_has_the_scatter_and_the_level_of_the_electronics(observatory):
    exposure = observatory.plan({"kind": "bias", "n": 1}, first_seq_num=500)[0]
    run, _ = observatory.run(exposure, calibs=Calibs(**observatory.electronics))
    assert run.result.pipeline == "bias"
    for amp, truth in zip(observatory.detector.amps, observatory.truth.amps, strict=True):
        row = run.result.amps[amp.name]
        slope = truth.bias_slope_adu * truth.gain
        # Read noise, fixed pattern, rounding, the slope, and the medians of 58 and 42 overscan pixels.
        parts = (
            1,
            1 / truth.read_noise,
            truth.gain / np.sqrt(12) / truth.read_noise,
            slope / np.sqrt(12) / truth.read_noise,
        )
        expected = truth.read_noise * np.sqrt(np.sum(np.square(parts)) + np.pi / 2 / 58 + np.pi / 2 / 42)
        assert row["stdev_e"] == pytest.approx(expected, rel=0.02), amp.name
        assert row["mean_e"] == pytest.approx(0.5 * slope, abs=0.35), amp.name


def test_the_combined_bias_has_the_slope_that_the_overscan_does_not_see(observatory):
    bias = observatory.calibs.get("bias").image
    for amp, truth in zip(observatory.detector.amps, observatory.truth.amps, strict=True):
        part = bias[amp.trimmed.slices][:, :: -1 if amp.flip_x else 1]
        columns = part.mean(axis=0)
        slope = np.polyfit(np.arange(len(columns)) / len(columns), columns, 1)[0]
        assert slope == pytest.approx(truth.bias_slope_adu * truth.gain, abs=0.35), amp.name


def test_dark_current_is_that_of_the_silicon(observatory):
    assert observatory.calibs is not None
    frame = observatory.builds["dark"]
    true = observatory.truth.dark_current_e_s
    found = np.array([frame.amps[amp.name]["calib_mean_electron_per_s"] for amp in observatory.detector.amps])
    assert np.mean(found) == pytest.approx(true, rel=0.025)
    np.testing.assert_allclose(found, true, rtol=0.06)


def test_hot_pixels_have_the_rate_they_were_given(observatory):
    truth, dark = observatory.truth, observatory.calibs.get("dark").image
    found = dark[truth.hot_y, truth.hot_x]
    slow = truth.hot_rate_e_s * DARK_TIME_S < 100_000  # the others saturate
    assert slow.sum() >= 10
    np.testing.assert_allclose(found[slow], truth.hot_rate_e_s[slow] + truth.dark_current_e_s, rtol=0.03)
    exposure = observatory.plan({"kind": "dark", "n": 1, "exposure_time_s": 20.0}, first_seq_num=600)[0]
    run, _ = observatory.run(exposure, calibs=Calibs(**observatory.electronics))
    hot = np.unique(np.column_stack((truth.hot_y, truth.hot_x)), axis=0)
    # Cosmic rays of twenty seconds count as hot in one exposure.
    assert len(hot) * 0.95 <= run.result.metrics["n_hot_px"] <= len(hot) + 60


def test_the_flat_is_the_light_that_was_lost_on_the_way(observatory):
    flat = observatory.calibs.get("flat").image
    shade = observatory.shade()
    blocks = (flat / (shade / shade.mean()))[:1000, :1024].reshape(50, 20, 64, 16)
    levels = np.median(blocks, axis=(1, 3))
    # Blocks of 320 pixels with half a percent of response each.
    assert levels.std() < 0.0006
    assert levels.mean() == pytest.approx(1.0, abs=0.0005)
    bad = observatory.truth.bad_columns
    assert np.median(flat[:, bad] / shade[:, bad] * shade.mean()) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(("corrected", "factor"), [(False, 1.0), (True, 0.0)], ids=["measured", "residual"])
def test_crosstalk_is_that_of_the_electronics_and_none_is_left_once_corrected(observatory, corrected, factor):
    calibs = dict(observatory.calibs.calibs)
    if not corrected:
        del calibs["crosstalk"]
    det = observatory.detector
    layout = layout_of(det.amps, height=det.height, width=det.width)
    values, weights = [], []
    for exposure in observatory.plan({"kind": "flat", "n": 2, "physical_filter": FILTER}, first_seq_num=700):
        frame, _ = make_frame(RawInput("spots", observatory.project_spots(exposure)), camera=observatory.camera)
        frame.calibs = Calibs(**calibs)
        Isr(IsrConfig(flat=False)).run(frame)
        found = measure_crosstalk(frame.image, frame.mask, layout)
        values.append(found.coefficient)
        weights.append(found.error**-2.0)
    mean = np.sum(np.array(values) * weights, axis=0) / np.sum(weights, axis=0)
    error = np.sum(weights, axis=0) ** -0.5
    others = ~np.eye(len(det.amps), dtype=bool)
    assert np.isfinite(mean[others]).all()
    away = (mean - factor * observatory.truth.crosstalk)[others]
    assert np.abs(away).max() < 1.5e-5  # the largest coefficients are 3e-4
    assert abs(away.mean()) < 1e-6
    assert (away / error[others]).std() < 1.6  # 1 for white noise; the amps' levels are common to a row of the matrix
