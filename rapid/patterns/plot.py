"""Show patterns to people: a picture of the focal plane, a sketch of letters, a sheet of all."""

from collections.abc import Collection, Mapping
from io import BytesIO
from math import ceil
from textwrap import fill
from typing import TYPE_CHECKING

from rapid.camera.geometry import corners_mm, extent_mm
from rapid.camera.models import Camera, Purpose
from rapid.patterns.layout import layout_of
from rapid.patterns.listing import list_patterns
from rapid.patterns.pattern import parse_pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BACKGROUND = "#0e1117"
_TEXT = "#e6e8ee"
_FAINT = "#626a78"
_OFF = "#1a1f29"
_EDGE = "#3a4150"
_ON = {Purpose.SCIENCE: "#f0a63c", Purpose.GUIDER: "#41b883", Purpose.WAVEFRONT: "#b47ae0"}
"""Amber, green and violet differ in lightness too, and a detector that is off is dark: no one needs the hues."""

FORMATS = ("png", "svg", "pdf")
MAX_TITLE = 240
"""Characters of a title: three lines."""


def plot_pattern(camera: Camera, ids: Collection[int], title: str, *, format: str = "png", dpi: int = 120) -> bytes:  # noqa: A002 - matplotlib's word
    """Draw the focal plane with some detectors lit, all with their numbers.

    Parameters
    ----------
    camera
        The camera.
    ids
        Detectors that are on.
    title
        What it shows.
    format
        One of `FORMATS`.
    dpi
        Dots per inch of a picture 11 inches wide.
    """
    figure = _figure(11, 11.4, dpi)
    axes = figure.add_subplot(facecolor=_BACKGROUND)
    _draw(axes, camera, ids, points_per_mm=9.6 * 72 / _width_mm(camera), labels=True)
    short = title if len(title) <= MAX_TITLE else f"{title[:MAX_TITLE]}..."
    axes.set_title(fill(short, 80), color=_TEXT, fontsize=15, pad=14, parse_math=False)
    axes.set_xlabel(_counts(camera, ids), color=_TEXT, fontsize=12, labelpad=10)
    return _saved(figure, format)


def plot_sheet(camera: Camera, named: Mapping[str, str] | None = None, *, format: str = "png", dpi: int = 110) -> bytes:  # noqa: A002 - matplotlib's word
    """Draw every pattern of a camera, built-in and saved, with all its phases, small on one sheet."""
    saved = {} if named is None else named
    names = [known.name for known in list_patterns(camera) if not known.needs_arguments] + sorted(saved)
    panels = []
    for name in names:
        cycle = parse_pattern(name).cycle(camera, saved)
        for phase, ids in enumerate(cycle):
            panels.append((f"{name}[{phase}]" if len(cycle) > 1 else name, ids))
    n_columns = min(6, len(panels))
    n_rows = ceil(len(panels) / n_columns)
    figure = _figure(2.7 * n_columns, 3.1 * n_rows, dpi)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, ids) in zip(grid.flat, panels, strict=False):
        _draw(axes, camera, ids, points_per_mm=0.0, labels=False)
        axes.set_title(f"{name}\n{len(ids)}", color=_TEXT, fontsize=10, parse_math=False)
    return _saved(figure, format)


def sketch(camera: Camera, ids: Collection[int]) -> str:
    """Return the science detectors as letters in their places, ``#`` on and ``.`` off, top row first.

    Examples
    --------
    >>> from rapid.camera.store import load_camera
    >>> print(sketch(load_camera("LSSTComCam"), {0, 4, 8}))
    . . #
    . # .
    # . .
    """
    layout = layout_of(camera)
    grid = layout.detectors
    cells = [["  "] * grid.n_columns for _ in range(grid.n_rows)]
    starts_row: set[int] = set()
    starts_column: set[int] = set()
    for detector_id, place in ((i, layout.place(i)) for i in sorted(layout.science)):
        cells[place.row][place.column] = "# " if detector_id in ids else ". "
        within = layout.place_in_raft(detector_id)
        starts_row |= {place.row} if within.row == 0 else set()
        starts_column |= {place.column} if within.column == 0 else set()
    lines = []
    for row in reversed(range(grid.n_rows)):
        # A blank before each raft but the first; not where every detector begins one.
        cut = len(starts_column) < grid.n_columns
        lines.append(
            "".join((" " if cut and column and column in starts_column else "") + cells[row][column]
                    for column in range(grid.n_columns)).rstrip()
        )  # fmt: skip
        if row and row in starts_row and len(starts_row) < grid.n_rows:
            lines.append("")
    return "\n".join(lines)


def _figure(width: float, height: float, dpi: int) -> "Figure":
    # Figure without pyplot: no global state, no display, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1)  # inches of air around each panel
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=_BACKGROUND, layout=engine)
    FigureCanvasAgg(figure)
    return figure


def _saved(figure: "Figure", format: str) -> bytes:  # noqa: A002 - matplotlib's word
    buffer = BytesIO()
    figure.savefig(buffer, format=format, facecolor=_BACKGROUND)
    return buffer.getvalue()


def _width_mm(camera: Camera) -> float:
    x_min, x_max, y_min, y_max = extent_mm(camera)
    return 1.04 * max(x_max - x_min, y_max - y_min)


def _draw(axes: "Axes", camera: Camera, ids: Collection[int], *, points_per_mm: float, labels: bool) -> None:
    from matplotlib.patches import Polygon

    for detector in camera.detectors:
        on = detector.id in ids
        face = _ON[detector.purpose] if on else _OFF
        axes.add_patch(Polygon(corners_mm(detector).tolist(), facecolor=face, edgecolor=_EDGE, linewidth=0.6))
        if labels:
            # Three digits of 0.6 em each, and some air.
            size = points_per_mm * min(min(detector.focal_plane_size_mm) / 2.2, max(detector.focal_plane_size_mm) / 2.6)
            axes.text(
                detector.x_mm,
                detector.y_mm,
                str(detector.id),
                color="#14161b" if on else _FAINT,
                fontsize=min(size, 22.0),
                fontweight="bold" if on else "normal",
                ha="center",
                va="center",
            )
    x_min, x_max, y_min, y_max = extent_mm(camera)
    half = _width_mm(camera) / 2
    axes.set_xlim((x_min + x_max) / 2 - half, (x_min + x_max) / 2 + half)
    axes.set_ylim((y_min + y_max) / 2 - half, (y_min + y_max) / 2 + half)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _counts(camera: Camera, ids: Collection[int]) -> str:
    """Return how many detectors of each purpose are on."""
    parts = []
    for purpose in Purpose:
        members = [detector.id for detector in camera.detectors if detector.purpose is purpose]
        n_on = sum(detector_id in ids for detector_id in members)
        if n_on or (members and purpose is Purpose.SCIENCE):
            parts.append(f"{n_on} of {len(members)} {purpose.value.lower()}")
    return f"{camera.name}: {', '.join(parts)}"
