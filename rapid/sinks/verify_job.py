"""Documents as `lsst.verify` writes them: a job with its measurements, metrics and facts.

Source: `lsst.verify`'s ``Measurement.json`` and ``Job.json``. A number that was not measured is null there, too; its reason is
in the job's ``meta``, as a measurement has no place for it.
"""

import json
import uuid
from collections.abc import Iterable
from typing import Any

from rapid.sinks.catalogue import metric_catalogue
from rapid.sinks.models import MetricDocument

PACKAGE = "rapid"
"""First part of every metric's name: ``rapid.psf_fwhm_arcsec``."""

_NAMESPACE = uuid.UUID("6f1c8d4e-2f0a-4a55-9d0a-7f6d2b3f9a10")


def to_verify_job(document: MetricDocument) -> dict[str, Any]:
    """Return a document as a job. Words are facts of the job: a measurement is a number.

    Measurements are identified by what they are of, so that the same one made twice is the same one.
    """
    known = metric_catalogue()
    measurements: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    words: dict[str, str] = {}
    for name, value in sorted(document.values.items()):
        if isinstance(value, str):
            words[name] = value
            continue
        full = f"{PACKAGE}.{name}"
        unit = document.units.get(name, "")
        place = f"{document.camera} {document.run} {document.name} {full}"
        number = None if value is None else float(value)
        measurements.append(
            {
                "metric": full,
                "identifier": uuid.uuid5(_NAMESPACE, place).hex,
                "value": number,
                "unit": unit,
                "blob_refs": [],
            }
        )
        description = known[name].description if name in known else ""
        metrics.append({"name": full, "description": description, "unit": unit, "tags": [], "reference": {}})
    meta: dict[str, Any] = {
        "instrument": document.camera,
        "run": document.run,
        "exposure": document.exposure,
        "day_obs": document.day_obs,
        "seq_num": document.seq_num,
        "pipeline": document.pipeline,
        "image_type": document.image_type,
        "physical_filter": document.physical_filter,
        "date": document.time.isoformat(),
        **({"detector": document.detector, "detector_name": document.detector_name} if document.detector_name else {}),
        **({"amp": document.amp} if document.amp else {}),
        **document.provenance,
    }
    if words:
        meta["notes"] = words
    if document.reasons:
        meta["not_measured"] = document.reasons
    return {"measurements": measurements, "blobs": [], "metrics": metrics, "specs": [], "meta": meta}


def to_verify_text(documents: Iterable[MetricDocument]) -> str:
    """Return documents as a JSON list of jobs."""
    return json.dumps([to_verify_job(document) for document in documents], allow_nan=False, sort_keys=True)
