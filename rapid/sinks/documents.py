"""Make what sinks send out of results and summaries. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rapid.exposure.values import leap_seconds
from rapid.results.models import DetectorResult, ExposureSummary, Scalar
from rapid.sinks.catalogue import unit_of
from rapid.sinks.models import MetricDocument

NOT_MEASURED = "not measured"
NOT_FINITE = "not a finite number"


def documents_of(summary: ExposureSummary, results: Iterable[DetectorResult]) -> list[MetricDocument]:
    """Return the documents of one batch: the exposure, its detectors, and their amps.

    Parameters
    ----------
    summary
        The newest of the batch. The begin of the exposure in it dates all documents, so that what is done again takes
        the place of what was sent before.
    results
        Of the same batch.
    """
    begin = _begin_of(summary)
    filter_name = summary.info.get("physical_filter")
    shared: dict[str, Any] = {
        "camera": summary.camera,
        "run": summary.run,
        "exposure": summary.exposure,
        "day_obs": summary.day_obs,
        "seq_num": summary.seq_num,
        "pipeline": summary.pipeline,
        "image_type": summary.image_type,
        "physical_filter": filter_name if isinstance(filter_name, str) else "",
    }
    moment = begin or summary.gathered_at or datetime(1970, 1, 1, tzinfo=UTC)
    counts: dict[str, Scalar] = {"n_finished": summary.n_finished, "n_expected": summary.n_expected}
    documents = [_document("exposure", shared, moment, {**counts, **summary.metrics}, _origin_of_summary(summary))]
    for result in results:
        place = {**shared, "detector": result.detector, "detector_name": result.detector_name}
        provenance = _origin_of_result(result)
        when = begin or result.finished_at or moment
        documents.append(_document("detector", place, when, result.metrics, provenance))
        documents += [
            _document("amp", {**place, "amp": amp}, when, values, provenance) for amp, values in result.amps.items()
        ]
    return documents


def _origin_of_result(result: DetectorResult) -> dict[str, str]:
    """Return how a detector's numbers came to be, in words."""
    origin = result.provenance
    words = {
        "software_version": origin.software_version,
        "pipeline_version": origin.pipeline_version,
        "config_hash": origin.config_hash,
        "payloads": _versions({name: [version] for name, version in origin.payloads.items()}),
        "applied": " ".join(origin.applied),
        "raw_sha256": origin.raw_sha256,
        "calibs": " ".join(sorted(origin.calibs.values())),
    }
    if origin.inputs:
        words["inputs"] = " ".join(map(str, origin.inputs))
        words["input_sha256"] = " ".join(origin.input_sha256.get(str(one), "unknown") for one in origin.inputs)
    if (added := origin.afterburner) is not None:
        words |= {
            "afterburner_software_version": added.software_version,
            "afterburner_pipeline_version": added.pipeline_version,
            "afterburner_config_hash": added.config_hash,
            "afterburner_payloads": _versions({name: [version] for name, version in added.payloads.items()}),
            "afterburner_metrics": " ".join(sorted({*added.metrics, *added.amp_metrics})),
        }
    return words


def _origin_of_summary(summary: ExposureSummary) -> dict[str, str]:
    """Return how the numbers of a focal plane came to be, in words. Several versions of a thing stand side by side."""
    origin = summary.provenance
    if origin is None:  # made before it was written down
        return {}
    words = {
        "software_version": origin.software_version,
        "results_software_version": " ".join(origin.results),
        "pipeline_version": " ".join(origin.pipeline_versions),
        "config_hash": " ".join(origin.config_hashes),
        "payloads": _versions(origin.payloads),
        "raws_sha256": origin.raws_sha256,
        "calibs": " ".join(sorted({calib_id for used in origin.calibs.values() for calib_id in used})),
    }
    if origin.inputs:
        words["inputs"] = " ".join(map(str, origin.inputs))
    if origin.afterburners:
        words["afterburner_config_hash"] = " ".join(origin.afterburners)
    return words


def _versions(payloads: Mapping[str, Sequence[str]]) -> str:
    return " ".join(f"{name}={'/'.join(versions)}" for name, versions in sorted(payloads.items()))


def _document(
    level: str, place: Mapping[str, Any], moment: datetime, values: Mapping[str, Scalar], provenance: dict[str, str]
) -> MetricDocument:
    clean: dict[str, Scalar] = {}
    reasons: dict[str, str] = {}
    for name, value in values.items():
        if value is None:
            clean[name] = None
            # A payload says why beside the number: zero_point_mag_note.
            note = values.get(f"{name}_note")
            reasons[name] = note if isinstance(note, str) and note else NOT_MEASURED
        elif isinstance(value, float) and not math.isfinite(value):
            clean[name], reasons[name] = None, NOT_FINITE
        else:
            clean[name] = value
    units = {name: unit for name, value in clean.items() if not isinstance(value, str) and (unit := unit_of(name))}
    return MetricDocument(
        level=level,
        **place,
        time=moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC),
        values=clean,
        units=units,
        reasons=reasons,
        provenance=provenance,
    )


def _begin_of(summary: ExposureSummary) -> datetime | None:
    """Return when an exposure began, UTC, of the TAI that its facts have."""
    try:
        tai = datetime.fromisoformat(str(summary.info.get("begin") or "")).replace(tzinfo=None)
    except ValueError:
        return None
    return (tai - timedelta(seconds=leap_seconds(tai))).replace(tzinfo=UTC)
