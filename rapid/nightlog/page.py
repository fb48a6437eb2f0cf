"""The report of a night as one HTML file: nothing of it is loaded from anywhere, so it can be mailed and kept."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from rapid.nightlog.chart import chart
from rapid.nightlog.report_models import NightReport

DASH = "—"


def _number(value: float | None, decimals: int = 2) -> str:
    return DASH if value is None else f"{value:.{decimals}f}".replace("-", "−")


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"number": _number, "percent": _percent}


def render_report(report: NightReport, *, link_to: str = "") -> str:
    """Return a report as HTML.

    Parameters
    ----------
    link_to
        Address of a display, without the last slash: exposures then link to their pages. No links without it.
    """
    charts = [
        (series, chart(series, begin=report.efficiency.night_begin, end=report.efficiency.night_end))
        for series in report.series
    ]
    day = str(report.day_obs)
    shown_day = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return _ENVIRONMENT.get_template("report.html").render(report=report, charts=charts, day=shown_day, link_to=link_to)
