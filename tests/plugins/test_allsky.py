"""An instrument that is no CCD mosaic, added by a package: known, read, processed, shown, and nothing changed for it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.results.store import open_results
from tests.plugins.skies import make_sky, make_small


def rapid(arguments: list[str], environment: dict[str, str], *, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rapid", *arguments], env=environment, capture_output=True, text=True, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_camera_and_pipeline_are_known_once_the_package_is_installed(allsky):
    assert "AllSkyDemo" in rapid(["camera"], allsky)
    shown = rapid(["pipeline", "allsky"], allsky)
    assert "for all images of AllSkyDemo" in shown
    assert "zenith_limit_deg: 65" in shown
    assert "min_stars: 2" in shown  # a default of the payload's own


def process(files: dict[str, bytes], folder: Path, environment: dict[str, str], *, status: int) -> list[dict]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    said = rapid(["process", *(str(folder / name) for name in files), "--json"], environment, status=status)
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_the_cloud_cover_of_images(allsky, tmp_path):
    names = [f"allsky_20261120_{n:06d}.jpg" for n in (123, 124, 125, 126)]
    skies = [make_sky(cloudy_columns=n) for n in (0, 400, 800)]
    files = dict(zip(names, [*skies, make_sky(level=200.0)], strict=True))
    clear, half, overcast, daylight = process(files, tmp_path, allsky, status=0)
    assert (clear["camera"], clear["exposure"], clear["pipeline"]) == ("AllSkyDemo", 2026112000123, "allsky")
    assert clear["metrics"]["cloud_fraction"] <= 0.05
    assert 0.4 <= half["metrics"]["cloud_fraction"] <= 0.6
    assert overcast["metrics"]["cloud_fraction"] == 1.0
    assert (daylight["metrics"]["cloud_fraction"], daylight["metrics"]["is_night"]) == (None, False)
    assert clear["provenance"]["payloads"] == {"cloud_cover": "1"}
    assert len(clear["provenance"]["config_hash"]) == 64


def test_what_cannot_be_read_says_why(allsky, tmp_path):
    whole = make_sky()
    cases = {
        "allsky_20261120_000001.jpg": (whole[:-5000], "raw_truncated"),
        "allsky_20261120_000002.jpg": (b"", "raw_empty"),
        "allsky_20261120_000003.jpg": (b"SIMPLE  =", "raw_corrupt"),
        "allsky_20261120_000004.jpg": (b"\xff\xd8\xff\xd9", "raw_corrupt"),
        "holiday.jpg": (whole, "raw_not_fits"),
        "allsky_20261120_000005.jpg": (make_small(), "payload_failed"),
    }
    found = process({name: content for name, (content, _) in cases.items()}, tmp_path, allsky, status=1)
    assert [document["error"]["code"] for document in found] == [code for _, code in cases.values()]
    assert "100 x 50 pixels" in found[-1]["error"]["message"]


class Installation:
    """`rapid up` for the all-sky camera."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.raws, self.data = folder / "raws", folder / "data"
        self.raws.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rapid", "up", "--camera", "AllSkyDemo", "--raws", str(self.raws), "--data",
             str(self.data), "--workers", "1", "--port", "0"],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = next(line.split()[1] for line in self.process.stdout or () if line.startswith("board"))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)
        return self.process.returncode

    def logs(self) -> str:
        return "".join(path.read_text()[-1500:] for path in sorted((self.data / "logs").glob("*.log")))


@pytest.mark.timeout(600)
def test_the_whole_system_runs_it(allsky, tmp_path):
    installation = Installation(tmp_path, allsky)
    try:
        board = Board(installation.url, "AllSkyDemo")
        (installation.raws / "notes.txt").write_text("nobody's raw")
        (installation.raws / "MC_O_20261120_000001_R22_S11.fits").write_bytes(b"not this camera's format")
        (installation.raws / "allsky_20261120_000007.jpg").write_bytes(make_sky(cloudy_columns=400))
        (installation.raws / "allsky_20261120_000008.jpg").write_bytes(b"\xff\xd8 no picture \xff\xd9")
        wanted = {EventKind.SUMMARY_READY, EventKind.RAW_QUARANTINED}
        heard, last, deadline = {}, "0", time.monotonic() + 240
        while wanted - heard.keys() and time.monotonic() < deadline:
            for event in board.events(last, timeout_s=2.0):
                last = event.event_id
                heard.setdefault(event.kind, event)
        board.close()
        assert not wanted - heard.keys(), installation.logs()
        assert heard[EventKind.RAW_QUARANTINED].data["uri"].endswith("allsky_20261120_000008.jpg")
        results = open_results(str(installation.data / "results.sqlite"))
        (summary,) = results.summaries("AllSkyDemo", day_obs=20261120, limit=10)
        (result,) = results.results(2026112000007)
        quarantined = results.quarantined("AllSkyDemo", limit=10)
        results.close()
        assert [record.uri.rsplit("/", 1)[-1] for record in quarantined] == ["allsky_20261120_000008.jpg"]
        assert (summary.pipeline, summary.is_complete) == ("allsky", True)
        assert 0.4 <= summary.metrics["cloud_fraction_median"] <= 0.6
        for key in (summary.products["mosaic"], result.products["preview"]):
            with Image.open(installation.data / "products" / key) as picture:
                assert min(picture.size) >= 100
        assert {"cells", "binned", "preview"} <= result.products.keys()
    finally:
        status = installation.stop()
    assert status == 0
