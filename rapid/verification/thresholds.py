"""Which limits are in force: dated data, never code.

An entry of ``data/thresholds.yaml`` gives a test's bands for warning and failure, why, and from when. It may be for some
cameras, kinds of CCD, detectors or amps only: of the entries in force the most particular one counts, and of equals the
newest. A site's own file is asked as well; of equals it wins.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rapid.camera.models import Amp, Detector
from rapid.errors import ConfigurationError
from rapid.verification.models import Band, Limits, Scope, Subject

KINDS = ("bias", "dark", "flat", "ptc", "linearity", "crosstalk", "defects")

BUILT_IN = Path(__file__).parent / "data" / "thresholds.yaml"

MAX_BYTES = 4 * 1024 * 1024
"""An entry for every amp of the largest camera, with a reason each, is a quarter of this."""


class Threshold(BaseModel):
    """One entry: the limits of a test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=64)
    kinds: tuple[str, ...] = Field(min_length=1, description="Kinds of calibration it is for.")
    scope: Scope = Scope.AMP
    subjects: tuple[Subject, ...] = Field(
        default=(Subject.EXPOSURE, Subject.MASTER),
        min_length=1,
        description="Exposures as they arrive, masters, or both.",
    )
    unit: str = Field(default="", description="Of the bands; empty for a ratio.")
    warn: Band | None = Field(default=None, description="Values inside are usual.")
    error: Band | None = Field(default=None, description="A value outside has failed.")
    floor: float = Field(
        default=0.0,
        ge=0,
        description="Of a test in standard errors: what is added to the error in quadrature, in the value's own unit.",
    )
    chance_sigma: float = Field(
        default=3.0, ge=0, description="A limit counts as exceeded when it is by more than so many standard errors."
    )
    required: tuple[Subject, ...] = Field(
        default=(Subject.MASTER,), description="Where a missing value keeps the whole from passing."
    )
    reason: str = Field(min_length=1, max_length=500, description="Why these limits.")
    valid_from: date
    valid_to: date | None = Field(default=None, description="First day on which it is in force no longer.")
    cameras: tuple[str, ...] = ()
    physical_types: tuple[str, ...] = Field(default=(), description="Kinds of CCD: E2V, ITL.")
    detectors: tuple[str, ...] = Field(default=(), description="Names: R22_S11.")
    amps: tuple[str, ...] = Field(default=(), description="Names: C00.")

    @model_validator(mode="after")
    def _consistent(self) -> "Threshold":
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds: {kind!r} is none of {', '.join(KINDS)}")
        if self.warn is None and self.error is None:
            raise ValueError("needs a band: warn, error, or both")
        for end in ("low", "high"):
            inner, outer = (getattr(band, end) if band else None for band in (self.warn, self.error))
            if inner is not None and outer is not None and (inner < outer if end == "low" else inner > outer):
                raise ValueError(f"warn.{end} is outside of error.{end}: nothing would ever be warned of")
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise ValueError("valid_to is not after valid_from")
        if self.amps and self.scope is not Scope.AMP:
            raise ValueError(f"amps: a test of a {self.scope.value} has none")
        return self

    @property
    def particularity(self) -> tuple[bool, bool, bool, bool]:
        """How particular it is: amps before detectors before kinds of CCD before cameras."""
        return bool(self.amps), bool(self.detectors), bool(self.physical_types), bool(self.cameras)

    def limits(self, subject: Subject) -> Limits:
        """Return what is told of it beside a value."""
        return Limits(
            unit=self.unit,
            warn=self.warn,
            error=self.error,
            required=subject in self.required,
            chance_sigma=self.chance_sigma,
            reason=self.reason,
            valid_from=self.valid_from.isoformat(),
        )


class Thresholds:
    """Entries of all files, in order: those of a later file win over equals of an earlier one."""

    def __init__(self, entries: Iterable[Threshold]) -> None:
        self.entries = tuple(entries)
        text = json.dumps([entry.model_dump(mode="json") for entry in self.entries], sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:12]

    def of(
        self,
        *,
        kind: str,
        subject: Subject,
        scope: Scope,
        camera: str,
        at: date,
        detector: Detector | None = None,
        amp: Amp | None = None,
    ) -> dict[str, Threshold]:
        """Return the entry in force of every test.

        Parameters
        ----------
        at
            Observing day of what is verified: a limit of today says nothing of last year.
        detector, amp
            None leaves out entries that are for particular ones.
        """
        found: dict[str, tuple[Any, Threshold]] = {}
        for place, entry in enumerate(self.entries):
            if (
                entry.scope is not scope
                or kind not in entry.kinds
                or subject not in entry.subjects
                or entry.valid_from > at
                or (entry.valid_to is not None and entry.valid_to <= at)
                or (entry.cameras and camera not in entry.cameras)
                or (entry.physical_types and (detector is None or not _is_type(detector, entry.physical_types)))
                or (entry.detectors and (detector is None or detector.name not in entry.detectors))
                or (entry.amps and (amp is None or amp.name not in entry.amps))
            ):
                continue
            rank = (entry.particularity, entry.valid_from, place)
            if entry.test not in found or rank > found[entry.test][0]:
                found[entry.test] = (rank, entry)
        return {test: entry for test, (_, entry) in found.items()}


def _is_type(detector: Detector, types: tuple[str, ...]) -> bool:
    """Whether a detector is of one of these kinds; E2V, E2V_x and e2v are alike, ITL_G and ITL_WF are ITL."""
    mine = detector.physical_type.upper()
    return any(mine == one.upper() or mine.startswith(f"{one.upper()}_") for one in types)


def read_thresholds(path: Path) -> tuple[Threshold, ...]:
    """Return the entries of a file.

    Raises
    ------
    ConfigurationError
        Raised, naming file and entry, for anything that is not valid.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ConfigurationError("thresholds", f"{path}: larger than {MAX_BYTES} bytes")
        document = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError("thresholds", f"{path}: {error}") from error
    if (
        not isinstance(document, dict)
        or set(document) != {"thresholds"}
        or not isinstance(document["thresholds"], list)
    ):
        raise ConfigurationError("thresholds", f"{path}: needs one key, thresholds, with a list of entries")
    entries = []
    for place, entry in enumerate(document["thresholds"]):
        try:
            entries.append(Threshold.model_validate(entry))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in (f"thresholds.{place}", *first["loc"]))
            named = f" ({entry['test']})" if isinstance(entry, dict) and "test" in entry else ""
            raise ConfigurationError(field, f"{path}{named}: {first['msg'].removeprefix('Value error, ')}") from error
    return tuple(entries)


def load_thresholds(path: Path | None = None) -> Thresholds:
    """Return the thresholds that come with the package, and a site's own; read again when the file changes.

    Raises
    ------
    ConfigurationError
        Raised, naming file and entry, for anything that is not valid, and for a test that nobody measures.
    """
    stamp = None
    if path is not None:
        try:
            stat = path.stat()
        except OSError as error:
            raise ConfigurationError("thresholds", f"{path}: {error.strerror}") from error
        stamp = (stat.st_mtime_ns, stat.st_size)
    return _load(path, stamp)


@lru_cache(maxsize=4)
def _load(path: Path | None, stamp: tuple[int, int] | None) -> Thresholds:  # noqa: ARG001 - the stamp is for the cache
    from rapid.verification.measures import known_tests

    entries = read_thresholds(BUILT_IN)
    if path is not None:
        entries += read_thresholds(path)
    for place, entry in enumerate(entries):
        for kind in entry.kinds:
            tests = known_tests(kind, entry.scope)
            if entry.test not in tests:
                known = ", ".join(sorted(tests)) or "none"
                raise ConfigurationError(
                    f"thresholds.{place}.test",
                    f"{entry.test} is no test of a {entry.scope.value} of kind {kind}; there are {known}",
                )
    return Thresholds(entries)


def day_of(day_obs: int | None, begin: datetime | None = None) -> date:
    """Return the observing day as a date.

    Examples
    --------
    >>> day_of(20261120).isoformat()
    '2026-11-20'
    """
    if day_obs:
        return date(day_obs // 10_000 % 10_000, day_obs // 100 % 100, day_obs % 100)
    return begin.date() if begin else date(1990, 1, 1)
