"""Verify a calib that was built for a request: whether it corrects an exposure as it should, amp by amp.

The newest input is calibrated with the new calib and what is left of it is measured. Tests and limits follow cp_verify
(MEAN, NOISE, and SCATTER of flats), with three changes: noise is also too small when an amp is dead; the expected noise
knows that the exposure is itself part of the calib, so that a share of 1/n of its variance is taken out with it; and a
flat's expected noise has the read noise in it beside the light's. Pure.
"""

import math
import statistics
from collections.abc import Iterable, Mapping

from rapid.camera.models import Amp, Box, Camera
from rapid.exposure.models import ImageType
from rapid.requests.models import AmpTest, CalibAnswer
from rapid.results.models import DetectorResult, Scalar

MAX_NOISE_EXCESS = 0.05
"""Of the noise over what is expected: the limit of cp_verify."""

MAX_NOISE_EXCESS_FLAT = 0.10
"""Of a flat: what the flat itself does not correct, and its own noise, come on top."""

CHANCE_SIGMA = 3.0
"""Standard errors of an amp's scatter that are left to chance: 0.2 percent of a full-size amp, 3 of the test camera's."""

MIN_NOISE = 0.5
"""Part of the expected noise below which an amp is dead. Clipping and the brighter-fatter effect take a few percent."""

MAX_READ_NOISE = 2.0
"""Times the camera's nominal read noise."""

OVERSCAN_SKIPPED = 4
"""Columns or rows of overscan that are not used: deferred charge lands in them."""

MAX_FLAT_SCATTER = 0.05
"""Of an amp's level about the detector's: the limit of cp_verify."""

MAX_MISSING = 0.001
"""Part of an amp's pixels that no exposure measured."""

MAX_FAILURES_TOLD = 200


def _number(row: Mapping[str, Scalar], *names: str) -> float | None:
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def verify_calib(
    kind: ImageType,
    *,
    camera: Camera,
    inputs: tuple[int, ...],
    built: Iterable[DetectorResult],
    checked: Iterable[DetectorResult],
    calib_ids: Mapping[str, str],
    not_built: Mapping[str, str],
    dark_time_s: float | None = None,
) -> CalibAnswer:
    """Return whether a calib passes, and which amps fail.

    Parameters
    ----------
    inputs
        Exposures it was built from.
    built
        Results of the build.
    checked
        Results of the newest input, calibrated with the calib.
    calib_ids
        Certified calibs by detector name.
    not_built
        Detectors that were wanted and have no calib, with the reason.
    dark_time_s
        Of the newest input [s], for a dark.

    Notes
    -----
    Per amp: MEAN, what is left of a bias or dark is less than the noise of a pixel; NOISE, the scatter is what read noise
    and light make; READ_NOISE, the overscan's scatter is within a factor two of the nominal one; PIXELS, nearly every pixel
    was measured; of flats SCATTER, the amp's level is the detector's.
    """
    by_detector = {result.detector: result for result in checked}
    failures: list[AmpTest] = []
    not_tested = dict(not_built)
    n_amps = 0
    for master in built:
        result = by_detector.get(master.detector)
        name = master.detector_name
        if result is None:
            not_tested[name] = "no exposure could be calibrated with it"
            continue
        if kind.value not in result.provenance.applied:
            not_tested[name] = "the calib was not applied to the newest exposure"
            continue
        level = statistics.fmean(
            [value for row in result.amps.values() if (value := _number(row, "mean_e")) is not None] or [0.0]
        )
        for amp in camera.by_id[master.detector].amps:
            n_amps += 1
            row = {**master.amps.get(amp.name, {}), **result.amps.get(amp.name, {}), "dark_time_s": dark_time_s}
            failures += [
                AmpTest(detector=name, amp=amp.name, test=test, value=value, limit=limit, message=message)
                for test, value, limit, message in _test_amp(kind, row, amp=amp, n_inputs=len(inputs), level=level)
            ]
    failing: dict[str, dict[str, None]] = {}
    for failure in failures:
        failing.setdefault(failure.detector, {})[failure.amp] = None
    return CalibAnswer(
        kind=kind.value,
        inputs=inputs,
        calib_ids=dict(calib_ids),
        passed=not failures and not not_tested and n_amps > 0,
        n_amps=n_amps,
        failing_amps={detector: tuple(amps) for detector, amps in failing.items()},
        failures=tuple(failures[:MAX_FAILURES_TOLD]),
        not_tested=not_tested,
    )


def _test_amp(
    kind: ImageType, row: Mapping[str, Scalar], *, amp: Amp, n_inputs: int, level: float
) -> list[tuple[str, float | None, float | None, str]]:
    """Return the tests that an amp fails: name, value, limit, sentence."""
    mean, noise = _number(row, "mean_e"), _number(row, "stdev_e")
    read_noise = _number(row, "read_noise_electron", "read_noise_e")
    if mean is None or noise is None:
        return [("MEAN", None, None, "could not be measured")]
    failed: list[tuple[str, float | None, float | None, str]] = []
    nominal = amp.read_noise
    # The overscan's own scatter about its median is a little too small where there are few columns.
    base = nominal if read_noise is None else max(nominal, read_noise)
    light = 0.0
    if kind is ImageType.DARK:
        # What the dark took out had noise of its own.
        rate = _number(row, "calib_mean_electron_per_s") or 0.0
        light = max(rate, 0.0) * (_number(row, "dark_time_s") or 0.0)
    elif kind is ImageType.FLAT:
        light = max(mean, 0.0)
    expected = math.sqrt((base**2 * _overscan_factor(amp) + light) * (1.0 - 1.0 / n_inputs))
    if kind is ImageType.FLAT:
        if level <= 0 or abs(mean / level - 1.0) > MAX_FLAT_SCATTER:
            share = mean / level - 1.0 if level > 0 else None
            failed.append(("SCATTER", share, MAX_FLAT_SCATTER, "its level is not the detector's"))
    elif abs(mean) >= max(noise, base):
        failed.append(("MEAN", mean, max(noise, base), "what is left [e] is not small beside the noise"))
    n_px = amp.trimmed.width * amp.trimmed.height
    excess = MAX_NOISE_EXCESS_FLAT if kind is ImageType.FLAT else MAX_NOISE_EXCESS
    # Small amps scatter by chance, and what a short overscan adds is known to a quarter or so.
    excess += CHANCE_SIGMA / math.sqrt(2.0 * n_px) + 0.25 * (math.sqrt(_overscan_factor(amp)) - 1.0)
    if noise > expected * (1.0 + excess):
        failed.append(("NOISE", noise, expected * (1.0 + excess), "scatters more than noise can [e]"))
    elif noise < expected * MIN_NOISE:
        failed.append(("NOISE", noise, expected * MIN_NOISE, "scatters less than noise must [e]: a dead amp?"))
    if read_noise is not None and not nominal / MAX_READ_NOISE <= read_noise <= nominal * MAX_READ_NOISE:
        failed.append(("READ_NOISE", read_noise, nominal, "read noise [e] is not that of the camera"))
    missing = _number(row, "n_pixels_without_input") or 0.0
    if missing > MAX_MISSING * n_px:
        failed.append(("PIXELS", missing, MAX_MISSING * n_px, "pixels that no exposure measured"))
    return failed


def _overscan_factor(amp: Amp) -> float:
    """Return what subtracting the overscan's medians, of each row and each column, does to the variance."""
    pixels = [box.width if along_x else box.height for box, along_x in _overscans(amp)]
    # The variance of a median of n values is pi / 2n times theirs; a few columns next to the image are left out.
    return 1.0 + sum(math.pi / 2.0 / max(n - OVERSCAN_SKIPPED, 1) for n in pixels)


def _overscans(amp: Amp) -> list[tuple[Box, bool]]:
    both = ((amp.serial_overscan, True), (amp.parallel_overscan, False))
    return [(box, along_x) for box, along_x in both if box is not None]
