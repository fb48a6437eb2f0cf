"""Put together what results and calibs tell of verification. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rapid.display.calibrations.models import (
    AmpTest,
    DetectorTests,
    DetectorVerdict,
    MasterDetector,
    MasterView,
    MatrixView,
    SubjectView,
)
from rapid.results.models import CalibRecord, CalibState, DetectorResult, DetectorState, ExposureSummary
from rapid.verification.models import Outcome, Verification, worst

BUILD = "build_"


def subject_of(summary: ExposureSummary) -> SubjectView | None:
    """Return what of a summary was verified; None for one that is neither of a calibration exposure nor of a build."""
    is_master = summary.pipeline.startswith(BUILD)
    if not is_master and summary.image_type != summary.pipeline and "verify_outcome" not in summary.metrics:
        return None
    kind = summary.pipeline.removeprefix(BUILD) if is_master else summary.image_type
    outcome = summary.metrics.get("verify_outcome")
    n_failed = summary.metrics.get("verify_n_failed_amps")
    named = str(summary.metrics.get("verify_failures") or "")
    return SubjectView(
        exposure_id=summary.exposure,
        seq_num=summary.seq_num,
        pipeline=summary.pipeline,
        kind=kind,
        is_master=is_master,
        physical_filter=summary.info.get("physical_filter") or None,
        begin=summary.info.get("begin"),
        n_finished=summary.n_finished,
        n_expected=summary.n_expected,
        outcome=str(outcome) if outcome else None,
        n_failed_amps=int(n_failed) if isinstance(n_failed, int | float) else None,
        failures=[part.strip() for part in named.split(",") if part.strip()],
    )


def with_results(subject: SubjectView, results: Iterable[DetectorResult]) -> SubjectView:
    """Return a subject whose own summary does not tell, with the outcome that its detectors' results tell."""
    verdicts = [found for result in results if (found := verification_of(result)) is not None]
    if subject.outcome is not None or not verdicts:
        return subject
    failures = [f"{found.detector_name} {failure}" for found in verdicts for failure in found.failures]
    return subject.model_copy(
        update={
            "outcome": worst([found.outcome for found in verdicts]).value,
            "n_failed_amps": sum(
                1 for found in verdicts for outcome in amp_outcomes(found).values() if outcome == "fail"
            ),
            "failures": failures[:20],
        }
    )


def verification_of(result: DetectorResult) -> Verification | None:
    """Return the verification that a result carries, None if it carries none."""
    document = result.verification
    return None if not document else Verification.from_stored(document)


def amp_outcomes(found: Verification) -> dict[str, str]:
    """Return the worst outcome of every amp; those that are switched off are ``excluded``.

    As of a verification as a whole, a test that need not be measured, and was not, says nothing of the amp.
    """
    outcomes = {}
    for amp, row in found.amps.items():
        told = [
            one.outcome
            for test, one in row.items()
            if one.outcome is not Outcome.NOT_MEASURED or _is_required(found, amp, test)
        ]
        outcomes[amp] = worst(told).value
    return outcomes | dict.fromkeys(found.excluded, "excluded")


def _is_required(found: Verification, amp: str, test: str) -> bool:
    limits = found.amp_limits.get(f"{amp} {test}") or found.limits.get(test)
    return limits is not None and limits.required


def matrix_of(
    subject: SubjectView, summary: ExposureSummary | None, results: Iterable[DetectorResult], names: Mapping[int, str]
) -> MatrixView:
    """Return how every detector fared; those without a result are there with their state."""
    verdicts: dict[int, DetectorVerdict] = {}
    tests: dict[str, None] = {}
    for result in results:
        found = verification_of(result)
        verdict = DetectorVerdict(
            detector=result.detector, name=result.detector_name, state=DetectorState.FINISHED.value
        )
        if found is not None:
            by_test: dict[str, list[Outcome]] = {}
            for row in (*found.amps.values(), found.tests):
                for test, measured in row.items():
                    by_test.setdefault(test, []).append(measured.outcome)
            tests.update(dict.fromkeys(by_test))
            verdict.outcome = found.outcome.value
            verdict.failures = list(found.failures)
            verdict.amps = amp_outcomes(found)
            verdict.tests = {test: worst(outcomes).value for test, outcomes in by_test.items()}
        verdicts[result.detector] = verdict
    for detector, status in (summary.detectors if summary is not None else {}).items():
        if detector not in verdicts:
            name = names.get(detector, f"detector {detector}")
            verdicts[detector] = DetectorVerdict(detector=detector, name=name, state=status.state.value)
    return MatrixView(subject=subject, tests=list(tests), detectors=[verdicts[n] for n in sorted(verdicts)])


def tests_of(subject: SubjectView, result: DetectorResult) -> DetectorTests:
    """Return every test of a detector, with its limits."""
    found = verification_of(result)
    return DetectorTests(
        subject=subject,
        detector=result.detector,
        name=result.detector_name,
        outcome=None if found is None else found.outcome.value,
        excluded={} if found is None else found.excluded,
        tests=[]
        if found is None
        else [
            AmpTest(
                amp=test.amp,
                test=test.test,
                value=test.value,
                uncertainty=test.uncertainty,
                unit=test.unit,
                outcome=test.outcome.value,
                warn=None if test.warn is None else str(test.warn),
                error=None if test.error is None else str(test.error),
                reason=test.reason,
                note=test.note or test.by_chance,
            )
            for test in found.results()
        ],
    )


def masters_of(calibs: Iterable[CalibRecord], names: Mapping[int, str], *, now: datetime) -> list[MasterView]:
    """Return masters together that were built together, newest first.

    Parameters
    ----------
    now
        UTC: for what is in force.
    """
    groups: dict[tuple[Any, ...], list[CalibRecord]] = {}
    for calib in calibs:
        key = (calib.kind, calib.physical_filter or "", calib.valid_from, calib.version)
        groups.setdefault(key, []).append(calib)
    best: dict[tuple[str, str, int], CalibRecord] = {}
    for calib in (calib for of in groups.values() for calib in of):
        holds = _utc(calib.valid_from) <= now and (calib.valid_to is None or now < _utc(calib.valid_to))
        if calib.state is not CalibState.CERTIFIED or not holds:
            continue
        place = (calib.kind, calib.physical_filter or "", calib.detector)
        known = best.get(place)
        if known is None or (calib.valid_from, calib.version) > (known.valid_from, known.version):
            best[place] = calib
    chosen = {calib.calib_id for calib in best.values()}
    views = [_master(of, names, chosen) for of in groups.values()]
    return sorted(views, key=lambda view: (view.created_at, view.kind), reverse=True)


def _master(of: list[CalibRecord], names: Mapping[int, str], chosen: set[str]) -> MasterView:
    first = of[0]
    of = sorted(of, key=lambda calib: calib.detector)
    return MasterView(
        kind=first.kind,
        physical_filter=first.physical_filter or None,
        valid_from=first.valid_from,
        valid_to=first.valid_to,
        version=first.version,
        created_at=max(calib.created_at for calib in of),
        n_inputs=max(len(calib.inputs) for calib in of),
        states=dict(Counter(calib.state.value for calib in of)),
        outcomes=dict(Counter(calib.outcome or "not verified" for calib in of)),
        is_in_force=any(calib.calib_id in chosen for calib in of),
        detectors=[
            MasterDetector(
                detector=calib.detector,
                name=names.get(calib.detector, f"detector {calib.detector}"),
                calib_id=calib.calib_id,
                state=calib.state.value,
                outcome=calib.outcome,
                is_overridden=calib.is_overridden,
                failures=calib.failures,
            )
            for calib in of
        ],
    )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
