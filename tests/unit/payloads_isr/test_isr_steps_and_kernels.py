"""The readable and the fast implementation do the same."""

import dataclasses

import numpy as np
import pytest
from amp_raws import detector, expose

from payloads.isr.fused import PlanePool, run_kernels
from payloads.isr.inputs import IsrInputs, layout_of, overscan_range
from payloads.isr.linearity import Linearity, linearity_of
from payloads.isr.readout import read_stack
from payloads.isr.steps import run_steps
from payloads.mask import BAD, INTRP, NO_DATA, SAT, UNMASKEDNAN


def full_inputs(det, rng):
    """Every correction, with some impossible values among the calibs."""
    n = len(det.amps)
    layout = layout_of(det.amps, height=det.height, width=det.width)
    size = (det.height, det.width)
    crosstalk = rng.normal(0, 2e-4, (n, n)).astype(np.float32)
    np.fill_diagonal(crosstalk, 0)
    curves = linearity_of({amp.name: {"1000": 1.0, "50000": 30.0, "100000": 100.0} for amp in det.amps}, layout.names)
    flat = rng.normal(1, 0.01, size).astype(np.float32)
    flat[5, 5], flat[6, 6], flat[7, 7] = 0.0, np.nan, -1.0
    bias = rng.normal(0, 1, size).astype(np.float32)
    bias[9, 9] = np.nan
    defects = (rng.random(size) < 1e-3).astype(np.uint8)
    defects[:, 33] = 1
    defects[:, 0] = 1
    per_amp = {
        "gain": [amp.gain for amp in det.amps],
        "photon_gain": np.ones(n),
        "noise_variance": [amp.read_noise**2 for amp in det.amps],
        "saturation": [amp.saturation for amp in det.amps],
        "suspect": [0.9 * amp.saturation for amp in det.amps],
    }
    return IsrInputs(
        layout=layout,
        **{name: np.array(values, dtype=np.float32) for name, values in per_amp.items()},
        crosstalk=crosstalk,
        quadratic_crosstalk=(1e-4 * crosstalk[::-1, ::-1]).copy(),
        linearity=curves,
        bias=bias,
        dark=rng.normal(0.02, 0.01, size).astype(np.float32),
        dark_scale=30.0,
        flat=flat,
        defects=defects,
    )


def troubled_stack(det, rng):
    """Counts with everything that has gone wrong with a raw."""
    stack = expose(det, rng.poisson(800, (det.height, det.width)).astype(float), rng=rng)
    box, overscan = det.amps[0].data, det.amps[0].serial_overscan
    stack[2, 10:20, box.x0 + 5 : box.x0 + 12] = 262143  # a bright star
    stack[3] = 262143  # a railed amp
    stack[4, 20 : box.y1, box.x0 + 20] = 200_000  # a bleed trail into the parallel overscan
    stack[5, 30, :] += 5000  # a row that jumped
    stack[6, 40:60, overscan.x0 :] += 3000  # overscan rows that are no overscan
    stack[0, :, overscan.x0 + 5] += 500  # a hot overscan column
    stack[1, box.y1 :, box.x0 + 7] += 400  # a hot column in the parallel overscan
    return stack


def compare(stack, inputs):
    fast, readout = PlanePool().take(inputs.layout, *stack.shape[1:])
    for name in ("image", "variance", "levels", "parallel_levels", "overscan_noise"):
        getattr(fast, name)[...] = np.nan  # whatever a reused buffer holds must not matter
    fast.mask[...] = -1
    read_stack(stack, inputs.layout, readout)
    run_kernels(readout, inputs, fast)
    slow = run_steps(stack, inputs)
    np.testing.assert_array_equal(fast.mask, slow.mask)
    np.testing.assert_array_equal(fast.counts, slow.counts)
    np.testing.assert_array_equal(fast.levels, slow.levels)
    np.testing.assert_allclose(fast.overscan_noise, slow.overscan_noise, rtol=1e-9)
    np.testing.assert_allclose(fast.parallel_levels, slow.parallel_levels, rtol=2e-5, atol=1e-2)
    np.testing.assert_allclose(fast.image, slow.image, rtol=2e-5, atol=1e-2)
    np.testing.assert_allclose(fast.variance, slow.variance, rtol=2e-5, atol=1e-2)
    np.testing.assert_allclose(fast.binned, slow.binned, rtol=2e-5, atol=1e-2)
    assert np.isfinite(fast.image).all()
    assert np.isfinite(fast.variance).all()
    return fast


SWITCHES = {
    "everything": {},
    "no calibs": {
        "crosstalk": None, "quadratic_crosstalk": None, "linearity": None, "bias": None, "dark": None, "flat": None,
        "defects": None,
    },
    "linear crosstalk only": {"quadratic_crosstalk": None},
    "quadratic crosstalk only": {"crosstalk": None},
    "no overscan": {"serial_overscan": False, "parallel_overscan": False},
    "no interpolation": {"interpolate": False},
    "flat only": {
        "crosstalk": None, "quadratic_crosstalk": None, "linearity": None, "bias": None, "dark": None, "defects": None,
    },
    "serial only": {"parallel_overscan": False},
}  # fmt: skip


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
@pytest.mark.parametrize("detector_id", [0, 94, 204], ids=["ITL", "E2V", "half-size wavefront"])
def test_both_implementations_agree(detector_id, switches):
    rng = np.random.default_rng(detector_id)
    det = detector(detector_id=detector_id)
    compare(troubled_stack(det, rng), dataclasses.replace(full_inputs(det, rng), **switches))


def test_an_amp_whose_level_is_unknown_does_not_spoil_the_others():
    """Twenty rows whose overscan is none: by crosstalk they would take all amps along."""
    rng = np.random.default_rng(3)
    det = detector()
    stack = expose(det, rng.poisson(800, (det.height, det.width)).astype(float), rng=rng)
    inputs = full_inputs(det, rng)
    expected = run_steps(stack, inputs)
    stack[6, 40:60, det.amps[0].serial_overscan.x0 :] += 3000
    stack[6, -6:, det.amps[0].serial_overscan.x0 :] += 3000  # in the parallel overscan, too
    planes = compare(stack, inputs)
    for place, amp in enumerate(det.amps):
        unknown = (planes.mask[amp.trimmed.slices] & UNMASKEDNAN) != 0
        was_unknown = (expected.mask[amp.trimmed.slices] & UNMASKEDNAN) != 0
        # Five rows at either end have levels from their neighbours'.
        assert np.count_nonzero(unknown & ~was_unknown) == (10 * amp.data.width if place == 6 else 0)
        assert np.abs(planes.parallel_levels[place] - expected.parallel_levels[place]).max() < 1.0 or place == 6
    assert np.isnan(planes.levels[6, 45:55]).all()


@pytest.mark.parametrize("value", [0, 262143, -5], ids=["blank", "railed", "negative"])
def test_constant_raw(value):
    rng = np.random.default_rng(2)
    det = detector()
    stack = np.full((16, det.amps[0].raw_height, det.amps[0].raw_width), value, dtype=np.int32)
    planes = compare(stack, full_inputs(det, rng))
    if value == 262143:
        assert (planes.mask & SAT).all()


def test_amps_that_leave_a_gap():
    rng = np.random.default_rng(5)
    det = detector()
    stack = troubled_stack(det, rng)
    inputs = full_inputs(det, rng)
    layout = layout_of(det.amps[:-2], height=det.height, width=det.width)
    parts = {
        name: getattr(inputs, name)[:-2] for name in ("gain", "photon_gain", "noise_variance", "saturation", "suspect")
    }
    parts |= {name: getattr(inputs, name)[:-2, :-2].copy() for name in ("crosstalk", "quadratic_crosstalk")}
    parts["linearity"] = Linearity(
        *(getattr(inputs.linearity, name)[:-2] for name in ("knots", "pieces", "nearby", "bins_per_unit"))
    )
    planes = compare(stack[:-2], dataclasses.replace(inputs, layout=layout, **parts))
    assert (planes.mask[det.amps[-1].trimmed.slices] & NO_DATA).all()


def test_bad_values_of_calibs_are_masked_and_bridged():
    rng = np.random.default_rng(6)
    det = detector()
    planes = compare(expose(det, np.full((det.height, det.width), 500.0), rng=rng), full_inputs(det, rng))
    for place in ((5, 5), (6, 6), (7, 7), (9, 9)):
        assert planes.mask[place] & UNMASKEDNAN
        assert planes.mask[place] & INTRP
        assert 300 < planes.image[place] < 700
    assert (planes.mask[:, 33] & BAD).all()
    assert abs(planes.image[:, 33].mean() - planes.image[:, 36].mean()) < 30


def test_float_raw_with_nan_overscan_has_a_value_everywhere():
    rng = np.random.default_rng(7)
    det = detector()
    stack = expose(det, np.full((det.height, det.width), 500.0), rng=rng).astype(np.float32)
    stack[0, :, det.amps[0].serial_overscan.x0 :] = np.nan
    planes = run_steps(stack, dataclasses.replace(full_inputs(det, rng), linearity=None, crosstalk=None))
    box = det.amps[0].trimmed.slices
    assert (planes.mask[box] & UNMASKEDNAN).all()
    assert np.isnan(planes.overscan_noise[0])
    assert np.isfinite(planes.image).all()
    assert np.isfinite(planes.overscan_noise[1:]).all()


@pytest.mark.parametrize(("size", "used"), [(64, 58), (12, 6), (9, 5), (5, 5), (4, 4), (1, 1)])
def test_narrow_overscans_skip_less(size, used):
    first, last = overscan_range(100, size)
    assert last - first == used
    assert first >= 100


def test_one_amp_with_other_overscan_is_refused():
    det = detector()
    odd = det.amps[3].model_copy(update={"serial_overscan": None})
    from rapid.errors import PayloadError

    with pytest.raises(PayloadError, match="not read alike"):
        layout_of((*det.amps[:3], odd, *det.amps[4:]), height=det.height, width=det.width)
