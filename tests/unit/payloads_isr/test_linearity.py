import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from payloads.isr.linearity import STRETCH, correct, correct_row, linearity_of
from rapid.errors import PayloadError

CURVE = {"1e3": 1.0, "5e3": -3.0, "2e4": 20.0, "2.1e4": 21.0, "5e4": 40.0, "1e5": 150.0}


def by_kernel(signal, curves, amp=0):
    row = signal.copy()
    correct_row(
        row,
        curves.knots[amp],
        curves.pieces[amp],
        curves.nearby[amp],
        curves.bins_per_unit[amp],
        np.empty(STRETCH, dtype=np.float32),
    )
    return row


@pytest.mark.parametrize(
    "signal",
    [
        np.linspace(-500, 120_000, 513),
        np.random.default_rng(1).normal(1000, 30, 512),  # about a knot
        np.random.default_rng(2).uniform(0, 1.5e5, 500),  # every stretch on many pieces
        np.array([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e30, 1e3, 1e5]),
        np.full(3, -7.0),
    ],
    ids=["ramp", "sky at a knot", "everything", "impossible", "negative"],
)
def test_kernel_and_numpy_agree_to_rounding(signal):
    curves = linearity_of({"C00": CURVE}, ("C00",))
    signal = signal.astype(np.float32)
    expected = correct(signal[None, None], curves)[0, 0]
    np.testing.assert_allclose(by_kernel(signal, curves), expected, rtol=1e-6, atol=1e-3)


def test_correction_is_the_akima_spline_anchored_at_zero():
    curves = linearity_of({"C00": CURVE}, ("C00",))
    levels = np.array([0.0, *(float(key) for key in CURVE)])
    spline = Akima1DInterpolator(levels, [0.0, *CURVE.values()])
    signal = np.linspace(0, 1e5, 2000).astype(np.float32)
    corrected = signal - by_kernel(signal, curves)
    np.testing.assert_allclose(corrected, spline(signal.astype(float)), atol=0.01)
    beyond = np.array([-100.0, 1e5, 2e5], dtype=np.float32)
    np.testing.assert_allclose(beyond - by_kernel(beyond, curves), [0.0, 150.0, 150.0])


def test_amps_with_few_nodes_or_none():
    curves = linearity_of({"A": {"1000": 10.0}, "B": {}, "C": {"1000": 10.0, "2000": 20.0}}, ("A", "B", "C"))
    signal = np.array([-5.0, 0.0, 500.0, 1000.0, 5000.0], dtype=np.float32)
    np.testing.assert_allclose(signal - by_kernel(signal, curves, 0), [0, 0, 5, 10, 10], atol=1e-3)
    np.testing.assert_array_equal(by_kernel(signal, curves, 1), signal)
    np.testing.assert_allclose(signal - by_kernel(signal, curves, 2), [0, 0, 5, 10, 20], atol=1e-3)


def test_table_with_thousands_of_nodes():
    levels = np.arange(1, 5000) * 20.0
    curves = linearity_of({"A": {str(level): 1e-3 * level for level in levels}}, ("A",))
    signal = np.random.default_rng(3).uniform(0, 1e5, 512).astype(np.float32)
    expected = 1e-3 * np.minimum(signal, levels[-1])
    np.testing.assert_allclose(signal - by_kernel(signal, curves), expected, atol=0.02)


@pytest.mark.parametrize("table", [{"A": {"many": 1.0}}, {"A": {"100": float("nan")}}, {"A": {"inf": 1.0}}])
def test_impossible_table_names_the_amp(table):
    with pytest.raises(PayloadError, match="A"):
        linearity_of(table, ("A",))
