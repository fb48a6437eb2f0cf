"""Best focus is unbiased where a parabola through the FWHM is not: a thousand noisy sweeps of each kind.

Beside each, what `numpy.polyfit` of the FWHM gives: the usual way, off by the asymmetry of the sweep about focus.
"""

import numpy as np
import pytest

from payloads.focus.sweep import fit_focus_sweep

K_ARCSEC_PER_UM = 0.0112
N_SWEEPS = 1000


@pytest.mark.parametrize(
    ("reach_um", "best_um", "parabola_um"),
    [
        pytest.param(100, 0, 0.0, id="100 um about focus"),
        pytest.param(100, 50, 5.3, id="100 um, focus half way out"),
        pytest.param(300, 80, -7.7, id="300 um, focus a quarter out"),
    ],
)
def test_best_focus_is_unbiased_over_a_thousand_sweeps_at_three_percent_noise(reach_um, best_um, parabola_um):
    rng = np.random.default_rng(17)
    z = np.linspace(-reach_um, reach_um, 9)
    curve = np.hypot(0.8, K_ARCSEC_PER_UM * (z - best_um))
    ours, errors, theirs, sizes = [], [], [], []
    for _ in range(N_SWEEPS):
        fwhm = curve * (1 + 0.03 * rng.normal(size=len(z)))
        fit = fit_focus_sweep(z / 1000, fwhm)
        ours.append(1000 * fit.best_focus_mm - best_um)
        errors.append(1000 * fit.best_focus_error_mm)
        if fit.best_fwhm_arcsec is not None:
            sizes.append(fit.best_fwhm_arcsec)
        a, b, _ = np.polyfit(z, fwhm, 2)
        theirs.append(-b / (2 * a) - best_um)
    standard_error = np.std(ours) / np.sqrt(N_SWEEPS)
    assert abs(np.mean(ours)) < min(1.0, 0.25 + 4 * standard_error)
    assert np.mean(theirs) == pytest.approx(parabola_um, abs=1.2)
    assert np.std(ours) == pytest.approx(np.mean(errors), rel=0.2)
    assert np.mean(sizes) == pytest.approx(0.8, abs=0.03)
    if parabola_um:
        assert abs(np.mean(theirs)) > 5 * abs(np.mean(ours))
        assert np.std(ours) < np.std(theirs)
