"""`rapid warm-up`: compile every kernel once, so that a new worker need not."""

import sys
import time
from typing import Annotated

import typer

from rapid.cli.output import print_json

PLAN = {
    "camera": "TestCam205",
    "day_obs": 20260101,
    "seed": 1,
    "stars_per_detector": 40,
    "detectors": [94],
    "blocks": [
        {"kind": "bias", "n": 1},
        {"kind": "dark", "n": 1, "exposure_time_s": 30},
        {"kind": "flat", "n": 1, "physical_filter": "r_57"},
        {"kind": "science", "n": 1, "physical_filter": "r_57"},
        {"kind": "donut_pair", "physical_filter": "r_57"},
    ],
}
"""One small raw of each kind: numba compiles for types, not for sizes."""


def warm_up(as_json: Annotated[bool, typer.Option("--json", help="Print seconds by step as JSON.")] = False) -> None:
    """Compile all kernels into numba's cache (NUMBA_CACHE_DIR), e.g. while an image is made.

    Example: NUMBA_CACHE_DIR=/opt/rapid/kernels rapid warm-up

    Payloads prepare themselves, then a simulated raw of each kind goes through its pipeline.
    """
    from rapid.errors import RapidError
    from rapid.pipeline.store import default_book
    from rapid.worker.registry import make_payloads
    from rapid.worker.run import PipelineRunner, RawInput
    from replay.plan import NightPlan
    from replay.simulate import NightSimulator

    seconds: dict[str, float] = {}
    begin = time.monotonic()
    for pipeline in default_book().pipelines:
        try:
            for payload in make_payloads(pipeline):
                getattr(payload, "warm_up", lambda: None)()
        except RapidError as error:  # a payload of an extra that is not installed
            print(f"{pipeline.name}: left out, {error.message}", file=sys.stderr)
    seconds["payloads"] = time.monotonic() - begin
    runner = PipelineRunner()
    simulator = NightSimulator(NightPlan.model_validate(PLAN), lambda _key, _data: None)
    try:
        for exposure in simulator.exposures:
            begin = time.monotonic()
            key, data = next(raw for raw in simulator.raws(exposure) if not raw[0].endswith(".json"))
            run = runner.run(RawInput(uri=key, data=data))
            name = run.result.pipeline
            seconds[name] = seconds.get(name, 0.0) + time.monotonic() - begin
    finally:
        simulator.close()
    seconds = {name: round(took, 3) for name, took in seconds.items()}
    if as_json:
        print_json(seconds)
    else:
        print("\n".join(f"{name:16} {took:8.3f} s" for name, took in seconds.items()))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="warm-up")(warm_up)
