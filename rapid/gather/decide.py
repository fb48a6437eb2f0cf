"""Decide what a focal-plane summary says: pure functions of results.

When to gather is decided on the board (I4); here stands what comes out of it.
"""

import math
import statistics
from collections.abc import Mapping

from rapid.dispatch.models import GatherJob
from rapid.results.models import DetectorState, ExposureSummary, Scalar

SETTLED_WELL = frozenset({DetectorState.FINISHED, DetectorState.EXCLUDED, DetectorState.SUPERSEDED})
"""States that leave nothing missing from a summary."""


NOT_WANTED_NOW = frozenset({DetectorState.EXCLUDED, DetectorState.SUPERSEDED})
"""States that are not counted among what a summary should show."""


def focal_plane_metrics(results: Mapping[int, Mapping[str, Scalar]]) -> dict[str, Scalar]:
    """Return median, scatter and number of every numeric metric over the detectors.

    Parameters
    ----------
    results
        Metrics by detector; None and non-finite values do not count.

    Returns
    -------
    metrics
        ``{name}_median`` and ``{name}_scatter`` (robust, 1.4826 times the median deviation), and
        ``n_detectors_{name}`` where not every detector gave a value.
    """
    values: dict[str, list[float]] = {}
    for metrics in results.values():
        for name, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            values.setdefault(name, []).append(float(value))
    summary: dict[str, Scalar] = {}
    for name, found in sorted(values.items()):
        median = statistics.median(found)
        summary[f"{name}_median"] = median
        summary[f"{name}_scatter"] = 1.4826 * statistics.median(abs(value - median) for value in found)
        if len(found) < len(results):
            summary[f"n_detectors_{name}"] = len(found)
    for name in ("n_stars", "n_saturated_px"):
        if name in values:
            summary[f"{name}_total"] = int(sum(values[name]))
    return summary


def summarise(gather: GatherJob, *, run: str) -> ExposureSummary:
    """Return the summary of a gather, without products.

    An excluded or superseded detector leaves nothing missing: it was not to be done now. Any other
    detector without a result makes the summary partial, and says why (I10).
    """
    info = dict(gather.info)
    wanted = {number for number, status in gather.detectors.items() if status.state not in NOT_WANTED_NOW}
    is_complete = all(status.state in SETTLED_WELL for status in gather.detectors.values())
    return ExposureSummary(
        run=run,
        camera=gather.camera,
        exposure=gather.batch.exposure_id,
        day_obs=int(info.get("day_obs") or gather.batch.exposure_id // 100_000),
        seq_num=int(info.get("seq_num") or gather.batch.exposure_id % 100_000),
        pipeline=gather.batch.pipeline,
        image_type=gather.image_type,
        version=gather.version,
        reason=gather.reason,
        token=gather.token,
        n_finished=len(gather.finished),
        n_expected=len(wanted | gather.finished),
        is_complete=is_complete,
        detectors=gather.detectors,
        metrics=focal_plane_metrics({number: gather.results.get(number, {}) for number in gather.finished}),
        info=info,
        control=dict(gather.control),
    )
