"""`rapid camera`, `rapid pipeline`, `rapid config`: what the installation knows and how it is set."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.cli.output import print_json


def camera(
    name: Annotated[str, typer.Argument(help="Name, alias, or path of a YAML file; empty lists all.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole definition as JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the focal plane (PNG).")] = None,
) -> None:
    """Show a camera: detectors, places, amps. Example: rapid camera LSSTCam --plot focal_plane.png"""
    from rapid.camera.plot import camera_to_json, describe, plot_camera
    from rapid.camera.store import list_cameras, load_camera

    if not name:
        print_json(list_cameras()) if as_json else print("\n".join(list_cameras()))
        return
    found = load_camera(name)
    if plot is not None:
        plot.write_bytes(plot_camera(found))
        print(f"wrote {plot}")
    if as_json:
        print_json(camera_to_json(found))
    elif plot is None:
        print(describe(found))


def pipeline(
    name: Annotated[str, typer.Argument(help="Name of a pipeline; empty lists all.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show a pipeline: its payloads and their configuration. Example: rapid pipeline quicklook"""
    from rapid.pipeline.store import default_book, load_pipeline
    from rapid.worker.registry import make_payload

    book = default_book()
    if not name:
        if as_json:
            print_json([found.model_dump(mode="json") for found in book.pipelines])
        else:
            for found in book.pipelines:
                print(
                    f"{found.name:14} {found.version:4} {', '.join(step.payload for step in found.steps):24} {found.description}"
                )
        return
    found = load_pipeline(name, book)
    steps: list[dict[str, Any]] = []
    for step in found.steps:
        payload = make_payload(step)
        steps.append(
            {
                "payload": step.payload,
                "version": payload.version,
                "config": payload.Config.model_validate(step.config).model_dump(mode="json"),
            }
        )
    document = {**found.model_dump(mode="json"), "config_hash": found.config_hash, "steps": steps}
    if as_json:
        print_json(document)
        return
    print(f"{found.name} (version {found.version}): {found.description}")
    print(f"pool {found.pool}, time limit {found.time_limit_s:g} s, configuration {found.config_hash[:12]}")
    for step_facts in steps:
        print(f"  {step_facts['payload']} {step_facts['version']}")
        for key, value in step_facts["config"].items():
            print(f"      {key}: {json.dumps(value)}")


def config(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List every setting with its environment variable, default and meaning."""
    from rapid.wiring.settings import settings_table

    rows = settings_table()
    if as_json:
        print_json([{"name": name, "default": default, "description": text} for name, default, text in rows])
        return
    for name, default, text in rows:
        print(f"{name}\n    {text}\n    default: {default or '(empty)'}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(camera)
    app.command()(pipeline)
    app.command()(config)
