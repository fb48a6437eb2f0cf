"""The real RubinTV, unmodified, on our bucket and Redis, with a night of ours going on.

Needs a checkout of lsst-ts/rubintv with its pages built, and a Python with what it needs; `docs/rubintv.md` tells how to
come by both in five minutes. Run by itself, it is the demonstration: it plays the night, walks through every page,
saves pictures of them, and then serves until it is stopped.

    RUBINTV_CHECKOUT=/path/of/rubintv RUBINTV_PYTHON=/path/of/venv/bin/python \\
        python -m tests.publish.real_rubintv --pictures /tmp/pictures
"""

import argparse
import contextlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import yaml

from rapid.camera.store import load_camera
from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.dispatch.valkey import free_port
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor
from replay.plan import NightPlan
from replay.simulate import NightSimulator, directory_sink
from tests.support.s3 import CREDENTIALS, serve_s3

REVISION = "ac1cc3042340139e3e9f6ba754bc4f8a60f88983"
"""Of lsst-ts/rubintv, with which all this was tried."""

SITE, LOCATION, BUCKET, PROFILE = "BTS", "base", "rubintv", "base-data-base"
"""The one of its sites whose bucket has no address of its own, and where everybody may use the admin page."""

CAMERA = "TestCam205"
"""All 205 detectors under LSSTCam's numbers, small ones; published under the name of lsstcam."""

START_S = 120.0
NIGHT_S = 600.0


def today() -> int:
    """Return the observing day that RubinTV shows as the current one."""
    return int((datetime.now(UTC) - timedelta(hours=12)).strftime("%Y%m%d"))


def night_plan() -> NightPlan:
    """Return a night of today: calibrations, two pointings, a focus sweep wide enough for the small camera's pixels."""
    return NightPlan.model_validate(
        {
            "camera": CAMERA,
            "day_obs": today(),
            "seed": 11,
            "stars_per_detector": 25,
            "blocks": [
                {"kind": "bias", "n": 1},
                {"kind": "flat", "n": 1, "physical_filter": "r_57"},
                {"kind": "science", "n": 2, "physical_filter": "r_57"},
                {"kind": "focus_sweep", "positions_mm": [-0.5, -0.2, 0.1, 0.4], "physical_filter": "r_57"},
            ],
        }
    )


def as_lsstcam(folder: Path) -> Path:
    """Write a table of channels that publishes the small camera as LSSTCam."""
    text = (resources.files("rapid.publish") / "data" / "rubintv.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    document["cameras"] = {CAMERA: document["cameras"]["LSSTCam"]}
    path = folder / "channels.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@dataclass(frozen=True)
class RealRubinTV:
    """Where everything is."""

    url: str
    redis_url: str
    endpoint_url: str
    exposures: list[int]
    log: Path

    def page(self, path: str) -> str:
        """Return the address of one of RubinTV's pages."""
        return f"{self.url}/{path}"


def missing() -> str | None:
    """Return why it cannot be run here, or None if it can."""
    checkout = Path(os.environ.get("RUBINTV_CHECKOUT", "/nowhere"))
    if not (checkout / "python" / "lsst" / "ts" / "rubintv").is_dir():
        return "RUBINTV_CHECKOUT names no checkout of lsst-ts/rubintv (docs/rubintv.md tells how to make one)"
    if not (checkout / "assets").is_dir():
        return f"{checkout} has no assets: its pages were not built"
    if not Path(os.environ.get("RUBINTV_PYTHON", "/nowhere")).is_file():
        return "RUBINTV_PYTHON names no Python"
    return None


@contextlib.contextmanager
def run_rubintv(folder: Path, *, n_workers: int = 2) -> Iterator[RealRubinTV]:
    """Run a night, publish it, and RubinTV on top, until the block ends; the night is over when it begins."""
    folder.mkdir(parents=True, exist_ok=True)
    raws = folder / "raws"
    raws.mkdir(exist_ok=True)
    with serve_s3() as s3:
        s3.client().create_bucket(Bucket=BUCKET)
        settings = make_settings(
            camera=CAMERA,
            raws=str(raws),
            data=folder / "data",
            publish_rubintv=f"s3://{BUCKET}?endpoint_url={s3.endpoint_url}",
            publish_channels=as_lsstcam(folder),
            publish_report_s=2.0,
            movie_period_s=5.0,
            publish_display_url="http://localhost:8080",
            drain_s=5,
        )
        load_camera(CAMERA)
        supervisor = Supervisor(settings, n_workers=n_workers, pool_workers={}, with_display=False)
        supervisor.start()
        try:
            with _serving(folder, s3.endpoint_url, supervisor.redis_url) as url:
                exposures = _play(supervisor.redis_url, raws)
                yield RealRubinTV(url, supervisor.redis_url, s3.endpoint_url, exposures, folder / "rubintv.log")
        finally:
            supervisor.stop()


def _play(redis_url: str, raws: Path) -> list[int]:
    """Take the night, and wait until every exposure has a summary with all detectors it wants."""
    simulator = NightSimulator(night_plan(), directory_sink(raws))
    done: set[int] = set()
    with Board(redis_url, CAMERA) as board:
        last = board.last_event_id()
        try:
            for exposure in simulator.exposures:
                for _ in simulator.take(exposure):
                    pass
            wanted = {exposure.exposure_id for exposure in simulator.exposures}
            deadline = datetime.now(UTC) + timedelta(seconds=NIGHT_S)
            while wanted - done and datetime.now(UTC) < deadline:
                for event in board.events(last, timeout_s=5.0):
                    last = event.event_id
                    if event.kind is EventKind.SUMMARY_READY and event.data.get("is_complete"):
                        done.add(int(event.batch_id.split(".")[1]))
            if wanted - done:
                raise TimeoutError(f"no summaries of {sorted(wanted - done)}")
            return sorted(wanted)
        finally:
            simulator.close()


@contextlib.contextmanager
def _serving(folder: Path, endpoint_url: str, redis_url: str) -> Iterator[str]:
    checkout = Path(os.environ["RUBINTV_CHECKOUT"])
    credentials = folder / "aws"
    credentials.write_text(
        f"[{PROFILE}]\naws_access_key_id={CREDENTIALS['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key={CREDENTIALS['AWS_SECRET_ACCESS_KEY']}\n"
    )
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_CONFIG_FILE": str(folder / "none"),
        "S3_ENDPOINT_URL": endpoint_url,
        "RAPID_ANALYSIS_LOCATION": SITE,
        "RA_REDIS_HOST": "127.0.0.1",
        "RA_REDIS_PORT": redis_url.rsplit(":", 1)[1].split("/")[0],
        "PYTHONPATH": str(checkout / "python"),
    }
    command = [os.environ["RUBINTV_PYTHON"], "-m", "uvicorn", "lsst.ts.rubintv.main:app", "--port", str(port)]
    with (folder / "rubintv.log").open("w") as log:
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/rubintv"
    try:
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=START_S)
    while datetime.now(UTC) < deadline:
        try:
            urllib.request.urlopen(f"{url}/api/", timeout=5).close()  # noqa: S310 - our own, on loopback
        except (urllib.error.URLError, OSError):
            pass
        else:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise ChildProcessError(f"RubinTV ended with status {process.wait(0.5)}")
    raise TimeoutError(f"RubinTV does not answer after {START_S:.0f} s")


def main() -> int:
    """Show it all."""
    from tests.publish.rubintv_pages import walk_through

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("rubintv-night"))
    parser.add_argument("--pictures", type=Path, default=None, help="Save pictures of the pages here.")
    parser.add_argument("--serve", action="store_true", help="Go on serving until Enter is pressed.")
    given = parser.parse_args()
    if (reason := missing()) is not None:
        print(reason, file=sys.stderr)
        return 2
    with run_rubintv(given.folder) as rubintv:
        for line in walk_through(rubintv, pictures=given.pictures):
            print(line, flush=True)
        if given.serve:
            print(f"{rubintv.page('base/lsstcam')}  (Enter ends)", flush=True)
            sys.stdin.readline()
    return 0


if __name__ == "__main__":
    sys.exit(main())
