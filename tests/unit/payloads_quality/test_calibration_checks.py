"""Statistics of bias, dark and flat exposures of known truth."""

import json

import numpy as np
import pytest
from quality_images import make_frame

from payloads.mask import BAD
from payloads.quality.calibration_checks import CalibrationStatistics, CalibrationStatisticsConfig, measure_region
from rapid.camera.store import load_camera
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType

CAMERA = "TestCam205"
CCD = load_camera(CAMERA).by_id[94]
SHAPE = (CCD.height, CCD.width)


def run(image, image_type, *, mask=None, unit="electron", **facts):
    frame = make_frame(image.astype(np.float32), camera=CAMERA, mask=mask, unit=unit, image_type=image_type, **facts)
    CalibrationStatistics(CalibrationStatisticsConfig()).run(frame)
    json.dumps({"m": frame.metrics, "a": frame.amps}, allow_nan=False)
    return frame


def noise(level, sigma, seed=1):
    return np.random.default_rng(seed).normal(level, sigma, SHAPE)


def test_a_bias_mean_is_within_its_standard_error():
    frame = run(noise(0.0, 5.0), ImageType.BIAS)
    assert len(frame.amps) == len(CCD.amps)
    for row in frame.amps.values():
        n_px = CCD.amps[0].trimmed.width * CCD.amps[0].trimmed.height
        assert row["stdev_e"] == pytest.approx(5.0, rel=0.05)
        assert row["standard_error_e"] == pytest.approx(5.0 / np.sqrt(n_px), rel=0.05)
        assert abs(row["bias_mean_pull"]) < 4.5
    assert frame.metrics["bias_stdev_e"] == pytest.approx(5.0, rel=0.02)
    assert frame.metrics["bias_mean_pull_max"] < 4.5


def test_a_bias_offset_far_below_the_noise_shows_in_the_pull():
    frame = run(noise(0.5, 5.0), ImageType.BIAS)
    assert frame.metrics["bias_mean_pull_max"] > 5.0


def test_a_dark_gives_current_and_hot_pixels():
    image = noise(0.6, 5.0)
    rng = np.random.default_rng(2)
    hot = rng.choice(image.size, 40, replace=False)
    image.flat[hot] += 400.0
    metrics = run(image, ImageType.DARK, dark_time_s=30.0).metrics
    assert metrics["dark_current_e_per_s"] == pytest.approx(0.02, abs=0.005)
    assert metrics["n_hot_px"] == 40
    assert metrics["hot_px_fraction"] == pytest.approx(40 / image.size)


def test_a_dark_without_a_time_has_no_rate():
    metrics = run(noise(0.6, 5.0), ImageType.DARK, exposure_time_s=None).metrics
    assert metrics["dark_current_e_per_s"] is None
    assert metrics["n_hot_px"] is None


def test_a_flat_gives_level_and_scatter():
    image = noise(20000.0, 141.0)
    amp = CCD.amps[0].trimmed
    image[amp.slices] *= 1.02
    frame = run(image, ImageType.FLAT)
    assert frame.metrics["flat_level_e"] == pytest.approx(20000.0, rel=1e-3)
    assert frame.metrics["flat_scatter"] == pytest.approx(141.0 / 20000.0, rel=0.03)
    expected = 0.02 * np.sqrt(len(CCD.amps) - 1) / len(CCD.amps)
    assert frame.metrics["flat_amp_scatter"] == pytest.approx(expected, rel=0.05)
    assert frame.amps[CCD.amps[0].name]["flat_level_e"] == pytest.approx(20400.0, rel=1e-3)


def test_counts_become_electrons_by_each_amps_nominal_gain():
    frame = run(noise(1000.0, 10.0), ImageType.FLAT, unit="ADU")
    for amp in CCD.amps:
        assert frame.amps[amp.name]["mean_e"] == pytest.approx(1000.0 * amp.gain, rel=1e-3)
        assert frame.amps[amp.name]["stdev_e"] == pytest.approx(10.0 * amp.gain, rel=0.05)


def test_one_masked_amp_is_absent_and_the_detector_is_not():
    mask = np.zeros(SHAPE, np.int32)
    mask[CCD.amps[3].trimmed.slices] = BAD
    frame = run(noise(0.0, 5.0), ImageType.BIAS, mask=mask)
    assert frame.amps[CCD.amps[3].name]["mean_e"] is None
    assert frame.amps[CCD.amps[3].name]["n_used_px"] == 0
    assert frame.metrics["bias_stdev_e"] == pytest.approx(5.0, rel=0.02)


@pytest.mark.parametrize("kind", [ImageType.BIAS, ImageType.DARK, ImageType.FLAT])
def test_an_image_of_nothing_but_nan_has_no_numbers(kind):
    metrics = run(np.full(SHAPE, np.nan), kind, dark_time_s=30.0).metrics
    assert set(metrics.values()) == {None}


@pytest.mark.parametrize("kind", [ImageType.BIAS, ImageType.FLAT])
def test_a_constant_image_has_no_scatter_and_does_not_fail(kind):
    frame = run(np.full(SHAPE, 12.0), kind)
    assert frame.metrics["mean_e"] == 12.0
    assert frame.metrics["stdev_e"] == 0.0


def test_outliers_are_clipped_and_still_show_in_the_extremes():
    image = noise(100.0, 5.0).astype(np.float32)
    image[5, 5], image[6, 6] = 60000.0, -3000.0
    found = measure_region(image, None, (0, 0, 60, 60))
    assert found.mean == pytest.approx(100.0, abs=0.5)
    assert found.stdev == pytest.approx(5.0, rel=0.1)
    assert (found.minimum, found.maximum) == (-3000.0, 60000.0)
    assert (found.n_good, found.n_used) == (3600, 3598)


def test_whole_counts_of_a_quiet_amp_keep_their_scatter():
    image = np.where(np.random.default_rng(3).random(SHAPE) < 0.1, 1.0, 0.0).astype(np.float32)
    found = measure_region(image, None, (0, 0, SHAPE[1], SHAPE[0]))
    assert found.mean == pytest.approx(0.1, abs=0.01)


def test_statistics_of_an_image_never_assembled_are_a_clear_error():
    frame = make_frame(noise(0, 1), camera=CAMERA, image_type=ImageType.BIAS)
    frame.image = None
    with pytest.raises(PayloadError, match="isr or assemble"):
        CalibrationStatistics(CalibrationStatisticsConfig()).run(frame)
