"""A night in texts and plots, for RubinTV's page "Night's Evolution"."""

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rapid.results.models import ExposureSummary

BAND_COLOURS = {"u": "#0c71ff", "g": "#49be61", "r": "#c61c00", "i": "#ffc200", "z": "#f341a2", "y": "#5d0000"}
"""The bands' colours of the Rubin plotting guide."""

NO_BAND = "#555555"


@dataclass(frozen=True)
class NightPoint:
    """What the report keeps of one exposure."""

    exposure: int
    seq_num: int
    begin: datetime | None
    image_type: str
    band: str | None
    exposure_time_s: float | None
    n_finished: int
    n_expected: int
    n_failed: int
    metrics: Mapping[str, float]


_KEPT = {
    "fwhm": ("psf_fwhm_arcsec_median",),
    "fwhm_zenith": ("psf_fwhm_zenith_arcsec_median",),
    "ellipticity": ("psf_e_median",),
    "sky": ("sky_level_e_median",),
    "defocus": ("defocus_residual_um_median", "defocus_um_median"),
    "zero_point": ("zero_point_mag_median",),
    "transparency": ("transparency_median",),
    "read_noise": ("read_noise_median_electron_median",),
}


def point_of(summary: ExposureSummary) -> NightPoint:
    """Return what the report keeps of a summary."""
    metrics = {}
    for name, keys in _KEPT.items():
        for key in keys:
            value = summary.metrics.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                metrics[name] = float(value)
                break
    return NightPoint(
        exposure=summary.exposure,
        seq_num=summary.seq_num,
        begin=_time(summary.info.get("begin")),
        image_type=summary.image_type,
        band=summary.info.get("band"),
        exposure_time_s=_number(summary.info.get("exposure_time_s")),
        n_finished=summary.n_finished,
        n_expected=summary.n_expected,
        n_failed=sum(status.state.value in {"failed", "quarantined"} for status in summary.detectors.values()),
        metrics=metrics,
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None


def report_texts(
    points: Sequence[NightPoint], *, camera: str, day_obs: int, links: Mapping[str, str]
) -> dict[str, str]:
    """Return the texts of a night's report.

    RubinTV shows what begins with ``text_`` in its tab "Efficiency", and everything else as links.
    """
    texts = {
        "text_010_night": _about(points, camera=camera, day_obs=day_obs),
        "text_020_quality": _quality(points),
        "text_030_processing": _processing(points),
    }
    # An empty line sets them apart on the page.
    return {name: f"{text}\n" for name, text in texts.items() if text} | dict(links)


def _about(points: Sequence[NightPoint], *, camera: str, day_obs: int) -> str:
    lines = [f"{camera}, night of {day_obs}: {len(points)} exposures"]
    counts = Counter(point.image_type for point in points)
    lines += [f"  {image_type}: {n}" for image_type, n in sorted(counts.items())]
    sky = [point for point in points if point.image_type not in {"bias", "dark", "flat"}]
    bands = Counter(point.band or "no filter" for point in sky)
    if bands:
        lines.append("On the sky, by band: " + ", ".join(f"{band} {n}" for band, n in sorted(bands.items())))
    times = sorted((point.begin, point.exposure_time_s or 0.0) for point in sky if point.begin is not None)
    open_s = sum(point.exposure_time_s or 0.0 for point in sky)
    if len(times) > 1:
        span_s = (times[-1][0] - times[0][0]).total_seconds() + times[-1][1]
        lines.append(f"First on the sky {times[0][0]:%H:%M:%S} TAI, last {times[-1][0]:%H:%M:%S} TAI")
        if span_s > 0:
            lines.append(f"Shutter open {open_s / 60:.1f} min, {100 * open_s / span_s:.0f} % of the time between them")
    return "\n".join(lines)


def _quality(points: Sequence[NightPoint]) -> str:
    lines = []
    for name, title, unit in (
        ("fwhm", "Seeing", '"'),
        ("fwhm_zenith", "Seeing at zenith, 500 nm", '"'),
        ("ellipticity", "Ellipticity", ""),
        ("transparency", "Transparency", ""),
        ("read_noise", "Read noise", " e"),
    ):
        values = sorted(point.metrics[name] for point in points if name in point.metrics)
        if values:
            middle = values[len(values) // 2]
            lines.append(
                f"{title}: median {middle:.3g}{unit}, from {values[0]:.3g} to {values[-1]:.3g} ({len(values)})"
            )
    return "\n".join(lines)


def _processing(points: Sequence[NightPoint]) -> str:
    if not points:
        return ""
    whole = sum(point.n_finished >= point.n_expected for point in points)
    lines = [f"Processed: {whole} of {len(points)} exposures with every detector"]
    for point in points:
        if point.n_finished < point.n_expected:
            failed = f", {point.n_failed} failed" if point.n_failed else ""
            lines.append(f"  {point.seq_num}: {point.n_finished} of {point.n_expected} detectors{failed}")
        if len(lines) > 40:
            lines.append("  ...")
            break
    return "\n".join(lines)


@dataclass(frozen=True)
class NightFigure:
    """One plot of the report.

    Attributes
    ----------
    group
        The tab it stands under.
    """

    group: str
    name: str
    title: str
    metric: str
    unit: str

    def is_due(self, points: Sequence[NightPoint]) -> bool:
        """Whether a night has anything to plot."""
        return sum(self.metric in point.metrics and point.begin is not None for point in points) >= 2


FIGURES = (
    NightFigure("Image-quality", "seeing", "Seeing", "fwhm", "FWHM [arcsec]"),
    NightFigure("Image-quality", "ellipticity", "Ellipticity", "ellipticity", "e"),
    NightFigure("Image-quality", "defocus", "Defocus", "defocus", "um"),
    NightFigure("Sky", "sky_level", "Sky level", "sky", "e per pixel"),
    NightFigure("Sky", "zero_point", "Zero point", "zero_point", "mag"),
    NightFigure("Sky", "transparency", "Transparency", "transparency", "fraction"),
    NightFigure("Camera", "read_noise", "Read noise", "read_noise", "e"),
)


def draw_figure(figure_of: NightFigure, points: Sequence[NightPoint], *, camera: str, day_obs: int) -> bytes:
    """Return a PNG of one number over the night, by band."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import DateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    by_band: dict[str, list[NightPoint]] = {}
    for point in points:
        if figure_of.metric in point.metrics and point.begin is not None:
            by_band.setdefault(point.band or "none", []).append(point)
    markers = dict(zip("ugrizy", "^osD*v", strict=True))
    for band, found in sorted(by_band.items()):
        dates: list[Any] = [point.begin for point in found]
        axes.plot(
            dates,
            [point.metrics[figure_of.metric] for point in found],
            markers.get(band, "x"),
            color=BAND_COLOURS.get(band, NO_BAND),
            ms=5,
            label=band,
        )
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))  # type: ignore[no-untyped-call]  # matplotlib's own
    axes.set_xlabel("begin of the exposure, TAI")
    axes.set_ylabel(figure_of.unit)
    axes.set_title(f"{figure_of.title}: {camera}, night of {day_obs}")
    axes.grid(alpha=0.3)
    axes.legend(title="band")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return out.getvalue()
