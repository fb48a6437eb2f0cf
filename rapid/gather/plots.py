"""Draw what scientists look at: maps of the FWHM and the zero point, and whiskers of the PSF.

With matplotlib, and therefore never while a summary is waited for: `rapid.gather.studio_child` calls it in a process of
its own. Colours are those of the pages, perceptually uniform, and the scale is always drawn.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from rapid.camera.models import Camera
from rapid.gather.sky_angles import altaz_axes
from rapid.gather.whiskers import PsfMap

INK, GROUND, PANEL, DIM = "#e8edf2", "#0e1116", "#161b22", "#9ba8b5"
LONGEST = 0.05
"""Length of the reference whisker, as a part of the focal plane's width."""
REFERENCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Ellipticities that it may stand for: the least that most whiskers are shorter than."""


def plot_map(camera: Camera, values: Mapping[int, float], *, title: str, label: str) -> bytes:
    """Return a map of one number per detector as a PNG.

    Parameters
    ----------
    values
        By detector number; detectors without one are outlined.
    label
        Quantity and unit, for the scale.
    """
    figure, axes = _canvas(camera, title)
    boxes, colours, empty = [], [], []
    for detector in camera.detectors:
        w, h = detector.focal_plane_size_mm
        box = Rectangle((detector.x_mm - w / 2, detector.y_mm - h / 2), w, h)
        if detector.id in values:
            boxes.append(box)
            colours.append(values[detector.id])
        else:
            empty.append(box)
    axes.add_collection(PatchCollection(empty, facecolor="none", edgecolor="#39424e", linewidth=0.4))
    if boxes:
        drawn = PatchCollection(boxes, cmap="viridis", edgecolor=GROUND, linewidth=0.4)
        drawn.set_array(np.array(colours))
        low, high = np.percentile(colours, (1, 99)) if len(colours) >= 30 else (min(colours), max(colours))
        drawn.set_clim(float(low), float(high) if high > low else float(low) + max(abs(float(low)) * 0.01, 1e-6))
        axes.add_collection(drawn)
        _scale(figure, axes, drawn, label)
        _place_extremes(camera, axes, values)
    return _png(figure)


def _place_extremes(camera: Camera, axes: Axes, values: Mapping[int, float]) -> None:
    """Name the detectors with the lowest and the highest value: the ones somebody will ask about."""
    for number in {min(values, key=lambda n: values[n]), max(values, key=lambda n: values[n])}:
        detector = camera.by_id[number]
        axes.annotate(
            detector.name, (detector.x_mm, detector.y_mm), color="#ffffff", fontsize=7, ha="center", va="center",
            bbox={"facecolor": GROUND, "alpha": 0.65, "pad": 1.2, "edgecolor": "none"},
        )  # fmt: skip


def plot_whiskers(camera: Camera, psf_map: PsfMap, *, title: str, is_altaz: bool) -> bytes:
    """Return the whiskers of a PSF map as a PNG: direction and size of the ellipticity, coloured by the FWHM.

    Parameters
    ----------
    is_altaz
        Azimuth to the right and altitude up, as on the sky; else the focal plane's x and y.

    Raises
    ------
    ValueError
        Raised for an alt-az plot of a map without the zenith's direction.
    """
    if is_altaz and psf_map.zenith_deg is None:
        raise ValueError("the direction of the zenith is not known")
    axes_of = altaz_axes(psf_map.zenith_deg or 0.0) if is_altaz else np.eye(2)
    figure, axes = _canvas(camera, title, turned=axes_of, names=("azimuth", "altitude") if is_altaz else ("x", "y"))
    for detector in camera.detectors:
        w, h = detector.focal_plane_size_mm
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h], [-w, -h]]) / 2 + (detector.x_mm, detector.y_mm)
        axes.plot(*(corners @ axes_of.T).T, color="#39424e", linewidth=0.4)
    if psf_map.whiskers:
        places = np.array([(w.x_mm, w.y_mm) for w in psf_map.whiskers]) @ axes_of.T
        shapes = np.array(
            [(w.e1_altaz or 0.0, w.e2_altaz or 0.0) if is_altaz else (w.e1, w.e2) for w in psf_map.whiskers]
        )
        size, angle = np.hypot(*shapes.T), 0.5 * np.arctan2(shapes[:, 1], shapes[:, 0])
        long = float(np.percentile(size, 90))
        reference = next((one for one in REFERENCES if one >= long), REFERENCES[-1])
        reach = LONGEST * _width_mm(camera) / reference
        half = 0.5 * reach * size[:, None] * np.column_stack((np.cos(angle), np.sin(angle)))
        fwhm = np.array([w.fwhm_arcsec for w in psf_map.whiskers])
        lines = LineCollection(list(np.stack((places - half, places + half), axis=1)), cmap="viridis", linewidth=1.1)
        lines.set_array(fwhm)
        axes.add_collection(lines)
        _scale(figure, axes, lines, "FWHM [arcsec]")
        _reference(axes, reach, reference)
    return _png(figure)


def _reference(axes: Axes, reach: float, reference: float) -> None:
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    x, y = x0 + 0.03 * (x1 - x0), y0 + 0.035 * (y1 - y0)
    axes.plot([x, x + reference * reach], [y, y], color=INK, linewidth=1.5)
    axes.text(x, y + 0.012 * (y1 - y0), f"e = {reference:g}", color=INK, fontsize=8)


def _width_mm(camera: Camera) -> float:
    reach = [abs(value) for d in camera.detectors for value in (d.x_mm, d.y_mm)]
    w, h = camera.detectors[0].focal_plane_size_mm
    return 2 * max(reach) + max(w, h)


def _canvas(
    camera: Camera, title: str, *, turned: NDArray[np.float64] | None = None, names: tuple[str, str] = ("x", "y")
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 7.6), dpi=125, facecolor=GROUND)
    axes = figure.add_axes((0.085, 0.08, 0.77, 0.84), facecolor=PANEL)
    half = _width_mm(camera) / 2 * (1.03 if turned is None else 1.03 * _spread(turned))
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    axes.set_aspect("equal")
    axes.set_title(title, color=INK, fontsize=11, loc="left")
    axes.set_xlabel(f"{names[0]} [mm]", color=DIM)
    axes.set_ylabel(f"{names[1]} [mm]", color=DIM)
    axes.tick_params(colors=DIM, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color("#2c343f")
    return figure, axes


def _spread(turned: NDArray[np.float64]) -> float:
    # A turned square needs up to the square root of two; a round focal plane less, but its corners are filled.
    return float(np.abs(turned).sum(axis=1).max())


def _scale(figure: Figure, axes: Axes, drawn: Any, label: str) -> None:
    box = axes.get_position()
    bar = figure.colorbar(drawn, cax=figure.add_axes((box.x1 + 0.015, box.y0, 0.022, box.height)))
    bar.set_label(label, color=DIM)
    bar.ax.tick_params(colors=DIM, labelsize=8)
    bar.outline.set_edgecolor("#2c343f")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
