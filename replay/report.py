"""Show a comparison: as text for a terminal, and as one HTML file that needs nothing else."""

import html
import math
from collections.abc import Iterable, Iterator

from replay.check import CheckReport, Finding, MetricDifferences
from replay.recording import PixelKind

N_FIRST = 12
"""Findings before the pictures; what is missing is among them, values follow by the hundred."""

MAX_FINDINGS = 200
MAX_PLOTS = 24
WIDTH, HEIGHT, MARGIN = 360, 130, 34
TEXT_PX = 11
"""Height of a line of text in a plot."""

STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #b42318; --line: #8884; --dot: #2f6fab; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); }
figure { margin: 0; } figcaption { font-size: .85rem; }
svg { width: 100%; height: auto; } svg text { font-size: 10px; fill: currentColor; }
svg .axis { stroke: currentColor; stroke-opacity: .35; } svg .limit { stroke: var(--bad); stroke-dasharray: 4 3; }
svg .dot { fill: var(--dot); fill-opacity: .6; } svg .out { fill: var(--bad); }
""".strip()


_OTHER_PIXELS = {
    PixelKind.SEED: "a replay simulates its pixels anew, which are not the recorded ones",
    PixelKind.BINNED: "of its pixels only means over squares were kept",
    PixelKind.STAMPS: "of its pixels only the brightest sources were kept",
    PixelKind.RICE: "a replay has other pixels than were recorded",
}


def render_text(report: CheckReport, *, limit: int = 40) -> str:
    """Return a comparison as text.

    Parameters
    ----------
    limit
        Findings that are told one by one.
    """
    lines = [_headline(report), _scope(report)]
    if report.invariants:
        lines.append(
            "invariants  "
            + "  ".join(
                f"{name} {'holds' if not problems else f'BROKEN ({len(problems)})'}"
                for name, problems in report.invariants.items()
            )
        )
    if report.differences:
        lines += ["", f"{'metric':36}{'values':>8}{'outside':>9}{'worst / allowed':>17}"]
        lines += [
            f"{one.metric:36}{len(one.expected):>8}{one.n_outside:>9}{_number(one.worst):>17}"
            for one in _worst_first(report.differences.values())[:12]
        ]
    if report.findings:
        lines += ["", *(_finding_line(finding) for finding in _sorted(report.findings)[:limit])]
        if len(report.findings) > limit:
            lines.append(f"and {len(report.findings) - limit} more")
    return "\n".join(lines)


def _headline(report: CheckReport) -> str:
    if report.is_good:
        return "the replay is as it should be"
    counts = ", ".join(f"{n} {name}" for name, n in report.count().items())
    n = len(report.findings)
    return f"{n} {'finding' if n == 1 else 'findings'}: {counts}"


def _scope(report: CheckReport) -> str:
    manifest = report.expected.manifest
    exposures = {summary.exposure for summary in report.expected.summaries}
    title = f"{manifest.title}: " if manifest.title else ""
    values = f"{report.n_values} values compared"
    if not report.has_numbers:
        values = f"no values compared: {_OTHER_PIXELS[manifest.pixels]} (with -t tolerances they are)"
    if report.latencies and not report.has_budget:
        values += "; latencies not compared: no loop was measured beside them"
    if report.unused:
        values += f"; no metric is called {', '.join(report.unused)}, as the tolerances say"
    return f"{title}{manifest.camera}, {len(exposures)} exposures, {values}"


def _finding_line(finding: Finding) -> str:
    return f"{finding.kind.value:17} {finding.where}: {finding.message}"


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "nothing allowed"


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    # What is missing first, then values, the worst first.
    return sorted(findings, key=lambda one: (one.excess > 0, -one.excess, one.kind.value, one.where))


def _worst_first(differences: Iterable[MetricDifferences]) -> list[MetricDifferences]:
    return sorted(differences, key=lambda one: (-one.n_outside, -one.worst, one.metric))


def render_html(report: CheckReport, *, title: str = "") -> str:
    """Return a comparison as one HTML file: no scripts, no fonts, nothing fetched.

    Parameters
    ----------
    title
        What is compared; a recording and its replay if left out.
    """
    title = title or f"Replay of {report.expected.manifest.title or report.expected.manifest.camera}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            *_body(report, title),
            "</body></html>",
        ]
    )


def _body(report: CheckReport, title: str) -> Iterator[str]:
    mark = "good" if report.is_good else "bad"
    yield f"<h1>{html.escape(title)}</h1>"
    yield f'<p class="{mark}"><strong>{html.escape(_headline(report))}</strong></p>'
    yield f"<p>{html.escape(_scope(report))}</p>"
    if report.expected.manifest.story:
        yield f"<p>{html.escape(report.expected.manifest.story)}</p>"
    findings = _sorted(report.findings)
    if findings:
        yield "<h2>Findings</h2>"
        yield from _finding_table(findings[:N_FIRST])
    if report.invariants:
        yield "<h2>Invariants</h2>"
        yield from _table(
            ("invariant", "", "first problem"),
            (
                [name, _problems(len(problems)), problems[0] if problems else ""]
                for name, problems in report.invariants.items()
            ),
        )
    if report.latencies:
        yield "<h2>Latency</h2>"
        yield _latency_plot(report)
    if report.differences:
        yield "<h2>Differences</h2>"
        yield '<div class="plots">'
        yield from (_metric_plot(one) for one in _worst_first(report.differences.values())[:MAX_PLOTS])
        yield "</div>"
        yield from _metric_table(report)
    if len(findings) > N_FIRST:
        yield "<h2>More findings</h2>"
        yield from _finding_table(findings[N_FIRST:MAX_FINDINGS])
    if len(findings) > MAX_FINDINGS:
        yield f"<p>and {len(findings) - MAX_FINDINGS} more</p>"


def _finding_table(findings: Iterable[Finding]) -> Iterator[str]:
    yield from _table(("what", "where", "how"), ([one.kind.value, one.where, one.message] for one in findings))


def _problems(n: int) -> str:
    return f"{n} {'problem' if n == 1 else 'problems'}" if n else "holds"


def _table(heads: Iterable[str], rows: Iterable[list[str]], n_from: int | None = None) -> Iterator[str]:
    def cells(tag: str, texts: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if n_from is not None and place >= n_from else ''}>{html.escape(text)}</{tag}>"
            for place, text in enumerate(texts)
        )

    yield f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{cells('td', row)}</tr>"
    yield "</tbody></table>"


def _metric_table(report: CheckReport) -> Iterator[str]:
    yield from _table(
        ("metric", "values", "outside", "worst / allowed", "allowed"),
        (
            [one.metric, str(len(one.expected)), str(one.n_outside), _number(one.worst), _allowed(one)]
            for one in _worst_first(report.differences.values())
        ),
        n_from=1,
    )


def _allowed(one: MetricDifferences) -> str:
    parts = []
    if one.tolerance.rel:
        parts.append(f"{one.tolerance.rel:.3g} of it")
    if one.tolerance.abs:
        parts.append(f"{one.tolerance.abs:.3g}")
    return " or ".join(parts) or "nothing"


def _metric_plot(one: MetricDifferences) -> str:
    """Return differences of a metric in units of what is allowed, in the order of the night."""
    values = []
    for before, after in zip(one.expected, one.found, strict=True):
        excess = one.tolerance.excess(before, after) * (1.0 if after >= before else -1.0)
        values.append(excess if math.isfinite(excess) else math.copysign(10.0, excess))
    top = max(1.5, max((abs(value) for value in values), default=0.0) * 1.1)
    middle, scale = HEIGHT / 2, (HEIGHT / 2 - 8) / top
    step = (WIDTH - MARGIN - 8) / max(len(values), 1)
    dots = "".join(
        f'<circle class="dot{" out" if abs(value) > 1 else ""}" cx="{MARGIN + (place + 0.5) * step:.1f}" '
        f'cy="{middle - value * scale:.1f}" r="{2.2 if len(values) < 400 else 1.2}"><title>'
        f"{html.escape(where)}: {after:.6g} instead of {before:.6g}</title></circle>"
        for place, (value, where, before, after) in enumerate(
            zip(values, one.where, one.expected, one.found, strict=True)
        )
    )
    limits = "".join(
        f'<line class="limit" x1="{MARGIN}" x2="{WIDTH}" y1="{middle - sign * scale:.1f}" '
        f'y2="{middle - sign * scale:.1f}"/>'
        for sign in (-1, 1)
    )
    return (
        f"<figure><figcaption>{html.escape(one.metric)}: difference over what is allowed</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(one.metric)}">'
        f'<line class="axis" x1="{MARGIN}" x2="{WIDTH}" y1="{middle}" y2="{middle}"/>{limits}'
        f'<text x="2" y="{middle + 3}">0</text>{_marks(top, middle, scale)}{dots}</svg></figure>'
    )


def _marks(top: float, middle: float, scale: float) -> str:
    """Return the numbers beside a plot: what is allowed, or how far the farthest is off if that leaves no room for it."""
    worst = top / 1.1
    mark = 1.0 if scale >= TEXT_PX else worst
    said = "1" if scale >= TEXT_PX else f"{worst:.2g}"
    return "".join(
        f'<text x="2" y="{middle - sign * mark * scale + 3:.1f}">{"+" if sign > 0 else "-"}{said}</text>'
        for sign in (1, -1)
    )


def _latency_plot(report: CheckReport) -> str:
    """Return latencies then and now, by exposure, in calibration loops where both were measured."""
    loop_then, loop_now = report.expected.manifest.loop_s, report.found.manifest.loop_s
    in_loops = loop_then is not None and loop_now is not None
    unit = "calibration loops" if in_loops else "s"
    points = [
        (name, then / (loop_then or 1.0) if in_loops else then, now / (loop_now or 1.0) if in_loops else now)
        for name, then, now in report.latencies
    ]
    width, height = 2 * WIDTH, HEIGHT + 20
    top = max(max(then, now) for _, then, now in points) * 1.1 or 1.0
    step = (width - 50) / max(len(points), 1)

    def y(value: float) -> float:
        return height - 18 - (height - 30) * max(value, 0.0) / top

    marks = "".join(
        f'<line class="axis" x1="{45 + (place + 0.5) * step:.1f}" x2="{45 + (place + 0.5) * step:.1f}" '
        f'y1="{y(then):.1f}" y2="{y(now):.1f}"/>'
        f'<circle class="axis" fill="none" cx="{45 + (place + 0.5) * step:.1f}" cy="{y(then):.1f}" r="2.5"/>'
        f'<circle class="dot" cx="{45 + (place + 0.5) * step:.1f}" cy="{y(now):.1f}" r="2.5"><title>'
        f"{html.escape(name)}: {now:.3g}, then {then:.3g} {unit}</title></circle>"
        for place, (name, then, now) in enumerate(points)
    )
    return (
        f"<figure><figcaption>From the last raw to the summary [{unit}]; open: then, filled: now</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="latency">'
        f'<line class="axis" x1="45" x2="{width}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>'
        f'<text x="2" y="{y(top / 1.1) + 3:.1f}">{top / 1.1:.3g}</text><text x="2" y="{y(0) + 3:.1f}">0</text>'
        f"{marks}</svg></figure>"
    )
