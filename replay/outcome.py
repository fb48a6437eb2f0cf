"""Read from the stores what came of a night, as a recording keeps it."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

from rapid.results.models import DetectorResult, DetectorState, ExposureSummary, Scalar
from rapid.results.store import ResultsStore
from replay.recording import ResultTable, SummaryFacts

DIGITS = 7
"""Significant digits that are kept: more than any tolerance asks for, half of what a float prints."""


OPEN = frozenset({DetectorState.WAITING, DetectorState.QUEUED, DetectorState.RUNNING})
MANY = 100_000


def rounded(value: Scalar) -> Scalar:
    """Return a number with as many digits as are kept."""
    if isinstance(value, bool) or not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def result_tables(results: Iterable[DetectorResult]) -> Iterator[ResultTable]:
    """Yield the results of one exposure as a table for each pipeline and run."""
    by_batch: dict[tuple[str, str], list[DetectorResult]] = {}
    for result in results:
        by_batch.setdefault((result.run, result.pipeline), []).append(result)
    for (run, pipeline), found in sorted(by_batch.items()):
        rows = sorted(found, key=lambda result: result.detector)
        names = sorted({name for row in rows for name in row.metrics})
        yield ResultTable(
            exposure=rows[0].exposure,
            pipeline=pipeline,
            run=run,
            detectors=tuple(row.detector for row in rows),
            metrics={name: tuple(rounded(row.metrics.get(name)) for row in rows) for name in names},
        )


def summary_facts(
    versions: Iterable[ExposureSummary],
    last_raw_s: float | None = None,
    *,
    failed: Collection[tuple[str, str, int]] = (),
) -> Iterator[SummaryFacts]:
    """Yield what became of one exposure, for each pipeline and run.

    Parameters
    ----------
    versions
        All versions of its summaries.
    last_raw_s
        When its last raw arrived, seconds since the Unix epoch.
    failed
        Run, pipeline and detector of jobs that failed for good.
    """
    by_batch: dict[tuple[str, str], list[ExposureSummary]] = {}
    for summary in versions:
        by_batch.setdefault((summary.run, summary.pipeline), []).append(summary)
    for _, found in sorted(by_batch.items()):
        newest = max(found, key=lambda summary: summary.version)
        # The first that showed as much as the newest: a picture drawn anew for another reason is no latency.
        whole = [s for s in found if s.n_finished == newest.n_finished and s.gathered_at is not None]
        first = min(whole, key=lambda summary: summary.version, default=None)
        latency_s = None
        if first is not None and first.gathered_at is not None and last_raw_s is not None:
            latency_s = round(first.gathered_at.timestamp() - last_raw_s, 3)
        yield SummaryFacts(
            exposure=newest.exposure,
            pipeline=newest.pipeline,
            run=newest.run,
            image_type=newest.image_type,
            n_versions=newest.version,
            n_finished=newest.n_finished,
            n_expected=newest.n_expected,
            is_complete=newest.is_complete,
            not_finished=_not_finished(newest, failed),
            metrics={name: rounded(value) for name, value in sorted(newest.metrics.items())},
            control=dict(newest.control),
            latency_s=latency_s,
        )


def _not_finished(summary: ExposureSummary, failed: Collection[tuple[str, str, int]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for detector, status in sorted(summary.detectors.items()):
        state = status.state
        # A job that failed after the last summary changes no picture, so none is made of it: what became of it is known.
        if state in OPEN and (summary.run, summary.pipeline, detector) in failed:
            state = DetectorState.FAILED
        if state is not DetectorState.FINISHED:
            found.setdefault(state.value, []).append(detector)
    return {state: tuple(detectors) for state, detectors in found.items()}


def read_outcome(
    results: ResultsStore, camera: str, exposures: Iterable[int], *, last_raw_s: Mapping[int, float] | None = None
) -> tuple[list[ResultTable], list[SummaryFacts]]:
    """Return the results and summaries of some exposures, all runs."""
    tables: list[ResultTable] = []
    summaries: list[SummaryFacts] = []
    for exposure in sorted(exposures):
        tables += result_tables(results.results(exposure, camera=camera))
        failed = {
            (str(row["job_id"]).partition(".")[0], row["pipeline"], row["detector"])
            for row in results.failures(camera, exposure=exposure, limit=MANY)
        }
        versions = results.summary_versions(camera, exposure)
        summaries += summary_facts(versions, (last_raw_s or {}).get(exposure), failed=failed)
    return tables, summaries
