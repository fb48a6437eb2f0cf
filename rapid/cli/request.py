"""`rapid request`: ask for work by hand, wait for it, look at it, cancel it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Redis

if TYPE_CHECKING:
    from rapid.client import RapidClient
    from rapid.requests.models import RequestRecord

OUTAGE_S = 3.0
"""A person at a terminal wants to be told, not to wait."""

NOT_DONE = 1
TIMEOUT = 3
"""Exit status of a wait that ended before the request did."""

request_app = typer.Typer(help="Ask for work by hand, and wait for the answer.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Give up waiting after so long [s].")]


@contextmanager
def open_client(camera: str | None, redis: str | None) -> "Iterator[RapidClient]":
    """Give a client, for as long as a command runs."""
    from rapid.client import RapidClient
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, redis_url=redis)
    with RapidClient(settings.redis_url, adopt_camera(settings.camera).name, outage_s=OUTAGE_S) as client:
        yield client


@request_app.command("submit")
def submit(
    file: Annotated[
        str, typer.Argument(help="File with the request as JSON, - for standard input; or use the options.")
    ] = "",
    exposures: Annotated[
        list[str] | None, typer.Option("--exposure", "-e", help="Exposure id or range FIRST-LAST; may be repeated.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="GROUPID, exposures still to be taken included.")] = None,
    next_n: Annotated[int | None, typer.Option("--next", help="The next so many exposures.")] = None,
    image_type: Annotated[str | None, typer.Option(help="With --next or --group: only of this kind.")] = None,
    count: Annotated[
        int | None, typer.Option("--count", help="With --group: how many exposures it has; by MAXINDEX if left out.")
    ] = None,
    sequence: Annotated[int | None, typer.Option(help="The sequence that an exposure belongs to.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="What to run; by the rules if left out.")] = None,
    detectors: Annotated[str | None, typer.Option(help="A pattern expression.")] = None,
    combine: Annotated[
        str | None, typer.Option(help="focus_sweep, donut_pair, build_bias, build_dark or build_flat.")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", help="PAYLOAD.SETTING=VALUE; may be repeated.")
    ] = None,
    priority: Annotated[str | None, typer.Option(help="urgent, normal or backlog.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Give it up after so long [s].")] = None,
    when_whole: Annotated[
        bool, typer.Option("--when-whole", help="Begin nothing before all exposures and their raws are there.")
    ] = False,
    arrival: Annotated[
        float | None, typer.Option("--arrival-timeout", help="Wait for exposures and their raws for so long [s].")
    ] = None,
    on_missing: Annotated[
        str | None, typer.Option(help="After the arrival timeout: answer (what is missing), or process what is there.")
    ] = None,
    guaranteed: Annotated[bool, typer.Option("--guaranteed", help="Process on every detector.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Process anew what the night has processed already.")] = False,
    run: Annotated[str | None, typer.Option(help="Name under which results are stored.")] = None,
    label: Annotated[str | None, typer.Option(help="For people who read the list.")] = None,
    key: Annotated[str | None, typer.Option(help="Asking twice with one key is asking once.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer.")] = False,
    timeout: Timeout = 3600.0,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Post a request. Example: rapid request submit -e 2026112000012-2026112000016 --combine focus_sweep --wait

    All exposures of a group, when they are all there, or after two minutes what is missing:

    rapid request submit --group 2026-11-20T23:12:01.123 --when-whole --arrival-timeout 120 --wait
    """
    from rapid.client import make_spec
    from rapid.requests.faults import BadRequestError
    from rapid.requests.reading import read_json

    options: dict[str, Any] = {
        "pipeline": pipeline, "detectors": detectors, "combine": combine, "priority": priority, "deadline_s": deadline,
        "guaranteed": guaranteed or None, "reuse": False if anew else None, "run": run, "label": label, "client_key": key,
        "exposures": exposures, "sequence": sequence, "when_whole": when_whole or None, "arrival_s": arrival,
        "on_missing": on_missing,
    }  # fmt: skip
    fields: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    kind = {"image_type": image_type} if image_type else {}
    if count is not None and group is None:
        raise BadRequestError("count", "says how many exposures a group has: give --group, or --next")
    if group is not None:
        fields["group"] = {"group_id": group, **kind, **({"n": count} if count is not None else {})}
    if next_n is not None:
        fields["next"] = {"n": next_n, **kind}
    if config:
        fields["config"] = read_config(config)
    if file:
        text = sys.stdin.buffer.read(1024 * 1024) if file == "-" else _read_file(file)
        document = read_json(text)
        if not isinstance(document, dict):
            raise BadRequestError("request", "must be a JSON object")
        fields = {**document, **fields}
    with open_client(camera, redis) as client:
        request = client.submit(make_spec(**{str(name): value for name, value in fields.items()}))
        record = end_of(client, request.ticket, is_waited_for=wait, timeout_s=timeout, as_json=as_json)
    _show_end(record, as_json=as_json)


@request_app.command("wait")
def wait(
    request_id: Annotated[str, typer.Argument(help="As submit printed it.")],
    timeout: Timeout = 3600.0,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Wait for an answer: exit status 0 if done, 1 if not, 3 if there is none yet. Example: rapid request wait 1763719222123-0"""
    with open_client(camera, redis) as client:
        record = end_of(client, request_id, timeout_s=timeout)
    _show_end(record, as_json=as_json)


@request_app.command("list")
def list_requests(
    refused: Annotated[bool, typer.Option("--refused", help="Those that were refused, with the reason.")] = False,
    state: Annotated[str | None, typer.Option(help="Only those in a state: running, done, ...")] = None,
    limit: Annotated[int, typer.Option(min=1, max=5000, help="How many, newest first.")] = 30,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first. Example: rapid request list --state running"""
    with open_client(camera, redis) as client:
        records = client.recent(limit, refused=refused)
    records = [record for record in records if state in {None, record.state.value}]
    if as_json:
        print_json([record.model_dump(mode="json", exclude={"answer"}) for record in records])
        return
    for record in records:
        print(_line(record))
    if not records:
        print("no requests" if not refused else "no refused requests")


@request_app.command("show")
def show(
    request_id: Annotated[str, typer.Argument(help="As submit printed it.")],
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Show a request and what became of it. Example: rapid request show 1763719222123-0"""
    with open_client(camera, redis) as client:
        record = client.find(request_id).record()
    print_json(record.model_dump(mode="json", exclude_none=True)) if as_json else print(_text(record))


@request_app.command("cancel")
def cancel(
    request_id: Annotated[str, typer.Argument(help="As submit printed it.")],
    timeout: Timeout = 30.0,
    camera: CameraName = None,
    redis: Redis = None,
) -> None:
    """Cancel a request: what has not started is not done. Example: rapid request cancel 1763719222123-0"""
    from rapid.client import wait_for_record

    with open_client(camera, redis) as client:
        client.find(request_id).record()  # says so if there is none
        client.find(request_id).cancel()
        record = wait_for_record(client, request_id, timeout_s=timeout)
    if record is None:
        print(f"{request_id} has not ended yet: no head has looked at the cancellation")
        raise typer.Exit(TIMEOUT)
    print(_line(record))


@request_app.command("schema")
def schema() -> None:
    """Print the JSON schema of a request. Example: rapid request schema > request.schema.json"""
    from rapid.requests.models import request_schema

    print(json.dumps(request_schema(), indent=2))


def _read_file(path: str) -> bytes:
    from rapid.requests.faults import BadRequestError

    try:
        with Path(path).open("rb") as file:
            return file.read(1024 * 1024)
    except OSError as error:
        raise BadRequestError("file", f"{path}: {error.strerror}") from error


def read_config(items: list[str]) -> dict[str, dict[str, Any]]:
    """Return settings by payload from `PAYLOAD.SETTING=VALUE`."""
    from rapid.requests.faults import BadRequestError

    config: dict[str, dict[str, Any]] = {}
    for item in items:
        place, equals, text = item.partition("=")
        payload, dot, name = place.partition(".")
        if not equals or not dot or not payload or not name:
            raise BadRequestError("config", f"{item!r} is not PAYLOAD.SETTING=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        config.setdefault(payload, {})[name] = value
    return config


def end_of(
    client: "RapidClient", ticket: str, *, is_waited_for: bool = True, timeout_s: float, as_json: bool = False
) -> "RequestRecord":
    """Return a request at its end.

    Raises
    ------
    typer.Exit
        Raised with status 0, its id printed, if it is not waited for; with 3, and a word, if it has not ended in time.
    """
    from rapid.client import wait_for_record

    if not is_waited_for:
        print_json({"request_id": ticket}) if as_json else print(ticket)
        raise typer.Exit
    record = wait_for_record(client, ticket, timeout_s=timeout_s)
    if record is None:
        print(f"rapid: request {ticket} has not ended within {timeout_s:g} s; it goes on", file=sys.stderr)
        raise typer.Exit(TIMEOUT)
    return record


def _show_end(record: "RequestRecord", *, as_json: bool) -> None:
    from rapid.requests.models import RequestState

    print_json(record.model_dump(mode="json", exclude_none=True)) if as_json else print(_text(record))
    if record.state is not RequestState.DONE:
        raise typer.Exit(NOT_DONE)


def _line(record: "RequestRecord") -> str:
    when = datetime.fromtimestamp(record.created_ms / 1000, UTC).strftime("%m-%d %H:%M:%S")
    progress = f"{record.progress.done}/{record.progress.of}" if record.progress.of else "-"
    label = record.spec.label if record.spec else ""
    words = [
        f"{when}  {record.request_id:22} {record.state.value:10} {progress:>10}  {record.source:6} {record.asked_by:12}"
    ]
    words += [label] if label else []
    words += [f"waits for {record.progress.lacks}"] if record.progress.lacks and not record.state.is_final else []
    words += [f"[{record.error.code}] {record.error.message}"] if record.error else []
    return " ".join(words).rstrip()


def _text(record: "RequestRecord") -> str:
    lines = [_line(record)]
    answer = record.answer
    if answer is None:
        return lines[0]
    for one in answer.exposures:
        fwhm = one.metrics.get("psf_fwhm_arcsec_median")
        shown = f"   FWHM {fwhm:.2f} arcsec" if isinstance(fwhm, float) else ""
        lines.append(
            f"  {one.exposure_id}  {one.pipeline:12} {one.n_finished}/{one.n_expected} detectors   run {one.run}{shown}"
        )
        lines += [f"      {name}: {why}" for name, why in list(one.not_finished.items())[:10]]
    lines += [f"  {exposure_id}  did not come" for exposure_id in answer.missing[:20]]
    if answer.lacking is not None:
        lines.append(f"  missing: {answer.lacking.in_words()}")
    if answer.focus:
        focus = answer.focus
        lines.append(
            f"  best focus {focus['best_focus_mm']:.4f} +- {focus['best_focus_error_mm']:.4f} mm, from {focus['n_points']} exposures"
        )
    if answer.donut_pair:
        lines.append(f"  focus offset {answer.donut_pair['focus_offset_um']:.1f} um")
    if answer.calib:
        calib = answer.calib
        verdict = "passed" if calib.passed else "FAILED"
        lines.append(
            f"  {calib.kind} of {len(calib.inputs)} exposures, {len(calib.calib_ids)} detectors: {verdict} ({calib.n_amps} amps)"
        )
        lines += [f"      {name}: {', '.join(amps)}" for name, amps in calib.failing_amps.items()]
        lines += [f"      {name}: not tested, {why}" for name, why in calib.not_tested.items()]
    lines += [f"  {note}" for note in answer.notes]
    return "\n".join(lines)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(request_app, name="request")
