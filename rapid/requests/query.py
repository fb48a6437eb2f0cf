"""Read the part of Butler query expressions that scripts select exposures and detectors with.

Conditions joined by AND: ``exposure = 2026112000012``, ``visit IN (2026112000012, 2026112000014..2026112000020:2)``,
``detector IN (0..8, 94)``, ``instrument = 'LSSTCam'``, ``day_obs`` with ``seq_num``. Anything else is refused by name: half a
query understood would process the wrong images.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rapid.requests.faults import BadRequestError
from rapid.requests.message import LARGEST_ID
from rapid.requests.selection import MAX_EXPOSURES

FIELD = "environment.DATA_QUERY"
MAX_LENGTH = 20_000

_TOKEN = re.compile(r"\s*(?:(\d+\.\.\d+(?::\d+)?)|(\d+)|('[^']*'|\"[^\"]*\")|([A-Za-z_][\w.]*)|([=(),]))")
_EXPOSURE_NAMES = frozenset({"exposure", "visit", "exposure.id", "visit.id"})
_NAMES = {
    **dict.fromkeys(_EXPOSURE_NAMES, "exposure"),
    **dict.fromkeys(("detector", "detector.id"), "detector"),
    "instrument": "instrument",
    **dict.fromkeys(("day_obs", "exposure.day_obs", "visit.day_obs"), "day_obs"),
    **dict.fromkeys(("seq_num", "exposure.seq_num", "visit.seq_num"), "seq_num"),
}


@dataclass(frozen=True)
class DataQuery:
    """What a query selects; no detectors: all."""

    exposures: tuple[int, ...]
    detectors: tuple[int, ...] = ()


def read_data_query(text: str, *, instrument: str) -> DataQuery:
    """Read a query.

    Raises
    ------
    BadRequestError
        Raised for anything but conditions on exposure, visit, detector, instrument, day_obs and seq_num joined by AND.

    Examples
    --------
    >>> read_data_query("instrument='LSSTCam' AND exposure IN (2026112000001..2026112000003) AND detector=94", instrument="LSSTCam")
    DataQuery(exposures=(2026112000001, 2026112000002, 2026112000003), detectors=(94,))
    """
    if len(text) > MAX_LENGTH:
        raise BadRequestError(FIELD, f"is longer than {MAX_LENGTH} characters")
    tokens = list(_tokens(text))
    found: dict[str, list[int]] = {}
    place = 0
    while place < len(tokens):
        place = _read_condition(tokens, place, found, instrument)
        if place < len(tokens):
            if tokens[place][1].upper() != "AND" or place + 1 == len(tokens):
                raise BadRequestError(FIELD, f"only AND can join conditions, not {tokens[place][1][:40]!r}")
            place += 1
    if "exposure" in found:
        if "seq_num" in found or "day_obs" in found:
            raise BadRequestError(FIELD, "give exposure, or day_obs and seq_num, not both")
        exposures = found["exposure"]
    elif "day_obs" in found and "seq_num" in found:
        exposures = [day * 100_000 + seq for day in found["day_obs"] for seq in found["seq_num"]]
    else:
        raise BadRequestError(FIELD, "selects no exposures: exposure, visit, or day_obs and seq_num is needed")
    if len(exposures) > MAX_EXPOSURES:
        raise BadRequestError(FIELD, f"{len(exposures)} exposures are too many; {MAX_EXPOSURES} at most")
    return DataQuery(tuple(dict.fromkeys(exposures)), tuple(dict.fromkeys(found.get("detector", ()))))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    kinds = ("range", "number", "text", "word", "mark")
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None:
            raise BadRequestError(FIELD, f"cannot be understood from {text[place : place + 40].strip()!r} on")
        kind = kinds[(match.lastindex or 1) - 1]
        yield kind, match.group(match.lastindex or 1)
        place = match.end()


def _read_condition(tokens: list[tuple[str, str]], place: int, found: dict[str, list[int]], instrument: str) -> int:
    """Read one condition; return where the next token is."""

    def take(offset: int) -> tuple[str, str]:
        return tokens[place + offset] if place + offset < len(tokens) else ("end", "")

    kind, word = take(0)
    name = _NAMES.get(word.lower()) if kind == "word" else None
    if name is None:
        raise BadRequestError(FIELD, f"no condition on {word[:40]!r} is understood ({', '.join(sorted(_NAMES))} are)")
    operator = take(1)[1].upper()
    if name == "instrument":
        value = take(2)[1].strip("'\"")
        if operator != "=" or value != instrument:
            raise BadRequestError(FIELD, f"instrument must be = {instrument!r}")
        return place + 3
    if name in found:
        raise BadRequestError(FIELD, f"{name} is given twice")
    if operator == "=":
        found[name] = _numbers(*take(2))
        return place + 3
    if operator != "IN" or take(2)[1] != "(":
        raise BadRequestError(FIELD, f"after {word} there must be = or IN (...)")
    values: list[int] = []
    offset = 3
    while True:
        values += _numbers(*take(offset))
        if len(values) > MAX_EXPOSURES:
            raise BadRequestError(FIELD, f"more than {MAX_EXPOSURES} values of {name} are too many")
        mark = take(offset + 1)[1]
        offset += 2
        if mark == ")":
            found[name] = values
            return place + offset
        if mark != ",":
            raise BadRequestError(FIELD, f"the list of {name} does not end")


def _numbers(kind: str, text: str) -> list[int]:
    if kind == "number" and len(text) < 16:
        return [int(text)]
    if kind == "range" and len(text) < 60:
        bounds, _, step_text = text.partition(":")
        first, last = (int(part) for part in bounds.split(".."))
        step = int(step_text or 1)
        if step < 1 or last < first or last > LARGEST_ID or (last - first) // step >= MAX_EXPOSURES:
            raise BadRequestError(FIELD, f"{text} is no range of at most {MAX_EXPOSURES} values")
        return list(range(first, last + 1, step))
    raise BadRequestError(FIELD, f"{text[:40]!r} is no number")
