"""Each test has the right statistic: what is too small fails as well, and nothing passes for want of a value."""

import json
import math
from datetime import date

import numpy as np
import pytest
import yaml

from payloads.isr.overscan_noise import levelled_variance
from rapid.camera.models import Box
from rapid.camera.store import load_camera
from rapid.verification.decide import Job, judge, roll_up, roll_up_run, verdict_metrics, verify_detector
from rapid.verification.layout import as_json, as_yaml, detector_layout, exposure_layout, run_layout
from rapid.verification.measures import Value, mean_error
from rapid.verification.models import Outcome, Scope, Subject, Verification, worst
from rapid.verification.thresholds import Threshold, load_thresholds

CAMERA = load_camera("LSSTCam")
DETECTOR = CAMERA.by_name["R22_S11"]
THRESHOLDS = load_thresholds()
N_PX = 1_000_000


def perfect(kind: str, *, light: float = 0.0) -> dict[str, dict[str, object]]:
    """Return the numbers of an exposure that has noise and nothing else."""
    rows = {}
    for amp in DETECTOR.amps:
        noise = math.sqrt(amp.read_noise**2 * levelled_variance(amp) + light)
        rows[amp.name] = {
            "residual_mean_e": light if kind == "flat" else 0.0,
            "residual_stdev_e": noise,
            "residual_n_px": N_PX,
            "cr_noise_e": noise,
            "mean_e": light,
            "read_noise_electron": amp.read_noise,
            "read_noise_expected_e": amp.read_noise,
            "read_noise_source": "ptc",
            "amp_corner_e": 0.0,
            "n_bias_shifts": 0,
            "dark_current_e_per_s": 0.02,
            "n_hot_px": 10,
        }
    return rows


def verify(kind: str = "bias", subject: Subject = Subject.EXPOSURE, *, light: float = 0.0, **of_c10) -> Verification:
    rows = perfect(kind, light=light)
    rows["C10"].update(of_c10)
    job = Job("LSSTCam", kind, subject, 2026112000012, 20261120, DETECTOR)
    return verify_detector(job, {}, rows, THRESHOLDS)


@pytest.mark.parametrize(("kind", "light"), [("bias", 0.0), ("dark", 3.0), ("flat", 3000.0), ("flat", 60_000.0)])
def test_what_has_noise_and_nothing_else_passes(kind, light):
    found = verify(kind, light=light)
    assert found.outcome is Outcome.PASS, list(map(str, found.results()))


def test_an_ideal_flat_of_a_thousand_electrons_passes_though_it_has_read_noise():
    """cp_verify compares with the square root of the mean alone, and every such amp fails."""
    found = verify("flat", light=1000.0)
    amp = DETECTOR.amp_by_name["C10"]
    assert math.sqrt(1000 + amp.read_noise**2) > math.sqrt(1000)
    assert found.amps["C10"]["NOISE"].value == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "change", "test", "outcome"),
    [
        ("bias", {"residual_mean_e": 0.3}, "MEAN", Outcome.PASS),
        ("bias", {"residual_mean_e": 3.0}, "MEAN", Outcome.FAIL),
        ("bias", {"residual_mean_e": -3.0}, "MEAN", Outcome.FAIL),
        ("bias", {"residual_stdev_e": 0.0}, "NOISE", Outcome.FAIL),
        ("bias", {"residual_stdev_e": 7.0}, "NOISE", Outcome.FAIL),
        ("bias", {"cr_noise_e": 9.0}, "CR_NOISE", Outcome.FAIL),
        ("bias", {"read_noise_electron": 1.0}, "READ_NOISE", Outcome.FAIL),
        ("bias", {"read_noise_electron": 30.0}, "READ_NOISE", Outcome.FAIL),
        ("bias", {"read_noise_electron": 6.0}, "READ_NOISE_CONSISTENT", Outcome.WARN),
        ("bias", {"amp_corner_e": -60.0}, "AMP_CORNER", Outcome.FAIL),
        ("bias", {"n_bias_shifts": 2}, "BIAS_SHIFTS", Outcome.WARN),
        ("dark", {"dark_current_e_per_s": 5.0}, "DARK_CURRENT", Outcome.FAIL),
        ("dark", {"n_hot_px": 200_000}, "HOT_PIXELS", Outcome.FAIL),
    ],
)
def test_each_test_sees_what_it_is_for(kind, change, test, outcome):
    found = verify(kind, **change)
    assert found.amps["C10"][test].outcome is outcome
    assert found.amps["C11"][test].outcome is Outcome.PASS
    expected = (f"C10 {test}",) if outcome is Outcome.FAIL else ()
    assert set(expected) <= set(found.failures)
    assert found.failing_amps == (("C10",) if outcome is Outcome.FAIL else ())


def test_an_amp_brighter_than_its_detector_is_named():
    found = verify("flat", light=20_000.0, residual_mean_e=23_000.0, residual_stdev_e=math.sqrt(23_000))
    assert "C10 RATIO" in found.failures
    assert found.tests["SCATTER"].outcome is Outcome.WARN


def test_the_error_of_a_mean_is_that_of_its_overscan_levels():
    amp = DETECTOR.amp_by_name["C10"]
    error = mean_error(amp, 5.0, N_PX)
    # Of the parallel overscan's 40 rows, each levelled by a median of 48 pixels.
    common = 5.0 * math.sqrt(math.pi / 2 / 48 * math.pi / 2 / 40)
    assert common < error < 1.1 * common


def test_means_scatter_by_the_error_that_is_stated_of_them():
    """Of read noise alone, levelled as `payloads.isr` does: each row by its overscan, then each column."""
    amp = DETECTOR.amp_by_name["C10"]
    # The overscan of this amp is 54 and 46 pixels wide, of which 48 and 40 are used; fewer columns and rows are quick.
    small = amp.model_copy(update={"trimmed": Box(x0=0, y0=0, width=64, height=96)})
    rng = np.random.default_rng(3)
    means = []
    for _ in range(150):
        lines = rng.normal(0.0, 5.0, (96 + 40, 64)) - np.median(rng.normal(0.0, 5.0, (96 + 40, 48)), axis=1)[:, None]
        image, parallel = lines[:96], lines[96:]
        means.append((image - np.median(parallel, axis=0)).mean())
    # The standard deviation of 150 values is known to 6 %.
    assert mean_error(small, 5.0, 96 * 64) == pytest.approx(np.std(means), rel=0.2)


def test_a_value_that_is_missing_is_not_measured_and_keeps_a_master_from_passing():
    rows = perfect("bias")
    del rows["C10"]["residual_mean_e"]
    rows["C11"]["residual_stdev_e"] = math.nan
    for subject, outcome in ((Subject.EXPOSURE, Outcome.PASS), (Subject.MASTER, Outcome.NOT_MEASURED)):
        job = Job("LSSTCam", "bias", subject, 1, 20261120, DETECTOR)
        metrics = {"input_level_scatter_electron": 0.1, "n_clipped_fraction": 0.002}
        extra = {"calib_mean_electron": 0.0, "n_pixels_without_input": 0}
        found = verify_detector(job, metrics, {name: {**row, **extra} for name, row in rows.items()}, THRESHOLDS)
        assert found.amps["C10"]["MEAN"].value is None
        assert found.outcome is outcome
        assert "C10 MEAN" in found.not_measured
    assert verify_detector(
        Job("LSSTCam", "bias", Subject.EXPOSURE, 1, 20261120, DETECTOR), {}, {}, THRESHOLDS
    ).outcome is (Outcome.NOT_MEASURED)


def test_a_value_that_passes_outside_of_its_band_says_which_error_lets_it():
    found = verify("flat", light=20_000.0)
    one = next(one for one in found.results() if (one.amp, one.test) == ("C10", "READ_NOISE"))
    assert (one.outcome, one.by_chance) == (Outcome.PASS, "")
    assert str(one) == f"R22_S11 C10 READ_NOISE: pass, {one.value:.4g} ± {one.uncertainty:.2g} (0.8 to 1.25)"
    outside = one.model_copy(update={"value": 1.26, "uncertainty": 0.005})
    assert str(outside).endswith("pass, 1.26 ± 0.005 (0.8 to 1.25; outside by 2 of its standard errors, 3 are allowed)")
    warned = outside.model_copy(update={"value": 2.01, "outcome": Outcome.WARN})
    assert "outside of 0.5 to 2 by 2 of its" in str(warned)


def test_chance_alone_does_not_exceed_a_limit():
    limit = Threshold.model_validate(
        {
            "test": "GAIN",
            "kinds": ["ptc"],
            "error": {"low": -0.05, "high": 0.05},
            "reason": "x",
            "valid_from": "2026-01-01",
        }
    )
    assert judge(Value(0.07, 0.001), limit).outcome is Outcome.FAIL
    assert judge(Value(0.07, 0.01), limit).outcome is Outcome.PASS
    assert judge(Value(math.inf), limit).outcome is Outcome.NOT_MEASURED


@pytest.mark.parametrize(
    ("name", "a00", "outcome"),
    [
        ("R22_S11", -3.0e-6, Outcome.PASS), ("R22_S11", -1.0e-6, Outcome.WARN),
        ("R01_S00", -1.0e-6, Outcome.PASS), ("R01_S00", 5.0e-5, Outcome.FAIL),
    ],
    ids=["e2v", "e2v as only ITL is", "ITL", "nonsense"],
)  # fmt: skip
def test_a00_is_judged_by_the_vendor_of_the_sensor(name, a00, outcome):
    detector = CAMERA.by_name[name]
    rows = {
        amp.name: {"gain": amp.gain, "read_noise": amp.read_noise, "a00_per_electron": a00, "chi2_per_dof": 1.0}
        for amp in detector.amps
    }
    job = Job("LSSTCam", "ptc", Subject.MASTER, 1, 20261120, detector)
    found = verify_detector(job, {"n_pairs": 20}, rows, THRESHOLDS)
    assert found.amps["C00"]["A00"].outcome is outcome
    assert found.amps["C00"]["TURNOFF"].outcome is Outcome.NOT_MEASURED
    assert found.outcome is outcome


def test_the_stored_document_is_small_and_comes_back_whole():
    found = verify(residual_mean_e=9.0)
    assert Verification.from_stored(json.loads(json.dumps(found.to_stored()))) == found
    assert len(json.dumps(found.to_stored())) < 12_000


def test_the_worst_outcome_counts():
    assert worst([]) is Outcome.NOT_MEASURED
    assert worst([Outcome.PASS, Outcome.NOT_MEASURED, Outcome.WARN]) is Outcome.NOT_MEASURED
    assert worst([Outcome.NOT_MEASURED, Outcome.FAIL]) is Outcome.FAIL


def test_the_field_s_layout():
    found = verify(residual_mean_e=9.0)
    document = detector_layout(found, calib_id="x")
    assert document["AMP"]["C10"]["MEAN"] == pytest.approx(found.amps["C10"]["MEAN"].value)
    assert document["VERIFY"]["AMP"]["C10"] | {"MEAN": False, "SUCCESS": False} == document["VERIFY"]["AMP"]["C10"]
    assert document["VERIFY"]["AMP"]["C11"]["SUCCESS"] is True
    assert document["SUCCESS"] is False
    assert document["FAILURES"] == ["C10 MEAN"]
    assert yaml.safe_load(as_yaml(document)) == json.loads(as_json(document))


def test_what_is_not_measured_is_null_in_the_layout():
    document = detector_layout(verify(residual_mean_e=None))
    assert document["AMP"]["C10"]["MEAN"] is None
    assert document["VERIFY"]["AMP"]["C10"]["MEAN"] is None


def test_a_scatter_over_the_focal_plane_is_a_part_of_the_mean():
    """cp_verify compares the scatter itself, in electrons, with 0.05."""
    flats = [verify("flat", light=20_000.0)]
    for levels, outcome in (
        ({"a": 20_000.0, "b": 20_500.0}, Outcome.PASS),
        ({"a": 20_000.0, "b": 200.0}, Outcome.FAIL),
    ):
        verdict = roll_up(flats, camera=CAMERA, levels_e=levels, thresholds=THRESHOLDS)
        assert verdict.tests["SCATTER"].outcome is outcome
        assert THRESHOLDS.of(
            kind="flat", subject=Subject.EXPOSURE, scope=Scope.EXPOSURE, camera="LSSTCam", at=date(2026, 1, 1)
        )


def test_verdicts_roll_up_to_the_exposure_and_the_run():
    good, bad = verify(), verify(residual_mean_e=9.0)
    verdict = roll_up([bad], camera=CAMERA, thresholds=THRESHOLDS)
    assert verdict.failures == ("R22_S11 C10 MEAN",)
    assert exposure_layout(verdict)["R22_S11"]["FAILURES"] == ["C10 MEAN"]
    fine = roll_up([good], camera=CAMERA, thresholds=THRESHOLDS).model_copy(update={"exposure": 2026112000013})
    run = roll_up_run([verdict, fine], camera="LSSTCam")
    assert run.outcome is Outcome.FAIL
    document = run_layout(run)
    assert document["2026112000012"] == {"SUCCESS": False, "OUTCOME": "fail", "FAILURES": ["R22_S11 C10 MEAN"]}
    assert document["2026112000013"]["SUCCESS"] is True
    missing = roll_up([good], camera=CAMERA, thresholds=THRESHOLDS, without={"R22_S12": "no raw"})
    assert missing.outcome is Outcome.NOT_MEASURED
    assert roll_up([], camera=CAMERA, thresholds=THRESHOLDS) is None


def test_a_result_names_twenty_failures_and_says_how_many_more():
    rows = {name: {**row, "residual_mean_e": 9.0, "amp_corner_e": 99.0} for name, row in perfect("bias").items()}
    found = verify_detector(Job("LSSTCam", "bias", Subject.EXPOSURE, 1, 20261120, DETECTOR), {}, rows, THRESHOLDS)
    metrics = verdict_metrics(found)
    assert metrics["verify_n_failed_amps"] == 16
    assert metrics["verify_failures"].endswith("and 12 more")
