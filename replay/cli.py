"""`rapid replay …` and `rapid demo`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from replay.commands import check, incident, play, record, simulate

replay_app = typer.Typer(help="Simulate nights, record them, play them back, compare.", no_args_is_help=True)
replay_app.command("simulate")(simulate.simulate)
replay_app.command("record")(record.record)
replay_app.command("play")(play.play)
replay_app.command("incident")(incident.incident)
# A time before the night is answered in words, not taken for an option.
replay_app.command("ctl", context_settings={"ignore_unknown_options": True})(play.ctl)
replay_app.command("check")(check.check)
replay_app.command("report")(check.report)


def demo(
    leave: Annotated[
        bool, typer.Option("--exit", help="End after the night; status 0 only if every exposure is complete.")
    ] = False,
    plan: Annotated[Path | None, typer.Option(help="Plan of the night, YAML.")] = None,
    folder: Annotated[Path, typer.Option(help="Where everything is written; emptied first.")] = Path("demo-night"),
    workers: Annotated[int, typer.Option(min=1, help="Workers; one per core by default.")] = os.cpu_count() or 2,
    port: Annotated[int, typer.Option(help="Port of the display; 0 for a free one.")] = 0,
) -> None:
    """Play a simulated night through the whole system and watch it."""
    from replay.demo import run_demo

    if not run_demo(plan_path=plan, folder=folder, workers=workers, port=port, leave=leave):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(replay_app, name="replay")
    app.command()(demo)
