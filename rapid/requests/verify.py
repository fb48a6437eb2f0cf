"""Say what came of a calib that was built for a request: whether it passed, and which amps failed.

The job that built it verified it (`rapid.worker.verify`); here its verdicts are put together. Pure.
"""

from collections.abc import Iterable, Mapping

from rapid.requests.answers import AmpTest, CalibAnswer
from rapid.results.models import DetectorResult
from rapid.verification.models import Outcome, TestResult, Verification, worst

MAX_FAILURES_TOLD = 200


def calib_answer(
    kind: str,
    *,
    inputs: tuple[int, ...],
    built: Iterable[DetectorResult],
    not_built: Mapping[str, str],
    unusable: Mapping[str, str] | None = None,
) -> CalibAnswer:
    """Return whether a calib passes, and which amps fail.

    Parameters
    ----------
    inputs
        Exposures it was asked to be built from.
    built
        Results of the build.
    not_built
        Detectors whose build failed, with the reason.
    unusable
        Detectors that have no calib as there was nothing to build it from: told, and nothing against the others.
    """
    failures: list[AmpTest] = []
    failing: dict[str, dict[str, None]] = {}
    not_tested = dict(not_built)
    calib_ids, states = {}, {}
    outcomes: list[Outcome] = [Outcome.NOT_MEASURED] * len(not_tested)
    n_amps = 0
    for result in built:
        name = result.detector_name
        if calib_id := result.metrics.get("calib_id"):
            calib_ids[name] = str(calib_id)
            states[name] = str(result.metrics.get("calib_state") or "certified")
        if result.verification is None:
            not_tested[name] = "its build was not verified"
            outcomes.append(Outcome.NOT_MEASURED)
            continue
        found = Verification.from_stored(result.verification)
        outcomes.append(found.outcome)
        n_amps += len(found.amps)
        if found.outcome is Outcome.NOT_MEASURED:
            not_tested[name] = f"not measured: {', '.join(found.not_measured[:10])}"
        for one in found.results():
            if one.outcome is Outcome.FAIL:
                failing.setdefault(name, {})[one.amp or "DET"] = None
                failures.append(_as_failure(one))
    outcome = worst(outcomes)
    return CalibAnswer(
        kind=kind,
        inputs=inputs,
        calib_ids=calib_ids,
        passed=outcome.is_success,
        outcome=outcome.value,
        states=states,
        n_amps=n_amps,
        failing_amps={detector: tuple(amps) for detector, amps in failing.items()},
        failures=tuple(failures[:MAX_FAILURES_TOLD]),
        not_tested={**not_tested, **(unusable or {})},
    )


def _as_failure(found: TestResult) -> AmpTest:
    band, value = found.error, found.value
    limit = None
    if band is not None and value is not None:
        limit = band.low if band.low is not None and value < band.low else band.high
    return AmpTest(
        detector=found.detector, amp=found.amp or "", test=found.test, value=value, limit=limit, message=found.reason
    )
