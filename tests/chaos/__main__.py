"""`make chaos`: a night of faults. Example: make chaos ARGS="--seed 7 --kills 300"."""

import argparse
import json
import shutil
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.chaos.night import CAMERA, ChaosNight, detectors_of, set_environment
from tests.chaos.schedule import Scale, describe, make_schedule
from tests.support.light import use_light_pipelines

ROOT = Path(__file__).resolve().parents[2]
MARKER = ".rapid-chaos"


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="same seed, same faults (default 1)")
    parser.add_argument(
        "--kills", type=int, default=300, help="SIGKILLs; a third as many SIGSTOPs besides (default 300)"
    )
    parser.add_argument("--exposures", type=int, default=30, help="of 205 detectors (default 30)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--outages", type=int, default=1, help="of the Valkey, 10 s each (default 1)")
    parser.add_argument("--gap", type=float, default=2.0, help="mean time between two faults [s] (default 2)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "chaos", help="emptied first")
    parser.add_argument("--light", action="store_true", help="pipelines that only assemble: faults count, not science")
    parser.add_argument("--schedule-only", action="store_true", help="print the faults and commit none")
    return parser.parse_args()


def main() -> int:
    """Play a night; return 0 if everything is accounted for."""
    arguments = parse_arguments()
    try:
        scale = Scale(
            kills=arguments.kills,
            exposures=arguments.exposures,
            detectors=detectors_of(CAMERA),
            workers=arguments.workers,
            outages=arguments.outages,
            gap_s=arguments.gap,
        )
    except ValidationError as error:
        first = error.errors()[0]
        print(f"--{first['loc'][0]}: {first['msg']}", file=sys.stderr)
        return 2
    schedule = make_schedule(arguments.seed, scale)
    text = json.dumps(describe(schedule))
    print(text, flush=True)
    if arguments.schedule_only:
        return 0
    folder: Path = arguments.folder
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            print(f"{folder} holds files that no chaos night made", file=sys.stderr)
            return 2
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    (folder / "schedule.json").write_text(text)
    with pytest.MonkeyPatch.context() as environment:
        set_environment(ROOT / "build" / "pycache", environment)
        if arguments.light:
            use_light_pipelines(folder / "pipelines", environment)
        report = ChaosNight(schedule, scale, folder).play()
    (folder / "report.json").write_text(report.model_dump_json(indent=2))
    print(report.text())
    print(f"report    {folder / 'report.json'}")
    if report.is_good:
        shutil.rmtree(folder / "raws")  # gigabytes; the schedule makes them again
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
