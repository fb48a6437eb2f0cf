"""Put the detectors' verifications together: the verdict on a calibration exposure, or on a build, in its summary."""

from pathlib import Path

from rapid.camera.store import load_camera
from rapid.products.naming import summary_key
from rapid.products.store import ProductsStore
from rapid.results.models import DetectorState, ExposureSummary
from rapid.results.store import ResultsStore
from rapid.verification.decide import MAX_NAMED, roll_up_results
from rapid.verification.layout import as_json, as_yaml, detector_layout, exposure_layout
from rapid.verification.models import Verification
from rapid.verification.thresholds import load_thresholds

DETECTOR_METRICS = ("verify_n_amps", "verify_n_failed_amps")
"""Of which a median and a scatter over the detectors say nothing."""


class VerificationStep:
    """A step of the gather.

    Adds the metrics ``verify_outcome``, ``verify_n_amps``, ``verify_n_failed_amps`` and ``verify_failures``, and the products
    ``verification`` (JSON) and ``verification_yaml`` in the layout of cp_verify: the exposure's verdict; in JSON, below
    ``DETECTORS``, every amp's values.

    Parameters
    ----------
    thresholds
        A site's own file; None for those that come with the package.
    """

    def __init__(self, thresholds: Path | None = None) -> None:
        self._thresholds = thresholds

    def __call__(self, summary: ExposureSummary, results: ResultsStore, products: ProductsStore) -> None:
        """Add the verdict, if the pipeline verifies anything."""
        found = results.results(summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline)
        verified = [result for result in found if result.verification is not None]
        if not verified:
            return
        camera = load_camera(summary.camera)
        names = {result.detector_name for result in found}
        without = {
            camera.by_id[number].name: status.reason or status.state.value
            for number, status in summary.detectors.items()
            if status.state in {DetectorState.FAILED, DetectorState.QUARANTINED, DetectorState.WAITING}
            and number in camera.by_id
            and camera.by_id[number].name not in names
        }
        calib_ids = {r.detector_name: str(r.metrics["calib_id"]) for r in verified if r.metrics.get("calib_id")}
        verdict = roll_up_results(
            verified,
            camera=camera,
            thresholds=load_thresholds(self._thresholds),
            without=without,
            calib_ids=calib_ids,
        )
        if verdict is None:
            return
        for name in DETECTOR_METRICS:
            for ending in ("_median", "_scatter"):
                summary.metrics.pop(f"{name}{ending}", None)
        failures = verdict.failures
        more = f" and {len(failures) - MAX_NAMED} more" if len(failures) > MAX_NAMED else ""
        summary.metrics |= {
            "verify_outcome": verdict.outcome.value,
            "verify_n_amps": verdict.n_amps,
            "verify_n_failed_amps": verdict.n_failed_amps,
            "verify_failures": ", ".join(failures[:MAX_NAMED]) + more,
        }
        document = exposure_layout(verdict)
        roll_up = as_yaml(document)  # of every amp it would take seconds
        document["DETECTORS"] = {
            result.detector_name: detector_layout(
                Verification.from_stored(result.verification), calib_id=calib_ids.get(result.detector_name)
            )
            for result in verified
        }
        for kind, extension, data, content_type in (
            ("verification_yaml", "yaml", roll_up, "application/yaml"),
            ("verification", "json", as_json(document), "application/json"),
        ):
            key = summary_key(summary, kind=kind, extension=extension)
            products.put(key, data, content_type=content_type)
            summary.products[kind] = key
