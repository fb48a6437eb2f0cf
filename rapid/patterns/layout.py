"""Where the science detectors of any camera sit, as rows and columns.

Named patterns are made of places, not of lists: everything here comes from the positions and sizes in the camera's
definition. Rows are counted from the bottom of the focal plane, columns from its left edge.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import floor
from statistics import median

import numpy as np

from rapid.camera.geometry import corners_mm, focal_plane_to_field_angle
from rapid.camera.models import Camera, Detector, Purpose

SQUARE = 0.05
"""Pitches that differ by less are the same: positions are measured, and some detectors are a little smaller."""


@dataclass(frozen=True)
class Place:
    """One cell of a grid.

    Attributes
    ----------
    row, column
        From the lower left, from 0.
    up, right
        Twice the distance from the middle of the grid, in cells: whole numbers for even and odd grids alike.
    """

    row: int
    column: int
    up: int
    right: int


@dataclass(frozen=True)
class Grid:
    """Places by key, and the distance from one to the next [mm]."""

    places: Mapping[object, Place]
    n_rows: int
    n_columns: int
    row_pitch_mm: float
    column_pitch_mm: float

    @property
    def nearest_up(self) -> int:
        """The smallest `Place.up` there is, without sign: 0 if a row runs through the middle."""
        return min(abs(place.up) for place in self.places.values())

    @property
    def nearest_right(self) -> int:
        """The smallest `Place.right` there is, without sign."""
        return min(abs(place.right) for place in self.places.values())


@dataclass(frozen=True)
class Layout:
    """What patterns ask about a camera.

    Attributes
    ----------
    camera
        The camera.
    science
        Science detectors; every detector of a camera that has none.
    detectors
        Places of the science detectors, by number.
    rafts
        Places of the rafts that hold science detectors, by name.
    in_raft
        Place of each science detector within its raft, by number; its grid is that of the raft.
    raft_grids
        The grid of each raft, by name.
    ids_by_raft, ids_by_slot, ids_by_vendor
        Detectors by raft, slot and vendor, names in capitals. Vendors count science detectors only.
    id_by_name
        Detectors by name in capitals.
    """

    camera: Camera
    science: frozenset[int]
    detectors: Grid
    rafts: Grid
    raft_grids: Mapping[str, Grid]
    ids_by_raft: Mapping[str, frozenset[int]]
    ids_by_slot: Mapping[str, frozenset[int]]
    ids_by_vendor: Mapping[str, frozenset[int]]
    id_by_name: Mapping[str, int]

    def of_purpose(self, purpose: Purpose) -> frozenset[int]:
        """Return the detectors that are for something."""
        return frozenset(d.id for d in self.camera.detectors if d.purpose is purpose)

    def place(self, detector_id: int) -> Place:
        """Return the place of a science detector in the focal plane."""
        return self.detectors.places[detector_id]

    def place_in_raft(self, detector_id: int) -> Place:
        """Return the place of a science detector within its raft."""
        return self.raft_grids[self.camera.by_id[detector_id].raft].places[detector_id]

    def in_rafts(self, names: Iterable[object]) -> frozenset[int]:
        """Return the science detectors of some rafts."""
        wanted = set(names)
        return frozenset(i for i in self.science if self.camera.by_id[i].raft in wanted)

    def from_middle_mm(self, detector_id: int) -> tuple[float, float]:
        """Return x and y from the middle of the science detectors [mm].

        By its cell, so that shifts of a few micrometres cannot make a symmetric pattern lopsided.
        """
        place = self.place(detector_id)
        return place.right / 2 * self.detectors.column_pitch_mm, place.up / 2 * self.detectors.row_pitch_mm

    @cached_property
    def field_radius_deg(self) -> Mapping[int, float]:
        """How far from the boresight the outermost corner of each detector looks, by number [deg]."""
        corners = np.stack([corners_mm(detector) for detector in self.camera.detectors])
        x_deg, y_deg = focal_plane_to_field_angle(self.camera, corners[..., 0], corners[..., 1])
        radii = np.hypot(x_deg, y_deg).max(axis=1)
        return {detector.id: float(radius) for detector, radius in zip(self.camera.detectors, radii, strict=True)}

    @property
    def pitch_mm(self) -> float:
        """The longer distance between neighbouring detectors, along rows or columns [mm]."""
        return max(self.detectors.row_pitch_mm, self.detectors.column_pitch_mm)

    @property
    def reach_mm(self) -> float:
        """How far the longer axis of the focal plane reaches, from the middle to the last detector's middle [mm]."""
        return max(abs(distance) for i in self.science for distance in self.from_middle_mm(i))


def _rows(points: Mapping[object, tuple[float, float]], height_mm: float) -> list[list[object]]:
    """Return the keys of points of about the same height together, rows from the bottom, each from left to right."""
    rows: list[list[object]] = []
    last = -float("inf")
    for key in sorted(points, key=lambda k: points[k][1]):
        if points[key][1] - last > height_mm / 2:
            rows.append([])
        rows[-1].append(key)
        last = points[key][1]
    return [sorted(row, key=lambda k: points[k][0]) for row in rows]


def _steps(values: Sequence[float], pitch: float) -> list[int]:
    """Return where ascending values come on a grid of about this pitch: from 0, none twice, gaps kept."""
    places = [0]
    for before, value in pairwise(values):
        places.append(places[-1] + max(1, round((value - before) / pitch)))
    return places


def _column_pitch(
    points: Mapping[object, tuple[float, float]], rows: Sequence[Sequence[object]], width_mm: float
) -> float:
    """Return the distance from column to column, over all rows if they agree where columns are."""
    columns: list[float] = []
    for x in sorted(x for x, _ in points.values()):
        if not columns or x - columns[-1] > width_mm / 4:
            columns.append(x)
    gaps = [b - a for a, b in pairwise(columns)]
    if min(gaps, default=width_mm) < 0.9 * width_mm:  # bricks
        gaps = [points[b][0] - points[a][0] for row in rows for a, b in pairwise(row)]
    return max(median(gaps or [width_mm]), 1e-6)


def make_grid(points: Mapping[object, tuple[float, float]], *, width_mm: float, height_mm: float) -> Grid:
    """Sort points into rows and columns.

    Parameters
    ----------
    points
        x and y by key [mm]; at least one.
    width_mm, height_mm
        Usual size of what sits at the points: apart by less than half of it is the same row.

    Notes
    -----
    Columns are counted within each row from the common left edge, so that rows shifted against each other as bricks
    still alternate along the row.
    """
    rows = _rows(points, height_mm)
    heights = [median(points[key][1] for key in row) for row in rows]
    row_pitch = median([b - a for a, b in pairwise(heights)] or [height_mm])
    column_pitch = _column_pitch(points, rows, width_mm)
    if abs(row_pitch - column_pitch) < SQUARE * row_pitch:
        row_pitch = column_pitch = (row_pitch + column_pitch) / 2
    left = min(x for x, _ in points.values())
    cells: dict[object, tuple[int, int]] = {}
    for number, row in zip(_steps(heights, row_pitch), rows, strict=True):
        xs = [points[key][0] for key in row]
        first = floor((xs[0] - left) / column_pitch + 0.5)
        cells |= {key: (number, first + step) for key, step in zip(row, _steps(xs, column_pitch), strict=True)}
    n_rows = 1 + max(row for row, _ in cells.values())
    n_columns = 1 + max(column for _, column in cells.values())
    places: dict[object, Place] = {
        key: Place(row, column, 2 * row - n_rows + 1, 2 * column - n_columns + 1)
        for key, (row, column) in cells.items()
    }
    return Grid(places, n_rows, n_columns, row_pitch, column_pitch)


def _detector_grid(detectors: Sequence[Detector]) -> Grid:
    sizes = [detector.focal_plane_size_mm for detector in detectors]
    return make_grid(
        {d.id: (d.x_mm, d.y_mm) for d in detectors},
        width_mm=median(width for width, _ in sizes),
        height_mm=median(height for _, height in sizes),
    )


def _raft_grid(rafts: Mapping[str, Sequence[Detector]]) -> Grid:
    boxes = {raft: np.concatenate([corners_mm(d) for d in members]) for raft, members in rafts.items()}
    low = {raft: corners.min(axis=0) for raft, corners in boxes.items()}
    high = {raft: corners.max(axis=0) for raft, corners in boxes.items()}
    return make_grid(
        {raft: tuple((low[raft] + high[raft]) / 2) for raft in rafts},
        width_mm=median(float(high[raft][0] - low[raft][0]) for raft in rafts),
        height_mm=median(float(high[raft][1] - low[raft][1]) for raft in rafts),
    )


def _grouped(pairs: Iterable[tuple[str, int]]) -> dict[str, frozenset[int]]:
    groups: dict[str, set[int]] = {}
    for name, detector_id in pairs:
        groups.setdefault(name.upper(), set()).add(detector_id)
    return {name: frozenset(ids) for name, ids in groups.items()}


class _Same:
    """A camera as a key: its models hold tables and have no hash; the same object is the same camera."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.camera is self.camera

    def __hash__(self) -> int:
        return id(self.camera)


@lru_cache(maxsize=16)
def _layout(key: _Same) -> Layout:
    camera = key.camera
    detectors = camera.detectors
    science = [d for d in detectors if d.purpose is Purpose.SCIENCE] or list(detectors)
    rafts: dict[str, list[Detector]] = {}
    for detector in science:
        rafts.setdefault(detector.raft, []).append(detector)
    return Layout(
        camera=camera,
        science=frozenset(d.id for d in science),
        detectors=_detector_grid(science),
        rafts=_raft_grid(rafts),
        raft_grids={raft: _detector_grid(members) for raft, members in rafts.items()},
        ids_by_raft=_grouped((d.raft, d.id) for d in detectors),
        ids_by_slot=_grouped((d.slot, d.id) for d in detectors),
        ids_by_vendor=_grouped((d.vendor or d.physical_type, d.id) for d in science),
        id_by_name={d.name.upper(): d.id for d in detectors},
    )


def layout_of(camera: Camera) -> Layout:
    """Return the layout of a camera; the last few are remembered."""
    return _layout(_Same(camera))
