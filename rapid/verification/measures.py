"""What every test measures: one function each, of the numbers that a pipeline gave.

Tests and names follow cp_verify (DMTN-101), with statistics that hold: a mean is compared with its own standard error,
noise is two-sided (a dead amp is as wrong as a loud one), a flat's expected noise has the read noise in it beside the
light's, every scatter is a part of its mean. Pure; limits are data, see `rapid.verification.thresholds`.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from payloads.combine.pairs import ROW_STEP as PAIR_ROW_STEP
from payloads.isr.overscan_noise import levelled_variance, median_variance, n_used
from rapid.camera.models import Amp, Box
from rapid.results.models import Scalar
from rapid.verification.models import Scope, Subject

OVERSCAN_KNOWN = 0.25
"""Part of the overscan's share of the noise that is not known: medians of few whole numbers scatter by more."""


@dataclass(frozen=True)
class Value:
    """What a test found.

    Attributes
    ----------
    value
        None if it could not be measured; ``note`` then says why.
    error
        Standard error of the value, if it is known.
    in_errors
        Whether the limits are in standard errors: the value is to be divided by its error.
    """

    value: float | None = None
    error: float | None = None
    in_errors: bool = False
    note: str = ""


@dataclass(frozen=True)
class AmpFacts:
    """One amp's numbers, and what they are to be understood with.

    Attributes
    ----------
    row
        Metrics of the amp: of an exposure `payloads.quality.calibration_checks`; of a master those of its build beside.
    level_e
        Mean of all amps' levels in the detector [electron]; None if unknown.
    n_inputs
        Exposures in the master, when the exposure is one of them; 0 otherwise.
    """

    row: Mapping[str, Scalar]
    amp: Amp
    subject: Subject
    kind: str
    dark_time_s: float | None = None
    level_e: float | None = None
    n_inputs: int = 0

    def number(self, name: str) -> float | None:
        """Return a metric if it is a finite number."""
        return number(self.row, name)


@dataclass(frozen=True)
class DetectorFacts:
    """One detector's numbers."""

    metrics: Mapping[str, Scalar]
    rows: Mapping[str, Mapping[str, Scalar]]
    subject: Subject
    kind: str


@dataclass(frozen=True)
class ExposureFacts:
    """All detectors' numbers."""

    levels_e: Mapping[str, float] = field(default_factory=dict)


def number(row: Mapping[str, Scalar], name: str) -> float | None:
    """Return a metric if it is a finite number."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _overscans(amp: Amp) -> list[tuple[Box, int, int]]:
    """Return each overscan with its pixels per line that are used, and the number of lines."""
    found = []
    if amp.serial_overscan is not None:
        found.append((amp.serial_overscan, amp.serial_overscan.width, amp.trimmed.height))
    if amp.parallel_overscan is not None:
        found.append((amp.parallel_overscan, amp.parallel_overscan.height, amp.trimmed.width))
    return [(box, n_used(size), lines) for box, size, lines in found]


def mean_error(amp: Amp, stdev: float, n_px: float) -> float:
    """Return the standard error of an amp's mean level.

    The pixels' own noise goes down with their number; the noise of a row's overscan level only with the number of
    rows, that of a column's with the number of columns. What rules is neither: the rows of the parallel overscan are
    levelled like any others, and how far their few levels are off is in every column's level alike. On an LSSTCam amp
    it is 0.03 of the read noise, three times all else together.
    """
    overscans = _overscans(amp)
    variance = 1.0 / max(n_px, 1.0)
    variance += sum(median_variance(pixels) / lines for _, pixels, lines in overscans)
    if amp.serial_overscan is not None and amp.parallel_overscan is not None:
        variance += math.prod(median_variance(pixels) for _, pixels, _ in overscans)
    return stdev * math.sqrt(variance)


def _with_master(facts: AmpFacts, variance: float) -> float:
    """Return a pixel's variance once a master was taken out of it.

    A master that the exposure is part of takes a share of it along; any other brings its own.
    """
    if facts.n_inputs > 1:
        return variance * (1.0 - 1.0 / facts.n_inputs)
    return variance + (facts.number("residual_calib_variance_e2") or 0.0)


def _read_noise(facts: AmpFacts) -> float | None:
    """Return the read noise to expect [electron]: of the certified gains, else the camera's or what the overscan shows.

    Without gains the larger of the two: a camera's definition may be out of date.
    """
    expected, measured = facts.number("read_noise_expected_e"), _overscan_noise(facts)
    if expected is not None and facts.row.get("read_noise_source") == "ptc":
        return expected
    known = [value for value in (measured, expected, facts.amp.read_noise) if value is not None]
    return max(known, default=None)


def _overscan_noise(facts: AmpFacts) -> float | None:
    """Return the read noise that the overscan shows [electron]."""
    return facts.number("read_noise_electron")


_NO_MASTER = "there is no certified calib to take out of it"


def _mean(facts: AmpFacts) -> Value:
    mean, stdev, n_px = (facts.number(name) for name in ("residual_mean_e", "residual_stdev_e", "residual_n_px"))
    if mean is None or stdev is None or n_px is None:
        return Value(note=_NO_MASTER)
    # The master's pixels, and its overscan levels, scatter as those of the exposure do: in the stdev they are already.
    return Value(mean, mean_error(facts.amp, stdev, n_px), in_errors=True)


def _noise(facts: AmpFacts) -> Value:
    stdev, mean, n_px = (facts.number(name) for name in ("residual_stdev_e", "residual_mean_e", "residual_n_px"))
    read_noise = _read_noise(facts)
    if stdev is None or mean is None or n_px is None:
        return Value(note=_NO_MASTER)
    if read_noise is None or read_noise <= 0:
        return Value(note="the read noise is not known")
    light = 0.0
    if facts.kind == "flat":
        light = max(mean, 0.0)
    elif facts.kind == "dark":
        # What the dark took out had noise of its own.
        light = max(facts.number("mean_e") or 0.0, 0.0)
    factor = levelled_variance(facts.amp)
    expected = math.sqrt(_with_master(facts, read_noise**2 * factor + light))
    # What a short overscan adds is known to a quarter or so.
    error = 1.0 / math.sqrt(2.0 * n_px) + OVERSCAN_KNOWN / 3.0 * (math.sqrt(factor) - 1.0)
    return Value(stdev / expected - 1.0, error)


def _cr_noise(facts: AmpFacts) -> Value:
    stdev, free = facts.number("residual_stdev_e"), facts.number("cr_noise_e")
    if stdev is None or free is None or free <= 0:
        return Value(note=_NO_MASTER)
    return Value((stdev - free) / free)


def _read_noise_ratio(facts: AmpFacts) -> Value:
    measured = _overscan_noise(facts)
    if measured is None:
        return Value(note="there is no overscan to measure it in")
    if facts.amp.read_noise <= 0:
        return Value(note="the camera's definition does not say what it should be")
    ratio = measured / facts.amp.read_noise
    return Value(ratio, ratio / math.sqrt(2.0 * _n_overscan(facts.amp)))


def _read_noise_consistent(facts: AmpFacts) -> Value:
    measured, expected = _overscan_noise(facts), facts.number("read_noise_expected_e")
    if measured is None:
        return Value(note="there is no overscan to measure it in")
    if facts.row.get("read_noise_source") != "ptc" or not expected:
        return Value(note="there are no certified gains and read noises")
    return Value(measured / expected - 1.0, 1.0 / math.sqrt(2.0 * _n_overscan(facts.amp)))


def _n_overscan(amp: Amp) -> int:
    """Return how many pixels of the serial overscan tell the read noise."""
    return n_used(amp.serial_overscan.width) * amp.trimmed.height if amp.serial_overscan else 1


def _amp_corner(facts: AmpFacts) -> Value:
    value = facts.number("amp_corner_e")
    return Value(value) if value is not None else Value(note="too few good pixels in the corner")


def _plain(name: str, note: str = "not measured") -> Callable[["AmpFacts"], Value]:
    def measure(facts: AmpFacts) -> Value:
        value = facts.number(name)
        return Value(value) if value is not None else Value(note=note)

    return measure


def _pair_gain(facts: AmpFacts) -> Value:
    value = facts.number("gain_pair_ratio")
    if value is None:
        return Value(note="no two flats make a pair")
    n_px = facts.amp.trimmed.width * facts.amp.trimmed.height / PAIR_ROW_STEP
    return Value(value - 1.0, value * math.sqrt(2.0 / n_px))


def _relative(name: str, nominal: str, error: str = "") -> Callable[["AmpFacts"], Value]:
    """Return the difference from the camera's definition, as a part of it."""

    def measure(facts: AmpFacts) -> Value:
        value, expected = facts.number(name), float(getattr(facts.amp, nominal))
        if value is None or expected <= 0:
            return Value(note="the fit gave none" if value is None else "the camera's definition does not say")
        uncertainty = facts.number(error)
        return Value(value / expected - 1.0, uncertainty / expected if uncertainty is not None else None)

    return measure


def _per_pixel(name: str) -> Callable[["AmpFacts"], Value]:
    def measure(facts: AmpFacts) -> Value:
        value = facts.number(name)
        if value is None:
            return Value(note="not measured")
        return Value(value / (facts.amp.trimmed.width * facts.amp.trimmed.height))

    return measure


MIN_FOR_SCATTER = 5
"""Fewer exposures say less of their scatter than the expected noise does."""


def _input_scatter(facts: AmpFacts) -> Value:
    if facts.n_inputs < MIN_FOR_SCATTER:
        return Value(note="too few exposures")
    for unit in ("electron", "electron_per_s", "ratio"):
        found, expected = facts.number(f"input_scatter_{unit}"), facts.number(f"expected_scatter_{unit}")
        if found is not None and expected:
            # The levels of rows and columns scatter as well, from one exposure to the next: all of it, if nothing but
            # read noise is there; beside the light of a flat it is nothing.
            factor = 1.0 if unit == "ratio" else levelled_variance(facts.amp)
            return Value(found / (expected * math.sqrt(factor)) - 1.0)
    return Value(note="too few exposures")


def _dark_current(facts: AmpFacts) -> Value:
    name = "calib_mean_electron_per_s" if facts.subject is Subject.MASTER else "dark_current_e_per_s"
    value = facts.number(name)
    return Value(value) if value is not None else Value(note="there is no dark time")


def _ratio(facts: AmpFacts) -> Value:
    mean = facts.number("residual_mean_e")
    if mean is None:
        return Value(note=_NO_MASTER)
    if not facts.level_e or facts.level_e <= 0:
        return Value(note="there is no light")
    return Value(mean / facts.level_e - 1.0)


def _turnoff(facts: AmpFacts) -> Value:
    value = facts.number("turnoff_electron")
    if value is None:
        return Value(note="the fit gave none")
    return Value(value)


AMP_MEASURES: dict[str, dict[str, Callable[[AmpFacts], Value]]] = {
    "bias": {
        "MEAN": _mean,
        "NOISE": _noise,
        "CR_NOISE": _cr_noise,
        "READ_NOISE": _read_noise_ratio,
        "READ_NOISE_CONSISTENT": _read_noise_consistent,
        "AMP_CORNER": _amp_corner,
        "BIAS_SHIFTS": _plain("n_bias_shifts"),
        "LEVEL": _plain("calib_mean_electron"),
        "INPUT_SCATTER": _input_scatter,
        "PIXELS": _per_pixel("n_pixels_without_input"),
    },
    "dark": {
        "MEAN": _mean,
        "NOISE": _noise,
        "CR_NOISE": _cr_noise,
        "READ_NOISE": _read_noise_ratio,
        "READ_NOISE_CONSISTENT": _read_noise_consistent,
        "AMP_CORNER": _amp_corner,
        "BIAS_SHIFTS": _plain("n_bias_shifts"),
        "DARK_CURRENT": _dark_current,
        "HOT_PIXELS": _per_pixel("n_hot_px"),
        "INPUT_SCATTER": _input_scatter,
        "PIXELS": _per_pixel("n_pixels_without_input"),
    },
    "flat": {
        "NOISE": _noise,
        "RATIO": _ratio,
        "LEVEL": _plain("mean_e"),
        "READ_NOISE": _read_noise_ratio,
        "READ_NOISE_CONSISTENT": _read_noise_consistent,
        "GAIN": _pair_gain,
        "INPUT_SCATTER": _input_scatter,
        "PIXELS": _per_pixel("n_pixels_without_input"),
    },
    "ptc": {
        "GAIN": _relative("gain", "gain", "gain_error"),
        "NOISE": _relative("read_noise", "read_noise"),
        "TURNOFF": _turnoff,
        "A00": _plain("a00_per_electron", "the fit gave none"),
        "CHI2": _plain("chi2_per_dof", "the fit gave none"),
    },
    "linearity": {
        "RESIDUAL": _plain("residual_max_percent", "no ramp of light to fit"),
        "CORRECTION": _plain("correction_max_percent", "no ramp of light to fit"),
    },
    "crosstalk": {
        "RESIDUAL": _plain("n_residual", "no bright pixels faced this amp"),
        "COEFFICIENT": _plain("coefficient_max", "no bright pixels faced this amp"),
    },
    "defects": {
        "FRACTION": _plain("defect_fraction"),
        "OUTLIERS": _plain("unmasked_outlier_fraction"),
    },
}


def _scatter(facts: DetectorFacts) -> Value:
    means = [mean for row in facts.rows.values() if (mean := number(row, "residual_mean_e")) is not None]
    average = statistics.fmean(means) if means else 0.0
    if len(means) < 2 or average <= 0:
        return Value(note="fewer than two amps have light" if means else _NO_MASTER)
    return Value(statistics.pstdev(means) / average)


def _levels(facts: DetectorFacts) -> Value:
    scatter = number(facts.metrics, "input_level_scatter_electron")
    if scatter is None:
        return Value(note="not measured")
    if facts.kind != "flat":
        return Value(scatter)
    mean = number(facts.metrics, "input_level_mean_electron")
    return Value(scatter / mean) if mean and mean > 0 else Value(note="there is no light")


def _metric(name: str) -> Callable[[DetectorFacts], Value]:
    def measure(facts: DetectorFacts) -> Value:
        value = number(facts.metrics, name)
        return Value(value) if value is not None else Value(note="not measured")

    return measure


_BUILD = {"LEVELS": _levels, "CLIPPED": _metric("n_clipped_fraction")}

DETECTOR_MEASURES: dict[str, dict[str, Callable[[DetectorFacts], Value]]] = {
    "bias": dict(_BUILD),
    "dark": dict(_BUILD),
    "flat": {**_BUILD, "SCATTER": _scatter},
    "ptc": {"N_PAIRS": _metric("n_pairs")},
    "linearity": {"N_LEVELS": _metric("n_levels")},
    "crosstalk": {},
    "defects": {"FRACTION": _metric("defect_fraction"), "BAD_COLUMNS": _metric("n_bad_columns")},
}


def _exposure_scatter(facts: ExposureFacts) -> Value:
    levels = list(facts.levels_e.values())
    average = statistics.fmean(levels) if levels else 0.0
    if len(levels) < 2 or average <= 0:
        return Value(note="fewer than two detectors have light")
    return Value(statistics.pstdev(levels) / average)


EXPOSURE_MEASURES: dict[str, dict[str, Callable[[ExposureFacts], Value]]] = {"flat": {"SCATTER": _exposure_scatter}}


def known_tests(kind: str, scope: Scope) -> frozenset[str]:
    """Return the names of the tests of a kind, for amps, detectors or exposures."""
    if scope is Scope.AMP:
        return frozenset(AMP_MEASURES.get(kind, {}))
    if scope is Scope.DETECTOR:
        return frozenset(DETECTOR_MEASURES.get(kind, {}))
    return frozenset(EXPOSURE_MEASURES.get(kind, {}))
