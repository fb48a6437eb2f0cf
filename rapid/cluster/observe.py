"""Gather what a comparison of versions needs: results of exposures before, and of those that come."""

import time
from collections.abc import Callable, Collection, Sequence

from rapid.cluster.compare import Comparison, Row, compare_versions
from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.results.store import ResultsStore

METRICS = ("psf_fwhm_arcsec", "sky_noise_e", "n_stars", "read_noise_median_electron", "stdev_e")
"""Compared unless others are named: what a change of code should not change."""

WAIT_S = 10.0


def rows_of(
    results: ResultsStore, camera: str, exposures: Collection[int], *, metrics: Sequence[str] = METRICS
) -> list[Row]:
    """Return every finished or failed detector of some exposures."""
    rows = []
    for exposure in sorted(exposures):
        for result in results.results(exposure, camera=camera, run="prompt"):
            numbers = {
                name: float(value)
                for name in metrics
                if isinstance(value := result.metrics.get(name), (int, float)) and not isinstance(value, bool)
            }
            rows.append(Row(exposure, result.detector, result.timings.get("total_s", 0.0), numbers))
        rows += [
            Row(exposure, failure["detector"], None, {})
            for failure in results.failures(camera, exposure=exposure)
            if failure.get("detector") is not None
        ]
    return rows


def recent_exposures(results: ResultsStore, camera: str, n: int) -> list[int]:
    """Return the last exposures that have a summary, oldest first."""
    return sorted({summary.exposure for summary in results.summaries(camera, limit=3 * n)})[-n:]


def observe_exposures(
    board: Board,
    results: ResultsStore,
    camera: str,
    before: Collection[int],
    detectors: frozenset[int],
    *,
    n_exposures: int,
    timeout_s: float,
    metrics: Sequence[str] = METRICS,
    tell: Callable[[str], None],
) -> Comparison:
    """Wait for summaries of new exposures, then compare them with those before.

    Wakes on the board's events. Of fewer exposures than wanted within the time, what is there is compared, and the
    comparison says that it is too little.
    """
    seen: set[int] = set()
    last = board.last_event_id()
    deadline = time.monotonic() + timeout_s
    while len(seen) < n_exposures and (remaining := deadline - time.monotonic()) > 0:
        for event in board.events(last, timeout_s=min(remaining, WAIT_S)):
            last = event.event_id
            is_new = event.exposure_id is not None and event.exposure_id not in before
            if event.kind is EventKind.SUMMARY_READY and is_new and event.exposure_id not in seen:
                seen.add(event.exposure_id)  # type: ignore[arg-type]  # not None, see above
                tell(f"exposure {event.exposure_id}: {len(seen)} of {n_exposures}")
    return compare_versions(
        rows_of(results, camera, before, metrics=metrics),
        rows_of(results, camera, seen, metrics=metrics),
        detectors,
        least_exposures=n_exposures,
    )
