"""Verifications in the field's layout: what cp_verify writes, as JSON and YAML.

Of a detector: ``{AMP: {C00: {MEAN: ...}}, DET: {...}, METADATA: {...}, VERIFY: {AMP: {C00: {MEAN: true, SUCCESS: true}},
DET: {...}}, SUCCESS: true}``; of an exposure: ``{R22_S11: {SUCCESS, FAILURES: ["C00 NOISE"]}, EXP: {...}, VERIFY, SUCCESS}``;
of a run: ``{exposure: {SUCCESS, FAILURES: ["R22_S11 C00 NOISE"]}, SUCCESS}``. A value that could not be measured is null, and
so is its verdict: neither true nor false. Warnings count as success, and are listed.
"""

import json
from typing import Any

import yaml

from rapid.verification.models import ExposureVerdict, Measured, Outcome, RunVerdict, Verification


def _truth(found: Measured) -> bool | None:
    return None if found.outcome is Outcome.NOT_MEASURED else found.outcome.is_success


def detector_layout(verification: Verification, *, calib_id: str | None = None) -> dict[str, Any]:
    """Return one detector's verification as cp_verify lays it out."""
    amps = {
        amp: {**{test: _truth(one) for test, one in row.items()}, "SUCCESS": _success(list(row.values()))}
        for amp, row in verification.amps.items()
    }
    document: dict[str, Any] = {
        "AMP": {amp: {test: one.value for test, one in row.items()} for amp, row in verification.amps.items()},
        "DET": {test: one.value for test, one in verification.tests.items()},
        "CATALOG": {},
        "ISR": {},
        "METADATA": {
            "INSTRUMENT": verification.camera,
            "DETECTOR": verification.detector,
            "DETNAME": verification.detector_name,
            "EXPOSURE": verification.exposure,
            "CALTYPE": verification.kind,
            "SUBJECT": verification.subject.value,
            "FILTER": verification.physical_filter,
            "INPUTS": list(verification.inputs),
            "CALIB": calib_id,
            "THRESHOLDS": verification.thresholds,
            "EXCLUDED": dict(verification.excluded),
        },
        "LIMITS": {
            test: {
                "unit": limits.unit,
                "warn": limits.warn.model_dump() if limits.warn else None,
                "error": limits.error.model_dump() if limits.error else None,
                "reason": limits.reason,
                "valid_from": limits.valid_from,
            }
            for test, limits in {**verification.limits, **verification.amp_limits}.items()
        },
        "VERIFY": {
            "AMP": amps,
            "DET": {
                **{test: _truth(one) for test, one in verification.tests.items()},
                "SUCCESS": _success(list(verification.tests.values())),
            },
        },
        "OUTCOME": verification.outcome.value,
        "SUCCESS": verification.outcome.is_success,
        "FAILURES": list(verification.failures),
        "WARNINGS": list(verification.warnings),
        "NOT_MEASURED": list(verification.not_measured),
    }
    return document


def _success(found: list[Measured]) -> bool | None:
    """Return whether none failed; null if nothing was measured."""
    known = [one for one in found if one.outcome is not Outcome.NOT_MEASURED]
    if not known:
        return None if found else True
    return all(one.outcome.is_success for one in known)


def exposure_layout(verdict: ExposureVerdict) -> dict[str, Any]:
    """Return an exposure's verdict as cp_verify rolls it up."""
    document: dict[str, Any] = {
        name: {
            "SUCCESS": one.outcome.is_success,
            "OUTCOME": one.outcome.value,
            "FAILURES": list(one.failures),
            "WARNINGS": list(one.warnings),
            **({"CALIB": one.calib_id} if one.calib_id else {}),
        }
        for name, one in verdict.detectors.items()
    }
    document |= {
        name: {"SUCCESS": None, "OUTCOME": "not_measured", "NOTE": why} for name, why in verdict.without.items()
    }
    document["EXP"] = {test: one.value for test, one in verdict.tests.items()}
    document["VERIFY"] = {"EXP": {test: _truth(one) for test, one in verdict.tests.items()}}
    document["OUTCOME"] = verdict.outcome.value
    document["SUCCESS"] = verdict.outcome.is_success
    return document


def run_layout(verdict: RunVerdict) -> dict[str, Any]:
    """Return a run's verdict as cp_verify rolls it up: by exposure, failures named in full."""
    document: dict[str, Any] = {
        str(exposure): {"SUCCESS": one.outcome.is_success, "OUTCOME": one.outcome.value, "FAILURES": list(one.failures)}
        for exposure, one in sorted(verdict.exposures.items())
    }
    document["OUTCOME"] = verdict.outcome.value
    document["SUCCESS"] = verdict.outcome.is_success
    return document


def as_json(document: dict[str, Any]) -> bytes:
    """Return a document as JSON; no NaN can be in it."""
    return json.dumps(document, indent=1, allow_nan=False).encode()


def as_yaml(document: dict[str, Any]) -> bytes:
    """Return a document as YAML, keys in order."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
