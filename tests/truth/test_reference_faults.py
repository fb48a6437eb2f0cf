"""Faults that public code of the field has, one test each: none of them is ours.

Each docstring says what the fault is. Those of steps that do not exist here (fitting photon transfer curves, judging
linearity tables) are tested on what stands in their place.
"""

import numpy as np
import pytest

from payloads.combine.pairs import measure_pair_gains
from payloads.combine.stack import ImageStack
from payloads.focus.sweep import fit_focus_sweep
from payloads.isr.inputs import layout_of
from payloads.isr.payload import Isr, IsrConfig
from payloads.plugin import CalibPlane
from payloads.quality.calibration_checks import CalibrationStatistics, CalibrationStatisticsConfig
from payloads.quality.zero_point import fit_zero_point
from rapid.camera.store import load_camera
from rapid.errors import PayloadError
from rapid.exposure.identity import tell_ccd_type
from rapid.exposure.models import ImageType
from tests.truth.observatory import EMPTY, Calibs
from tests.truth.small_raws import frame_of, make_raw

CAMERA = load_camera("TestCam205")
DET = CAMERA.by_id[94]
SIZE = (DET.height, DET.width)


def calibrate(electrons, rng, *, calibs=None, pedestal_adu=0, edit=None, **config):
    raw = make_raw(DET, electrons, rng, pedestal_adu=pedestal_adu, edit=edit)
    frame = frame_of(CAMERA, DET, raw=raw, calibs=Calibs(**(calibs or {})))
    Isr(IsrConfig(**{"parallel_overscan": False, "cosmic_rays": False, **config})).run(frame)
    return frame


def check(image, image_type, **facts):
    frame = frame_of(CAMERA, DET, image_type=image_type, **facts)
    frame.image, frame.mask, frame.unit = image.astype(np.float32), np.zeros(SIZE, np.int32), "electron"
    CalibrationStatistics(CalibrationStatisticsConfig()).run(frame)
    return frame


def test_each_calib_is_checked_itself_and_not_its_neighbour():
    """The check of the dark's units looks at the bias."""
    rng = np.random.default_rng(1)
    good = CalibPlane("bias-7", np.zeros(SIZE, np.float32))
    for kind in ("dark", "flat", "defects"):
        wrong = CalibPlane(f"{kind}-9", np.ones((5, 5), np.float32))
        with pytest.raises(PayloadError, match=f"{kind} {kind}-9"):
            calibrate(np.full(SIZE, 500.0), rng, calibs={"bias": good, kind: wrong})


def test_no_number_mixes_counts_and_electrons():
    """The level of an amp is its median in electron less its overscan in ADU."""
    electrons = np.random.default_rng(2).poisson(900, SIZE).astype(float)
    low = calibrate(electrons, np.random.default_rng(3))
    high = calibrate(electrons, np.random.default_rng(3), pedestal_adu=1000)
    for amp in DET.amps:
        a, b = low.amps[amp.name], high.amps[amp.name]
        moved = {key for key in a if isinstance(a[key], float) and abs(b[key] - a[key]) > 1e-6}
        assert moved == {"overscan_level_adu"}
        assert b["overscan_level_adu"] - a["overscan_level_adu"] == 1000


def test_chi2_has_no_unit():
    """A chi2 of noise against flux divides by the deviation, not by its square: it changes with the unit."""
    rng = np.random.default_rng(4)
    z, error = np.linspace(-0.1, 0.1, 12), np.full(12, 0.02)
    fwhm = np.hypot(0.8, 11.2 * (z - 0.02)) + error * rng.normal(size=12)
    arcsec, mas = fit_focus_sweep(z, fwhm, error), fit_focus_sweep(z, 1000 * fwhm, 1000 * error)
    assert mas.chi2 == pytest.approx(arcsec.chi2, rel=1e-6)
    assert 1 < arcsec.chi2 < 30
    magnitude = rng.normal(0, 0.05, 40)
    one = fit_zero_point(27 + magnitude, np.zeros(40), np.full(40, 0.05))
    other = fit_zero_point(10 * (27 + magnitude), np.zeros(40), np.full(40, 0.5))
    # An error scaled by a chi2 with a unit would not grow in proportion.
    assert other.error_mag == pytest.approx(10 * one.error_mag, rel=0.05)


def test_an_ideal_flat_is_not_too_noisy_for_its_read_noise():
    """A flat must scatter less than the root of its level: a perfect amp of 1000 e- and 5 e- read noise never does."""
    rng = np.random.default_rng(5)
    sigma = np.zeros(SIZE)
    for amp in DET.amps:
        sigma[amp.trimmed.slices] = amp.read_noise
    frame = check(rng.poisson(1000, SIZE) + sigma * rng.normal(size=SIZE), ImageType.FLAT)
    ratios = [frame.amps[amp.name]["flat_noise_over_expected"] for amp in DET.amps]
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.006)
    assert frame.metrics["flat_noise_over_expected"] == pytest.approx(1.0, abs=0.01)
    stdevs = np.array([frame.amps[amp.name]["stdev_e"] for amp in DET.amps])
    assert np.mean(stdevs) > np.sqrt(1000.0)  # by the other rule this flat fails


def test_the_scatter_of_levels_is_a_part_of_the_level():
    """The scatter of an exposure's levels is compared with 0.05 without having been divided by the level."""
    steps = 1 + 0.02 * np.random.default_rng(6).normal(size=len(DET.amps))
    scatters = []
    for level in (1000.0, 50_000.0):
        image = np.zeros(SIZE)
        for amp, step in zip(DET.amps, steps, strict=True):
            image[amp.trimmed.slices] = level * step
        scatters.append(check(image, ImageType.FLAT).metrics["flat_amp_scatter"])
    assert scatters[0] == pytest.approx(scatters[1], rel=1e-3)
    assert scatters[0] == pytest.approx(np.std(steps) / np.mean(steps), rel=1e-3)


@pytest.mark.parametrize(
    ("factor", "shown"), [(0.0, "min"), (0.5, "min"), (2.0, "max")], ids=["dead", "quiet", "noisy"]
)
def test_a_dead_amp_is_as_wrong_as_a_noisy_one(factor, shown):
    """Noise fails only above its nominal value: an amp without any passes."""
    rng = np.random.default_rng(7)
    image = np.zeros(SIZE)
    for amp in DET.amps:
        image[amp.trimmed.slices] = amp.read_noise * rng.normal(size=(amp.trimmed.height, amp.trimmed.width))
    sick = DET.amps[5]
    image[sick.trimmed.slices] *= factor
    metrics = check(image, ImageType.BIAS).metrics
    assert metrics[f"noise_over_nominal_{shown}"] == pytest.approx(factor, abs=0.1)
    other = "max" if shown == "min" else "min"
    assert metrics[f"noise_over_nominal_{other}"] == pytest.approx(1.0, abs=0.1)


def test_a_bias_level_is_judged_by_the_error_of_its_mean():
    """A bias passes if its mean is below the noise of a pixel: a thousand times the mean's own error."""
    rng = np.random.default_rng(8)
    metrics = check(0.5 + 5.0 * rng.normal(size=SIZE), ImageType.BIAS).metrics
    assert metrics["bias_mean_e"] < 0.2 * metrics["bias_stdev_e"]  # by the other rule this passes with ease
    assert metrics["bias_mean_pull_max"] > 4


def test_a_linearity_residual_is_a_part_of_the_level():
    """The residual of a look-up table, a fraction, is compared with a limit in percent."""
    rng = np.random.default_rng(9)
    curve = 2e-7  # 2 % at 1e5 electron
    table = {amp.name: {str(e - curve * e * e): -curve * e * e for e in (1e3, 1e4, 3e4, 6e4, 1e5)} for amp in DET.amps}
    for level in (2e4, 5e4, 8e4):
        seen = np.full(SIZE, level - curve * level**2)
        frame = calibrate(seen, rng, calibs={"linearity": CalibPlane("l", EMPTY, table=table)})
        residual = frame.metrics["image_median_electron"] / level - 1
        assert abs(residual) < 3e-4
        assert abs(seen[0, 0] / level - 1) > 3e-3


def test_the_detectors_summary_counts_every_amp():
    """The summary of a detector loops over an empty table and finds nothing wrong."""
    rng = np.random.default_rng(10)
    for sick in range(len(DET.amps)):
        image = 5.0 * rng.normal(size=SIZE)
        image[DET.amps[sick].trimmed.slices] += 3.0
        frame = check(image, ImageType.BIAS)
        assert frame.metrics["bias_mean_pull_max"] > 15
        assert frame.metrics["bias_mean_pull_max"] == max(abs(row["bias_mean_pull"]) for row in frame.amps.values())


@pytest.mark.parametrize("spelling", ["E2V-CCD250-260", "e2V-CCD250-260", "e2v-CCD250-260"])
def test_the_maker_of_a_ccd_is_known_in_any_spelling(spelling):
    """The slope of a gain is chosen by 'e2V' where headers write 'E2V', and is then not set at all."""
    assert tell_ccd_type({"LSST_NUM": spelling, "CCD_MANU": None}, {}) == "E2V"


def test_gains_of_faint_flats_have_the_read_noise_taken_off(tmp_path):
    """The read-noise term of a pair's gain is g^2/2 where it should be 1/(2 g^2)."""
    rng = np.random.default_rng(11)
    layout = layout_of(DET.amps, height=DET.height, width=DET.width)
    true_over_used, read_noise, level = 1.25, 15.0, 150.0
    with ImageStack(SIZE) as stack:
        for _ in range(12):
            # Seen with a gain 1.25 times too small: levels, light's noise and read noise all shrink.
            electrons = rng.poisson(level * true_over_used, SIZE) + true_over_used * read_noise * rng.normal(size=SIZE)
            stack.append((electrons / true_over_used / level).astype(np.float32))
        scales = np.full(12, level)
        noise = np.full((12, len(DET.amps)), np.hypot(read_noise, np.sqrt(level)) / level)
        gains = measure_pair_gains(stack, layout, scales, noise)
    # The whole read noise is more than the light's own: an error in it would be everything.
    assert np.median(gains) == pytest.approx(true_over_used, rel=0.06)
    assert read_noise**2 > level


def test_the_last_row_is_a_row():
    """The loop over the overscan's rows ends one before the last."""
    rng = np.random.default_rng(12)
    box = DET.amps[0].data

    def lift_last_row(stack):
        stack[:, box.y1 - 1, :] += 700
        return stack

    frame = calibrate(np.full(SIZE, 500.0), rng, edit=lift_last_row)
    for amp in DET.amps:
        last = amp.trimmed.y0 if amp.flip_y else amp.trimmed.y1 - 1
        row = frame.image[last, amp.trimmed.x0 : amp.trimmed.x1]
        assert np.median(row) == pytest.approx(500, abs=12), amp.name


def test_best_focus_is_that_of_the_square_of_the_width():
    """Best focus is the vertex of a parabola through the widths, which are a hyperbola."""
    z = np.linspace(-300, 300, 9)
    fwhm = np.hypot(0.8, 0.0112 * (z - 80))
    a, b, _ = np.polyfit(z, fwhm, 2)
    assert abs(-b / (2 * a) - 80) > 7
    assert 1000 * fit_focus_sweep(z / 1000, fwhm).best_focus_mm == pytest.approx(80, abs=1e-3)
