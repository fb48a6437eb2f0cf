"""A night's exposures as CSV, for spreadsheets and scripts."""

import csv
import io
from collections.abc import Sequence

from rapid.display.models import ExposureRow

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


def night_as_csv(rows: Sequence[ExposureRow]) -> str:
    """Return rows as CSV, oldest first; a column for every metric that any exposure has."""
    metrics = sorted({key for row in rows for key in row.metrics})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*FACTS, *metrics])
    for row in reversed(rows):
        facts = row.model_dump(mode="json", include=set(FACTS))
        writer.writerow([safe_cell(facts[name]) for name in FACTS] + [safe_cell(row.metrics.get(k)) for k in metrics])
    return out.getvalue()
