"""`rapid camera`, `rapid pipeline`, `rapid config`: what the installation knows and how it is set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.output import print_json

if TYPE_CHECKING:
    from rapid.pipeline.models import Pipeline, PipelineBook


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
    from rapid.worker.registry import check_book, resolved_hash, resolved_steps

    book = default_book()
    check_book(book)
    if not name:
        if as_json:
            print_json([_facts_of(found, book) for found in book.pipelines])
        else:
            for found in book.pipelines:
                payloads = ", ".join(step.payload for step in found.steps)
                print(f"{found.name:14} {found.version:4} {payloads:24} {found.description}")
        return
    found = load_pipeline(name, book)
    steps = resolved_steps(found)
    document = {**_facts_of(found, book), "config_hash": resolved_hash(found), "steps": steps}
    if as_json:
        print_json(document)
        return
    print(f"{found.name} (version {found.version}): {found.description}")
    print(f"pool {found.pool}, time limit {found.time_limit_s:g} s, configuration {document['config_hash'][:12]}")
    print(f"defined in {found.source.split(':')[0]}")
    for rule in document["rules"]:
        print(f"  for {rule}")
    for step in steps:
        print(f"  {step['payload']} {step['version']}")
        for key, value in step["config"].items():
            print(f"      {key}: {json.dumps(value)}")
    if found.after is not None:
        payloads = ", ".join(step.payload for step in found.afterburner)
        runs = ", of the night's own run alone" if found.after_runs == "night" else ""
        print(f"  once the exposure is gathered, as backlog{runs}: {payloads} (rapid pipeline {found.after.name})")


def _facts_of(pipeline: "Pipeline", book: "PipelineBook") -> dict[str, Any]:
    """Return a pipeline as JSON facts, with where it is defined and which images it is for."""
    rules = [str(rule) for rule in book.rules if rule.pipeline == pipeline.name]
    return {**pipeline.model_dump(mode="json"), "source": pipeline.source.split(":")[0], "rules": rules}


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
