"""`rapid campaign`: process nights again as backlog, see how it stands and what has no result, compare runs."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data, Redis
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid.camera.models import Camera
    from rapid.campaign.holes import HolesReport
    from rapid.requests.models import RequestRecord
    from rapid.results.store import ResultsStore
    from rapid.wiring.settings import RoleSettings

NOT_DONE = 1
TIMEOUT = 3
"""Exit status of a wait that ended before the campaign did, as of `rapid request`."""

DEADLINE_S = 7 * 86_400.0
MAX_SHOWN = 40

campaign_app = typer.Typer(
    help="Process nights again as backlog, beside the results that are there.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
RunName = Annotated[str, typer.Argument(help="Name of the campaign: the run that its results are stored under.")]
Raws = Annotated[str | None, typer.Option("--raws", help="Where raws are, as of `rapid up` [RAPID_RAWS].")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for its end.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Give up waiting after so long [s].")]


def _settings(
    camera: str | None, redis: str | None, data: Path | None, raws: str | None = None
) -> "tuple[RoleSettings, Camera]":
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, redis_url=redis, data=data, raws=raws)
    return settings, adopt_camera(settings.camera)


def _results(settings: "RoleSettings") -> "ResultsStore":
    from rapid.results.store import open_results

    if "://" not in settings.results and not Path(settings.results).exists():
        raise ConfigurationError(
            "data", f"there is no results store at {settings.results}; give --data, or RAPID_RESULTS_URL"
        )
    return open_results(settings.results)


def _newest_record(results: "ResultsStore", camera: str, run: str) -> "RequestRecord":
    """Return the newest request of a campaign's name."""
    from rapid.requests.archive import RequestArchive

    record = RequestArchive(results.engine).by_run(camera, run)
    if record is None or record.spec is None or record.spec.select.campaign is None:
        raise ConfigurationError("run", f"there is no campaign {run}")
    return record


@campaign_app.command("start")
def start(
    run: RunName,
    night: Annotated[list[str], typer.Option("--night", "-n", help="Night or range FIRST-LAST; may be repeated.")],
    exposures: Annotated[
        list[str] | None, typer.Option("--exposure", "-e", help="Only these ids or ranges; may be repeated.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not these ids or ranges; may be repeated.")] = None,
    exclude_file: Annotated[
        Path | None, typer.Option(help="File with ids or ranges to leave out, one a line; # begins a comment.")
    ] = None,
    where: Annotated[str, typer.Option(help="Only exposures that meet an expression on header and metrics.")] = "",
    image_type: Annotated[list[str] | None, typer.Option(help="Only of this type; may be repeated.")] = None,
    holes: Annotated[bool, typer.Option("--holes", help="Only detectors that have no result.")] = False,
    of: Annotated[str, typer.Option(help="Run whose metrics and holes are looked at.")] = "prompt",
    pipeline: Annotated[str | None, typer.Option(help="What to run; by the rules if left out.")] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", help="PAYLOAD.SETTING=VALUE; may be repeated.")
    ] = None,
    detectors: Annotated[str | None, typer.Option(help="A pattern expression; all that there are raws of.")] = None,
    label: Annotated[str, typer.Option(help="For people who read the list.")] = "",
    wait: Wait = False,
    timeout: Timeout = DEADLINE_S,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Begin a campaign. Example: rapid campaign start newpsf --night 20261120 --where "physical_filter == 'r_57' and psf_fwhm_arcsec_median > 1.2" --pipeline quicklook"""
    from rapid.cli.request import open_client, read_config
    from rapid.client import make_spec

    selection: dict[str, Any] = {
        "nights": night, "exposures": exposures or [], "exclude": [*(exclude or []), *_read_ids(exclude_file)],
        "image_types": image_type or [], "where": where, "holes": holes, "of": of,
    }  # fmt: skip
    wishes: dict[str, Any] = {"pipeline": pipeline, "detectors": detectors}
    spec = make_spec(
        select={"campaign": selection},
        run=run,
        priority="backlog",
        deadline_s=DEADLINE_S,
        label=label or f"campaign {run}",
        config=read_config(config or []),
        **{name: value for name, value in wishes.items() if value is not None},
    )
    with open_client(camera, redis) as client:
        ticket = client.submit(spec).ticket
        _follow(client, ticket, wait=wait, timeout_s=timeout, as_json=as_json)


@campaign_app.command("resume")
def resume(
    run: RunName,
    wait: Wait = False,
    timeout: Timeout = DEADLINE_S,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a campaign that has ended; what failed is tried once more. Example: rapid campaign resume newpsf --wait"""
    from rapid.cli.request import open_client

    settings, known = _settings(camera, redis, data)
    record = _newest_record(_results(settings), known.name, run)
    spec = record.spec
    if spec is None or spec.select.campaign is None:
        raise ConfigurationError("run", f"campaign {run} cannot be read")
    campaign = spec.select.campaign.model_copy(update={"resume": True})
    again = spec.model_copy(
        update={"select": spec.select.model_copy(update={"campaign": campaign}), "client_key": None}
    )
    with open_client(camera, redis) as client:
        ticket = client.submit(again).ticket
        _follow(client, ticket, wait=wait, timeout_s=timeout, as_json=as_json)


@campaign_app.command("status")
def status(
    run: Annotated[str, typer.Argument(help="Name of the campaign; all if left out.")] = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show how campaigns stand. Example: rapid campaign status newpsf"""
    from rapid.cli.request import open_client
    from rapid.requests.archive import RequestArchive
    from rapid.requests.store import record_facts

    settings, known = _settings(camera, redis, data)
    results = _results(settings)
    if run:
        records = [_newest_record(results, known.name, run)]
    else:
        found = RequestArchive(results.engine).recent(known.name, 5000)
        records = [one for one in found if one.spec is not None and one.spec.select.campaign is not None]
    if any(not record.state.is_final for record in records):
        # How far it is, is told on the board; the store is told of its end.
        with open_client(camera, redis) as client:
            records = [r if r.state.is_final else client.find(r.request_id).record() for r in records]
    if as_json:
        facts = [record_facts(record) for record in records]
        print_json(facts[0] if run else facts)
        return
    for record in records:
        print(_text(record) if run else _line(record))
    if not records:
        print("no campaigns")


@campaign_app.command("cancel")
def cancel(
    run: RunName,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Give up waiting after so long [s].")] = 30.0,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
) -> None:
    """Cancel a campaign: what has not started is not done; resume goes on. Example: rapid campaign cancel newpsf"""
    from rapid.cli.request import open_client
    from rapid.client import wait_for_record

    settings, known = _settings(camera, redis, data)
    record = _newest_record(_results(settings), known.name, run)
    if record.state.is_final:
        print(f"campaign {run} has ended: {record.state.value}")
        return
    with open_client(camera, redis) as client:
        client.find(record.request_id).cancel()
        ended = wait_for_record(client, record.request_id, timeout_s=timeout)
    if ended is None:
        print(f"campaign {run} has not ended yet: no head has looked at the cancellation")
        raise typer.Exit(TIMEOUT)
    print(_text(ended))


@campaign_app.command("holes")
def holes_report(
    night: Annotated[list[str], typer.Argument(help="Night, or range FIRST-LAST.")],
    run: Annotated[str, typer.Option("--run", help="Run, or name of a campaign.")] = "prompt",
    raws: Raws = None,
    camera: CameraName = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say which exposures and detectors have no result, and why: status 1 if any. Example: rapid campaign holes 20261120 --raws /data/raws"""
    from rapid.arrival.listing import RawListing
    from rapid.campaign.holes import find_holes

    settings, known = _settings(camera, None, data, raws)
    results = _results(settings)
    listing = RawListing(settings.raws, known) if settings.raws else None
    stored = frozenset(day for day, _ in results.nights(known.name))
    found = [
        find_holes(day, results=results, camera=known, listing=listing, run=run) for day in read_nights(night, stored)
    ]
    if as_json:
        print_json([report.model_dump(mode="json") for report in found])
    else:
        for report in found:
            print(_holes_text(report))
    if any(report.n_missing for report in found):
        raise typer.Exit(NOT_DONE)


@campaign_app.command("compare")
def compare(
    before: Annotated[str, typer.Argument(help="Run, as it was: prompt, or a campaign.")],
    after: Annotated[str, typer.Argument(help="Run, as it is now.")],
    night: Annotated[
        list[str] | None, typer.Option("--night", "-n", help="Night or range; those of the campaign if left out.")
    ] = None,
    tolerances: Annotated[
        Path | None, typer.Option(help="What is allowed, YAML, as of `rapid replay check`; a thousandth if left out.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, too.")] = None,
    camera: CameraName = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Compare the results of two runs: status 1 if they differ by more than is allowed. Example: rapid campaign compare prompt newpsf --html newpsf.html"""
    from replay.check import load_tolerances
    from replay.report import render_html, render_text
    from replay.runs import compare_runs

    settings, known = _settings(camera, None, data)
    results = _results(settings)
    stored = frozenset(day for day, _ in results.nights(known.name))
    nights = read_nights(night, stored) if night else _nights_of(results, known.name, (after, before), stored)
    rules = load_tolerances(tolerances) if tolerances is not None else None
    report = compare_runs(results, known.name, before=before, after=after, nights=nights, tolerances=rules)
    if html is not None:
        html.write_text(render_html(report), encoding="utf-8")
    if as_json:
        print_json(
            {
                "before": before, "after": after, "nights": nights, "is_good": report.is_good,
                "n_values": report.n_values, "counts": report.count(),
                "findings": [
                    {"kind": one.kind.value, "where": one.where, "message": one.message} for one in report.findings[:1000]
                ],
            }
        )  # fmt: skip
    else:
        print(render_text(report).replace("the replay", f"run {after}", 1))
    if not report.is_good:
        raise typer.Exit(NOT_DONE)


def _nights_of(results: "ResultsStore", camera: str, runs: tuple[str, ...], stored: frozenset[int]) -> list[int]:
    """Return the nights of the first of two runs that is a campaign; all nights if neither is."""
    from rapid.campaign.plan import nights_of
    from rapid.requests.archive import RequestArchive

    for run in runs:
        record = RequestArchive(results.engine).by_run(camera, run)
        if record is not None and record.spec is not None and record.spec.select.campaign is not None:
            return list(nights_of(record.spec.select.campaign, stored))
    return sorted(stored)


def read_nights(items: list[str], stored: frozenset[int]) -> list[int]:
    """Return the nights that a person names: one by one, and of ranges those that anything is stored of.

    Raises
    ------
    ConfigurationError
        Raised for what is no night.
    """
    from pydantic import ValidationError

    from rapid.campaign.plan import nights_of
    from rapid.requests.campaigns import CampaignSelection

    try:
        select = CampaignSelection.model_validate({"nights": items})
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError("night", f"{', '.join(items)[:60]}: {message}") from error
    return list(nights_of(select, stored))


def _read_ids(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("exclude_file", f"{path}: {getattr(error, 'strerror', None) or error}") from error
    words = [word for line in lines for word in re.split(r"[,\s]+", line.partition("#")[0]) if word]
    for word in words:
        if not re.fullmatch(r"\d+((-|\.\.)\d+)?", word):
            raise ConfigurationError("exclude_file", f"{path}: {word[:40]!r} is no exposure id or range")
    return words


def _follow(client: Any, ticket: str, *, wait: bool, timeout_s: float, as_json: bool) -> None:
    from rapid.client import wait_for_record
    from rapid.requests.models import RequestState
    from rapid.requests.store import record_facts

    if not wait:
        print_json({"request_id": ticket}) if as_json else print(ticket)
        return
    record = wait_for_record(client, ticket, timeout_s=timeout_s)
    if record is None:
        print(f"rapid: campaign {ticket} has not ended within {timeout_s:g} s; it goes on", file=sys.stderr)
        raise typer.Exit(TIMEOUT)
    print_json(record_facts(record)) if as_json else print(_text(record))
    if record.state is not RequestState.DONE or record.answer is None or not record.answer.is_complete:
        raise typer.Exit(NOT_DONE)


def _line(record: "RequestRecord") -> str:
    progress = record.progress
    of = progress.exposures_of if progress.exposures_of is not None else "?"
    words = (
        f"{record.run:24} {record.state.value:10} {progress.exposures_done}/{of} exposures, "
        f"{progress.done}/{progress.of} detectors"
    )
    return f"{words}  [{record.error.code}] {record.error.message}" if record.error else words


def _text(record: "RequestRecord") -> str:
    lines = [_line(record)]
    answer = record.answer.campaign if record.answer is not None else None
    if answer is not None:
        lines.append(
            f"  {answer.n_done} of {answer.n_exposures} exposures done, {answer.n_results} results, {answer.n_failed} detectors without one"
        )
        if answer.n_before:
            lines.append(f"  {answer.n_before} batches were done before")
        lines += [f"  {where}: {why}" for where, why in list(answer.not_done.items())[:MAX_SHOWN]]
        if len(answer.not_done) > MAX_SHOWN:
            lines.append("  ... (more: --json)")
    return "\n".join(lines)


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


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(campaign_app, name="campaign")
