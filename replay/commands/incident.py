"""`rapid replay incident`: a past incident becomes a night that reproduces it."""

from pathlib import Path
from typing import Annotated

import typer

from rapid.errors import ConfigurationError


def incident(
    subject: Annotated[
        str,
        typer.Argument(
            help="Job id of a dead letter (`rapid jobs`), its batch, or an exposure id.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder or .zip to write.")],
    camera: Annotated[str | None, typer.Option(help="Name or file of the camera.")] = None,
    data: Annotated[Path | None, typer.Option(help="The system's data folder: its results store.")] = None,
    results: Annotated[str | None, typer.Option(help="URL of the results store, if it is elsewhere.")] = None,
    raws: Annotated[str | None, typer.Option(help="Where raws arrive: a directory or s3://bucket/prefix.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Truth of simulated raws; beside them by default.")] = None,
    with_raw: Annotated[
        bool, typer.Option("--with-raw", help="Keep the pixels, losslessly; they are simulated anew otherwise.")
    ] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="Leave out the other exposures that it waited for, if it did.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a recording that is there.")] = False,
) -> None:
    """Record an incident. Example: rapid replay incident prompt.2026112000017.quicklook.094 --raws raws --out bug.zip"""
    from rapid.camera.store import portable_definition
    from rapid.results.store import open_results
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings
    from replay.commands.record import truth_beside
    from replay.incident import record_incident
    from replay.record import save
    from replay.recording import PixelKind

    given = {"camera": camera, "data": data, "results_url": results, "raws": raws}
    settings = make_settings(**{name: value for name, value in given.items() if value is not None})
    if not settings.raws:
        raise ConfigurationError("raws", "say where raws arrive: --raws DIR")
    known = adopt_camera(settings.camera)
    store = open_results(settings.results)
    try:
        made, seen = record_incident(
            subject,
            camera=known,
            results=store,
            raws=settings.raws,
            truth=truth or truth_beside(settings.raws),
            alone=alone,
        )
        made = made.with_manifest(camera_yaml=portable_definition(settings.camera))
        made = save(made, seen, known, out, pixels=PixelKind.RICE if with_raw else PixelKind.SEED, overwrite=overwrite)
    finally:
        store.close()
    print(f"{out}: {made.n_raws} raws of {len(made.exposures)} exposures. {made.manifest.story}")
    if not made.manifest.is_exact and made.manifest.incident is not None and made.manifest.incident.errors:
        print("Its pixels are simulated, not the raw's own: --with-raw keeps them, if they are what failed.")
    # What waited for others waits again only if they come when they came.
    waited = made.manifest.incident is not None and made.manifest.incident.wait is not None
    speed = "1" if waited else "max"
    print(
        f"rapid replay play {out} --system system --speed {speed} --out again.zip && rapid replay check {out} again.zip"
    )
