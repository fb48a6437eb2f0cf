"""Show a camera to people and programs: a picture, a table, JSON."""

from collections import Counter
from io import BytesIO
from typing import Any

from rapid.camera.geometry import corners_mm, extent_mm
from rapid.camera.models import Camera, Detector, Purpose

_BACKGROUND = "#0e1117"
_TEXT = "#e6e8ee"
_FACES = {"E2V": "#2f5f8f", "ITL": "#8a5a2b"}
_PURPOSE_FACES = {Purpose.GUIDER: "#2e7d5b", Purpose.WAVEFRONT: "#7a4594"}
_OTHER_FACE = "#555b66"


def _kind(detector: Detector) -> tuple[str, str]:
    """Return legend text and colour of a detector."""
    vendor = detector.vendor or detector.physical_type
    if detector.purpose in _PURPOSE_FACES:
        return f"{detector.purpose.value.lower()} {vendor}", _PURPOSE_FACES[detector.purpose]
    return f"science {vendor}", _FACES.get(vendor, _OTHER_FACE)


def plot_camera(camera: Camera, *, dpi: int = 150) -> bytes:
    """Draw the focal plane, every detector with its name and number.

    Parameters
    ----------
    camera
        The camera.
    dpi
        Dots per inch of a picture 14 inches wide.

    Returns
    -------
    bytes
        A PNG.
    """
    # Figure without pyplot: no global state, no display, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Polygon

    figure = Figure(figsize=(14, 13.4), dpi=dpi, facecolor=_BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=_BACKGROUND)
    x_min, x_max, y_min, y_max = extent_mm(camera)
    margin = 0.02 * max(x_max - x_min, y_max - y_min)
    width_mm = max(x_max - x_min, y_max - y_min) + 2 * margin
    points_per_mm = 12.6 * 72 / width_mm
    kinds: Counter[tuple[str, str]] = Counter()
    for detector in camera.detectors:
        kind = _kind(detector)
        kinds[kind] += 1
        axes.add_patch(Polygon(corners_mm(detector).tolist(), facecolor=kind[1], edgecolor=_TEXT, linewidth=0.5))
        wide_mm, high_mm = detector.focal_plane_size_mm
        turned = high_mm > 1.5 * wide_mm
        # Seven letters of 0.62 em each and some air must fit the longer side, three lines the shorter.
        size = points_per_mm * min(max(wide_mm, high_mm) / 5.5, min(wide_mm, high_mm) / 3.0)
        axes.text(
            detector.x_mm,
            detector.y_mm,
            f"{detector.name}\n{detector.id}",
            color=_TEXT,
            fontsize=min(size, 26.0),
            ha="center",
            va="center",
            rotation=90 if turned else 0,
        )
    axes.set_xlim(x_min - margin, x_max + margin)
    axes.set_ylim(y_min - margin, y_max + margin)
    axes.set_aspect("equal")
    axes.set_xlabel("focal plane x [mm]", color=_TEXT, fontsize=12)
    axes.set_ylabel("focal plane y [mm]", color=_TEXT, fontsize=12)
    axes.tick_params(colors=_TEXT, labelsize=11)
    axes.spines[:].set_color("#3a3f4b")
    axes.set_title(f"{camera.name}: {len(camera.detectors)} detectors", color=_TEXT, fontsize=16)
    figure.legend(
        handles=[Patch(facecolor=face, label=f"{label}: {count}") for (label, face), count in kinds.items()],
        loc="outside lower center",
        ncols=4,
        facecolor=_BACKGROUND,
        edgecolor="#3a3f4b",
        labelcolor=_TEXT,
        fontsize=12,
    )
    buffer = BytesIO()
    figure.savefig(buffer, format="png", facecolor=_BACKGROUND)
    return buffer.getvalue()


def camera_to_json(camera: Camera) -> dict[str, Any]:
    """Return the whole camera, every detector with its amps and corners, ready for JSON."""
    document = camera.model_dump(mode="json", exclude={"variants"})
    document["n_detectors"] = len(camera.detectors)
    document["pixel_scale_arcsec"] = camera.pixel_scale_arcsec
    for entry, detector in zip(document["detectors"], camera.detectors, strict=True):
        entry["corners_mm"] = [[round(float(value), 6) for value in corner] for corner in corners_mm(detector)]
    return document


def describe(camera: Camera) -> str:
    """Return a summary for a terminal: the camera's facts, then a line per raft.

    Examples
    --------
    >>> from rapid.camera.store import load_camera
    >>> print(describe(load_camera("LATISS")).splitlines()[0])
    LATISS: 1 detector, 1 raft, 16 amps
    """
    rafts: dict[str, list[Detector]] = {}
    for detector in camera.detectors:
        rafts.setdefault(detector.raft, []).append(detector)
    n_amps = sum(len(detector.amps) for detector in camera.detectors)
    x_min, x_max, y_min, y_max = extent_mm(camera)
    lines = [
        f"{camera.name}: {_count(len(camera.detectors), 'detector')}, {_count(len(rafts), 'raft')}, {n_amps} amps",
        f"  also called       {', '.join(camera.aliases) or 'nothing else'}",
        f"  obs id begins     {camera.code}_",
        f"  focal plane       {x_max - x_min:.1f} x {y_max - y_min:.1f} mm, f/{camera.f_ratio:g}",
        f"  pixel scale       {camera.pixel_scale_arcsec:.4f} arcsec/px",
        f"  witness detector  {camera.witness_detector} ({camera.by_id[camera.witness_detector].name})",
        f"  filters           {', '.join(camera.filters) or 'not listed'}",
        "",
        "  raft  detectors  purpose    type     pixels       names",
    ]
    for raft, members in rafts.items():
        for purpose in Purpose:
            some = [detector for detector in members if detector.purpose is purpose]
            if not some:
                continue
            ids = f"{some[0].id}-{some[-1].id}" if len(some) > 1 else f"{some[0].id}"
            if len(some) > 1 and some[-1].id - some[0].id != len(some) - 1:
                ids = ",".join(str(detector.id) for detector in some)
            kinds = "/".join(sorted({detector.physical_type for detector in some}))
            sizes = f"{some[0].width}x{some[0].height}"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f"  {raft:<5} {ids:<10} {purpose.value.lower():<10} {kinds:<8} {sizes:<12} {slots}")
    return "\n".join(lines)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
