"""The command line as a person uses it: in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from rapid.camera.store import load_camera
from replay.plan import NightPlan
from replay.simulate import NightSimulator

SHARED = Path(__file__).resolve().parents[4] / "shared/data"
FIELDS = {
    "exposure", "day_obs", "seq_num", "detector", "detector_name", "image_type", "pipeline", "metrics", "amps", "timings",
    "provenance",
}  # fmt: skip


def rapid(*arguments: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rapid", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Return a simulated raw of one detector."""
    plan = NightPlan.model_validate(
        {"camera": "LSSTComCam", "day_obs": 20261120, "seed": 1, "detectors": [4], "stars_per_detector": 150,
         "blocks": [{"kind": "science", "n": 1, "physical_filter": "r_03"}]}
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("raws")
    kept: dict[str, bytes] = {}
    simulator = NightSimulator(plan, kept.__setitem__)
    list(simulator.take(simulator.exposures[0]))
    simulator.close()
    path = folder / "CC_O_20261120_000001_R22_S11.fits"
    path.write_bytes(next(data for key, data in kept.items() if key.endswith(".fits")))
    return path


def test_process_prints_one_object_with_every_field(raw):
    (found,) = json_lines(rapid("process", raw, "--json"))
    assert set(found) >= FIELDS
    assert (found["exposure"], found["detector"], found["detector_name"]) == (2026112000001, 4, "R22_S11")
    assert (found["image_type"], found["pipeline"]) == ("science", "quicklook")
    assert found["metrics"]["psf_fwhm_arcsec"] == pytest.approx(0.85, abs=0.12)
    assert len(found["amps"]) == 16
    assert found["provenance"]["raw_sha256"]


def test_one_bad_raw_does_not_stop_the_others(raw, tmp_path):
    data = raw.read_bytes()
    cases = {
        "truncated.fits": (data[:700_000], "raw_truncated"),
        "empty.fits": (b"", "raw_empty"),
        "text.fits": (b"not a FITS file", "raw_not_fits"),
        "other.fits": (data.replace(b"'LSSTComCam'", b"'DECam     '"), "raw_wrong_camera"),
        "damaged.fits": (data[:5_000_000] + b"\xff" * 3000 + data[5_003_000:], "raw_corrupt"),
    }
    for name, (content, _) in cases.items():
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / name for name in cases]
    lines = json_lines(
        rapid("process", *files, raw, tmp_path / "absent.fits", "--json", "--pipeline", "assemble", status=1)
    )
    assert [line["error"]["code"] for line in lines[:5]] == [code for _, code in cases.values()]
    assert lines[5]["pipeline"] == "assemble"
    assert lines[6]["error"]["code"] == "not_found"


def test_assembled_image_is_written_as_it_was_read(raw, tmp_path):
    (found,) = json_lines(rapid("process", raw, "--json", "--pipeline", "assemble", "--write-images", tmp_path))
    image = fits.getdata(found["products"]["image"])
    assert image.shape == (4000, 4072)
    amp = load_camera("LSSTComCam").by_id[4].amp_by_name["C10"]
    with fits.open(raw) as hdus:
        segment = hdus["Segment10"].data
    assert np.array_equal(image[amp.trimmed.slices], segment[amp.data.slices][::-1, ::-1].astype(np.float32))


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.exists(), reason="the real raws are not part of the project")
def test_the_itl_marker_raw_assembles_to_the_expected_image(tmp_path):
    (found,) = json_lines(
        rapid("process", SHARED / "itl_spot.fits.gz", "--json", "--pipeline", "assemble", "--write-images", tmp_path)
    )
    expected = fits.getdata(SHARED / "itl_expected_assembled.fits.gz")
    assert np.array_equal(fits.getdata(found["products"]["image"]), expected)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.exists(), reason="the real raws are not part of the project")
@pytest.mark.parametrize(
    ("name", "exposure", "detector_name"),
    [
        ("3018092000065-det000.fits", 3018092000065, "RXX_S00"),
        ("3019031900001-R10-S02-det029.fits", 3019031900001, "R10_S02"),
        ("7024032100720-R22-S11-det094.fits.fz", 7024032100720, "R22_S11"),
        ("CC_S_20240404_000780_R22_S01.fits", 7024040400780, "R22_S01"),
    ],
)
def test_real_raws_are_read(name, exposure, detector_name):
    (found,) = json_lines(rapid("process", SHARED / name, "--json"))
    assert (found["exposure"], found["detector_name"]) == (exposure, detector_name)


def test_camera_pipeline_and_config_speak_json(tmp_path):
    assert {"LSSTCam", "LSSTComCam", "LATISS"} <= set(json.loads(rapid("camera", "--json")))
    assert len(json.loads(rapid("camera", "lsstcam", "--json"))["detectors"]) == 205
    assert "R22_S11" in rapid("camera", "LSSTComCam")
    rapid("camera", "LSSTComCam", "--plot", tmp_path / "plane.png")
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
    assert [step["payload"] for step in json.loads(rapid("pipeline", "quicklook", "--json"))["steps"]] == [
        "isr",
        "quality",
    ]
    assert "quicklook" in rapid("pipeline")
    assert any(row["name"] == "RAPID_REDIS_URL" for row in json.loads(rapid("config", "--json")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("camera", "NoCam"), "no camera named NoCam"),
        (("pipeline", "nope"), "no pipeline named nope"),
        (("head", "--camera", "LSSTCam"), "raws"),
        (("status", "--redis", "redis://127.0.0.1:1/0"), "Connection refused"),
        (("status", "--redis", "nonsense"), "redis: Redis URL must specify"),
    ],
)
def test_an_error_is_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "rapid", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
