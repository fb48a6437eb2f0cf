"""The dead letters of an incident: those of then, and whether they come again."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rapid.results.store import ResultsStore
from replay.subject import Subject

MANY = 100_000
KEPT = 20
MAX_TEXT = 4000
"""Of a message or traceback: a recording is small."""


def dead_letters(results: ResultsStore, camera: str, subject: Subject, *, run: str = "") -> list[dict[str, Any]]:
    """Return what the results store tells of the failed jobs of an incident, by id.

    Parameters
    ----------
    run
        The run of a replay, if it has another than the subject.
    """
    rows = [
        row
        for row in results.failures(camera, exposure=subject.exposure, limit=MANY)
        if subject.is_of(row["pipeline"])
        and subject.detector in {None, row["detector"]}
        and str(row["job_id"]).startswith(f"{run or subject.run}.")
    ]
    return sorted(rows, key=lambda row: str(row["job_id"]))


def errors_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return dead letters as a recording keeps them."""
    return [
        {
            "job_id": row["job_id"],
            "attempts": row["attempts"],
            "code": row["code"],
            "message": row["message"][:MAX_TEXT],
            "traceback": str(row["document"].get("traceback", ""))[-MAX_TEXT:],
        }
        for row in list(rows)[:KEPT]
    ]


def not_again(then: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the jobs of which no dead letter, or another, came in a replay, and why; runs have names of their own.

    Examples
    --------
    >>> list(not_again([{"job_id": "prompt.7.quicklook.094", "code": "raw_truncated"}], []))
    [('7.quicklook.094', 'did not fail; then: raw_truncated')]
    """
    codes = {_job(error): str(error["code"]) for error in now}
    for error in then:
        job, code = _job(error), str(error["code"])
        if job not in codes:
            yield job, f"did not fail; then: {code}"
        elif codes[job] != code:
            yield job, f"failed with {codes[job]} instead of {code}"


def _job(error: Mapping[str, Any]) -> str:
    return str(error["job_id"]).partition(".")[2]
