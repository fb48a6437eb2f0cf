"""The primary headers of a night as text: FITS cards, each said once.

Of the keys of a raw most are the same all night, or for a detector, or for an exposure. So a key belongs to one of four
levels, and a night of 200 000 raws takes a few kilobytes an exposure. In texts ``{obs_id}`` and ``{detector}`` stand for
the names of exposure and detector.
"""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rapid.errors import ConfigurationError
from replay.fits_writer import Value, card_text

OBS_ID, DETECTOR = "{obs_id}", "{detector}"

STRUCTURE = frozenset(
    {"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "COMMENT", "HISTORY", "", "CHECKSUM", "DATASUM", "CONTINUE", "END"}
)
"""Keys that say how a file is laid out, or text: no facts of the exposure."""

_SECTION = re.compile(r"\[(night|detector|exposure|raw)((?: [A-Za-z0-9_]+)*)\]")
_LINE = re.compile(r"(?P<key>[^=]{1,64}?)\s*=\s?(?P<value>.*)")
_INTEGER = re.compile(r"[+-]?\d+$")

Facts = dict[str, Value]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class RawFacts:
    """The header of one raw."""

    exposure: int
    obs_id: str
    detector: str
    header: Mapping[str, Value]


@dataclass
class NightHeaders:
    """Headers of all raws of a night.

    Attributes
    ----------
    order
        Keys in the order of the files.
    detectors, exposures, raws
        Facts by name of the detector, by exposure id, and by both.
    """

    order: list[str] = field(default_factory=list)
    night: Facts = field(default_factory=dict)
    detectors: dict[str, Facts] = field(default_factory=dict)
    exposures: dict[int, Facts] = field(default_factory=dict)
    raws: dict[tuple[int, str], Facts] = field(default_factory=dict)

    @classmethod
    def of(cls, raws: Iterable[RawFacts]) -> "NightHeaders":
        """Sort the headers of a night into levels."""
        found = list(raws)
        order: dict[str, None] = {}
        for raw in found:
            order.update(dict.fromkeys(key for key in raw.header if _is_fact(key)))
        headers = cls(order=list(order))
        plain = [{key: _templated(raw, raw.header[key]) for key in order if key in raw.header} for raw in found]
        for key in order:
            headers._place(key, found, [facts.get(key, _ABSENT) for facts in plain])
        return headers

    def _place(self, key: str, raws: list[RawFacts], values: "list[Value | _Absent]") -> None:
        """Put a key on the highest level that tells it all."""
        first = values[0]
        if not isinstance(first, _Absent) and all(_same(value, first) for value in values):
            self.night[key] = first
            return
        by_detector = _by([raw.detector for raw in raws], values)
        by_exposure = _by([raw.exposure for raw in raws], values)
        if by_exposure is not None:
            for exposure, value in by_exposure.items():
                if not isinstance(value, _Absent):
                    self.exposures.setdefault(exposure, {})[key] = value
        elif by_detector is not None:
            for detector, value in by_detector.items():
                if not isinstance(value, _Absent):
                    self.detectors.setdefault(detector, {})[key] = value
        else:
            for raw, value in zip(raws, values, strict=True):
                if not isinstance(value, _Absent):
                    self.raws.setdefault((raw.exposure, raw.detector), {})[key] = value

    def has(self, exposure: int, detector: str) -> bool:
        """Whether something is said of a raw, or of its exposure: in a night of one exposure, of the night."""
        n_exposures = len(self.exposures) or len({number for number, _ in self.raws})
        return exposure in self.exposures or (exposure, detector) in self.raws or (not n_exposures and bool(self.night))

    def header_of(self, exposure: int, obs_id: str, detector: str) -> Facts:
        """Return the header of a raw; for one that was not recorded, what is known of its exposure and detector."""
        levels = (
            self.night,
            self.detectors.get(detector, {}),
            self.exposures.get(exposure, {}),
            self.raws.get((exposure, detector), {}),
        )
        facts: Facts = {key: value for level in levels for key, value in level.items()}
        ordered = {key: facts[key] for key in self.order if key in facts} | facts
        return {
            key: value.replace(OBS_ID, obs_id).replace(DETECTOR, detector) if isinstance(value, str) else value
            for key, value in ordered.items()
        }

    def to_text(self) -> str:
        """Return the headers as text."""

        def lines() -> Iterator[str]:
            yield "[night]"
            yield from map(_line, self.night.items())
            for detector, facts in sorted(self.detectors.items()):
                yield f"[detector {detector}]"
                yield from map(_line, facts.items())
            for exposure, facts in sorted(self.exposures.items()):
                yield f"[exposure {exposure}]"
                yield from map(_line, facts.items())
            for (exposure, detector), facts in sorted(self.raws.items()):
                yield f"[raw {exposure} {detector}]"
                yield from map(_line, facts.items())

        return "\n".join(lines()) + "\n"

    @classmethod
    def from_text(cls, text: str, order: Iterable[str] = ()) -> "NightHeaders":
        """Read the text back.

        Raises
        ------
        ConfigurationError
            Raised, naming the line, if it is not such a text.
        """
        headers = cls(order=list(order))
        facts: Facts = headers.night
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            if section := _SECTION.fullmatch(line.strip()):
                facts = headers._section(section[1], section[2].split(), number)
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                raise ConfigurationError("headers.txt", f"line {number} is no header card: {line[:60]!r}")
            facts[match["key"].removeprefix("HIERARCH ")] = _read_value(match["value"], number)
        return headers

    def _section(self, level: str, names: list[str], number: int) -> Facts:
        try:
            if level == "night" and not names:
                return self.night
            if level == "detector":
                (detector,) = names
                return self.detectors.setdefault(detector, {})
            if level == "exposure":
                (exposure,) = names
                return self.exposures.setdefault(int(exposure), {})
            exposure, detector = names
            return self.raws.setdefault((int(exposure), detector), {})
        except ValueError as error:
            raise ConfigurationError("headers.txt", f"line {number}: [{level} {' '.join(names)}]") from error


class _Absent:
    """Marks a key that a header does not have."""


_ABSENT = _Absent()


def _is_fact(key: str) -> bool:
    return key not in STRUCTURE and not any(ord(letter) < 32 or letter in "=[]" for letter in key)


def _same(one: object, other: object) -> bool:
    """Whether two values are one card: 1, 1.0 and True are three."""
    return type(one) is type(other) and one == other


def _by(names: Sequence[Name], values: "Sequence[Value | _Absent]") -> "dict[Name, Value | _Absent] | None":
    """Return the one value of each name, None if one has several."""
    found: dict[Name, Value | _Absent] = {}
    for name, value in zip(names, values, strict=True):
        if not _same(found.setdefault(name, value), value):
            return None
    return found


def _templated(raw: RawFacts, value: Value) -> Value:
    if not isinstance(value, str):
        return value
    text = value.encode("ascii", "replace").decode().rstrip()  # blanks at the end mean nothing in FITS
    return text.replace(raw.obs_id, OBS_ID).replace(raw.detector, DETECTOR)


def _line(item: tuple[str, Value]) -> str:
    return card_text(*item).rstrip()


def _read_value(text: str, number: int) -> Value:
    text = text.strip()
    if not text:
        return None
    if text.startswith("'"):
        if len(text) < 2 or not text.endswith("'"):
            raise ConfigurationError("headers.txt", f"line {number}: the text is not closed")
        return text[1:-1].replace("''", "'").rstrip()
    if text in {"T", "F"}:
        return text == "T"
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        return float(text.replace("D", "E"))
    except ValueError as error:
        raise ConfigurationError("headers.txt", f"line {number}: {text[:40]!r} is no value") from error
