"""A night's exposures as CSV, for spreadsheets and scripts."""

import csv
import io
from collections.abc import Iterable, Sequence

from rapid.display.models import ExposureRow
from rapid.nightlog.models import LogEntry, flags_of

FACTS = (
    "exposure_id",
    "day_obs",
    "seq_num",
    "image_type",
    "physical_filter",
    "object_name",
    "program",
    "begin",
    "exposure_time_s",
    "airmass",
    "azimuth_deg",
    "elevation_deg",
    "state",
    "pipeline",
    "version",
    "n_finished",
    "n_failed",
    "n_expected",
    "n_excluded",
    "n_later",
    "n_excluded_amps",
)

LOGGED = ("flag", "comments")
"""What observers said, beside what was measured."""


def safe_cell(value: object) -> object:
    """Return a value that no spreadsheet takes for a formula: words from headers are not ours.

    Examples
    --------
    >>> safe_cell("=cmd()"), safe_cell(-1.5), safe_cell(None)
    ("'=cmd()", -1.5, '')
    """
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def night_as_csv(rows: Sequence[ExposureRow], log: Iterable[LogEntry] = ()) -> str:
    """Return rows as CSV, oldest first; a column for every metric that any exposure has.

    Parameters
    ----------
    log
        What stands in the night's log: the flag in force and the comments of each exposure.
    """
    entries = list(log)
    flags = flags_of(entries)
    comments: dict[int, list[str]] = {}
    for entry in entries:
        if entry.exposure_id is not None and entry.text:
            comments.setdefault(entry.exposure_id, []).append(f"{entry.author}: {' '.join(entry.text.split())}")
    metrics = sorted({key for row in rows for key in row.metrics})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*FACTS, *LOGGED, *metrics])
    for row in reversed(rows):
        facts = row.model_dump(mode="json", include=set(FACTS))
        flag = flags.get(row.exposure_id)
        logged = ["" if flag is None else flag.value, " | ".join(comments.get(row.exposure_id, []))]
        values = [*(facts[name] for name in FACTS), *logged, *(row.metrics.get(key) for key in metrics)]
        writer.writerow([safe_cell(value) for value in values])
    return out.getvalue()
