"""`rapid replay simulate`: a night from a plan, or from a few parameters."""

import os
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.errors import ConfigurationError


def simulate(
    plan: Annotated[
        Path | None, typer.Argument(help="Plan of the night, YAML; the packaged demo night if nothing is given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for raws/ and truth/.")] = None,
    recording: Annotated[
        Path | None, typer.Option(help="Write a recording of the night, folder or .zip, instead of its raws.")
    ] = None,
    plan_option: Annotated[Path | None, typer.Option("--plan", hidden=True)] = None,
    camera: Annotated[str | None, typer.Option(help="Instead of a plan: science exposures of this camera.")] = None,
    exposures: Annotated[int, typer.Option("--exposures", "-n", min=1, help="With --camera: how many.")] = 10,
    physical_filter: Annotated[str, typer.Option("--filter", help="With --camera.")] = "r_57",
    seeing: Annotated[float, typer.Option(min=0.1, help="With --camera [arcsec].")] = 0.8,
    calibs: Annotated[int, typer.Option(min=0, help="With --camera: so many biases, darks and flats first.")] = 0,
    day_obs: Annotated[int, typer.Option(help="With --camera: YYYYMMDD.")] = 20261120,
    stars: Annotated[int, typer.Option(min=0, help="With --camera: stars on a detector.")] = 100,
    cadence: Annotated[float, typer.Option(min=0, help="Seconds between exposures; 0 for as fast as possible.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Another seed than the plan's.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CCDs rendered at a time.")] = os.cpu_count() or 2,
    plain: Annotated[bool, typer.Option("--plain", help="Write uncompressed segments.")] = False,
    s3: Annotated[str, typer.Option(help="Put raws into s3://bucket/prefix instead of out/raws.")] = "",
) -> None:
    """Write the raws of a simulated night. Example: rapid replay simulate night.yaml --out night --cadence 34"""
    from replay.demo import NIGHTS
    from replay.plan import NightPlan, load_plan, make_plan

    given = plan or plan_option
    if camera is not None and given is not None:
        raise ConfigurationError("plan", "give a plan or --camera, not both")
    night: NightPlan
    if camera is not None:
        night = _plan_of(camera, exposures, physical_filter, seeing, calibs, day_obs, stars, cadence)
    else:
        night = load_plan(given or NIGHTS / "demo.yaml")
    if seed is not None:
        night = make_plan(night.model_dump() | {"seed": seed})
    if recording is not None:
        if out is not None or s3:
            raise ConfigurationError("recording", "a recording is written instead of raws: leave --out and --s3")
        _write_recording(night, recording)
        return
    if out is None:
        raise ConfigurationError("out", "say where the raws go: --out DIR, or --recording FILE")
    _write_raws(night, out, s3=s3, cadence=cadence, threads=threads, plain=plain)


def _plan_of(
    camera: str, n: int, physical_filter: str, seeing: float, calibs: int, day_obs: int, stars: int, cadence: float
) -> Any:
    from rapid.wiring.camera import adopt_camera
    from replay.plan import make_plan

    blocks: list[dict[str, Any]] = []
    if calibs:
        blocks = [
            {"kind": "bias", "n": calibs},
            {"kind": "dark", "n": calibs, "exposure_time_s": 30},
            {"kind": "flat", "n": calibs, "physical_filter": physical_filter},
        ]
    blocks.append({"kind": "science", "n": n, "physical_filter": physical_filter, "seeing_arcsec": seeing})
    facts: dict[str, Any] = {
        "camera": adopt_camera(camera).name,
        "day_obs": day_obs,
        "stars_per_detector": stars,
        "blocks": blocks,
    }
    return make_plan(facts | ({"cadence_s": cadence} if cadence else {}))


def _write_recording(night: Any, path: Path) -> None:
    from replay.planned import recording_of_plan
    from replay.recording import write_recording

    made = recording_of_plan(night, title=path.stem)
    write_recording(made, path, overwrite=True)
    size = path.stat().st_size if path.is_file() else sum(one.stat().st_size for one in path.iterdir())
    print(f"{path}: {len(made.exposures)} exposures, {made.n_raws} raws, {size / 1000:.0f} kB")


def _write_raws(night: Any, out: Path, *, s3: str, cadence: float, threads: int, plain: bool) -> None:
    from replay.simulate import NightSimulator, directory_sink

    if s3:
        from rapid.products.store import open_products

        store = open_products(s3)
        sink = lambda key, data: store.put(key, data, content_type="application/fits")  # noqa: E731
    else:
        sink = directory_sink(out / "raws")
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
