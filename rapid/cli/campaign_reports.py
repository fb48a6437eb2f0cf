"""`rapid campaign holes` and `compare`: what has no result, and what has changed between two runs."""

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.request import NOT_DONE, AsJson
from rapid.cli.roles import CameraName, Data
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid.camera.models import Camera
    from rapid.campaign.holes import HolesReport
    from rapid.requests.archive import RequestArchive
    from rapid.results.store import ResultsStore
    from rapid.wiring.settings import RoleSettings
    from replay.check import CheckReport

MAX_FINDINGS = 1000

Night = Annotated[list[str], typer.Option("--night", "-n", help="Night or range FIRST-LAST; may be repeated.")]
Raws = Annotated[str | None, typer.Option("--raws", help="Where raws are, as of `rapid up` [RAPID_RAWS].")]


@contextmanager
def open_stored(
    camera: str | None, data: Path | None, raws: str | None = None
) -> "Iterator[tuple[RoleSettings, Camera, ResultsStore]]":
    """Give settings, camera and the results store, for as long as a command runs."""
    from rapid.results.store import open_results
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, data=data, raws=raws)
    known = adopt_camera(settings.camera)
    if "://" not in settings.results and not Path(settings.results).exists():
        raise ConfigurationError(
            "data", f"there is no results store at {settings.results}; give --data, or RAPID_RESULTS_URL"
        )
    results = open_results(settings.results)
    try:
        yield settings, known, results
    finally:
        results.close()


@contextmanager
def open_campaigns(camera: str | None, data: Path | None) -> "Iterator[tuple[str, RequestArchive]]":
    """Give the camera's name and its requests, for as long as a command runs."""
    from rapid.requests.archive import RequestArchive

    with open_stored(camera, data) as (_, known, results):
        yield known.name, RequestArchive(results.engine)


def holes_report(
    night: Annotated[list[str], typer.Argument(help="Night, or range FIRST-LAST.")],
    run: Annotated[str, typer.Option("--run", help="Run, or name of a campaign.")] = "prompt",
    raws: Raws = None,
    camera: CameraName = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say which exposures and detectors have no result, and why: status 1 if any. Example: rapid campaign holes 20261120 --raws /data/raws"""
    from rapid.campaign.holes import find_holes
    from rapid.campaign.listings import open_listing
    from rapid.campaign.records import read_nights

    with open_stored(camera, data, raws) as (settings, known, results):
        listing = open_listing(settings.raws, known, ingest_run=settings.ingest_run)
        stored = frozenset(day for day, _ in results.nights(known.name))
        found = [
            find_holes(day, results=results, camera=known, listing=listing, run=run)
            for day in read_nights(night, stored)
        ]
    if as_json:
        print_json([report.model_dump(mode="json") for report in found])
    else:
        for report in found:
            print(_holes_text(report))
    if any(report.n_missing for report in found):
        raise typer.Exit(NOT_DONE)


def compare(
    before: Annotated[str, typer.Argument(help="Run, as it was: prompt, or a campaign.")],
    after: Annotated[str, typer.Argument(help="Run, as it is now.")],
    night: Annotated[
        list[str] | None, typer.Option("--night", "-n", help="Night or range; those of the campaign if left out.")
    ] = None,
    tolerances: Annotated[
        Path | None, typer.Option(help="What is allowed, YAML, as of `rapid replay check`; a thousandth if left out.")
    ] = None,
    rel: Annotated[
        float | None, typer.Option(min=0.0, help="In place of a thousandth: what is allowed, of the earlier value.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, too.")] = None,
    camera: CameraName = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Compare the results of two runs: status 1 if they differ by more than is allowed. Example: rapid campaign compare prompt newpsf --html newpsf.html"""
    from rapid.campaign.records import nights_of_runs, read_nights
    from rapid.requests.archive import RequestArchive
    from replay.check import Tolerance, Tolerances, load_tolerances
    from replay.report import render_html, render_text
    from replay.runs import compare_runs

    with open_stored(camera, data) as (_, known, results):
        stored = frozenset(day for day, _ in results.nights(known.name))
        archive = RequestArchive(results.engine)
        nights = read_nights(night, stored) if night else nights_of_runs(archive, known.name, (after, before), stored)
        rules = load_tolerances(tolerances) if tolerances is not None else Tolerances()
        if rel is not None:
            rules = rules.model_copy(update={"default": Tolerance(rel=rel, abs=1e-6 if rel else 0.0)})
        report = compare_runs(results, known.name, before=before, after=after, nights=nights, tolerances=rules)
    if html is not None:
        try:
            html.write_text(render_html(report, title=f"{after} beside {before}"), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError("html", f"{html}: {error.strerror}") from error
    if as_json:
        print_json({"before": before, "after": after, "nights": nights, **_facts_of(report)})
    else:
        print(render_text(report).replace("the replay", f"run {after}", 1))
    if not report.is_good:
        raise typer.Exit(NOT_DONE)


def _facts_of(report: "CheckReport") -> dict[str, Any]:
    """Return a comparison as JSON facts: findings, the worst first, and every metric in a line."""
    changes = [one for one in report.differences.values() if one.expected]
    changes.sort(key=lambda one: (-one.n_outside, -one.worst, one.metric))
    findings = sorted(report.findings, key=lambda one: (one.excess > 0, -one.excess, one.where))
    return {
        "is_good": report.is_good,
        "n_exposures": len({one.exposure for one in report.found.summaries}),
        "n_values": report.n_values,
        "counts": report.count(),
        "metrics": [
            {
                "metric": one.metric,
                "n": len(one.expected),
                "n_outside": one.n_outside,
                # None where nothing at all was allowed.
                "worst": one.worst if math.isfinite(one.worst) else None,
                "median_before": statistics.median(one.expected),
                "median_after": statistics.median(one.found),
                "median_change": statistics.median(
                    after - before for before, after in zip(one.expected, one.found, strict=True)
                ),
            }
            for one in changes
        ],
        "findings": [
            {"kind": one.kind.value, "where": one.where, "message": one.message} for one in findings[:MAX_FINDINGS]
        ],
    }


def _holes_text(report: "HolesReport") -> str:
    raws = f"{report.n_raws} raws, " if report.n_raws is not None else "raws not looked at (give --raws), "
    head = f"{report.day_obs} {report.run}: "
    if not report.n_exposures:
        return f"{head}there is no raw and no result of this night"
    head += f"{report.n_exposures} exposures, {raws}{report.n_results} results, "
    lines = [f"{head}{report.n_missing} missing, {report.n_excluded} switched off"]
    for hole in report.holes:
        lines.append(
            f"  {hole.exposure_id}  {hole.image_type or '?':10} {hole.pipeline or '-':12} {hole.n_missing} of {hole.n_expected} detectors"
        )
        for why, names in hole.reasons.items():
            shown = " ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"      {shown}: {why}")
    return "\n".join(lines)


def add_reports(campaign_app: typer.Typer) -> None:
    """Add the commands."""
    campaign_app.command("holes")(holes_report)
    campaign_app.command("compare")(compare)
