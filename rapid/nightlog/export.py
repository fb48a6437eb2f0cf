"""The night log as CSV."""

import csv
import io

from rapid.nightlog.models import LogEntry

COLUMNS = ("id", "day_obs", "exposure_id", "seq_num", "created_at", "author", "flag", "text", "replaces")


def as_csv(entries: list[LogEntry]) -> str:
    """Return entries as CSV; a text that a spreadsheet would take for a formula is quoted by an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        facts = entry.model_dump(mode="json")
        writer.writerow([_plain(facts[name]) for name in COLUMNS])
    return out.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t"}:
        return f"'{value}"
    return "" if value is None else value
