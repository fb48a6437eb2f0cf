"""A calib passes, or the amps that do not are named with the test they fail."""

import math

import pytest

from rapid.camera.store import load_camera
from rapid.exposure.models import ImageType
from rapid.requests.verify import verify_calib
from tests.support.records import make_result

CAMERA = load_camera("LSSTCam")
DETECTOR = CAMERA.by_name["R22_S11"]
INPUTS = (1, 2, 3, 4)
CALIB = "LSSTCam-094-bias-x-v1"


def check(kind: ImageType = ImageType.BIAS, *, built=None, **changes):
    """Verify a calib whose amps are perfect, but for some changes to amp C10."""
    amps = {}
    for amp in DETECTOR.amps:
        light = 20_000.0 if kind is ImageType.FLAT else 0.0
        noise = math.sqrt((amp.read_noise**2 + light) * (1 - 1 / len(INPUTS)))
        amps[amp.name] = {
            "mean_e": light,
            "stdev_e": noise,
            "read_noise_electron": amp.read_noise,
            "n_pixels_without_input": 0,
        }
    amps["C10"].update(changes)
    result = make_result(amps=amps, pipeline=kind.value)
    result.provenance.applied = [kind.value]
    result.provenance.calibs = {kind.value: CALIB}
    return verify_calib(
        kind,
        camera=CAMERA,
        inputs=INPUTS,
        built=[make_result(pipeline=f"build_{kind.value}", amps={})] if built is None else built,
        checked=[result],
        calib_ids={"R22_S11": CALIB},
        not_built={},
    )


@pytest.mark.parametrize("kind", [ImageType.BIAS, ImageType.DARK, ImageType.FLAT])
def test_a_calib_that_leaves_noise_and_nothing_else_passes(kind):
    answer = check(kind)
    assert answer.passed, answer.failures
    assert answer.n_amps == 16


@pytest.mark.parametrize(
    ("change", "test"),
    [
        ({"mean_e": 30.0}, "MEAN"),
        ({"mean_e": None}, "MEAN"),
        ({"stdev_e": 9.0}, "NOISE"),
        ({"stdev_e": 0.0}, "NOISE"),
        ({"read_noise_electron": 40.0, "stdev_e": 34.6}, "READ_NOISE"),
        ({"n_pixels_without_input": 5000}, "PIXELS"),
    ],
    ids=["a rest", "nothing measured", "too much noise", "a dead amp", "a loud amp", "holes"],
)
def test_an_amp_that_fails_is_named_with_its_test(change, test):
    answer = check(**change)
    assert not answer.passed
    assert answer.failing_amps == {"R22_S11": ("C10",)}
    assert [failure.test for failure in answer.failures] == [test]


def test_a_flat_whose_amp_is_brighter_than_the_others_fails():
    answer = check(ImageType.FLAT, mean_e=23_000.0, stdev_e=math.sqrt(23_000 * 0.75))
    assert [failure.test for failure in answer.failures] == ["SCATTER"]


def test_a_detector_that_could_not_be_checked_does_not_pass():
    answer = check(built=[make_result(amps={}), make_result(detector=95, detector_name="R22_S12", amps={})])
    assert not answer.passed
    assert set(answer.not_tested) == {"R22_S12"}


def test_nothing_built_is_not_passed():
    assert not check(built=[]).passed
