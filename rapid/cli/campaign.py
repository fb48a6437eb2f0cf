"""`rapid campaign`: process nights again as backlog, see how it stands; `rapid.cli.campaign_reports` has holes and comparisons."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.campaign_reports import Night, add_reports, open_campaigns
from rapid.cli.output import print_json
from rapid.cli.request import NOT_DONE, TIMEOUT, AsJson, end_of, open_client
from rapid.cli.roles import CameraName, Data, Redis
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid.client import RapidClient
    from rapid.requests.models import RequestRecord

MAX_SHOWN = 40
WEEK_S = 7 * 86_400.0
"""The longest that a request may take: a campaign has the hours that the nights leave."""

campaign_app = typer.Typer(
    help="Process nights again as backlog, beside the results that are there.", no_args_is_help=True
)

RunName = Annotated[str, typer.Argument(help="Name of the campaign: the run that its results are stored under.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for its end.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Give up waiting after so long [s].")]


@campaign_app.command("start")
def start(
    run: RunName,
    night: Night,
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
    timeout: Timeout = WEEK_S,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Begin a campaign. Example: rapid campaign start newpsf --night 20261120 --where "physical_filter == 'r_57' and psf_fwhm_arcsec_median > 1.2" --pipeline quicklook"""
    from rapid.cli.request import read_config
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
        deadline_s=WEEK_S,
        label=label or f"campaign {run}",
        config=read_config(config or []),
        **{name: value for name, value in wishes.items() if value is not None},
    )
    with open_client(camera, redis) as client:
        _follow(client, client.submit(spec).ticket, wait=wait, timeout_s=timeout, as_json=as_json)


@campaign_app.command("resume")
def resume(
    run: RunName,
    wait: Wait = False,
    timeout: Timeout = WEEK_S,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a campaign that has ended; what failed is tried once more. Example: rapid campaign resume newpsf --wait"""
    from rapid.campaign.records import find_campaign, resumption_of

    with open_campaigns(camera, data) as (known, archive):
        again = resumption_of(find_campaign(archive, known, run))
    with open_client(camera, redis) as client:
        _follow(client, client.submit(again).ticket, wait=wait, timeout_s=timeout, as_json=as_json)


@campaign_app.command("status")
def status(
    run: Annotated[str, typer.Argument(help="Name of the campaign; all if left out.")] = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show how campaigns stand. Example: rapid campaign status newpsf"""
    from rapid.campaign.records import find_campaign, list_campaigns
    from rapid.requests.store import record_facts

    with open_campaigns(camera, data) as (known, archive):
        records = [find_campaign(archive, known, run)] if run else list_campaigns(archive, known)
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
    from rapid.campaign.records import find_campaign
    from rapid.client import wait_for_record

    with open_campaigns(camera, data) as (known, archive):
        record = find_campaign(archive, known, run)
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


add_reports(campaign_app)


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


def _follow(client: "RapidClient", ticket: str, *, wait: bool, timeout_s: float, as_json: bool) -> None:
    from rapid.requests.models import RequestState
    from rapid.requests.store import record_facts

    record = end_of(client, ticket, is_waited_for=wait, timeout_s=timeout_s, as_json=as_json)
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


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(campaign_app, name="campaign")
