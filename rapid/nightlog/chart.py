"""A number through the night as a picture of lines and dots: SVG, so that a report is one file and sharp on paper."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

from rapid.nightlog.report_models import Series

WIDTH, HEIGHT = 720.0, 190.0
LEFT, RIGHT, TOP, FOOT = 56.0, 12.0, 14.0, 26.0

SHAPES = {"u": "triangle", "g": "square", "r": "circle", "i": "diamond", "z": "triangle", "y": "square"}
"""By band: a filter is told by shape as well as by colour."""


def chart(series: Series, *, begin: datetime | None, end: datetime | None) -> Markup:
    """Return a chart as an ``svg`` element; its colours are classes of the page.

    Parameters
    ----------
    begin, end
        Of the night: marked, and shown as far as there are points near them.
    """
    times = [point.at for point in series.points]
    first, last = min(times), max(times)
    slack = max((last - first) * 0.02, timedelta(minutes=3))
    first, last = first - slack, last + slack
    lows = [point.value - (point.error or 0.0) for point in series.points]
    highs = [point.value + (point.error or 0.0) for point in series.points]
    low, high = min(lows), max(highs)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    span_s = (last - first).total_seconds()

    def x(at: datetime) -> float:
        return LEFT + (at - first).total_seconds() / span_s * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - FOOT - (value - low) / (high - low) * (HEIGHT - FOOT - TOP)

    parts = []
    for tick in round_ticks(low, high, 5):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y(tick) + 4:.1f}">{_text(tick, low, high)}</text>')
    for at in _hours(first, last):
        parts.append(
            f'<line class="tick" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{HEIGHT - FOOT}" y2="{HEIGHT - FOOT + 4}"/>'
        )
        parts.append(f'<text class="middle" x="{x(at):.1f}" y="{HEIGHT - 8}">{at:%H:%M}</text>')
    for edge, word in ((begin, "sun −12°"), (end, "sun −12°")):
        if edge is not None and first < edge < last:
            parts.append(f'<line class="edge" x1="{x(edge):.1f}" x2="{x(edge):.1f}" y1="{TOP}" y2="{HEIGHT - FOOT}"/>')
            parts.append(f'<text x="{x(edge) + 4:.1f}" y="{TOP + 8}">{word}</text>')
    for point in series.points:
        band = (point.physical_filter or "").removeprefix("SDSS").strip()[:1].lower()
        px, py = x(point.at), y(point.value)
        title = (
            f"{point.seq_num:06d} {point.physical_filter or ''} {point.at:%H:%M:%S} UTC: "
            f"{point.value:.{series.decimals}f} {series.unit}"
        )
        error = point.error or 0.0
        bar = f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{y(point.value - error):.1f}" y2="{y(point.value + error):.1f}"/>'
        shape = _shape(SHAPES.get(band, "circle"), px, py)
        parts.append(
            f'<g class="band-{band or "none"}"><title>{escape(title)}</title>{bar if error else ""}{shape}</g>'
        )
    label = f"{series.title} through the night, {len(series.points)} exposures"
    return Markup(  # noqa: S704 - numbers of ours; the one text is escaped
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def round_ticks(low: float, high: float, n: int) -> Sequence[float]:
    """Return some round numbers between two others.

    Examples
    --------
    >>> [round(tick, 6) for tick in round_ticks(0.71, 1.02, 4)]
    [0.8, 0.9, 1.0]
    """
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, first + 20) if k * step <= high + 1e-9 * step]


def _text(value: float, low: float, high: float) -> str:
    decimals = max(0, -math.floor(math.log10((high - low) / 5.0)))
    text = f"{value:.{min(decimals, 6)}f}"
    return text.replace("-", "−") if float(text) else text.replace("-", "")


def _hours(first: datetime, last: datetime) -> list[datetime]:
    minutes = (last - first).total_seconds() / 60.0
    step = next((m for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 240) if minutes / m <= 9), 360)
    start = math.ceil(first.timestamp() / 60.0 / step) * step
    stop = last.timestamp() / 60.0
    return [datetime.fromtimestamp(60.0 * at, tz=UTC) for at in range(start, math.floor(stop) + 1, step)]


def _shape(kind: str, x: float, y: float) -> str:
    r = 3.2
    if kind == "square":
        return (
            f'<rect x="{x - r + 0.4:.1f}" y="{y - r + 0.4:.1f}" width="{2 * r - 0.8:.1f}" height="{2 * r - 0.8:.1f}"/>'
        )
    if kind == "diamond":
        return f'<path d="M{x:.1f} {y - r - 1:.1f}L{x + r + 1:.1f} {y:.1f}L{x:.1f} {y + r + 1:.1f}L{x - r - 1:.1f} {y:.1f}Z"/>'
    if kind == "triangle":
        return f'<path d="M{x:.1f} {y - r - 1:.1f}L{x + r + 0.6:.1f} {y + r:.1f}L{x - r - 0.6:.1f} {y + r:.1f}Z"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
