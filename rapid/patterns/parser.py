"""Read pattern expressions.

From loosest to tightest::

    a | b        union
    a ^ b        in one of them, not in both
    a & b        intersection
    a - b        difference
    ~a           all science detectors that a leaves out
    a, b, c      a list, as 1,2,5-9
    a[1] or a@1  one phase of a
    (a)

as Python's sets have it. A list is one operand, so ``all - 1,2`` takes both away.
"""

import re
from functools import lru_cache
from typing import NoReturn

from rapid.patterns.catalogue import BuiltIn, Parameter, built_in_named
from rapid.patterns.errors import PatternError
from rapid.patterns.lexer import Kind, Token, tokens_of
from rapid.patterns.tree import Call, Complement, Ids, Join, Operator, Part, Phase, Word

MAX_DEPTH = 20
"""Parentheses and inversions within each other: far below Python's limit of recursion, far above use."""

_LOOSEST_FIRST = (Operator.UNION, Operator.EXCLUSIVE, Operator.INTERSECTION, Operator.DIFFERENCE)
_PHASE_ARGUMENT = re.compile(r"phase([0-9]+)", re.IGNORECASE | re.ASCII)
_OPERANDS = {Kind.NUMBER, Kind.DECIMAL, Kind.RANGE, Kind.BUILT_IN, Kind.WORD}


@lru_cache(maxsize=512)
def parse(text: str) -> Part:
    """Return the parts of an expression.

    Raises
    ------
    PatternError
        Raised, with the column, for anything that is no expression.
    """
    return _Parser(text).whole()


class _Parser:
    """One pass over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens_of(text)
        self._place = 0
        self._depth = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _take(self) -> Token:
        token = self._next
        if token.kind is not Kind.END:
            self._place += 1
        return token

    def _at(self, *signs: str) -> bool:
        return self._next.kind is Kind.SIGN and self._next.text in signs

    def _fail(self, reason: str, column: int | None = None) -> NoReturn:
        raise PatternError(reason, self._text, self._next.column if column is None else column)

    def _expect(self, sign: str, opened: Token) -> None:
        if not self._at(sign):
            self._fail(f"expected {sign!r} to close the {opened.text!r} of column {opened.column}{self._instead()}")
        self._take()

    def _instead(self) -> str:
        return ", not the end" if self._next.kind is Kind.END else f", not {_clipped(self._next.text)!r}"

    def _deeper(self, column: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} parentheses and inversions within each other", column)

    def whole(self) -> Part:
        if len(self._tokens) == 1:
            self._fail("the expression is empty", 1)
        part = self._join(0)
        if self._next.kind is Kind.END:
            return part
        if self._at(")", "]"):
            self._fail(f"{self._next.text!r} closes nothing")
        if self._next.kind in _OPERANDS or self._at("(", "~"):
            self._fail(f"expected | & ^ - or a comma before {_clipped(self._next.text)!r}")
        return self._fail(f"expected | & ^ - or a comma{self._instead()}")

    def _join(self, level: int) -> Part:
        """Return operands joined by the operator of a level, or the only one."""
        if level == len(_LOOSEST_FIRST):
            return self._complement()
        operator, start = _LOOSEST_FIRST[level], self._next.column
        operands = [self._join(level + 1)]
        while self._at(operator.value):
            sign = self._take()
            operands.append(self._join(level + 1))
            if operator is Operator.DIFFERENCE and len(operands) == 2:
                self._refuse_spaced_range(operands, start, sign)
        return operands[0] if len(operands) == 1 else Join(operator, tuple(operands), start)

    def _refuse_spaced_range(self, operands: list[Part], start: int, sign: Token) -> None:
        match operands:
            # One in parentheses begins after them: (0) - 9 is meant.
            case [Ids(column=column) as low, Ids() as high] if low.is_single and high.is_single and column == start:
                self._fail(
                    f"{low} - {high} takes one detector from another: write {low}-{high} or {low}..{high} for the range",
                    sign.column,
                )

    def _complement(self) -> Part:
        if not self._at("~"):
            return self._listing()
        sign = self._take()
        self._deeper(sign.column)
        part = Complement(self._complement(), sign.column)
        self._depth -= 1
        return part

    def _listing(self) -> Part:
        start = self._next.column
        items = [self._with_phase()]
        while self._at(","):
            self._take()
            if self._at("~"):
                self._fail("put what is inverted within a list into parentheses")
            items.append(self._with_phase())
        return items[0] if len(items) == 1 else Join(Operator.LISTING, tuple(items), start)

    def _with_phase(self) -> Part:
        start = self._next.column
        part = self._atom()
        if not self._at("[", "@"):
            return part
        sign = self._take()
        if self._next.kind is not Kind.NUMBER:
            self._fail(f"expected the number of a phase{self._instead()}")
        part = Phase(part, int(self._take().text), start)
        if sign.text == "[":
            self._expect("]", sign)
        if self._at("[", "@"):
            self._fail("a phase is already chosen")
        return part

    def _atom(self) -> Part:
        token = self._take()
        match token.kind:
            case Kind.SIGN if token.text in {"(", "["}:
                self._deeper(token.column)
                part = self._join(0)
                self._expect(")" if token.text == "(" else "]", token)
                self._depth -= 1
                return part
            case Kind.NUMBER:
                return self._number(token)
            case Kind.RANGE:
                first, last = token.text.split("-")
                return self._range(int(first), int(last), token.column)
            case Kind.BUILT_IN:
                return self._built_in(token)
            case Kind.WORD:
                if self._at("("):
                    self._fail(f"no pattern {_clipped(token.text)!r} takes arguments", token.column)
                return Word(token.text, token.column)
            case Kind.DECIMAL:
                return self._fail(f"{token.text} is no number of a detector", token.column)
            case Kind.END:
                return self._fail("expected a pattern, a detector or '(', not the end", token.column)
            case _:
                return self._fail(f"expected a pattern, a detector or '(', not {token.text!r}", token.column)

    def _number(self, token: Token) -> Part:
        first = int(token.text)
        if not self._at(".."):
            return Ids(first, first, token.column)
        self._take()
        if self._next.kind is not Kind.NUMBER:
            self._fail(f"expected the last number of the range{self._instead()}")
        return self._range(first, int(self._take().text), token.column)

    def _range(self, first: int, last: int, column: int) -> Part:
        if last < first:
            self._fail(f"the range {first}-{last} runs backwards", column)
        return Ids(first, last, column)

    def _built_in(self, token: Token) -> Part:
        known = built_in_named(token.text)
        if known is None:
            raise AssertionError(f"the lexer found {token.text!r}, which is no pattern")
        arguments: list[Token] = []
        if self._at("("):
            opened = self._take()
            while not self._at(")"):
                if arguments and not self._at(","):
                    self._expect(")", opened)
                if arguments:
                    self._take()
                if self._next.kind not in {Kind.NUMBER, Kind.DECIMAL, Kind.WORD, Kind.BUILT_IN}:
                    self._fail(f"expected an argument of {known.name}{self._instead()}")
                arguments.append(self._take())
            self._take()
            if not arguments:
                self._fail(f"{known.name} has empty parentheses: {_usage(known)}", opened.column)
            if len(arguments) == 1 and (phase := _PHASE_ARGUMENT.fullmatch(arguments[0].text)):
                # As the lists of the system in use name them: ccd_checkerboard(phase1).
                if len(phase[1]) > 9:
                    self._fail("a phase of so many digits is too large", arguments[0].column)
                return Phase(Call(known.name, (), token.column), int(phase[1]), token.column)
        self._check_arguments(known, arguments, token)
        return Call(known.name, tuple(argument.text for argument in arguments), token.column)

    def _check_arguments(self, known: BuiltIn, arguments: list[Token], token: Token) -> None:
        if not arguments and known.needs_arguments:
            self._fail(f"{known.name} needs a name: {_usage(known)}", token.column)
        if len(arguments) > len(known.parameters) and not (known.many and known.parameters):
            extra = arguments[len(known.parameters)]
            few = f"at most {len(known.parameters)}" if known.parameters else "none"
            self._fail(f"{known.name} takes no such argument ({few}): {_usage(known)}", extra.column)
        for place, argument in enumerate(arguments):
            parameter = known.parameters[min(place, len(known.parameters) - 1)]
            if not _fits(parameter, argument.kind):
                what = {"whole": "a whole number", "number": "a number", "name": "a name"}[parameter.kind]
                shown = _clipped(argument.text)
                self._fail(f"{parameter.name} of {known.name} must be {what}, not {shown}", argument.column)


def _fits(parameter: Parameter, kind: Kind) -> bool:
    match parameter.kind:
        case "whole":
            return kind is Kind.NUMBER
        case "number":
            return kind in {Kind.NUMBER, Kind.DECIMAL}
        case _:
            return kind in {Kind.WORD, Kind.BUILT_IN, Kind.NUMBER}


def _usage(known: BuiltIn) -> str:
    return f"write {known.usage}"


def _clipped(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
