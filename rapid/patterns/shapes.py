"""The shapes of named patterns, for any camera.

Each function takes a `Layout` and returns the *cycle* of the pattern: the set of detectors of each phase, in order.
A phase that would be empty for the camera is left out, so that on a camera of one CCD every shape is that CCD.
Sets for LSSTCam are those of the system in use at the observatory, whose formulas are the sources named below.
"""

from collections.abc import Callable, Iterable
from math import atan2, floor, hypot, tau

from rapid.patterns.layout import Grid, Layout

Cycle = tuple[frozenset[int], ...]


def halves(layout: Layout, is_first: Callable[[int], bool]) -> Cycle:
    """Return the science detectors that pass, then the others."""
    first = frozenset(i for i in layout.science if is_first(i))
    return tuple(part for part in (first, layout.science - first) if part)


def ccd_checkerboard(layout: Layout) -> Cycle:
    """Return every other detector, then those between; phase 0 leaves the lower left one of the grid out.

    Source: ``((x % 2) + (y % 2) + phase) % 2`` of the camera control of rubintv_production.
    """
    return halves(layout, lambda i: (layout.place(i).row + layout.place(i).column) % 2 == 1)


def raft_checkerboard(layout: Layout) -> Cycle:
    """Return every other raft, then those between."""
    odd = {raft for raft, place in layout.rafts.places.items() if (place.row + place.column) % 2 == 1}
    return halves(layout, lambda i: layout.camera.by_id[i].raft in odd)


def crosses(layout: Layout) -> Cycle:
    """Return a cross in each raft, its middle row and column, then the rest of the raft."""

    def in_cross(detector_id: int) -> bool:
        grid = layout.raft_grids[layout.camera.by_id[detector_id].raft]
        place = grid.places[detector_id]
        return abs(place.up) == grid.nearest_up or abs(place.right) == grid.nearest_right

    return halves(layout, in_cross)


def rings(layout: Layout, n: int) -> Cycle:
    """Return `n` rings about the middle, as wide as the gaps between them, then the gaps.

    The last ring takes what is farther out, in the corners.
    """
    zone_mm = (layout.reach_mm + layout.pitch_mm / 2) / (2 * n)
    return halves(layout, lambda i: min(floor(hypot(*layout.from_middle_mm(i)) / zone_mm + 1e-9), 2 * n - 1) % 2 == 1)


def max_rings(layout: Layout) -> int:
    """Return how many rings fit: rings and gaps hold a detector each, from the middle along the longer axis."""
    return max(1, floor((layout.reach_mm / layout.pitch_mm + 1) / 2 + 1e-9))


def spiral(layout: Layout, arms: int, turns: int) -> Cycle:
    """Return the arms of an Archimedean spiral, counter-clockwise outwards, then the gaps between them."""
    reach_mm = layout.reach_mm or 1.0

    def in_arm(detector_id: int) -> bool:
        x, y = layout.from_middle_mm(detector_id)
        # Rounded: a detector exactly on an edge must not fall to either side by the last bit of a sine.
        return round(arms * (atan2(y, x) / tau - turns * hypot(x, y) / reach_mm), 9) % 1 < 0.5

    return halves(layout, in_arm)


def _one(ids: Iterable[int]) -> Cycle:
    return (frozenset(ids),)


def horizontal(layout: Layout, width: int = 1) -> Cycle:
    """Return the middle rows, as many as `width`; at least one, two if the middle is between rows."""
    reach = max(width - 1, layout.detectors.nearest_up)
    return _one(i for i in layout.science if abs(layout.place(i).up) <= reach)


def vertical(layout: Layout, width: int = 1) -> Cycle:
    """Return the middle columns, as `horizontal` the rows."""
    reach = max(width - 1, layout.detectors.nearest_right)
    return _one(i for i in layout.science if abs(layout.place(i).right) <= reach)


def cross(layout: Layout, width: int = 1) -> Cycle:
    """Return the middle rows and columns."""
    return _one(horizontal(layout, width)[0] | vertical(layout, width)[0])


def diagonal(layout: Layout) -> Cycle:
    """Return the diagonal from the lower left to the upper right."""
    return _one(i for i in layout.science if layout.place(i).up == layout.place(i).right)


def diagonal2(layout: Layout) -> Cycle:
    """Return the diagonal from the upper left to the lower right."""
    return _one(i for i in layout.science if layout.place(i).up == -layout.place(i).right)


def both_diagonals(layout: Layout) -> Cycle:
    """Return both diagonals, an X."""
    return _one(diagonal(layout)[0] | diagonal2(layout)[0])


def star(layout: Layout) -> Cycle:
    """Return the cross and both diagonals."""
    return _one(cross(layout)[0] | both_diagonals(layout)[0])


def _die(grid: Grid) -> set[object]:
    """Return the keys in the middle of a grid and half-way to its four corners."""

    def half_way(n: int) -> int:
        # The first place, counted as Place.up is, at or beyond half of the outermost, n - 1.
        return next(place for place in range((n - 1) % 2, n, 2) if 2 * place >= n - 1)

    up, right = half_way(grid.n_rows), half_way(grid.n_columns)
    middle = (grid.nearest_up, grid.nearest_right)
    return {key for key, place in grid.places.items() if (abs(place.up), abs(place.right)) in {middle, (up, right)}}


def five_on_a_die(layout: Layout) -> Cycle:
    """Return five rafts as on a die; of a camera with fewer than 3 x 3 rafts, five detectors."""
    if min(layout.rafts.n_rows, layout.rafts.n_columns) >= 3:
        return _one(layout.in_rafts(_die(layout.rafts)))
    wanted = _die(layout.detectors)
    return _one(i for i in layout.science if i in wanted)


def full_focal_plane_guiders(layout: Layout) -> Cycle:
    """Return the lower left four detectors of each raft, which guide when the whole focal plane does.

    Source: sensor digits at most 1 in ``setFullFocalPlaneGuidersOn`` of rubintv_production.
    """
    return _one(i for i in layout.science if max(layout.place_in_raft(i).row, layout.place_in_raft(i).column) <= 1)


def middle_and_next_raft(layout: Layout) -> Cycle:
    """Return the raft in the middle and the next one up the diagonal."""
    grid = layout.rafts
    middle = (grid.nearest_up, grid.nearest_right)
    return _one(
        layout.in_rafts(
            raft
            for raft, place in grid.places.items()
            if (place.up, place.right) in {middle, (middle[0] + 2, middle[1] + 2)}
        )
    )


def unvignetted(layout: Layout, radius_deg: float) -> Cycle:
    """Return the science detectors that lie within a radius with all their corners."""
    return _one(i for i in layout.science if layout.field_radius_deg[i] <= radius_deg)
