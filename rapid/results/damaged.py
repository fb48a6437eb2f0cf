"""Read documents of the results store so that one damaged row is seen, and does not hide its neighbours.

A summary that cannot be read is replaced by one that says so, made of the row's own columns: its exposure stays in the
night, as failed, with the reason. A detector's result that cannot be read is left out and logged.
"""

from collections.abc import Iterable
from typing import Any

import structlog
from pydantic import ValidationError

from rapid.results.models import DetectorResult, ExposureSummary, GatherReason

log = structlog.get_logger()

NOTE = "summary_note"
"""Metric that tells of the damage."""


def read_summary(row: Any) -> ExposureSummary:
    """Return the summary of a row with the columns of ``exposure_summary``; a stand-in if its document is damaged."""
    try:
        return ExposureSummary.model_validate_json(row.document)
    except (ValidationError, TypeError) as error:
        reason = f"stored summary cannot be read: {_shortly(error)}"
        log.error("summary cannot be read", exposure_id=row.exposure, pipeline=row.pipeline, error=reason)
        return ExposureSummary(
            run=row.run,
            camera=row.camera,
            exposure=row.exposure,
            day_obs=row.day_obs,
            seq_num=row.seq_num,
            pipeline=row.pipeline,
            image_type=row.image_type,
            version=row.version,
            reason=GatherReason.TIMEOUT,
            n_finished=0,
            n_expected=1,  # none of none would pass for complete
            is_complete=False,
            detectors={},
            metrics={NOTE: reason},
            info={"image_type": row.image_type},
        )


def read_results(rows: Iterable[Any]) -> list[DetectorResult]:
    """Return the detector results of rows; damaged ones are left out."""
    found = []
    for row in rows:
        try:
            found.append(DetectorResult.model_validate_json(row.document))
        except (ValidationError, TypeError) as error:
            log.error("result cannot be read", exposure_id=row.exposure, detector=row.detector, error=_shortly(error))
    return found


def _shortly(error: ValidationError | TypeError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)[:300]
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}"[:300] if place else str(first["msg"])[:300]
