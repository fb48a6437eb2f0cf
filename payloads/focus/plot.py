"""The best-focus plot."""

from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from payloads.focus.sweep import FocusFit

BACKGROUND = "#0e1116"
INK = "#d7dde5"
FAINT = "#5b6675"
CURVE = "#5ec8e5"
POINT = "#f2b84b"
BEST = "#7bd88f"
"""Light on dark for a control room; blue, amber and green stay apart for colour-blind eyes by brightness."""


def plot_focus_sweep(
    z_mm: ArrayLike,
    fwhm_arcsec: ArrayLike,
    fit: FocusFit,
    *,
    error_arcsec: ArrayLike | None = None,
    title: str = "Focus sweep",
) -> bytes:
    """Draw the points, the curve and best focus.

    Parameters
    ----------
    z_mm, fwhm_arcsec, error_arcsec
        As given to `payloads.focus.sweep.fit_focus_sweep`.

    Returns
    -------
    png
        Image file, 1200 x 750 pixels.
    """
    z, fwhm = np.asarray(z_mm, dtype=np.float64), np.asarray(fwhm_arcsec, dtype=np.float64)
    # Figure without pyplot: no global state, safe in any thread of a role.
    figure = Figure(figsize=(8.0, 5.0), dpi=150, facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(BACKGROUND)
    seen = np.isfinite(z) & np.isfinite(fwhm)
    low, high = float(z[seen].min()), float(z[seen].max())
    reach = 0.06 * (high - low)
    inside = low - 3 * reach <= fit.best_focus_mm <= high + 3 * reach
    left = min(low, fit.best_focus_mm) if inside else low
    right = max(high, fit.best_focus_mm) if inside else high
    grid = np.linspace(left - reach, right + reach, 300)
    axes.plot(grid * 1000.0, fit.fwhm_at(grid), color=CURVE, lw=2, zorder=2)
    used = fit.used & seen
    bars = None if error_arcsec is None else np.asarray(error_arcsec, dtype=np.float64)[used]
    axes.errorbar(z[used] * 1000.0, fwhm[used], yerr=bars, fmt="o", color=POINT, ms=7, capsize=3, lw=0, elinewidth=1.5)
    left_out = seen & ~fit.used
    if left_out.any():
        axes.plot(z[left_out] * 1000.0, fwhm[left_out], "x", color=FAINT, ms=9, mew=2, label="left out")
        axes.legend(frameon=False, labelcolor=INK, loc="lower left")
    if inside:
        best_um, error_um = fit.best_focus_mm * 1000.0, fit.best_focus_error_mm * 1000.0
        axes.axvline(best_um, color=BEST, lw=1.5, zorder=1)
        axes.axvspan(best_um - error_um, best_um + error_um, color=BEST, alpha=0.25, lw=0, zorder=0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("focus position [µm]", color=INK)
    axes.set_ylabel("FWHM [″]", color=INK)
    result = f"best focus {fit.best_focus_mm * 1000.0:+.1f} ± {fit.best_focus_error_mm * 1000.0:.1f} µm"
    if fit.best_fwhm_arcsec is not None:
        result += f"     {fit.best_fwhm_arcsec:.2f}″"
    if fit.is_outside_sweep:
        result += "     OUTSIDE THE SWEEP"
    axes.set_title(title, color=INK, loc="left", fontsize=11, pad=26)
    axes.text(0.0, 1.02, result, transform=axes.transAxes, color=BEST, fontsize=12, weight="bold", va="bottom")
    axes.tick_params(colors=INK)
    axes.grid(color=FAINT, alpha=0.25, lw=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(FAINT)
    out = BytesIO()
    figure.savefig(out, format="png", facecolor=BACKGROUND)
    return out.getvalue()
