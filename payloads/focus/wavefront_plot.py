"""Plots of a wavefront: its terms and their change over the field; donuts, models and what is left."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from payloads.focus.plot import BACKGROUND, BEST, CURVE, FAINT, INK, POINT
from payloads.focus.wavefront import NOLL

if TYPE_CHECKING:
    from payloads.focus.joint import FittedPair, JointReport

SITE_COLOURS = (CURVE, POINT, "#e87bb1", "#b39ddb")
"""Of up to four sites; more share one colour and the field's mean stands out."""
MAX_DONUT_ROWS = 4
ASTIGMATISM_UM_PER_DEG = 0.5
"""Scale of the bars on the map: so many micrometres are as long as a degree."""


def _figure(width: float, height: float) -> Figure:
    # Figure without pyplot: no global state.
    figure = Figure(figsize=(width, height), dpi=120, facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", facecolor=BACKGROUND)
    return out.getvalue()


def _dress(axes: Any) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.tick_params(colors=INK)
    axes.grid(color=FAINT, alpha=0.25, lw=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(FAINT)


def plot_wavefront(report: "JointReport", *, title: str = "Wavefront") -> bytes:
    """Draw the Zernikes of every site with errors, and a map of the field.

    Parameters
    ----------
    report
        With at least one site.

    Returns
    -------
    png
        Image file, 1440 x 660 pixels.

    Raises
    ------
    ValueError
        Raised if the report has no site.
    """
    if report.field is None:
        raise ValueError("a wavefront without a site cannot be drawn")
    figure = _figure(12.0, 5.5)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
    _dress(left)
    _dress(right)
    few = len(report.sites) <= len(SITE_COLOURS)
    for place, site in enumerate(report.sites):
        shift = (place - (len(report.sites) - 1) / 2) * (0.6 / max(len(report.sites), 1))
        left.errorbar(
            np.array(NOLL) + shift,
            site.zernikes_um,
            yerr=site.errors_um if few else None,
            fmt="o",
            ms=5 if few else 2,
            color=SITE_COLOURS[place] if few else FAINT,
            elinewidth=1.2,
            label=f"{site.name} ({site.n_pairs})" if few else None,
        )
    mean, error = np.array(report.field.coefficients_um[0]), np.array(report.field.errors_um[0])
    left.bar(NOLL, mean, width=0.85, yerr=error, color=BEST, ecolor=BEST, alpha=0.35, label="mean of the field")
    left.axhline(0.0, color=FAINT, lw=1)
    left.set_xticks(NOLL, [f"Z{j}" for j in NOLL], fontsize=8)
    left.set_ylabel("beyond the perfect telescope [µm]", color=INK)
    left.legend(frameon=False, labelcolor=INK, fontsize=9, ncols=5, loc="upper right")
    left.set_title(title, color=INK, loc="left", fontsize=11, pad=24)
    field = report.field
    left.text(
        0.0,
        1.015,
        f"aberrations {field.aberration_fwhm_arcsec:.2f}″     focus {field.focus_offset_um:+.1f} ± "
        f"{field.focus_offset_error_um:.1f} µm     {report.n_pairs} pairs at {len(report.sites)} sites",
        transform=left.transAxes,
        color=BEST,
        fontsize=11,
        weight="bold",
        va="bottom",
    )
    _draw_map(right, report)
    return _png(figure)


def _draw_map(axes: Any, report: "JointReport") -> None:
    """Draw Z4 as colour and the astigmatism as bars along the image's long axis on the extra-focal side."""
    x = np.array([site.thx_deg for site in report.sites])
    y = np.array([site.thy_deg for site in report.sites])
    z4, z5, z6 = (np.array([site.zernikes_um[k] for site in report.sites]) for k in range(3))
    limit = max(float(np.abs(z4).max()), 0.05)
    points = axes.scatter(x, y, c=z4, cmap="PuOr", vmin=-limit, vmax=limit, s=90, edgecolors=INK, lw=0.6, zorder=3)
    bar = axes.figure.colorbar(points, ax=axes, shrink=0.8)
    bar.set_label("Z4 [µm]", color=INK)
    bar.ax.tick_params(colors=INK)
    half = 0.5 * np.hypot(z5, z6) / ASTIGMATISM_UM_PER_DEG
    angle = 0.5 * np.arctan2(z5, z6)
    dx, dy = half * np.cos(angle), half * np.sin(angle)
    axes.plot(np.stack([x - dx, x + dx]), np.stack([y - dy, y + dy]), color=POINT, lw=2, zorder=4)
    if len(report.sites) <= 9:
        for site in report.sites:
            axes.annotate(
                site.name,
                (site.thx_deg, site.thy_deg),
                textcoords="offset points",
                xytext=(9, 7),
                color=INK,
                fontsize=9,
            )
    reach = max(float(np.abs(x).max()), float(np.abs(y).max()), 0.2) * 1.35
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_xlabel("field angle x, camera's axes [°]", color=INK)
    axes.set_ylabel("y [°]", color=INK)
    axes.set_title(
        f"Z4, and astigmatism (bar: {ASTIGMATISM_UM_PER_DEG:g} µm per degree)", color=INK, loc="left", fontsize=10
    )


def plot_donuts(pairs: "list[FittedPair]", *, title: str = "Donuts") -> bytes:
    """Draw the donuts of the first pair of some sites, the fitted models, and what is left in units of the noise.

    Returns
    -------
    png
        One row per pair, at most four: extra-focal donut, model, residual, then the intra-focal ones.

    Raises
    ------
    ValueError
        Raised if there is no pair.
    """
    firsts = sorted({pair.site: pair for pair in reversed(pairs)}.values(), key=lambda pair: pair.site)[:MAX_DONUT_ROWS]
    if not firsts:
        raise ValueError("no donuts to draw")
    figure = _figure(12.0, 2.1 * len(firsts) + 0.5)
    rows = figure.subplots(len(firsts), 6, squeeze=False)
    for row, pair in zip(rows, firsts, strict=True):
        both = ((pair.extra.stamp, "extra"), (pair.intra.stamp, "intra"))
        for side, ((stamp, name), model) in enumerate(zip(both, pair.fit.models, strict=True)):
            left = (stamp.image - model) / np.sqrt(np.maximum(model, 0.0) + stamp.sky_variance)
            top = float(np.percentile(model, 99.5))
            images = (
                (stamp.image, f"{pair.site} {name}", "viridis", -0.05 * top, top),
                (model, f"model, {pair.fit.fwhm_arcsec[side]:.2f}″", "viridis", -0.05 * top, top),
                (left, f"left, χ²/ν {pair.fit.chi2_per_dof:.2f}" if side == 0 else "left [σ]", "PuOr", -5.0, 5.0),
            )
            for place, (image, label, colours, low, high) in enumerate(images):
                axes = row[3 * side + place]
                axes.imshow(image, origin="lower", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
                axes.set_title(label, color=INK, fontsize=9)
                axes.set_xticks([])
                axes.set_yticks([])
                for spine in axes.spines.values():
                    spine.set_color(FAINT)
    figure.suptitle(title, color=INK, fontsize=11, x=0.01, ha="left")
    return _png(figure)
