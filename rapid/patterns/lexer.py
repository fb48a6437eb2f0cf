"""Cut the text of a pattern expression into names, numbers and signs.

The names of built-in patterns are found here, as they may hold blanks and dashes (``5 on a die``,
``ultra-minimal``), which between other words separate and subtract.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum

from rapid.patterns.catalogue import built_in_named, plain_name, spellings
from rapid.patterns.errors import PatternError

MAX_LENGTH = 4096
"""Characters of an expression: a list of every detector of the largest camera by name fits."""

MAX_DIGITS = 9


class Kind(Enum):
    """What a token is."""

    NUMBER = "a number"
    DECIMAL = "a decimal number"
    RANGE = "a range"
    BUILT_IN = "a pattern"
    WORD = "a name"
    SIGN = "a sign"
    END = "the end"


@dataclass(frozen=True)
class Token:
    """A piece of the expression; `column` counts from 1.

    `text` is as written, of a built-in pattern its first name.
    """

    kind: Kind
    text: str
    column: int


def _phrases() -> re.Pattern[str]:
    # "-" with blanks beside it subtracts; a single one within a known name, or blanks alone, do not.
    joint = r"(?:[-_]|\s*)"
    names = sorted((joint.join(map(re.escape, words)) for words in spellings()), key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(names)})(?![A-Za-z0-9_])", re.IGNORECASE | re.ASCII)


_PHRASES = _phrases()
_OTHERS = re.compile(
    r"(?P<RANGE>[0-9]+-[0-9]+(?![A-Za-z0-9_]))"
    r"|(?P<DECIMAL>[0-9]+\.[0-9]+(?![A-Za-z0-9_.]))"
    r"|(?P<WORD>[A-Za-z0-9_]*[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<NUMBER>[0-9]+)"
    r"|(?P<SIGN>\.\.|[|&~^,()\[\]@-])"
)
_HINTS = {
    "+": "for a union write |",
    "!": "for an inversion write ~",
    "/": "for a difference write -",
    "\\": "for a difference write -",
    "\N{EN DASH}": "write the dash of the keyboard, -",
    "\N{EM DASH}": "write the dash of the keyboard, -",
    "\N{MINUS SIGN}": "write the dash of the keyboard, -",
    "\N{UNION}": "for a union write |",
    "\N{INTERSECTION}": "for an intersection write &",
    ";": "lists take commas",
    ":": "ranges are written 0-9 or 0..9",
    ".": "ranges are written 0-9 or 0..9",
    "*": "for every detector write everything",
}


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of an expression, an END last.

    Raises
    ------
    PatternError
        Raised for text that is too long, a sign that means nothing here, or a number that is too long.
    """
    if len(text) > MAX_LENGTH:
        raise PatternError(f"the expression has {len(text)} characters, {MAX_LENGTH} are allowed", text, MAX_LENGTH + 1)
    tokens: list[Token] = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        if phrase := _PHRASES.match(text, place):
            tokens.append(Token(Kind.BUILT_IN, _built_in(phrase.group(), text, place + 1), place + 1))
            place = phrase.end()
            continue
        other = _OTHERS.match(text, place)
        if other is None:
            raise PatternError(_unexpected(text[place]), text, place + 1)
        kind = Kind[other.lastgroup or "SIGN"]
        if kind in {Kind.NUMBER, Kind.RANGE, Kind.DECIMAL}:
            _check_digits(other.group(), text, place + 1)
        tokens.append(Token(kind, other.group(), place + 1))
        place = other.end()
    tokens.append(Token(Kind.END, "", len(text) + 1))
    return tokens


def _built_in(phrase: str, text: str, column: int) -> str:
    """Return the first name of what a phrase means; refuse ``all-unvignetted``, which may as well be a difference."""
    for dash in (at for at, sign in enumerate(phrase) if sign == "-"):
        before, after = phrase[:dash], phrase[dash + 1 :]
        if built_in_named(before) is not None and built_in_named(after) is not None:
            raise PatternError(
                f"{phrase} can be a name or a difference: write {plain_name(before)}_{plain_name(after)} or "
                f"{before} - {after}",
                text,
                column + dash,
            )
    found = built_in_named(phrase)
    if found is None:
        raise AssertionError(f"{phrase!r} was matched as a name but is none")
    return found.name


def _check_digits(number: str, text: str, column: int) -> None:
    for digits in re.split(r"[-.]", number):
        if len(digits) > MAX_DIGITS:
            raise PatternError(f"a number of {len(digits)} digits is too large", text, column)


def _unexpected(sign: str) -> str:
    hint = f" ({_HINTS[sign]})" if sign in _HINTS else ""
    shown = f"'{sign}'" if "!" <= sign <= "~" else f"U+{ord(sign):04X} {unicodedata.name(sign, 'without a name')}"
    return f"{shown} means nothing in a pattern{hint}"
