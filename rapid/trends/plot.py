"""Draw trends: numbers over time with what happened beside them, and the drift over the focal plane."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rapid.camera.geometry import corners_mm, extent_mm
from rapid.camera.models import Camera
from rapid.errors import ConfigurationError
from rapid.trends.events import TrendEvents
from rapid.trends.models import DriftMap, Kind, SeriesHistory, date_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
DRIFT_VALUES = {
    "change": "change",
    "percent": "change_percent",
    "sigma": "change_sigma",
    "slope": "slope_per_day",
    "last": "last",
}
"""What a map may show, by its word on the command line."""

_CALIB, _EXCLUDED, _ALARM, _ACKNOWLEDGED = "#5aa9e6", "#8d99ae", "#d1495b", "#c9a227"


def format_of(path: Path) -> str:
    """Return a picture's format by the end of its name; raises `ConfigurationError` for one that is not drawn."""
    word = path.suffix.removeprefix(".").lower()
    if word not in FORMATS:
        raise ConfigurationError("plot", f"{path.name} ends in none of {', '.join('.' + one for one in FORMATS)}")
    return word


def plot_history(
    histories: Sequence[SeriesHistory],
    events: TrendEvents,
    *,
    file_format: str = "png",
    dpi: int = 110,
) -> bytes:
    """Draw a detector's numbers over time, one panel for each way they are measured.

    Dashed lines are calibs that became valid, grey bands what was excluded, red marks alarms (yellow once acknowledged).
    """
    from matplotlib.figure import Figure

    n = max(len(histories), 1)
    figure = Figure(figsize=(11, 2.2 + 2.6 * n), dpi=dpi, layout="constrained")
    panels = figure.subplots(n, 1, squeeze=False, sharex=True)[:, 0]
    for axes, history in zip(panels, histories, strict=False):
        days = np.array([date_of(day) for day in history.days], dtype="datetime64[D]")
        shown = {amp: v for amp, v in history.amps.items() if amp} or history.amps
        for place, (amp, values) in enumerate(sorted(shown.items())):
            numbers = np.array([np.nan if v is None else v for v in values])
            colour = f"C{place % 10}"
            axes.plot(days, numbers, ".", ms=3, color=colour, alpha=0.8)
            axes.plot(days, numbers, "-", lw=0.6, color=colour, alpha=0.5, label=amp or history.detector_name)
        axes.set_ylabel(history.key.metric + (f" [{history.unit}]" if history.unit else ""))
        axes.set_title(f"{history.detector_name}: {history.key.title}", fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        if len(shown) <= 16:
            axes.legend(fontsize=6, ncols=8, loc="upper left", framealpha=0.6)
        _draw_events(axes, history, events)
    panels[-1].set_xlabel("observing day")
    return _saved(figure, file_format)


def _draw_events(axes: "Axes", history: SeriesHistory, events: TrendEvents) -> None:
    x: Any
    for boundary in events.calibs:
        x = np.datetime64(date_of(boundary.day))
        axes.axvline(x, color=_CALIB, lw=0.9, ls="--")
        axes.annotate(
            f"{boundary.kind} v{boundary.version}",
            (x, 1.0),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=6,
            color=_CALIB,
            ha="right",
            va="top",
        )
    for gone in events.exclusions:
        last = gone.last_day or history.days[-1]
        begin = np.datetime64(date_of(max(gone.first_day, history.days[0])))
        end = np.datetime64(date_of(max(min(last, history.days[-1]), gone.first_day)))
        axes.axvspan(begin, end + np.timedelta64(1, "D"), color=_EXCLUDED, alpha=0.25, lw=0)  # type: ignore[arg-type]  # matplotlib takes dates
    key = history.key
    for alarm in events.alarms:
        if (alarm.image_type, alarm.condition, alarm.pipeline) != (key.image_type, key.condition, key.pipeline):
            continue
        x = np.datetime64(date_of(alarm.onset_day))
        colour = _ACKNOWLEDGED if alarm.acknowledged_at else _ALARM
        axes.axvline(x, color=colour, lw=1.2, ls=":" if alarm.kind is Kind.OUTLIER else "-")
        axes.annotate(
            f"{alarm.amp or alarm.scope.value} {alarm.kind.value}",
            (x, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=6,
            color=colour,
            ha="right",
            va="bottom",
        )


def plot_map(
    camera: Camera, drift: DriftMap, *, show: str = "change", file_format: str = "png", dpi: int = 110
) -> bytes:
    """Draw how a number changed, for every amp at its place in the focal plane.

    Parameters
    ----------
    show
        A key of `DRIFT_VALUES`.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    field = DRIFT_VALUES[show]
    polygons, values = [], []
    for detector in camera.detectors:
        own = drift.amps.get(detector.id)
        if own is None:
            continue
        corners = np.asarray(corners_mm(detector), float)
        for amp in detector.amps:
            facts = own.get(amp.name) or own.get("")
            value = getattr(facts, field) if facts is not None else None
            box = amp.trimmed
            # An amp's corners are the same part of the detector's as of its pixels.
            u = np.array([box.x0, box.x1, box.x1, box.x0]) / detector.width
            v = np.array([box.y0, box.y0, box.y1, box.y1]) / detector.height
            origin, along, up = corners[0], corners[1] - corners[0], corners[3] - corners[0]
            polygons.append(origin + u[:, None] * along + v[:, None] * up)
            values.append(np.nan if value is None else value)
    numbers = np.ma.masked_invalid(np.array(values, float))
    figure = Figure(figsize=(9.5, 8.5), dpi=dpi, layout="constrained")
    axes = figure.add_subplot()
    drawn = PolyCollection(polygons, array=numbers, cmap="viridis" if show == "last" else "RdBu_r", edgecolors="none")
    if numbers.count():
        low, high = np.percentile(numbers.compressed(), [1.0, 99.0])
        if show != "last":
            high = max(abs(low), abs(high)) or 1.0
            low = -high
        drawn.set_clim(low, high if high > low else low + 1.0)
    axes.add_collection(drawn)
    x0, x1, y0, y1 = extent_mm(camera)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal", xlabel="x [mm]", ylabel="y [mm]")
    unit = {"percent": "%", "sigma": "sigma", "slope": f"{drift.unit}/day".lstrip("/")}.get(show, drift.unit)
    figure.colorbar(drawn, ax=axes, label=f"{field.replace('_', ' ')}" + (f" [{unit}]" if unit else ""), shrink=0.85)
    axes.set_title(
        f"{drift.key.camera}: {drift.key.title}\n{date_of(drift.first_day)} to {date_of(drift.last_day)}, "
        f"{drift.n_exposures} exposures",
        fontsize=10,
    )
    return _saved(figure, file_format)


def _saved(figure: "Figure", format_: str) -> bytes:
    out = BytesIO()
    figure.savefig(out, format=format_)
    return out.getvalue()
