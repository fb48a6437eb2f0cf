"""What was put into the silicon and the electronics is what the builds find."""

import numpy as np
import pytest

from payloads.isr.linearity import correct, linearity_of
from rapid.errors import PayloadError
from rapid.results.models import CalibState
from rapid.verification.models import Verification
from tests.calibrations.lab import A00, Lab

LEVELS = (500, 1500, 4000, 8000, 15_000, 25_000, 40_000, 55_000, 70_000, 90_000, 105_000)
NONLINEARITY = 1e-7


def per_amp(result, name: str) -> np.ndarray:
    return np.array([row[name] for row in result.amps.values()], dtype=float)


def table_of(lab: Lab, result) -> dict[str, dict[str, float]]:
    return dict(lab.worker.calibs.load(lab.results.calib("LabCam", result.metrics["calib_id"])).table)


@pytest.fixture(scope="module")
def lab(make) -> Lab:
    lab = make()
    lab.truth.brighter_fatter, lab.truth.nonlinearity = True, NONLINEARITY
    return lab


@pytest.fixture(scope="module")
def ramp(lab) -> list[int]:
    lab.build("bias", [lab.take("bias") for _ in range(6)])
    return [lab.take("flat", level_e=level, time_s=level / 5000) for level in LEVELS for _ in range(2)]


@pytest.fixture(scope="module")
def linearity(lab, ramp):
    return lab.build("linearity", ramp)


@pytest.fixture(scope="module")
def ptc(lab, ramp, linearity):
    assert linearity is not None
    return lab.build("ptc", ramp)


def test_linearity_takes_out_what_was_put_in(lab, linearity):
    assert linearity.metrics["calib_state"] == "certified"
    assert linearity.metrics["n_levels"] == len(LEVELS)
    names = tuple(amp.name for amp in lab.detector.amps)
    curves = linearity_of(table_of(lab, linearity), names)
    light = np.array([2000.0, 10_000.0, 30_000.0, 60_000.0, 100_000.0])
    for place, name in enumerate(names):
        # In electrons of the nominal gain, as the raws of this bench are calibrated.
        scale = 1.5 / lab.truth.gain[name]
        seen = (light - NONLINEARITY * light**2) * scale
        stack = np.zeros((len(names), 1, len(seen)), np.float32)
        stack[place, 0] = seen
        found = correct(stack, curves)[place, 0] / scale
        np.testing.assert_allclose(found, light, rtol=6e-4, atol=3)
        assert abs(seen[-1] / scale / light[-1] - 1) > 9e-3, "there was something to correct"
    assert (per_amp(linearity, "residual_max_percent") < 0.2).all()
    assert per_amp(linearity, "correction_max_percent") == pytest.approx(1.05, abs=0.15)


def test_gains_read_noise_and_a00_are_those_of_the_bench(lab, ptc):
    assert ptc.metrics["n_pairs"] == len(LEVELS)
    true = np.array([lab.truth.gain[amp.name] for amp in lab.detector.amps])
    gains, errors = per_amp(ptc, "gain"), per_amp(ptc, "gain_error")
    assert np.abs(gains / true - 1).max() < 0.02
    assert np.abs((gains - true) / errors).max() < 4
    assert abs(np.mean(gains / true) - 1) < 0.008
    noise = np.array([lab.truth.read_noise[amp.name] for amp in lab.detector.amps])
    assert per_amp(ptc, "read_noise") == pytest.approx(noise, rel=0.03)
    a00 = per_amp(ptc, "a00_per_electron")
    assert (a00 < 0).all()
    assert np.mean(a00) == pytest.approx(A00, rel=0.12)
    assert np.mean([per_amp(ptc, "a10_per_electron"), per_amp(ptc, "a01_per_electron")]) == pytest.approx(
        -A00 / 6, rel=0.25
    )
    assert (per_amp(ptc, "chi2_per_dof") < 4).all()


def test_the_new_gains_are_what_the_next_exposure_is_calibrated_with(lab, ptc):
    assert ptc.metrics["calib_state"] == "certified"
    result = lab.process(lab.take("flat", level_e=30_000, time_s=6.0))
    assert {"ptc", "linearity", "bias"} <= set(result.provenance.calibs)
    assert {"gain", "linearity"} <= set(result.provenance.applied)
    table = table_of(lab, ptc)
    for name, row in result.amps.items():
        assert row["gain_electron_per_adu"] == pytest.approx(table[name]["gain"], rel=1e-5)
        assert row["mean_e"] == pytest.approx(30_000, rel=0.02)
        assert row["read_noise_source"] == "ptc"
    tests = Verification.from_stored(result.verification).amps
    assert all(row["READ_NOISE_CONSISTENT"].outcome.value == "pass" for row in tests.values())


def test_a_fit_without_pairs_says_what_is_missing(lab):
    singles = [lab.take("flat", level_e=1000 * n, time_s=float(n)) for n in range(1, 10)]
    with pytest.raises(PayloadError, match="0 pairs of flats"):
        lab.build("ptc", singles)
    with pytest.raises(PayloadError, match=r"is a flat, not a bias|is a bias, not a flat"):
        lab.build("ptc", [*singles, lab.take("bias")])


def test_a_dead_amp_has_no_gain_and_the_calib_is_refused(make):
    lab = make(seed=21)
    place = [amp.name for amp in lab.detector.amps].index("C11")

    def kill(_exposure, counts):
        counts[place] = 23_000
        return counts

    lab.tamper = kill
    flats = [lab.take("flat", level_e=level, time_s=level / 5000) for level in LEVELS[1:8] for _ in range(2)]
    result = lab.build("ptc", flats)
    assert result.amps["C11"]["gain"] is None
    assert result.metrics["calib_state"] == "rejected"
    assert lab.results.calib("LabCam", result.metrics["calib_id"]).state is CalibState.REJECTED
    assert "C11" not in table_of(lab, result)


def spots(lab: Lab, rng: np.random.Generator) -> np.ndarray:
    """Return light such that no two amps have any at the same moment of the read-out."""
    det = lab.detector
    image = np.zeros((det.height, det.width))
    cells = [(y, x) for y in range(0, 248, 12) for x in range(0, 118, 12)]
    order = rng.permutation(len(cells))
    for place, amp in enumerate(det.amps):
        part = image[amp.trimmed.slices][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        for y, x in (cells[cell] for cell in order[place * 40 : (place + 1) * 40]):
            part[y : y + 8, x : x + 8] += 60_000
    return image


def test_crosstalk_is_that_of_the_bench_and_none_is_left(make):
    lab, rng = make(seed=22), np.random.default_rng(3)
    n = len(lab.detector.amps)
    lab.truth.crosstalk = rng.uniform(0.5e-4, 4e-4, (n, n)) * (1 - np.eye(n))
    lab.build("bias", [lab.take("bias") for _ in range(4)])
    result = lab.build(
        "crosstalk", [lab.take("spot", level_e=20.0, time_s=5.0, image=spots(lab, rng)) for _ in range(3)]
    )
    assert result.metrics["calib_state"] == "certified"
    table, names = table_of(lab, result), [amp.name for amp in lab.detector.amps]
    # In electrons; the bench mixes counts of nearly equal gains.
    for i, target in enumerate(names):
        for j, source in enumerate(names):
            if i != j:
                scale = lab.truth.gain[target] / lab.truth.gain[source]
                true = lab.truth.crosstalk[i, j]
                assert table[target][source] == pytest.approx(true, abs=max(1.5e-5, abs(scale - 1) * true * 2)), (
                    target,
                    source,
                )
    assert per_amp(result, "n_residual") == pytest.approx(0)


def test_defects_are_those_that_were_made(make):
    lab = make(seed=23)
    det = lab.detector
    response, rate = np.ones((det.height, det.width)), np.full((det.height, det.width), 0.03)
    response[:, 50], response[300, 200] = 0.3, 0.1
    rate[100, 100], rate[400, 30] = 30.0, 8000.0
    lab.truth.bad, lab.truth.dark_rate = response, rate
    lab.build("bias", [lab.take("bias") for _ in range(4)])
    darks = [lab.take("dark", time_s=60.0) for _ in range(4)]
    result = lab.build("defects", [*darks, *(lab.take("flat", level_e=30_000, time_s=5.0) for _ in range(4))])
    record = lab.results.calib("LabCam", result.metrics["calib_id"])
    assert record.state is CalibState.CERTIFIED
    found = lab.worker.calibs.load(record).image
    expected = response < 0.8
    expected[100, 100] = expected[400, 30] = True
    np.testing.assert_array_equal(found != 0, expected)
    assert result.metrics["n_bad_columns"] == 2, "one in either half of the detector"
    flat = lab.process(lab.take("flat", level_e=30_000, time_s=5.0))
    assert "defects" in flat.provenance.applied
    assert sum(row["n_bad"] for row in flat.amps.values()) == expected.sum()
