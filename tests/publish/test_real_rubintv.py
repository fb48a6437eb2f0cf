"""The real RubinTV shows our night: run where a checkout of it is at hand (`docs/rubintv.md`), skipped elsewhere."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from rapid.publish.catalogue import load_catalogue
from rapid.publish.keys import FINAL, image_key, is_readable, metadata_key, report_plot_key, report_text_key
from rapid.publish.report import FIGURES
from tests.publish.real_rubintv import missing, run_rubintv

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

PARSE = """
import json, sys
from lsst.ts.rubintv.models.models import Event, NightReportData
from lsst.ts.rubintv.models.models_init import ModelsInitiator
asked = json.load(sys.stdin)
answer = {"channels": {camera.name: [channel.name for channel in camera.channels] for camera in ModelsInitiator().cameras}}
answer["events"] = [vars(Event(key=key, hash="0")) for key in asked["events"]]
answer["reports"] = [vars(NightReportData(key=key, hash="0")) for key in asked["reports"]]
json.dump(answer, sys.stdout)
"""


def ask_rubintv(**asked: list[str]) -> dict:
    """Have RubinTV's own code parse keys, with its own Python."""
    checkout = Path(os.environ["RUBINTV_CHECKOUT"])
    done = subprocess.run(
        [os.environ["RUBINTV_PYTHON"], "-c", PARSE],
        input=json.dumps({"events": [], "reports": []} | asked),
        env=os.environ | {"PYTHONPATH": str(checkout / "python")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout[done.stdout.index("{") :])


def test_rubintvs_own_parser_reads_our_keys_as_we_mean_them():
    events = {}
    for name in ("LSSTCam", "LSSTComCam", "LATISS"):
        for camera in load_catalogue(name).cameras:
            for channel in camera.channels:
                for number in (12, FINAL):
                    events[image_key(camera.name, 20261120, channel, number, "png")] = (camera.name, channel, number)
    reports = [report_text_key("lsstcam", 20261120)] + [
        report_plot_key("lsstcam", 20261120, figure.group, figure.name) for figure in FIGURES
    ]
    answer = ask_rubintv(events=list(events), reports=reports)

    for parsed in answer["events"]:
        camera, channel, number = events[parsed["key"]]
        assert (parsed["camera_name"], parsed["channel_name"], parsed["seq_num"]) == (camera, channel, number)
        assert parsed["day_obs"] == "2026-11-20"
        assert is_readable(parsed["key"])
    assert [parsed["group"] for parsed in answer["reports"]] == ["metadata", *(figure.group for figure in FIGURES)]


def test_our_cameras_and_channels_are_on_rubintvs_list():
    known = ask_rubintv()["channels"]
    for name in ("LSSTCam", "LSSTComCam", "LATISS"):
        for camera in load_catalogue(name).cameras:
            assert camera.name in known
            assert metadata_key(camera.name, 20261120)
            # The main camera of LSSTComCam and its AOS lack some of LSSTCam's channels: those are not shown there.
            if name != "LSSTComCam":
                assert set(camera.channels) <= set(known[camera.name]), camera.name


@pytest.mark.timeout(1200)
def test_rubintv_shows_our_night_on_every_page(tmp_path: Path):
    from tests.publish.rubintv_pages import walk_through

    with run_rubintv(tmp_path / "night") as rubintv:
        told = list(walk_through(rubintv, pictures=tmp_path / "pictures"))

    assert len(told) == 8
