"""`rapid publish`: RubinTV's bucket, ConsDB and the cluster status, for whoever reads us from outside."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data, MetricsPort, Name, Redis


def publish(
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    rubintv: Annotated[
        str | None, typer.Option(help="RubinTV's bucket: s3://... or a directory [RAPID_PUBLISH_RUBINTV].")
    ] = None,
    consdb: Annotated[str | None, typer.Option(help="ConsDB's REST server [RAPID_PUBLISH_CONSDB].")] = None,
    butler: Annotated[
        str | None, typer.Option(help="Butler repository that results are put into [RAPID_PUBLISH_BUTLER].")
    ] = None,
    channels: Annotated[
        Path | None, typer.Option(help="A site's own table of channels, YAML [RAPID_PUBLISH_CHANNELS].")
    ] = None,
    name: Name = None,
    metrics_port: MetricsPort = None,
    night: Annotated[
        list[int] | None,
        typer.Option(help="Publish this night of the past to RubinTV's bucket and end; no board is needed."),
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=1, help="With --night: give up after this long [s].")] = 600.0,
    status: Annotated[bool, typer.Option("--status", help="Print how publishing stands, as JSON, and end.")] = False,
) -> None:
    """Publish to RubinTV, ConsDB and metric sinks what gathers make, until told to stop.

    Example: rapid publish --camera LSSTCam --rubintv "s3://rubintv?endpoint_url=http://s3:9000"

    A night again, all of it: rapid publish --camera LSSTCam --rubintv s3://rubintv --night 20261120
    """
    from rapid.wiring.logs import configure_logs
    from rapid.wiring.publishing import publish_nights, read_status, run_publish
    from rapid.wiring.settings import make_settings

    settings = make_settings(
        camera=camera,
        redis_url=redis,
        data=data,
        publish_rubintv=rubintv,
        publish_consdb=consdb,
        publish_butler=butler,
        publish_channels=channels,
        name=name,
        metrics_port=metrics_port,
    )
    if status:
        found = asyncio.run(read_status(settings))
        print_json(found.model_dump(mode="json") if found is not None else None)
        if found is None:
            raise typer.Exit(1)
        return
    configure_logs(format_=settings.log_format, level=settings.log_level)
    if night:
        outcome = asyncio.run(publish_nights(settings, night, timeout_s=timeout_s))
        print_json(outcome)
        if not outcome["is_complete"]:
            raise typer.Exit(1)
        return
    asyncio.run(run_publish(settings))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(publish)
