"""Decide what passes: hold what was measured against the limits in force, and roll up.

Pure. A value that is missing is neither good nor 0: it is *not measured*, and keeps a master from being certified where
its limits say that it is required.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rapid.camera.models import Camera, Detector
from rapid.results.models import DetectorResult, Scalar
from rapid.verification.measures import (
    AMP_MEASURES,
    DETECTOR_MEASURES,
    EXPOSURE_MEASURES,
    AmpFacts,
    DetectorFacts,
    ExposureFacts,
    Value,
    number,
)
from rapid.verification.models import (
    DetectorVerdict,
    ExposureVerdict,
    Limits,
    Measured,
    Outcome,
    RunVerdict,
    Scope,
    Subject,
    Verification,
    worst,
)
from rapid.verification.thresholds import Threshold, Thresholds, day_of

DIGITS = 6
"""Of a stored value: no test is decided by the seventh."""

MAX_NAMED = 20
"""Failures named in a metric; the verification has them all."""


@dataclass(frozen=True)
class Job:
    """What is verified.

    Attributes
    ----------
    detector
        As it was read: of a stand's other CCD, that one.
    n_inputs
        Of a master: exposures it was built from, the one it is checked with among them.
    """

    camera: str
    kind: str
    subject: Subject
    exposure: int
    day_obs: int
    detector: Detector
    physical_filter: str | None = None
    dark_time_s: float | None = None
    inputs: tuple[int, ...] = ()

    @property
    def n_inputs(self) -> int:
        """How many exposures the master was built from."""
        return len(self.inputs)


def judge(value: Value, threshold: Threshold) -> Measured:
    """Hold one value against its limits.

    Examples
    --------
    >>> from rapid.verification.models import Band
    >>> limit = Threshold(test="NOISE", kinds=["bias"], error=Band(low=-0.05, high=0.05), reason="x", valid_from="2026-01-01")
    >>> judge(Value(0.06, 0.001), limit).outcome.value, judge(Value(0.06, 0.01), limit).outcome.value
    ('fail', 'pass')
    """
    if value.value is None or not math.isfinite(value.value):
        return Measured(outcome=Outcome.NOT_MEASURED, note=value.note or "not a finite number")
    found, error = value.value, value.error
    if value.in_errors:
        spread = math.hypot(error or 0.0, threshold.floor)
        if spread <= 0:
            return Measured(outcome=Outcome.NOT_MEASURED, note="its error is not known")
        found, error = found / spread, None
    allowance = threshold.chance_sigma * error if error is not None and math.isfinite(error) else 0.0
    outcome = Outcome.PASS
    if threshold.error is not None and threshold.error.excess(found) > allowance:
        outcome = Outcome.FAIL
    elif threshold.warn is not None and threshold.warn.excess(found) > allowance:
        outcome = Outcome.WARN
    return Measured(value=_rounded(found), uncertainty=_rounded(error), outcome=outcome)


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def verify_detector(
    job: Job,
    metrics: Mapping[str, Scalar],
    amps: Mapping[str, Mapping[str, Scalar]],
    thresholds: Thresholds,
) -> Verification:
    """Verify one detector of a calibration exposure, or one master.

    Parameters
    ----------
    metrics, amps
        Numbers of the detector and of its amps. Of a master: those of its build, and of its newest input with the new
        master taken out of it.
    """
    at = day_of(job.day_obs)

    def limits_for(scope: Scope, **which: object) -> dict[str, Threshold]:
        return thresholds.of(
            kind=job.kind, subject=job.subject, scope=scope, camera=job.camera, at=at, detector=job.detector, **which,  # type: ignore[arg-type] # amp, or nothing
        )  # fmt: skip

    excluded = {name: str(row["excluded"]) for name, row in amps.items() if row.get("excluded")}
    levels = [level for name, row in amps.items() if name not in excluded and (level := number(row, "residual_mean_e"))]
    found: dict[str, dict[str, Measured]] = {}
    limits: dict[str, Limits] = {}
    amp_limits: dict[str, Limits] = {}
    needed: list[Outcome] = []
    for amp in job.detector.amps:
        if amp.name in excluded:
            continue
        facts = AmpFacts(
            row=amps.get(amp.name, {}),
            amp=amp,
            subject=job.subject,
            kind=job.kind,
            dark_time_s=job.dark_time_s,
            level_e=math.fsum(levels) / len(levels) if levels else None,
            n_inputs=job.n_inputs,
        )
        row = found[amp.name] = {}
        for test, threshold in limits_for(Scope.AMP, amp=amp).items():
            row[test] = one = judge(AMP_MEASURES[job.kind][test](facts), threshold)
            mine = threshold.limits(job.subject)
            if limits.setdefault(test, mine) != mine:
                amp_limits[f"{amp.name} {test}"] = mine
            if one.outcome is not Outcome.NOT_MEASURED or mine.required:
                needed.append(one.outcome)
    tests: dict[str, Measured] = {}
    rows = {name: row for name, row in amps.items() if name not in excluded}
    whole = DetectorFacts(metrics=metrics, rows=rows, subject=job.subject, kind=job.kind)
    own = limits_for(Scope.DETECTOR)
    for test, threshold in own.items():
        tests[test] = one = judge(DETECTOR_MEASURES[job.kind][test](whole), threshold)
        mine = threshold.limits(job.subject)
        if limits.setdefault(test, mine) != mine:
            amp_limits[f"DET {test}"] = mine
        if one.outcome is not Outcome.NOT_MEASURED or mine.required:
            needed.append(one.outcome)
    return Verification(
        camera=job.camera,
        kind=job.kind,
        subject=job.subject,
        exposure=job.exposure,
        detector=job.detector.id,
        detector_name=job.detector.name,
        physical_filter=job.physical_filter,
        inputs=job.inputs,
        outcome=worst(needed),
        thresholds=thresholds.digest,
        amps=found,
        tests=tests,
        limits=limits,
        amp_limits=amp_limits,
        excluded=excluded,
    )


def verdict_metrics(verification: Verification) -> dict[str, Scalar]:
    """Return what a detector's result says of its verification among its metrics."""
    failures = verification.failures
    named = ", ".join(failures[:MAX_NAMED])
    return {
        "verify_outcome": verification.outcome.value,
        "verify_n_amps": len(verification.amps),
        "verify_n_failed_amps": len(verification.failing_amps),
        "verify_failures": named + (f" and {len(failures) - MAX_NAMED} more" if len(failures) > MAX_NAMED else ""),
    }


def roll_up(
    verifications: Iterable[Verification],
    *,
    camera: Camera,
    levels_e: Mapping[str, float] | None = None,
    without: Mapping[str, str] | None = None,
    thresholds: Thresholds,
    calib_ids: Mapping[str, str] | None = None,
) -> ExposureVerdict | None:
    """Return the verdict on an exposure, or a build, over all its detectors; None without any verification.

    Parameters
    ----------
    levels_e
        Mean level of each detector [electron], by name: for the tests over all detectors.
    without
        Detectors that were wanted and have no verification, with the reason: then it does not pass.
    """
    every = sorted(verifications, key=lambda one: one.detector)
    if not every:
        return None
    first = every[0]
    limits: dict[str, Limits] = {}
    tests: dict[str, Measured] = {}
    entries = thresholds.of(
        kind=first.kind,
        subject=first.subject,
        scope=Scope.EXPOSURE,
        camera=camera.name,
        at=day_of(first.exposure // 100_000),
    )
    outcomes = [one.outcome for one in every]
    for test, threshold in entries.items():
        facts = ExposureFacts(levels_e=levels_e or {})
        tests[test] = judge(EXPOSURE_MEASURES[first.kind][test](facts), threshold)
        limits[test] = threshold.limits(first.subject)
        if tests[test].outcome is not Outcome.NOT_MEASURED or limits[test].required:
            outcomes.append(tests[test].outcome)
    if without:
        outcomes.append(Outcome.NOT_MEASURED)
    return ExposureVerdict(
        camera=camera.name,
        exposure=first.exposure,
        kind=first.kind,
        subject=first.subject,
        physical_filter=first.physical_filter,
        outcome=worst(outcomes),
        n_amps=sum(len(one.amps) for one in every),
        n_failed_amps=sum(len(one.failing_amps) for one in every),
        detectors={
            one.detector_name: DetectorVerdict(
                outcome=one.outcome,
                failures=one.failures,
                warnings=one.warnings,
                calib_id=(calib_ids or {}).get(one.detector_name),
            )
            for one in every
        },
        tests=tests,
        limits=limits,
        without=dict(without or {}),
    )


def roll_up_results(
    results: Iterable[DetectorResult],
    *,
    camera: Camera,
    thresholds: Thresholds,
    without: Mapping[str, str] | None = None,
    calib_ids: Mapping[str, str] | None = None,
) -> ExposureVerdict | None:
    """Return the verdict on the results of an exposure under one pipeline, or of a build."""
    verifications, levels, unverified = [], {}, dict(without or {})
    for result in results:
        if result.verification is None:
            unverified[result.detector_name] = "its result has no verification"
            continue
        verifications.append(Verification.from_stored(result.verification))
        level = number(result.metrics, "mean_e")
        if level is not None:
            levels[result.detector_name] = level
    return roll_up(
        verifications, camera=camera, levels_e=levels, without=unverified, thresholds=thresholds, calib_ids=calib_ids
    )


def roll_up_run(verdicts: Iterable[ExposureVerdict], *, camera: str) -> RunVerdict:
    """Return the verdict on a night or run."""
    every = {verdict.exposure: verdict for verdict in verdicts}
    return RunVerdict(camera=camera, outcome=worst([verdict.outcome for verdict in every.values()]), exposures=every)
