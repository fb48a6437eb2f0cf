"""Put an afterburner's numbers into the summary of the exposure whose results they joined.

No summary of its own and no new version: like plots that are drawn after a summary, they come to the version that is
there. Whoever writes last looks again: the summary that is made while an afterburner ends, and the afterburner's gather.
"""

from collections.abc import Iterable

from rapid.dispatch.models import BatchKey
from rapid.gather.decide import focal_plane_metrics
from rapid.products.store import ProductsStore
from rapid.products.summary_document import put_summary
from rapid.results.models import DetectorResult, ExposureSummary, Scalar
from rapid.results.provenance import afterburners_of
from rapid.results.store import ResultsStore


def afterburner_metrics(results: Iterable[DetectorResult]) -> tuple[int, dict[str, Scalar]]:
    """Return how many results have an afterburner's numbers, and these over the focal plane."""
    added = {
        result.detector: {name: result.metrics[name] for name in extra.metrics if name in result.metrics}
        for result in results
        if (extra := result.provenance.afterburner) is not None
    }
    return len(added), focal_plane_metrics(added)


def add_afterburner(summary: ExposureSummary, results: ResultsStore, products: ProductsStore) -> ExposureSummary | None:
    """Bring a stored summary up to what has joined its results; return it, or None if there was nothing to add."""
    stored = results.results(summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline)
    found = [one for one in stored if one.detector in summary.detectors]
    n_afterburned, metrics = afterburner_metrics(found)
    if not n_afterburned:
        return None
    changed = results.add_to_summary(
        summary, metrics=metrics, n_afterburned=n_afterburned, afterburners=afterburners_of(found)
    )
    if changed is not None:
        put_summary(changed, products, as_stored=results.same_summary)
    return changed


def summary_of_base(key: BatchKey, base: str, camera: str, results: ResultsStore) -> ExposureSummary | None:
    """Return the newest summary of the batch that an afterburner's batch adds to."""
    return results.latest_summary(camera, key.exposure_id, pipeline=base, run=key.run)
