import numpy as np
import pytest
from amp_raws import DictCalibs, detector, expose, frame_of, raw_bytes

from payloads.combine.payload import BuildBias, BuildConfig, BuildDark, BuildFlat
from payloads.mask import NO_DATA
from payloads.plugin import CalibPlane
from rapid.errors import PayloadError

DET = detector()
SIZE = (DET.height, DET.width)
RNG = np.random.default_rng(21)
BIAS = RNG.normal(0, 8, SIZE)
DARK = RNG.uniform(0.5, 1.5, SIZE)
FLAT = (1.0 - 0.2 * np.linspace(-1, 1, DET.width) ** 2)[None, :] * RNG.normal(1, 0.01, SIZE)


def input_of(electrons, rng, *, seq_num=1, calibs=None, gain_error=None, **facts):
    stack = expose(DET, electrons, rng=rng)
    if gain_error:
        for place, amp in enumerate(DET.amps):
            if amp.name in gain_error:
                level = np.int64(23000 + 10 * place)
                stack[place] = level + np.rint((stack[place] - level) / gain_error[amp.name])
    facts = {"exposure_id": 2026112000000 + seq_num, "seq_num": seq_num, **facts}
    return lambda: frame_of(raw_bytes(DET, stack), calibs=calibs, **facts)


def build(payload, inputs, **config):
    frame = frame_of(None)
    frame.inputs = inputs
    payload(BuildConfig(parallel_overscan=False, **config)).run(frame)
    return frame


def test_bias_is_found_again_and_cosmic_rays_are_not():
    rng = np.random.default_rng(22)
    images = [BIAS.copy() for _ in range(8)]
    for image in images:
        image[rng.random(SIZE) < 2e-3] += 3000
    frame = build(BuildBias, [input_of(image, rng, seq_num=i) for i, image in enumerate(images, 1)])
    residual = frame.image - BIAS
    noise = np.median([amp.read_noise for amp in DET.amps])
    assert np.abs(residual).max() < 40
    # eight reads, and the level of each row from six overscan pixels
    assert residual.std() < noise * np.sqrt((1 + np.pi / 2 / 6) / 8) * 1.15
    assert frame.metrics["n_inputs"] == 8
    assert frame.unit == "electron"
    assert frame.tables["inputs"]["exposure"] == [2026112000000 + i for i in range(1, 9)]
    scatter = frame.metrics["input_scatter_electron"]
    assert abs(scatter / (noise * np.sqrt(1 + np.pi / 2 / 6)) - 1) < 0.15
    pulls = residual / np.sqrt(frame.variance)
    assert 0.8 < pulls.std() < 1.3


def test_dark_is_per_second_with_the_bias_taken_off():
    rng = np.random.default_rng(23)
    calibs = DictCalibs(bias=CalibPlane("bias-1", BIAS.astype(np.float32)))
    inputs = [
        input_of(BIAS + rng.poisson(DARK * t), rng, seq_num=t, calibs=calibs, dark_time_s=float(t))
        for t in (100, 100, 200, 200, 400)
    ]
    frame = build(BuildDark, inputs)
    assert abs((frame.image - DARK).mean()) < 0.02
    assert (frame.image - DARK).std() < 0.1
    assert frame.unit == "electron/s"
    assert frame.calib_ids == {"bias": "bias-1"}
    assert abs(frame.metrics["calib_mean_electron_per_s"] - 1.0) < 0.05


def test_flat_has_mean_one_whatever_the_lamp_did():
    rng = np.random.default_rng(24)
    calibs = DictCalibs(
        bias=CalibPlane("bias-1", BIAS.astype(np.float32)), dark=CalibPlane("dark-1", DARK.astype(np.float32))
    )
    inputs = [
        input_of(BIAS + rng.poisson(level * FLAT + 30 * DARK), rng, seq_num=i, calibs=calibs)
        for i, level in enumerate((30_000, 30_300, 25_000, 25_100, 40_000, 40_100), 1)
    ]
    frame = build(BuildFlat, inputs)
    truth = FLAT / FLAT.mean()
    assert abs(frame.image.mean() - 1) < 2e-3
    assert (frame.image / truth).std() < 1.3 / np.sqrt(6 * 30_000)
    assert frame.metrics["calib_mean_ratio"] == pytest.approx(1.0, abs=1e-3)
    for amp in DET.amps:
        assert abs(frame.amps[amp.name]["gain_pair_ratio"] - 1) < 0.2


def test_pairs_tell_a_wrong_gain():
    rng = np.random.default_rng(25)
    wrong = {"C03": 1.5, "C12": 0.7}
    inputs = [
        input_of(rng.poisson(np.full(SIZE, 20_000.0)).astype(float), rng, seq_num=i, gain_error=wrong)
        for i in range(1, 9)
    ]
    frame = build(BuildFlat, inputs)
    assert frame.amps["C03"]["gain_pair_ratio"] == pytest.approx(1.5, rel=0.1)
    assert frame.amps["C12"]["gain_pair_ratio"] == pytest.approx(0.7, rel=0.1)
    assert frame.amps["C05"]["gain_pair_electron_per_adu"] == pytest.approx(DET.amp_by_name["C05"].gain, rel=0.1)


def test_pixel_that_no_exposure_measured_changes_nothing():
    rng = np.random.default_rng(26)
    image = np.zeros(SIZE)
    image[40:42, 50:52] = 1e6  # saturated in every exposure
    frame = build(BuildBias, [input_of(image, rng, seq_num=i) for i in (1, 2, 3)])
    assert (frame.image[40:42, 50:52] == 0).all()
    assert (frame.mask[40:42, 50:52] & NO_DATA).all()
    assert np.isfinite(frame.image).all()
    assert frame.metrics["n_pixels_without_input"] == 4


@pytest.mark.parametrize(
    ("payload", "facts", "message"),
    [
        (BuildDark, {"dark_time_s": None, "exposure_time_s": None}, "no dark time"),
        (BuildDark, {"dark_time_s": 0.0, "exposure_time_s": 0.0}, "no dark time"),
        (BuildFlat, {"physical_filter": "i_39"}, "filter i_39"),
        (BuildFlat, {}, "no light"),
        (BuildBias, {"detector_name": "R22_S12", "detector": 95}, "R22_S12"),
    ],
    ids=["dark without time", "dark of zero seconds", "flat in another filter", "flat without light", "other detector"],
)
def test_inputs_that_do_not_belong_are_refused(payload, facts, message):
    rng = np.random.default_rng(27)
    inputs = [input_of(np.full(SIZE, -50.0), rng, seq_num=i, **facts) for i in (1, 2)]
    with pytest.raises(PayloadError, match=message):
        build(payload, inputs)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_inputs(n):
    with pytest.raises(PayloadError, match="are needed"):
        build(BuildBias, [input_of(BIAS, np.random.default_rng(1))] * n)


def test_inputs_calibrated_unlike_each_other_are_refused():
    rng = np.random.default_rng(28)
    calibs = DictCalibs(bias=CalibPlane("bias-1", BIAS.astype(np.float32)))
    inputs = [input_of(BIAS + 100, rng, seq_num=1, calibs=calibs), input_of(BIAS + 100, rng, seq_num=2)]
    with pytest.raises(PayloadError, match="unlike the others"):
        build(BuildDark, inputs)
