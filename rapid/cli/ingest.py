"""`rapid ingest`: raws into a Butler repository; what was set aside; wait for an exposure."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data, MetricsPort, Name, Redis, _run

ingest = typer.Typer(no_args_is_help=False, add_completion=False, rich_markup_mode=None)


@ingest.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    raws: Annotated[str | None, typer.Option(help="Where raws arrive: a directory or s3:// [RAPID_RAWS].")] = None,
    repo: Annotated[str | None, typer.Option(help="Butler repository, made if need be [RAPID_BUTLER_REPO].")] = None,
    db: Annotated[str | None, typer.Option(help="Database of a new repository [RAPID_BUTLER_DB].")] = None,
    transfer: Annotated[
        str | None, typer.Option(help="direct, copy, link, hardlink, symlink, move [RAPID_INGEST_TRANSFER].")
    ] = None,
    buckets: Annotated[
        str | None, typer.Option(help="More buckets that may be told of over HTTP [RAPID_INGEST_BUCKETS].")
    ] = None,
    queues: Annotated[
        str | None, typer.Option(help="Buckets of embargo-butler's lists QUEUE:bucket [RAPID_INGEST_QUEUES].")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Rules for files that are no raws, YAML [RAPID_INGEST_RULES].")
    ] = None,
    files: Annotated[str | None, typer.Option(help="Where such files arrive [RAPID_INGEST_FILES].")] = None,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    name: Name = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Ingest raws into a Butler repository as they arrive, until told to stop.

    Example: rapid ingest --camera LSSTCam --raws "s3://raws?endpoint_url=http://s3:9000" --repo /repo/main

    With --metrics-port, POST /notify takes bucket notifications and POST /records batches of them.
    """
    if context.invoked_subcommand is not None:
        return
    from rapid.wiring.ingesting import run_ingest

    _run(
        run_ingest,
        raws=raws,
        butler_repo=repo,
        butler_db=db,
        ingest_transfer=transfer,
        ingest_buckets=buckets,
        ingest_queues=queues,
        ingest_rules=rules,
        ingest_files=files,
        camera=camera,
        redis_url=redis,
        data=data,
        name=name,
        metrics_port=metrics_port,
    )


@ingest.command()
def status(camera: CameraName = None, redis: Redis = None) -> None:
    """Print how the running ingest processes stand, as JSON; exit status 1 if there is none, or one is in trouble.

    Example: rapid ingest status --camera LSSTCam
    """
    from rapid.wiring.ingesting import read_statuses
    from rapid.wiring.settings import make_settings

    found = asyncio.run(read_statuses(make_settings(camera=camera, redis_url=redis)))
    print_json([one.model_dump(mode="json") for one in found])
    if not found or not all(one.is_up for one in found):
        raise typer.Exit(1)


@ingest.command()
def aside(
    camera: CameraName = None,
    redis: Redis = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List files that were set aside, and why.

    Example: rapid ingest aside --camera LSSTCam
    """
    from rapid.wiring.ingesting import read_set_aside
    from rapid.wiring.settings import make_settings

    found = asyncio.run(read_set_aside(make_settings(camera=camera, redis_url=redis)))
    if json_:
        print_json([record.model_dump(mode="json") for record in found])
        return
    for record in found:
        print(f"{record.at:%Y-%m-%d %H:%M:%S}  {record.code:<18} {record.uri}\n    {record.reason}")
    if not found:
        print("nothing is set aside")


@ingest.command()
def retry(
    uris: Annotated[list[str] | None, typer.Argument(help="Files to try again.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that were set aside.")] = False,
    camera: CameraName = None,
    redis: Redis = None,
) -> None:
    """Try again to ingest files that were set aside.

    Example: rapid ingest retry --all --camera LSSTCam
    """
    from rapid.wiring.ingesting import retry_files
    from rapid.wiring.settings import make_settings

    if not uris and not all_:
        raise typer.BadParameter("name files, or give --all")
    settings = make_settings(camera=camera, redis_url=redis)
    tried = asyncio.run(retry_files(settings, list(uris or ()), all_=all_))
    for uri in tried:
        print(uri)
    missing = set(uris or ()) - set(tried)
    for uri in sorted(missing):
        print(f"not set aside: {uri}")
    if missing:
        raise typer.Exit(1)


@ingest.command()
def wait(
    exposure_id: Annotated[int, typer.Argument(help="Exposure, e.g. 2026112000123.")],
    detectors: Annotated[
        str | None, typer.Option(help="Pattern or list of detectors that must be in; any one if left out.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0, help="Give up after this long [s].")] = 60.0,
    camera: CameraName = None,
    redis: Redis = None,
) -> None:
    """Wait until raws of an exposure are in the repository; exit status 1 if they are not in time.

    Example: rapid ingest wait 2026112000123 --detectors 94 --timeout-s 30 --camera LSSTCam
    """
    from rapid.patterns.pattern import parse_pattern
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.ingesting import wait_for_exposure
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, redis_url=redis)
    wanted = None
    if detectors:
        wanted = parse_pattern(detectors).detectors(adopt_camera(settings.camera))
    told = asyncio.run(wait_for_exposure(settings, exposure_id, wanted, timeout_s=timeout_s))
    missing = sorted(wanted - told) if wanted is not None else []
    print_json({"exposure_id": exposure_id, "ingested": sorted(told), "missing": missing})
    if missing or not told:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(ingest, name="ingest")
