"""Rules on metrics: which exposures' detectors are left out of builds, said as an expression. Pure.

From loosest to tightest::

    a or b
    a and b
    not a
    metric > 5      also < <= >= == !=, both sides a name, a number or a 'text'
    metric is null  it could not be measured; also: is not null
    detector in R22, detector in (R22, R01_S00, 94)
    (a)

Names are metrics of the detector or of an amp, and ``detector``, ``raft``, ``amp``, ``image_type``, ``pipeline``,
``exposure``, ``day_obs``, ``seq_num``. A rule that names an amp's metric is met if one amp meets it as a whole. A metric
that was not measured, or is not there, meets no comparison: what nobody measured is not excluded by its absence.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from rapid.exclusions.models import ExclusionError
from rapid.results.models import DetectorResult, Scalar

MAX_LENGTH = 1000
MAX_DEPTH = 20
MAX_LISTED = 300

_TOKEN = re.compile(
    r"(?P<NUMBER>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z_]))"
    r"|(?P<NAME>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<TEXT>'[^']*'|\"[^\"]*\")"
    r"|(?P<SIGN><=|>=|==|!=|<|>|=|\(|\)|,)"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_WORDS = frozenset({"and", "or", "not", "in", "is", "null"})

Facts = Mapping[str, Scalar]
_Test = Callable[[Facts], bool]


class RuleError(ExclusionError):
    """An expression cannot be read."""

    code = "bad_rule"


@dataclass(frozen=True)
class Finding:
    """What a rule has found in one result.

    Attributes
    ----------
    amp
        The first amp that meets it; None if the detector's own numbers do.
    values
        The numbers it looked at.
    """

    amp: str | None
    values: dict[str, Scalar]

    def __str__(self) -> str:
        """Return it in words: ``C00: bias_mean_adu = 7.2``."""
        numbers = ", ".join(
            f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}"
            for name, value in self.values.items()
        )
        return f"{self.amp}: {numbers}" if self.amp else numbers


@dataclass(frozen=True)
class Rule:
    """An expression that was read; see `parse_rule`."""

    text: str
    names: tuple[str, ...]
    _test: _Test

    def find(self, result: DetectorResult) -> Finding | None:
        """Return what the rule finds in a result, or None."""
        for amp, facts in _facts_of(result):
            if self._test(facts):
                shown = {name: facts.get(name) for name in self.names if name not in _ABOUT}
                return Finding(
                    amp if any(name in result.amps.get(amp or "", {}) for name in self.names) else None, shown
                )
        return None

    def meets(self, facts: Facts) -> bool:
        """Whether facts meet the expression: those of an exposure, for example."""
        return self._test(facts)


_ABOUT = frozenset({"detector", "raft", "amp", "image_type", "pipeline", "exposure", "day_obs", "seq_num"})


def _facts_of(result: DetectorResult) -> Iterator[tuple[str | None, dict[str, Scalar]]]:
    raft = result.detector_name.partition("_")[0]
    about: dict[str, Scalar] = {
        "detector": result.detector_name,
        "detector_number": result.detector,
        "raft": raft,
        "image_type": result.image_type,
        "pipeline": result.pipeline,
        "exposure": result.exposure,
        "day_obs": result.day_obs,
        "seq_num": result.seq_num,
    }
    if not result.amps:
        yield None, {**result.metrics, **about}
    for amp, values in result.amps.items():
        yield amp, {**result.metrics, **values, **about, "amp": amp}


def parse_rule(text: str, *, about_exposures: bool = False) -> Rule:
    """Return a rule.

    Parameters
    ----------
    about_exposures
        It chooses exposures: it need not name a metric.

    Raises
    ------
    RuleError
        Raised, with the column, for anything that is no expression.

    Examples
    --------
    >>> parse_rule("bias_mean_adu > 5 and detector in R22").names
    ('bias_mean_adu', 'detector')
    """
    return _Parser(text).whole(needs_metric=not about_exposures)


class _Parser:
    """One pass over one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_LENGTH:
            raise RuleError("rule", f"has {len(text)} characters; {MAX_LENGTH} at most")
        self._tokens = list(self._cut())
        self._place = 0
        self._depth = 0
        self._names: dict[str, None] = {}

    def _cut(self) -> Iterator[tuple[str, str, int]]:
        place = 0
        while place < len(self._text):
            if self._text[place].isspace():
                place += 1
                continue
            found = _TOKEN.match(self._text, place)
            if found is None:
                self._fail(f"{self._text[place]!r} means nothing here", place + 1)
            kind, text = found.lastgroup or "", found.group()
            if kind == "NAME" and text.lower() in _WORDS:
                kind, text = "WORD", text.lower()
            yield kind, text, place + 1
            place = found.end()
        yield "END", "", len(self._text) + 1

    def _fail(self, reason: str, column: int) -> NoReturn:
        raise RuleError("rule", f"{reason} (column {column})")

    @property
    def _next(self) -> tuple[str, str, int]:
        return self._tokens[self._place]

    def _take(self) -> tuple[str, str, int]:
        token = self._next
        self._place += token[0] != "END"
        return token

    def _at(self, *texts: str) -> bool:
        return self._next[0] in {"WORD", "SIGN"} and self._next[1] in texts

    def whole(self, *, needs_metric: bool) -> Rule:
        if self._next[0] == "END":
            self._fail("is empty", 1)
        test = self._either()
        kind, text, column = self._next
        if kind != "END":
            self._fail(f"expected and, or, or the end, not {text[:40]!r}", column)
        if needs_metric and not set(self._names) - _ABOUT:
            self._fail("names no metric: exposures are excluded by their number, detectors by their name", 1)
        return Rule(self._text.strip(), tuple(self._names), test)

    def _either(self) -> _Test:
        tests = [self._both()]
        while self._at("or"):
            self._take()
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda facts: any(test(facts) for test in tests)

    def _both(self) -> _Test:
        tests = [self._not()]
        while self._at("and"):
            self._take()
            tests.append(self._not())
        return tests[0] if len(tests) == 1 else lambda facts: all(test(facts) for test in tests)

    def _not(self) -> _Test:
        if not self._at("not", "("):
            return self._comparison()
        _, sign, column = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} parentheses and negations within each other", column)
        test = self._not() if sign == "not" else self._either()
        self._depth -= 1
        if sign == "not":
            return lambda facts: not test(facts)
        if not self._at(")"):
            self._fail(f"expected ) to close the ( of column {column}", self._next[2])
        self._take()
        return test

    def _operand(self) -> Callable[[Facts], Scalar]:
        kind, text, column = self._take()
        if kind == "NUMBER":
            number = float(text)
            return lambda facts: number  # noqa: ARG005 - a constant looks at no facts
        if kind == "TEXT":
            return lambda facts: text[1:-1]  # noqa: ARG005 - a constant looks at no facts
        if kind == "NAME":
            self._names[text] = None
            return lambda facts: facts.get(text)
        return self._fail(f"expected a metric or a number, not {text[:40]!r}" if text else "it ends too soon", column)

    def _comparison(self) -> _Test:
        name = self._next[1]
        left = self._operand()
        kind, sign, column = self._take()
        if sign == "is" and kind == "WORD":
            return self._null(left)
        if kind == "WORD" and sign in {"in", "not"}:
            if sign == "not" and not self._at("in"):
                self._fail("expected in", self._next[2])
            if sign == "not":
                self._take()
            if name not in {"detector", "raft", "image_type", "pipeline", "amp"}:
                self._fail(f"in is for detector, raft, amp, image_type and pipeline, not {name[:40]!r}", column)
            listed = self._listed()

            def is_among(facts: Facts) -> bool:
                return bool(_names_of(name, facts) & listed) is (sign == "in")

            return is_among
        if sign == "=":
            self._fail("to compare write ==", column)
        compare = _COMPARE.get(sign)
        if compare is None:
            self._fail(f"expected a comparison after {name[:40]!r}", column)
        # image_type == bias: a bare word is the text where the left side is about the image.
        if name in _ABOUT and self._next[0] == "NAME":
            word = self._take()[1]
            return lambda facts: _compare(compare, left(facts), word)
        right = self._operand()
        return lambda facts: _compare(compare, left(facts), right(facts))

    def _null(self, left: Callable[[Facts], Scalar]) -> _Test:
        negated = self._at("not")
        if negated:
            self._take()
        if not self._at("null"):
            self._fail("expected null", self._next[2])
        self._take()
        return lambda facts: (left(facts) is None) is not negated

    def _listed(self) -> frozenset[str]:
        if not self._at("("):
            return frozenset({self._item()})
        self._take()
        found = [self._item()]
        while self._at(","):
            self._take()
            found.append(self._item())
            if len(found) > MAX_LISTED:
                self._fail(f"more than {MAX_LISTED} names", self._next[2])
        if not self._at(")"):
            self._fail("expected , or ) in the list", self._next[2])
        self._take()
        return frozenset(found)

    def _item(self) -> str:
        kind, text, column = self._take()
        if kind not in {"NAME", "NUMBER", "TEXT"}:
            self._fail(f"expected a name, not {text[:40]!r}", column)
        return text.strip("'\"").upper()


def _names_of(name: str, facts: Facts) -> frozenset[str]:
    """Return what stands for a fact in a list: a detector goes by name, number and raft."""
    if name == "detector":
        return frozenset(str(facts.get(one)).upper() for one in ("detector", "detector_number", "raft"))
    return frozenset({str(facts.get(name)).upper()})


def _compare(compare: Callable[[Any, Any], bool], left: Scalar, right: Scalar) -> bool:
    if left is None or right is None:
        return False
    if isinstance(left, str) != isinstance(right, str):
        return False  # a word is neither more nor less than a number
    return bool(compare(left, right))
