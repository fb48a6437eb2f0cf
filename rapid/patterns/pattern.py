"""Patterns: which detectors of a camera are processed, possibly other ones with every exposure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rapid.camera.models import Camera
from rapid.patterns.catalogue import built_in_named
from rapid.patterns.errors import PatternError
from rapid.patterns.evaluate import Evaluation
from rapid.patterns.layout import layout_of
from rapid.patterns.parser import parse
from rapid.patterns.shapes import Cycle
from rapid.patterns.tree import Complement, Join, Part, Phase, Word

SAVED_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_NO_NAMES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Pattern:
    """An expression that was read; for which camera, is told when its detectors are asked for.

    ``str`` gives its canonical text. Two patterns are equal if their parts are, however they were written.

    Attributes
    ----------
    part
        Its outermost part.
    text
        As it was written; errors point into it.
    """

    part: Part
    text: str = field(compare=False)

    def __str__(self) -> str:
        return str(self.part)

    def detectors(
        self,
        camera: Camera,
        phase: int = 0,
        named: Mapping[str, str] | None = None,
        exclude: Collection[int] = frozenset(),
    ) -> frozenset[int]:
        """Return the numbers of the detectors to process.

        Parameters
        ----------
        camera
            The camera.
        phase
            Which phase, from 0; counted on past the last one, it begins again.
        named
            Patterns saved by name: expressions.
        exclude
            Detectors switched off. They are taken away at the end: with all of them off nothing is left, and that
            is no fault of the pattern.

        Raises
        ------
        PatternError
            Raised for what this camera does not have, for saved patterns that contain themselves, and if the pattern
            selects no detector in this phase.
        ValueError
            Raised for a negative phase.
        """
        if phase < 0:
            raise ValueError(f"phase {phase} is negative")
        cycle = self.cycle(camera, named)
        found = cycle[phase % len(cycle)]
        if not found:
            shown = str(self) if len(str(self)) <= 80 else f"{str(self)[:80]}..."
            which = f" in phase {phase % len(cycle)}" if len(cycle) > 1 else ""
            raise PatternError(f"{shown} selects no detector of {camera.name}{which}", self.text)
        return found - frozenset(exclude)

    def phases(self, camera: Camera, named: Mapping[str, str] | None = None) -> int:
        """Return how many different phases there are: 1 if every exposure gets the same detectors.

        Raises
        ------
        PatternError
            Raised as by `detectors`, but for a phase without detectors.
        """
        return len(self.cycle(camera, named))

    def cycle(self, camera: Camera, named: Mapping[str, str] | None = None) -> Cycle:
        """Return the detectors of every phase in order; a set may be empty.

        Raises
        ------
        PatternError
            Raised as by `phases`.
        """
        return Evaluation(layout_of(camera), _NO_NAMES if named is None else named).cycle(self.part, self.text)

    @property
    def words(self) -> frozenset[str]:
        """Names in it that are no built-in pattern, in small letters: rafts, detectors, vendors, saved patterns."""
        found: set[str] = set()
        left = [self.part]
        while left:
            match left.pop():
                case Word(text=text):
                    found.add(text.lower())
                case Complement(of=part) | Phase(of=part):
                    left.append(part)
                case Join(operands=parts):
                    left += parts
                case _:
                    pass
        return frozenset(found)


def parse_pattern(text: str) -> Pattern:
    """Read a pattern expression; see `rapid.patterns.parser` for what can be written.

    Raises
    ------
    PatternError
        Raised, with the column and a line that points at it, for anything that is no expression.

    Examples
    --------
    >>> str(parse_pattern("(CCD_CHECKERBOARD & e2v) | R22_S11, 0..4"))
    'ccd_checkerboard & e2v | R22_S11,0-4'
    """
    if not isinstance(text, str):
        raise PatternError(f"a pattern is text, not {type(text).__name__}", "")
    return Pattern(parse(text), text)


def check_saved_name(name: str, camera: Camera | None = None) -> None:
    """Check that a pattern may be saved under a name.

    Parameters
    ----------
    name
        The name.
    camera
        The camera it is for: its rafts, detectors and vendors keep their names.

    Raises
    ------
    PatternError
        Raised if the name is no name, or means something already.
    """
    if not SAVED_NAME.fullmatch(name):
        raise PatternError("a name has 1 to 64 small letters, digits and underscores, a letter first", name)
    known = built_in_named(name)
    if known is not None:
        raise PatternError(f"{name} is the name of a pattern that is always there, {known.name}", name)
    if camera is not None:
        layout, key = layout_of(camera), name.upper()
        for kind, names in (
            ("raft", layout.ids_by_raft),
            ("detector", layout.id_by_name),
            ("vendor", layout.ids_by_vendor),
        ):
            if key in names:
                raise PatternError(f"{name} is the name of a {kind} of {camera.name}", name)


def pattern_of(ids: Collection[int], camera: Camera) -> Pattern:
    """Return the pattern of a set of detectors, as drawn on the focal plane, in few words: whole rafts by name.

    Raises
    ------
    PatternError
        Raised for no detector at all, or one that the camera does not have.
    """
    missing = sorted(set(ids) - camera.by_id.keys())
    if missing or not ids:
        reason = f"{camera.name} has no detector {missing[0]}" if missing else "no detector is chosen"
        raise PatternError(reason, ",".join(map(str, missing)))
    layout = layout_of(camera)
    if camera.by_id.keys() <= set(ids):
        return parse_pattern("all" if layout.science == camera.by_id.keys() else "everything")
    spelled = {raft.upper(): raft for raft in (detector.raft for detector in camera.detectors)}
    left, words = set(ids), []
    if layout.science <= left:
        words.append("all")
        left -= layout.science
    for raft, members in layout.ids_by_raft.items():
        # A raft called like a built-in pattern is written out: its name alone would mean that pattern.
        if members <= left and len(members) > 1 and built_in_named(raft) is None:
            words.append(spelled[raft])
            left -= members
    words += [str(first) if first == last else f"{first}-{last}" for first, last in runs_of(left)]
    return parse_pattern(",".join(words))


def runs_of(ids: Collection[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of neighbouring numbers, ascending.

    Examples
    --------
    >>> runs_of({7, 1, 2, 3})
    [(1, 3), (7, 7)]
    """
    runs: list[tuple[int, int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
