"""What a verification says: measured value, limits and outcome of every test, amp by amp.

One `Verification` is of one detector: of a calibration exposure as it arrived, or of a new master. `ExposureVerdict` and
`RunVerdict` roll them up. `rapid.verification.layout` writes them in the field's layout.
"""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(StrEnum):
    """How a test ended."""

    PASS = "pass"  # noqa: S105 - a word, no password
    WARN = "warn"
    """Outside of what is usual: looked at, not refused."""

    NOT_MEASURED = "not_measured"
    """There is no value: neither good nor 0."""

    FAIL = "fail"

    @property
    def is_success(self) -> bool:
        """Whether a master with it may be certified without anybody's word."""
        return self in {Outcome.PASS, Outcome.WARN}


_SEVERITY = (Outcome.PASS, Outcome.WARN, Outcome.NOT_MEASURED, Outcome.FAIL)


def worst(outcomes: "Iterator[Outcome] | list[Outcome]") -> Outcome:
    """Return the worst outcome: fail before not measured before warn; not measured if there is none.

    Examples
    --------
    >>> worst([Outcome.PASS, Outcome.WARN]).value
    'warn'
    """
    return max(outcomes, key=_SEVERITY.index, default=Outcome.NOT_MEASURED)


class Scope(StrEnum):
    """What one value of a test is of."""

    AMP = "amp"
    DETECTOR = "detector"
    EXPOSURE = "exposure"


class Subject(StrEnum):
    """What is verified."""

    EXPOSURE = "exposure"
    """A calibration exposure, as it arrived."""

    MASTER = "master"
    """A calib that was built, before it is certified."""


class Band(_Model):
    """Values that are allowed, both ends included; an end that is left out is open."""

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Band":
        if self.low is None and self.high is None:
            raise ValueError("needs low, high, or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    def excess(self, value: float) -> float:
        """Return by how much a value is outside; 0 inside."""
        below = self.low - value if self.low is not None else 0.0
        above = value - self.high if self.high is not None else 0.0
        return max(below, above, 0.0)

    def __str__(self) -> str:
        """Return the band in words: `-0.05 to 0.05`, `at most 3`."""
        if self.low is None:
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"


class Limits(_Model):
    """What a test's value was held against."""

    unit: str = Field(default="", description="Of value and bands; empty for a ratio.")
    warn: Band | None = Field(default=None, description="Outside of it: a warning.")
    error: Band | None = Field(default=None, description="Outside of it: failed.")
    required: bool = Field(
        default=True, description="Whether a value that is missing keeps a master from being certified."
    )
    chance_sigma: float = Field(
        default=3.0, description="A band is left when the value is outside by more than so many standard errors."
    )
    reason: str = Field(default="", description="Why these limits.")
    valid_from: str = Field(default="", description="Date of the entry in the thresholds.")


class Measured(_Model):
    """One test of one amp, detector or exposure."""

    value: float | None = Field(default=None, description="None if it could not be measured.")
    uncertainty: float | None = Field(default=None, description="Standard error of the value, where it is known.")
    outcome: Outcome = Outcome.PASS
    note: str = Field(default="", description="Why there is no value.")


class TestResult(_Model):
    """One test with everything that belongs to it: what `Verification.results` gives."""

    __test__ = False  # pytest: not a class of tests

    detector: str
    amp: str | None
    test: str
    value: float | None
    uncertainty: float | None
    unit: str
    outcome: Outcome
    warn: Band | None
    error: Band | None
    reason: str
    note: str
    chance_sigma: float = 3.0

    @property
    def by_chance(self) -> str:
        """Why a value outside a band was not held against it; empty if there is nothing to explain."""
        passed = {Outcome.PASS: (self.warn, self.error), Outcome.WARN: (self.error,)}.get(self.outcome, ())
        if self.value is None or not self.uncertainty:
            return ""
        excess = max((band.excess(self.value) for band in passed if band is not None), default=0.0)
        if excess <= 0.0:
            return ""
        which = "outside" if self.outcome is Outcome.PASS else f"outside of {self.error}"
        return f"{which} by {excess / self.uncertainty:.2g} of its standard errors, {self.chance_sigma:g} are allowed"

    def __str__(self) -> str:
        """Return a line for a person: where, what, value with its error, limits."""
        place = f"{self.detector} {self.amp}" if self.amp else self.detector
        error = f" ± {self.uncertainty:.2g}" if self.uncertainty else ""
        value = "" if self.value is None else f"{self.value:.4g}{error} {self.unit}".rstrip()
        shown = value or self.note or "not measured"
        band = self.error if self.outcome is Outcome.FAIL else self.warn or self.error
        limit = "; ".join(part for part in (str(band), self.by_chance) if part) if band is not None and value else ""
        return f"{place} {self.test}: {self.outcome.value}, {shown}{f' ({limit})' if limit else ''}"


class Verification(_Model):
    """The verification of one detector of a calibration exposure, or of one master.

    Attributes
    ----------
    amps
        By amp name, then test.
    tests
        Tests of the detector as a whole.
    limits
        By test.
    amp_limits
        By ``"C00 NOISE"`` or ``"DET FRACTION"``, where an amp, or the detector, has limits of its own.
    excluded
        Amps that are switched off, with the reason: not tested.
    """

    camera: str
    kind: str = Field(description="bias, dark, flat, ptc, linearity, crosstalk, defects.")
    subject: Subject
    exposure: int = Field(description="The exposure; of a master, its newest input.")
    detector: int
    detector_name: str
    physical_filter: str | None = None
    inputs: tuple[int, ...] = Field(default=(), description="Exposures a master was built from.")
    outcome: Outcome
    thresholds: str = Field(default="", description="Digest of the thresholds in force.")
    amps: dict[str, dict[str, Measured]] = Field(default_factory=dict)
    tests: dict[str, Measured] = Field(default_factory=dict)
    limits: dict[str, Limits] = Field(default_factory=dict)
    amp_limits: dict[str, Limits] = Field(default_factory=dict)
    excluded: dict[str, str] = Field(default_factory=dict)

    def results(self) -> Iterator[TestResult]:
        """Return every test: those of the amps, then those of the detector."""
        for amp, row in self.amps.items():
            for test, found in row.items():
                yield self._result(amp, test, found)
        for test, found in self.tests.items():
            yield self._result(None, test, found)

    def _result(self, amp: str | None, test: str, found: Measured) -> TestResult:
        limits = self.amp_limits.get(f"{amp or 'DET'} {test}") or self.limits.get(test) or Limits()
        return TestResult(
            detector=self.detector_name,
            amp=amp,
            test=test,
            value=found.value,
            uncertainty=found.uncertainty,
            unit=limits.unit,
            outcome=found.outcome,
            warn=limits.warn,
            error=limits.error,
            reason=limits.reason,
            note=found.note,
            chance_sigma=limits.chance_sigma,
        )

    def named(self, *outcomes: Outcome) -> tuple[str, ...]:
        """Return what ended in these outcomes, as ``"C00 NOISE"``; a detector's own tests as ``"DET SCATTER"``."""
        return tuple(f"{r.amp or 'DET'} {r.test}" for r in self.results() if r.outcome in outcomes)

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed: ``"C00 NOISE"``."""
        return self.named(Outcome.FAIL)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unusual."""
        return self.named(Outcome.WARN)

    @property
    def not_measured(self) -> tuple[str, ...]:
        """What has no value, whether it was required or not."""
        return self.named(Outcome.NOT_MEASURED)

    @property
    def failing_amps(self) -> tuple[str, ...]:
        """Amps with a test that failed."""
        return tuple(amp for amp, row in self.amps.items() if any(m.outcome is Outcome.FAIL for m in row.values()))

    def to_stored(self) -> dict[str, object]:
        """Return the document that is stored with a result: what is as by default is left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_stored(cls, document: object) -> "Verification":
        """Return the verification of a stored document."""
        return cls.model_validate(document)


class DetectorVerdict(_Model):
    """One detector in an exposure's verdict."""

    outcome: Outcome
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    calib_id: str | None = None


class ExposureVerdict(_Model):
    """A calibration exposure, or a build, over all detectors."""

    camera: str
    exposure: int
    kind: str
    subject: Subject = Subject.EXPOSURE
    physical_filter: str | None = None
    outcome: Outcome
    n_amps: int
    n_failed_amps: int
    detectors: dict[str, DetectorVerdict] = Field(default_factory=dict)
    tests: dict[str, Measured] = Field(default_factory=dict, description="Tests over all detectors.")
    limits: dict[str, Limits] = Field(default_factory=dict)
    without: dict[str, str] = Field(default_factory=dict, description="Detectors without a verification: why.")

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed, as ``"R22_S11 C00 NOISE"``; of all detectors together as ``"EXP SCATTER"``."""
        own = tuple(f"EXP {test}" for test, found in self.tests.items() if found.outcome is Outcome.FAIL)
        return own + tuple(f"{name} {what}" for name, one in self.detectors.items() for what in one.failures)


class RunVerdict(_Model):
    """All calibration exposures of a night or run."""

    camera: str
    outcome: Outcome
    exposures: dict[int, ExposureVerdict] = Field(default_factory=dict)
