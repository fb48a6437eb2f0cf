"""The patterns that are always there: their names, what they take, and which shape they are.

The first name of each is today's where it exists today. Case, ``-``, ``_`` and blanks within a name do not count,
so RubinTV's ``5_ON_A_DIE`` is ``5-on-a-die``; what it calls otherwise is among `BuiltIn.aliases`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from rapid.camera.models import Purpose
from rapid.patterns import shapes
from rapid.patterns.layout import Layout
from rapid.patterns.shapes import Cycle

MAX_ARMS = 8
MAX_TURNS = 4
DEFAULT_RINGS = 3


class ArgumentError(ValueError):
    """An argument of a pattern cannot be used with this camera; the text says why."""


@dataclass(frozen=True)
class Parameter:
    """What a pattern takes in parentheses.

    Attributes
    ----------
    kind
        ``whole``, ``number`` or ``name``.
    required
        Whether it must be given.
    """

    name: str
    kind: str
    description: str
    required: bool = False


@dataclass(frozen=True)
class BuiltIn:
    """A pattern that is always there.

    Attributes
    ----------
    name
        First name, as `str` of a pattern writes it.
    description
        One line.
    make
        Returns its cycle for a camera and the arguments as written; raises `ArgumentError`.
    aliases
        Other names.
    parameters
        What it takes in parentheses, in order.
    many
        Whether the last parameter may be repeated.
    """

    name: str
    description: str
    make: Callable[[Layout, tuple[str, ...]], Cycle]
    aliases: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    many: bool = False

    @property
    def usage(self) -> str:
        """The name with what may stand in parentheses: ``spiral(arms,turns)``."""
        if not self.parameters:
            return self.name
        names = ",".join(parameter.name for parameter in self.parameters)
        return f"{self.name}({names}{',...' if self.many else ''})"

    @property
    def needs_arguments(self) -> bool:
        """Whether the name alone is not a pattern."""
        return any(parameter.required for parameter in self.parameters)


def _plain(make: Callable[[Layout], Cycle]) -> Callable[[Layout, tuple[str, ...]], Cycle]:
    return lambda layout, _: make(layout)


def _purpose(purpose: Purpose) -> Callable[[Layout, tuple[str, ...]], Cycle]:
    return lambda layout, _: (layout.of_purpose(purpose),)


def _vendor_of_name(name: str) -> Callable[[Layout, tuple[str, ...]], Cycle]:
    return lambda layout, _: (layout.ids_by_vendor.get(name.upper(), frozenset()),)


def _between(text: str, name: str, least: int, most: int) -> int:
    value = int(text)
    if not least <= value <= most:
        raise ArgumentError(f"{name} must be from {least} to {most}, not {value}")
    return value


def _wide(make: Callable[[Layout, int], Cycle]) -> Callable[[Layout, tuple[str, ...]], Cycle]:
    def shape(layout: Layout, arguments: tuple[str, ...]) -> Cycle:
        most = max(layout.detectors.n_rows, layout.detectors.n_columns)
        return make(layout, _between(arguments[0], "width", 1, most) if arguments else 1)

    return shape


def _rings(layout: Layout, arguments: tuple[str, ...]) -> Cycle:
    most = shapes.max_rings(layout)
    return shapes.rings(layout, _between(arguments[0], "n", 1, most) if arguments else min(DEFAULT_RINGS, most))


def _spiral(layout: Layout, arguments: tuple[str, ...]) -> Cycle:
    arms = _between(arguments[0], "arms", 1, MAX_ARMS) if arguments else 2
    turns = _between(arguments[1], "turns", 1, MAX_TURNS) if len(arguments) > 1 else 1
    return shapes.spiral(layout, arms, turns)


def _unvignetted(layout: Layout, arguments: tuple[str, ...]) -> Cycle:
    radius_deg = float(arguments[0]) if arguments else layout.camera.unvignetted_radius_deg
    if radius_deg is None:
        raise ArgumentError(f"{layout.camera.name} does not say where vignetting begins; write unvignetted(RADIUS_DEG)")
    if not 0 < radius_deg <= 90:
        raise ArgumentError(f"radius_deg must be above 0 and at most 90, not {radius_deg:g}")
    return shapes.unvignetted(layout, radius_deg)


def _by_name(kind: str, groups: Callable[[Layout], dict[str, frozenset[int]]]) -> Callable[..., Cycle]:
    def shape(layout: Layout, arguments: tuple[str, ...]) -> Cycle:
        known = groups(layout)
        for name in arguments:
            if name.upper() not in known:
                raise ArgumentError(f"{layout.camera.name} has no {kind} {name} ({kind}s: {', '.join(sorted(known))})")
        return (frozenset().union(*(known[name.upper()] for name in arguments)),)

    return shape


_WIDTH = Parameter("width", "whole", "how many detectors wide, 1 if left out")

BUILT_INS = (
    BuiltIn(
        "all",
        "every science detector",
        lambda layout, _: (layout.science,),
        ("science", "all_science", "imaging", "all_imaging"),
    ),
    BuiltIn(
        "everything",
        "every detector of any purpose, guiders and wavefront sensors too",
        lambda layout, _: (frozenset(layout.camera.by_id),),
        ("all_detectors",),
    ),
    BuiltIn("raft_checkerboard", "every other raft; phase 1: those between", _plain(shapes.raft_checkerboard)),
    BuiltIn(
        "ccd_checkerboard",
        "every other detector; phase 1: those between",
        _plain(shapes.ccd_checkerboard),
        ("checkerboard", "detector_checkerboard"),
    ),
    BuiltIn(
        "5-on-a-die",
        "five rafts as on a die (detectors, if there are few rafts)",
        _plain(shapes.five_on_a_die),
        ("five_on_a_die",),
    ),
    BuiltIn("minimal", "middle row, middle column and both diagonals", _plain(shapes.star), ("star",)),
    BuiltIn("ultra-minimal", "both diagonals, an X", _plain(shapes.both_diagonals), ("diagonals", "diagonal_cross")),
    BuiltIn("diagonal", "from the lower left to the upper right", _plain(shapes.diagonal), ("diagonal1",)),
    BuiltIn("diagonal2", "from the upper left to the lower right", _plain(shapes.diagonal2), ("antidiagonal",)),
    BuiltIn("horizontal", "the middle row", _wide(shapes.horizontal), parameters=(_WIDTH,)),
    BuiltIn("vertical", "the middle column", _wide(shapes.vertical), parameters=(_WIDTH,)),
    BuiltIn("cross", "middle row and middle column", _wide(shapes.cross), ("cardinals",), (_WIDTH,)),
    BuiltIn("crosses", "a cross in each raft; phase 1: the rafts' corners", _plain(shapes.crosses)),
    BuiltIn(
        "rings",
        f"n rings about the middle, {DEFAULT_RINGS} if left out; phase 1: the gaps",
        _rings,
        ("ring",),
        (Parameter("n", "whole", "how many rings"),),
    ),
    BuiltIn(
        "spiral",
        "spiral arms, 2 of 1 turn if left out; phase 1: the gaps",
        _spiral,
        ("spirals",),
        (
            Parameter("arms", "whole", f"how many arms, 1 to {MAX_ARMS}"),
            Parameter("turns", "whole", f"turns of each arm, 1 to {MAX_TURNS}"),
        ),
    ),
    BuiltIn(
        "unvignetted",
        "science detectors wholly within a field radius",
        _unvignetted,
        ("all_unvignetted",),
        (Parameter("radius_deg", "number", "field radius [deg]; the camera's own if left out"),),
    ),
    BuiltIn("e2v", "science detectors made by e2v", _vendor_of_name("E2V")),
    BuiltIn("itl", "science detectors made by ITL", _vendor_of_name("ITL")),
    BuiltIn(
        "full_focal_plane_guiders",
        "lower left four detectors of each raft, guiding when all of the focal plane does",
        _plain(shapes.full_focal_plane_guiders),
        ("full_focal_plane_guider_mode",),
    ),
    BuiltIn("wavefront", "wavefront sensors", _purpose(Purpose.WAVEFRONT), ("cwfs", "wavefronts", "wavefront_sensors")),
    BuiltIn("guiders", "guide sensors", _purpose(Purpose.GUIDER), ("guider",)),
    BuiltIn(
        "usdf_testing",
        "the middle raft and the next up the diagonal, a small set for tests",
        _plain(shapes.middle_and_next_raft),
    ),
    BuiltIn(
        "raft",
        "every detector of a raft; the raft's name alone does as well",
        _by_name("raft", lambda layout: dict(layout.ids_by_raft)),
        ("rafts",),
        (Parameter("RAFT", "name", "name of the raft", required=True),),
        many=True,
    ),
    BuiltIn(
        "slot",
        "the detectors in the same slot of every raft",
        _by_name("slot", lambda layout: dict(layout.ids_by_slot)),
        ("slots",),
        (Parameter("SLOT", "name", "name of the slot, as S11", required=True),),
        many=True,
    ),
    BuiltIn(
        "vendor",
        "science detectors of a vendor; its name alone does as well",
        _by_name("vendor", lambda layout: dict(layout.ids_by_vendor)),
        ("vendors",),
        (Parameter("VENDOR", "name", "name of the vendor", required=True),),
        many=True,
    ),
)


def plain_name(name: str) -> str:
    """Return a name without what does not count: case, dashes, underscores, blanks.

    Examples
    --------
    >>> plain_name("Ultra-Minimal")
    'ultraminimal'
    """
    return re.sub(r"[-_\s]", "", name).lower()


@cache
def _by_plain_name() -> dict[str, BuiltIn]:
    return {plain_name(name): known for known in BUILT_INS for name in (known.name, *known.aliases)}


def built_in_named(name: str) -> BuiltIn | None:
    """Return the built-in pattern of a name in any spelling."""
    return _by_plain_name().get(plain_name(name))


def spellings() -> list[list[str]]:
    """Return the words of every name: ``["ultra", "minimal"]``."""
    return [re.split(r"[-_]", name) for known in BUILT_INS for name in (known.name, *known.aliases)]
