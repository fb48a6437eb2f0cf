"""What is answered of a calib that was built: whether it passed, and which amps failed which test."""

import pytest

from rapid.camera.store import load_camera
from rapid.requests.verify import calib_answer
from rapid.verification.decide import Job, verify_detector
from rapid.verification.models import Subject
from rapid.verification.thresholds import load_thresholds
from tests.support.records import make_result

CAMERA = load_camera("LSSTCam")
DETECTOR = CAMERA.by_name["R22_S11"]
INPUTS = (2026112000001, 2026112000002)


def built(detector: int = 94, **of_one_amp):
    """Return the result of a bias build whose amps are perfect, but for some numbers of C10."""
    det = CAMERA.by_id[detector]
    amps = {
        amp.name: {
            "residual_mean_e": 0.0,
            "residual_stdev_e": amp.read_noise * 0.73,
            "residual_n_px": 1_000_000,
            "cr_noise_e": amp.read_noise * 0.73,
            "read_noise_electron": amp.read_noise,
            "calib_mean_electron": 0.1,
            "n_pixels_without_input": 0,
        }
        for amp in det.amps
    }
    amps["C10"].update(of_one_amp)
    metrics = {"input_level_scatter_electron": 0.1, "n_clipped_fraction": 0.003, "calib_id": f"bias-{detector}"}
    job = Job("LSSTCam", "bias", Subject.MASTER, INPUTS[-1], 20261120, det, inputs=INPUTS)
    found = verify_detector(job, metrics, amps, load_thresholds())
    state = "certified" if found.outcome.is_success else "rejected"
    return make_result(
        detector=detector,
        detector_name=det.name,
        pipeline="build_bias",
        amps=amps,
        metrics={**metrics, "calib_state": state},
        verification=found.to_stored(),
    )


def answer(*results, **not_built):
    return calib_answer("bias", inputs=INPUTS, built=results, not_built=not_built)


def test_a_calib_that_leaves_noise_and_nothing_else_passes():
    found = answer(built())
    assert found.passed, found.failures
    assert (found.n_amps, found.outcome, found.states) == (16, "pass", {"R22_S11": "certified"})
    assert found.calib_ids == {"R22_S11": "bias-94"}


@pytest.mark.parametrize(
    ("change", "test"),
    [
        ({"residual_mean_e": 30.0}, "MEAN"),
        ({"residual_stdev_e": 9.0, "cr_noise_e": 9.0}, "NOISE"),
        ({"residual_stdev_e": 0.0, "cr_noise_e": 0.001}, "NOISE"),
        ({"n_pixels_without_input": 50_000}, "PIXELS"),
        ({"calib_mean_electron": 500.0}, "LEVEL"),
    ],
    ids=["a rest", "too much noise", "a dead amp", "holes", "light"],
)
def test_an_amp_that_fails_is_named_with_its_test(change, test):
    found = answer(built(**change))
    assert not found.passed
    assert found.failing_amps == {"R22_S11": ("C10",)}
    assert test in {failure.test for failure in found.failures}
    assert all(failure.limit is not None and failure.message for failure in found.failures)
    assert found.states == {"R22_S11": "rejected"}


def test_a_value_that_is_missing_is_not_zero_and_does_not_pass():
    found = answer(built(residual_mean_e=None))
    assert (found.passed, found.outcome, found.failures) == (False, "not_measured", ())
    assert "C10 MEAN" in found.not_tested["R22_S11"]


def test_one_bad_detector_does_not_hide_behind_a_good_one():
    found = answer(built(), built(95, residual_mean_e=40.0))
    assert (found.passed, found.n_amps, set(found.failing_amps)) == (False, 32, {"R22_S12"})


def test_a_detector_without_a_calib_does_not_pass():
    found = answer(built(), R22_S12="failed: no raw")
    assert not found.passed
    assert found.not_tested == {"R22_S12": "failed: no raw"}


def test_a_build_of_before_verification_was_a_gate_is_told_as_not_tested():
    found = answer(make_result(pipeline="build_bias"))
    assert not found.passed
    assert set(found.not_tested) == {"R22_S11"}


def test_nothing_built_is_not_passed():
    assert not answer().passed
