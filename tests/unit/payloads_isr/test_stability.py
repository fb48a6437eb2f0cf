"""Steps of the bias level are found where they are, and slopes are not taken for them."""

import numpy as np
import pytest
from amp_raws import detector, expose, frame_of, raw_bytes

from payloads.isr.payload import Isr, IsrConfig
from payloads.isr.stability import correlate_levels, find_bias_shifts


def noise(seed, n=2048, sigma=0.6):
    return np.random.default_rng(seed).normal(25_000, sigma, n).astype(np.float32)


@pytest.mark.parametrize("size", [-5.0, -1.5, 1.5, 3.0, 500.0])
@pytest.mark.parametrize("row", [40, 700, 2000])
def test_a_step_is_found_with_its_row_and_size(size, row):
    levels = noise(1)
    levels[row:] += size
    ((shift,),) = find_bias_shifts(levels[None])
    assert abs(shift.row - row) <= (6 if abs(size) < 2 else 1)
    assert shift.size_adu == pytest.approx(size, abs=0.6)


def test_two_steps_are_two():
    levels = noise(2)
    levels[500:900] += 4
    ((up, down),) = find_bias_shifts(levels[None])
    assert (abs(up.row - 500) <= 1, abs(down.row - 900) <= 1) == (True, True)
    assert up.size_adu == pytest.approx(4, abs=0.5)
    assert down.size_adu == pytest.approx(-4, abs=0.5)


def test_noise_alone_shows_none():
    assert sum(len(found) for found in find_bias_shifts(np.stack([noise(seed) for seed in range(200)]))) <= 2


@pytest.mark.parametrize("sigma", [0.3, 0.45, 0.65, 0.85])
def test_levels_in_half_counts_show_none_either(sigma):
    levels = np.round(2 * np.stack([noise(seed, sigma=sigma) for seed in range(200)])) / 2
    assert sum(len(found) for found in find_bias_shifts(levels.astype(np.float32))) <= 2


@pytest.mark.parametrize(
    "drift",
    [
        pytest.param(lambda y: 0.005 * y, id="slope"),
        pytest.param(lambda y: 30 * np.exp(-y / 40), id="settling after the start"),
        pytest.param(lambda y: 5 * np.sin(y / 150), id="slow wave"),
        pytest.param(lambda y: 200.0 * (y == 800), id="one bad row"),
    ],
)
def test_what_is_no_step_is_none(drift):
    levels = noise(3) + drift(np.arange(2048)).astype(np.float32)
    assert find_bias_shifts(levels[None]) == [[]]


@pytest.mark.parametrize("levels", [np.zeros(0), np.zeros(20), np.zeros(500), np.full(500, np.nan)])
def test_nothing_to_look_at_has_no_steps(levels):
    assert find_bias_shifts(levels.astype(np.float32)[None]) == [[]]


def test_rows_after_one_without_level_are_left_out():
    levels = noise(4)
    levels[300:] += 4
    levels[1000:] = np.nan
    ((shift,),) = find_bias_shifts(levels[None])
    assert abs(shift.row - 300) <= 1


def test_each_amp_is_told_its_own_steps():
    levels = np.stack([noise(seed, sigma=0.4 + 0.2 * seed) for seed in range(5)])
    levels[1, 600:] += 6
    levels[3, 600:] += 6
    levels[3, 1400:] = np.nan
    levels[4, 0] = np.nan
    found = find_bias_shifts(levels)
    assert [len(shifts) for shifts in found] == [0, 1, 0, 1, 0]
    assert [found] == [[find_bias_shifts(one[None])[0] for one in levels]]


def test_amps_that_move_together_correlate():
    rng = np.random.default_rng(5)
    levels = rng.normal(0, 1, (4, 2000)) + np.linspace(0, 50, 2000)
    levels[:2] += rng.normal(0, 1, 2000)
    found = correlate_levels(levels.astype(np.float32))
    assert found[0, 1] == pytest.approx(0.5, abs=0.06)
    assert np.abs([found[0, 2], found[1, 3], found[2, 3]]).max() < 0.1
    np.testing.assert_allclose(np.diag(found), 1.0)
    levels[2], levels[3, 5] = 7.0, np.nan
    found = correlate_levels(levels.astype(np.float32))
    assert np.isnan(found[2]).all()
    assert np.isnan(found[3]).all()
    assert np.isnan(correlate_levels(np.zeros((2, 5), np.float32))).all()


def test_the_payload_tells_of_shifts_and_correlations():
    det, rng = detector(), np.random.default_rng(6)
    stack = expose(det, np.full((det.height, det.width), 300.0), rng=rng)
    stack[4, 60:] += 200
    common = np.rint(rng.normal(0, 12, stack.shape[1])).astype(int)
    stack[[1, 2]] += common[None, :, None]
    frame = frame_of(raw_bytes(det, stack))
    Isr(IsrConfig()).run(frame)
    names = [amp.name for amp in det.amps]
    row = frame.amps[names[4]]
    assert row["n_bias_shifts"] == 1
    assert row["bias_shift_adu"] == pytest.approx(200, abs=6)
    assert frame.amps[names[7]]["n_bias_shifts"] == 0
    assert frame.amps[names[7]]["bias_shift_adu"] is None
    assert frame.amps[names[1]]["level_correlation_max"] > 0.8
    assert frame.metrics["level_correlation_max"] > 0.8
    assert frame.metrics["n_bias_shifts"] >= 1
    Isr(IsrConfig(serial_overscan=False)).run(frame)
    assert frame.amps[names[4]]["n_bias_shifts"] is None
