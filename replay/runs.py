"""Hold two runs of the same exposures against each other: a campaign's results beside those of the night.

Both are read from the results store as recordings, so that `replay.check` compares them as it does a night and its replay.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from rapid.errors import ConfigurationError
from rapid.results.store import ResultsStore
from replay.check import CheckReport, Tolerances, check
from replay.outcome import read_outcome
from replay.recording import Manifest, Recording, ResultTable, SummaryFacts

AS_PROMPT = "prompt"
"""What a comparison looks at; the runs go by this name in it."""


def compare_runs(
    results: ResultsStore,
    camera: str,
    *,
    before: str,
    after: str,
    nights: Iterable[int],
    tolerances: Tolerances | None = None,
) -> CheckReport:
    """Compare the exposures that the later run has with what the earlier one has of them.

    Raises
    ------
    ConfigurationError
        Raised if one of the runs has nothing in these nights, or none of the other's exposures.
    """
    listed = sorted(set(nights))
    of_before = _exposures(results, camera, before, listed)
    of_after = _exposures(results, camera, after, listed)
    for run, found in ((before, of_before), (after, of_after)):
        if not found:
            raise ConfigurationError(
                "run", f"there is no result of run {run} in {', '.join(map(str, listed)) or 'any night'}"
            )
    both = sorted(of_before & of_after)
    if not both:
        raise ConfigurationError("run", f"runs {before} and {after} have no exposure in common")
    tables, summaries = read_outcome(results, camera, both)
    # What the campaign did not process under a pipeline is no difference: it was not asked to.
    pipelines = {(table.exposure, table.pipeline) for table in tables if table.run == after}
    pipelines |= {(one.exposure, one.pipeline) for one in summaries if one.run == after}
    rules = tolerances or Tolerances()
    return check(
        _as_recording(camera, before, tables, summaries, pipelines),
        _as_recording(camera, after, tables, summaries, pipelines),
        rules.model_copy(update={"latency": None}),
    )


def _exposures(results: ResultsStore, camera: str, run: str, nights: list[int]) -> set[int]:
    return {
        summary.exposure
        for day_obs in nights
        for summary in results.summaries(camera, day_obs=day_obs, limit=100_000, run=run)
    }


def _as_recording(
    camera: str, run: str, tables: list[ResultTable], summaries: list[SummaryFacts], pipelines: set[tuple[int, str]]
) -> Recording:
    return Recording(
        Manifest(camera=camera, title=run, began_at=datetime(2000, 1, 1, tzinfo=UTC), duration_s=0.0),
        [],
        results=[
            table.model_copy(update={"run": AS_PROMPT})
            for table in tables
            if table.run == run and (table.exposure, table.pipeline) in pipelines
        ],
        summaries=[
            one.model_copy(update={"run": AS_PROMPT})
            for one in summaries
            if one.run == run and (one.exposure, one.pipeline) in pipelines
        ],
    )
