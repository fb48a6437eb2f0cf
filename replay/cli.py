"""`rapid replay …` and `rapid demo`."""

import os
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

replay_app = typer.Typer(help="Simulate nights and play them back.", no_args_is_help=True)


@replay_app.command("simulate")
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for raws/ and truth/.")],
    plan: Annotated[
        Path | None, typer.Option(help="Plan of the night, YAML; the packaged demo night if left out.")
    ] = None,
    cadence: Annotated[float, typer.Option(min=0, help="Seconds between exposures; 0 for as fast as possible.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Another seed than the plan's.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CCDs rendered at a time.")] = os.cpu_count() or 2,
    plain: Annotated[bool, typer.Option("--plain", help="Write uncompressed segments.")] = False,
    s3: Annotated[str, typer.Option(help="Put raws into s3://bucket/prefix instead of out/raws.")] = "",
) -> None:
    """Write the raws of a simulated night. Example: rapid replay simulate --out night --cadence 34"""
    from replay.demo import NIGHTS
    from replay.plan import load_plan
    from replay.simulate import NightSimulator, directory_sink

    night = load_plan(plan or NIGHTS / "demo.yaml")
    if seed is not None:
        night = night.model_copy(update={"seed": seed})
    sink = _bucket_sink(s3) if s3 else directory_sink(out / "raws")
    simulator = NightSimulator(night, sink, truth_dir=out / "truth", n_threads=threads, compress=not plain)
    never = threading.Event()
    try:
        for place, exposure in enumerate(simulator.exposures):
            if place and cadence:
                never.wait(cadence)
            n = sum(1 for _ in simulator.take(exposure))
            print(f"{exposure.obs_id}  {exposure.image_type.value:8} {n} raws", flush=True)
    finally:
        simulator.close()


def _bucket_sink(url: str) -> Any:
    from rapid.products.store import open_products

    store = open_products(url)
    return lambda key, data: store.put(key, data, content_type="application/fits")


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
