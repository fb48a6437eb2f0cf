"""What somebody does with calibs that are there: verify anew, certify, reject, withdraw. Each says who and why.

A calib that its verification refused is certified only by an override, with a reason; that is written down for good.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rapid.calibs.replace import withdraw
from rapid.camera.models import Camera
from rapid.errors import NotFoundError, RapidError
from rapid.results.models import CalibRecord, CalibState, DetectorResult
from rapid.results.store import ResultsStore
from rapid.verification.decide import Job, verify_detector
from rapid.verification.models import Outcome, Subject, Verification
from rapid.verification.thresholds import load_thresholds

MAX_CALIBS = 5000
"""Detectors of the largest camera times its filters: what one sentence may change."""

BY_VERIFICATION = "verification:"
"""Begin of the reason for which the verification of a new calib rejects it."""

Action = Literal["verify", "certify", "reject", "withdraw"]


class CalibRefusedError(RapidError):
    """A calib cannot be certified, verified, rejected or withdrawn as it was asked."""

    code = "calib_refused"

    def __init__(self, calib_id: str, message: str) -> None:
        super().__init__(message, calib_id=calib_id)


class CalibStanding(BaseModel):
    """Where a calib stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calib_id: str
    state: CalibState
    outcome: str | None = Field(default=None, description="Of its verification; None if there was none.")
    failures: tuple[str, ...] = Field(default=(), description='What failed: "C00 NOISE".')
    is_overridden: bool = False

    @classmethod
    def of(cls, record: CalibRecord) -> "CalibStanding":
        """Return the standing of a record."""
        return cls(
            calib_id=record.calib_id,
            state=record.state,
            outcome=record.outcome,
            failures=tuple(record.failures),
            is_overridden=record.is_overridden,
        )


def certify_calibs(
    results: ResultsStore,
    camera: str,
    calib_ids: Iterable[str],
    *,
    author: str,
    reason: str = "",
    override: bool = False,
) -> list[CalibRecord]:
    """Certify calibs: all of them, or none if one cannot be.

    Parameters
    ----------
    override
        Certify also what its verification refused; needs a reason.

    Raises
    ------
    NotFoundError
        Raised if there is no such calib.
    CalibRefusedError
        Raised, naming the calib and what failed, if it did not pass and there is no override with a reason; or if somebody
        had found it bad, and there is no reason for taking it back.
    """
    records = [results.calib(camera, calib_id) for calib_id in dict.fromkeys(calib_ids)]
    for record in records:
        if record.state is CalibState.CERTIFIED:
            continue
        if _has_passed(record):
            if not reason.strip() and not record.state_reason.startswith(BY_VERIFICATION):
                # Somebody has found it bad: a pattern that takes it in must not bring it back unseen.
                raise CalibRefusedError(
                    record.calib_id,
                    f"{record.calib_id} was {record.state.value} ({record.state_reason or 'no reason given'}): "
                    "say why it is good again",
                )
            continue
        why = ", ".join(record.failures[:10]) or (record.outcome or "it was never verified").replace("_", " ")
        if not override:
            raise CalibRefusedError(
                record.calib_id, f"{record.calib_id} did not pass its verification ({why}); override it, with a reason"
            )
        if not reason.strip():
            raise CalibRefusedError(record.calib_id, f"{record.calib_id}: an override needs a reason")
    return [
        results.set_calib_state(
            camera,
            record.calib_id,
            CalibState.CERTIFIED,
            author=author,
            reason=reason,
            is_override=not _has_passed(record),
        )
        for record in records
    ]


def _has_passed(record: CalibRecord) -> bool:
    # What was certified before verification was a gate, and withdrawn since, goes back as it was.
    return record.outcome is None or Outcome(record.outcome).is_success


def reject_calibs(
    results: ResultsStore, camera: str, calib_ids: Iterable[str], *, author: str, reason: str
) -> list[CalibRecord]:
    """Take the certificate of calibs away: all of them, or none if one is not there.

    Raises
    ------
    NotFoundError
        Raised if there is no such calib.
    CalibRefusedError
        Raised if there is no reason.
    """
    wanted = list(dict.fromkeys(calib_ids))
    _check_all(results, camera, wanted, reason=reason, state=CalibState.REJECTED)
    return [
        results.set_calib_state(camera, calib_id, CalibState.REJECTED, author=author, reason=reason)
        for calib_id in wanted
    ]


def withdraw_calibs(
    results: ResultsStore, camera: str, calib_ids: Iterable[str], *, author: str, reason: str
) -> list[CalibRecord]:
    """Take bad calibs out of look-ups: all of them, or none if one is not there.

    Raises
    ------
    NotFoundError
        Raised if there is no such calib.
    CalibRefusedError
        Raised if there is no reason.
    """
    wanted = list(dict.fromkeys(calib_ids))
    _check_all(results, camera, wanted, reason=reason, state=CalibState.WITHDRAWN)
    return withdraw(results, camera, wanted, author=author, reason=reason)


def _check_all(results: ResultsStore, camera: str, calib_ids: Iterable[str], *, reason: str, state: CalibState) -> None:
    for calib_id in calib_ids:
        results.calib(camera, calib_id)
        if not reason.strip():
            raise CalibRefusedError(calib_id, f"{calib_id}: say why it is {state.value}")


def build_result_of(results: ResultsStore, record: CalibRecord) -> DetectorResult:
    """Return the result of the job that built a calib.

    Raises
    ------
    NotFoundError
        Raised if it is not there: a calib that somebody brought.
    """
    for exposure in sorted(record.inputs, reverse=True):
        for result in results.results(
            exposure, camera=record.camera, pipeline=f"build_{record.kind}", detector=record.detector
        ):
            if result.metrics.get("calib_id", record.calib_id) == record.calib_id:
                return result
    raise NotFoundError("result of the build of", record.calib_id, record.camera)


def verify_calibs(
    results: ResultsStore, camera: Camera, calib_ids: Iterable[str], *, thresholds: Path | None = None
) -> list[Verification]:
    """Verify calibs anew: hold what was measured when they were built against the thresholds of now, and write it down.

    The thresholds are those in force on the calib's day. Whether it is certified stays as it is.

    Raises
    ------
    NotFoundError
        Raised if there is no such calib, or nothing of its build is known.
    """
    limits = load_thresholds(thresholds)
    found = []
    for calib_id in dict.fromkeys(calib_ids):
        record = results.calib(camera.name, calib_id)
        built = build_result_of(results, record)
        before = Verification.from_stored(record.verification) if record.verification else None
        excluded = before.excluded if before else {}
        job = Job(
            camera=camera.name,
            kind=record.kind,
            subject=Subject.MASTER,
            exposure=built.exposure,
            day_obs=built.day_obs,
            detector=camera.by_id[record.detector],
            physical_filter=record.physical_filter,
            inputs=tuple(record.inputs),
        )
        amps = {
            **built.amps,
            **{amp: {**built.amps.get(amp, {}), "excluded": why} for amp, why in excluded.items()},
        }
        verification = verify_detector(job, built.metrics, amps, limits)
        results.set_calib_verification(
            camera.name,
            calib_id,
            outcome=verification.outcome.value,
            failures=verification.failures,
            document=verification.to_stored(),
        )
        found.append(verification)
    return found


def act_on_calibs(
    results: ResultsStore,
    camera: Camera,
    calib_ids: Iterable[str],
    action: Action,
    *,
    author: str,
    reason: str = "",
    override: bool = False,
    thresholds: Path | None = None,
) -> list[CalibStanding]:
    """Do what a request asks with calibs, and return where they stand then."""
    wanted = list(dict.fromkeys(calib_ids))
    if action == "verify":
        verify_calibs(results, camera, wanted, thresholds=thresholds)
    elif action == "certify":
        certify_calibs(results, camera.name, wanted, author=author, reason=reason, override=override)
    elif action == "reject":
        reject_calibs(results, camera.name, wanted, author=author, reason=reason)
    else:
        withdraw_calibs(results, camera.name, wanted, author=author, reason=reason)
    return [CalibStanding.of(results.calib(camera.name, calib_id)) for calib_id in wanted]
