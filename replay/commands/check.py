"""`rapid replay check` and `rapid replay report`: what came of a night, and what should have."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapid.errors import RapidError

if TYPE_CHECKING:
    from replay.check import CheckReport

DIFFERENT = 1
UNUSABLE = 2
"""Exit status if there was nothing to compare: a file that is no recording, tolerances that are not valid."""

Expected = Annotated[Path, typer.Argument(help="What should be: a recording with results, or a golden set.")]
Found = Annotated[Path, typer.Argument(help="What is: the recording of a replay.")]
TolerancesFile = Annotated[Path | None, typer.Option("--tolerances", "-t", help="What may be off, YAML.")]


def check(
    expected: Expected,
    found: Found,
    tolerances: TolerancesFile = None,
    report: Annotated[Path | None, typer.Option(help="Write a report with plots, one HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare two nights; status 0 if all is well, 1 if not. Example: rapid replay check night.zip replayed.zip"""
    from replay.report import render_html, render_text

    compared = _compare(expected, found, tolerances)
    if report is not None:
        _write(report, render_html(compared))
    print(json.dumps(_facts(compared)) if as_json else render_text(compared))
    if report is not None and not as_json:
        print(f"report    {report}")
    if not compared.is_good:
        raise typer.Exit(DIFFERENT)


def report(
    expected: Expected,
    found: Found,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("replay-report.html"),
    tolerances: TolerancesFile = None,
) -> None:
    """Write a comparison as one HTML file, well or not. Example: rapid replay report night.zip replayed.zip"""
    from replay.report import render_html

    _write(out, render_html(_compare(expected, found, tolerances)))
    print(out)


def _compare(expected: Path, found: Path, tolerances: Path | None) -> "CheckReport":
    from replay.check import check as compare
    from replay.check import load_tolerances
    from replay.recording import read_recording

    try:
        # A night that is checked in has its own beside its results.
        own = expected / "tolerances.yaml"
        given = tolerances or (own if own.is_file() else None)
        rules = load_tolerances(given) if given is not None else None
        return compare(read_recording(expected), read_recording(found), rules)
    except RapidError as error:
        print(f"rapid: {error.message}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"rapid: {path} cannot be written: {error.strerror}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from error


def _facts(report: "CheckReport") -> dict[str, object]:
    return {
        "is_good": report.is_good,
        "has_numbers": report.has_numbers,
        "n_values": report.n_values,
        "counts": report.count(),
        "invariants": report.invariants,
        "findings": [
            {
                "kind": one.kind.value,
                "where": one.where,
                "message": one.message,
                "excess": one.excess if math.isfinite(one.excess) else None,
            }
            for one in report.findings
        ],
    }
