"""A night's summaries one after the other: all of them at once are a hundred megabytes by its end."""

from collections.abc import Iterator

from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

PAGE = 64
"""Summaries read at a time."""


def each_summary(
    results: ResultsStore, camera: str, *, day_obs: int, run: str | None = "prompt", page: int = PAGE
) -> Iterator[ExposureSummary]:
    """Yield the newest version of each summary of a night, newest exposure first.

    Parameters
    ----------
    page
        How many are in memory at a time; more if one exposure has more.
    """
    before: int | None = None
    limit = page
    while True:
        found = results.summaries(camera, day_obs=day_obs, run=run, limit=limit, before=before)
        if len(found) < limit:
            yield from found
            return
        last = found[-1].exposure
        whole = [summary for summary in found if summary.exposure != last]
        if not whole:
            limit *= 2  # an exposure of more pipelines than a page holds
            continue
        yield from whole
        # The last one may go on beyond the page: it is read again, with what comes after it.
        before, limit = last + 1, page
