"""Find the detectors that an expression means, for one camera.

Every part of an expression has a *cycle*: its detectors for phase 0, 1, ... until they repeat. Parts with cycles of
different length are joined phase by phase, over the shortest length that both repeat in.
"""

import difflib
from collections.abc import Callable, Mapping
from math import lcm

from rapid.patterns.catalogue import BUILT_INS, ArgumentError, built_in_named
from rapid.patterns.errors import PatternError
from rapid.patterns.layout import Layout
from rapid.patterns.parser import parse
from rapid.patterns.shapes import Cycle
from rapid.patterns.tree import Call, Complement, Ids, Join, Operator, Part, Phase, Word

MAX_LEVELS = 150
"""Parts within each other, through saved patterns too: two frames of Python each, of the thousand there are."""

_JOINED: Mapping[Operator, Callable[[frozenset[int], frozenset[int]], frozenset[int]]] = {
    Operator.UNION: frozenset.union,
    Operator.LISTING: frozenset.union,
    Operator.EXCLUSIVE: frozenset.symmetric_difference,
    Operator.INTERSECTION: frozenset.intersection,
    Operator.DIFFERENCE: frozenset.difference,
}


class Evaluation:
    """Evaluates one expression for one camera.

    Parameters
    ----------
    layout
        Of the camera.
    named
        Patterns saved by name: expressions.
    """

    def __init__(self, layout: Layout, named: Mapping[str, str]) -> None:
        self._layout = layout
        self._named = named
        self._known: dict[str, Cycle] = {}
        self._shapes: dict[Call, Cycle] = {}
        self._within: list[str] = []
        self._levels = 0

    def cycle(self, part: Part, text: str) -> Cycle:
        """Return the detectors of each phase.

        Raises
        ------
        PatternError
            Raised for a name, raft or detector that the camera does not have, an argument that does not suit it, a
            phase that the pattern does not have, and saved patterns that are malformed or contain themselves.
        """
        self._levels += 1
        if self._levels > MAX_LEVELS:
            raise PatternError("patterns are nested too deeply", text, part.column)
        found = self._of(part, text)
        self._levels -= 1
        return _shortest(found)

    def _of(self, part: Part, text: str) -> Cycle:
        match part:
            case Ids():
                return self._ids(part, text)
            case Word():
                return self._word(part, text)
            case Call():
                return self._call(part, text)
            case Phase():
                return self._phase(part, text)
            case Complement():
                return tuple(self._layout.science - phase for phase in self.cycle(part.of, text))
            case Join():
                first, *others = (self.cycle(operand, text) for operand in part.operands)
                for other in others:
                    first = _joined(first, other, _JOINED[part.operator])
                return first

    def _ids(self, part: Ids, text: str) -> Cycle:
        known = self._layout.camera.by_id
        # Stops at the first that is not there, however long the range is.
        for detector_id in range(part.first, part.last + 1):
            if detector_id not in known:
                raise PatternError(
                    f"{self._layout.camera.name} has no detector {detector_id} (numbers {min(known)} to {max(known)})",
                    text,
                    part.column,
                )
        return (frozenset(range(part.first, part.last + 1)),)

    def _word(self, part: Word, text: str) -> Cycle:
        layout, name = self._layout, part.text.upper()
        if name in layout.ids_by_raft:
            return (layout.ids_by_raft[name],)
        if name in layout.id_by_name:
            return (frozenset({layout.id_by_name[name]}),)
        if name in layout.ids_by_vendor:
            return (layout.ids_by_vendor[name],)
        if part.text.lower() in self._named:
            return self._saved(part.text.lower(), part, text)
        raise PatternError(self._unknown(part.text), text, part.column)

    def _unknown(self, word: str) -> str:
        camera = self._layout.camera.name
        if len(word) > 64:
            return f"{camera} has no raft, detector or pattern with a name of {len(word)} characters"
        spelled = {name.upper(): name for known in BUILT_INS for name in (known.name, *known.aliases)}
        spelled |= {name.upper(): name for name in (*self._layout.ids_by_raft, *self._named)}
        spelled |= {detector.name.upper(): detector.name for detector in self._layout.camera.detectors}
        near = difflib.get_close_matches(word.upper(), spelled, n=1)
        hint = f"; did you mean {spelled[near[0]]}?" if near else "; rapid patterns lists what there is"
        return f"{camera} has no raft, detector or pattern {word!r}{hint}"

    def _saved(self, name: str, part: Word, text: str) -> Cycle:
        if name in self._known:
            return self._known[name]
        if name in self._within:
            circle = " -> ".join([*self._within[self._within.index(name) :], name])
            raise PatternError(f"saved patterns contain each other: {circle}", text, part.column)
        saved = self._named[name]
        self._within.append(name)
        try:
            self._known[name] = self.cycle(parse(saved), saved)
        except PatternError as error:
            raise PatternError(_within_saved(name, error.reason), error.text, error.column) from error
        self._within.pop()
        return self._known[name]

    def _call(self, part: Call, text: str) -> Cycle:
        known = built_in_named(part.name)
        if known is None:
            raise AssertionError(f"the parser made a call of {part.name!r}, which is no pattern")
        try:
            if part not in self._shapes:  # a long expression may name the same one hundreds of times
                self._shapes[part] = known.make(self._layout, part.arguments)
            return self._shapes[part]
        except ArgumentError as error:
            raise PatternError(f"{known.name}: {error}", text, part.column) from error

    def _phase(self, part: Phase, text: str) -> Cycle:
        cycle = self.cycle(part.of, text)
        if part.number >= len(cycle):
            name, camera = str(part.of), self._layout.camera.name
            shown = name if len(name) <= 60 else f"{name[:60]}..."
            has = f"the phases 0 to {len(cycle) - 1}" if len(cycle) > 1 else "phase 0 only"
            raise PatternError(f"{shown} has {has} in {camera}, not {part.number}", text, part.column)
        return (cycle[part.number],)


def _within_saved(name: str, reason: str) -> str:
    # The innermost is where it is wrong; of a long chain the rest says nothing.
    return reason if reason.startswith("in the saved pattern ") else f"in the saved pattern {name}: {reason}"


def _joined(a: Cycle, b: Cycle, join: Callable[[frozenset[int], frozenset[int]], frozenset[int]]) -> Cycle:
    return tuple(join(a[phase % len(a)], b[phase % len(b)]) for phase in range(lcm(len(a), len(b))))


def _shortest(cycle: Cycle) -> Cycle:
    """Return the part of a cycle that the rest repeats."""
    n = len(cycle)
    return next(cycle[:p] for p in range(1, n + 1) if n % p == 0 and cycle == cycle[:p] * (n // p))
