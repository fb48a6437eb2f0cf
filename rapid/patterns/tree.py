"""The parts of a pattern expression, and how they are written.

``str`` of a part is text that parses to an equal part. `column` says where in its text a part began; it does not
count when parts are compared.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias


class Operator(Enum):
    """What joins the operands of a `Join`; the value is the sign, the order is that of binding, loosest first."""

    UNION = "|"
    EXCLUSIVE = "^"
    INTERSECTION = "&"
    DIFFERENCE = "-"
    LISTING = ","


_TIGHTNESS = {operator: place for place, operator in enumerate(Operator)}
_TIGHTNESS_OF_COMPLEMENT = _TIGHTNESS[Operator.DIFFERENCE] + 0.5  # ~1,2 is ~(1,2)
_TIGHTNESS_OF_PHASE = _TIGHTNESS[Operator.LISTING] + 1
_TIGHTNESS_OF_ATOM = _TIGHTNESS_OF_PHASE + 1


@dataclass(frozen=True)
class Ids:
    """Detectors by number, `first` to `last`, both included."""

    first: int
    last: int
    column: int = field(default=1, compare=False)

    @property
    def is_single(self) -> bool:
        """Whether it is one detector."""
        return self.first == self.last

    def __str__(self) -> str:
        return str(self.first) if self.is_single else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Word:
    """A raft, a detector, a vendor, or a pattern saved by name: what it is, the camera and the saved names tell."""

    text: str
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Call:
    """A built-in pattern by its first name, with arguments if it has any."""

    name: str
    arguments: tuple[str, ...] = ()
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"{self.name}({','.join(self.arguments)})" if self.arguments else self.name


@dataclass(frozen=True)
class Phase:
    """One phase of a pattern, whatever phase is asked for."""

    of: "Part"
    number: int
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"{_written(self.of, _TIGHTNESS_OF_ATOM)}[{self.number}]"


@dataclass(frozen=True)
class Complement:
    """All science detectors that a pattern leaves out."""

    of: "Part"
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"~{_written(self.of, _TIGHTNESS_OF_COMPLEMENT)}"


@dataclass(frozen=True)
class Join:
    """Two or more operands of the same operator, from left to right.

    Not a tree of pairs: a chain of a thousand unions is one part, not a thousand levels deep.
    """

    operator: Operator
    operands: tuple["Part", ...]
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        sign = "," if self.operator is Operator.LISTING else f" {self.operator.value} "
        least = _TIGHTNESS[self.operator] + 0.25
        match self.operands:
            case [Ids(is_single=True) as low, Ids(is_single=True), *_] if self.operator is Operator.DIFFERENCE:
                # Without parentheses the first two would look like a range.
                return sign.join([f"({low})", *(_written(operand, least) for operand in self.operands[1:])])
        return sign.join(_written(operand, least) for operand in self.operands)


Part: TypeAlias = Ids | Word | Call | Phase | Complement | Join


def _tightness(part: Part) -> float:
    match part:
        case Join():
            return _TIGHTNESS[part.operator]
        case Complement():
            return _TIGHTNESS_OF_COMPLEMENT
        case Phase():
            return _TIGHTNESS_OF_PHASE
        case _:
            return _TIGHTNESS_OF_ATOM


def _written(part: Part, least: float) -> str:
    return str(part) if _tightness(part) >= least else f"({part})"
