"""Trends on the command line."""

import json
from datetime import date

import numpy as np
import pytest
from typer.testing import CliRunner

from rapid.camera.store import load_camera
from rapid.cli import app
from rapid.errors import ConfigurationError, NotFoundError
from rapid.results.store import open_results
from rapid.trends.alarms import AcknowledgedAlreadyError, AlarmError
from rapid.trends.simulate import METRICS, channels_of, load_arrays, simulate
from tests.support.records import make_result

RUNNER = CliRunner()
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    results = open_results(str(folder / "results.sqlite"))
    metric = next(one for one in METRICS if one.name == "gain_electron_per_adu")
    channels = channels_of(load_camera("LSSTCam"), rafts=["R22"])
    values = simulate(metric, 90, len(channels), np.random.default_rng(1))
    values[:, 3] *= 1.0 - 5e-4 * np.maximum(np.arange(90) - 40, 0)
    load_arrays(results.engine, "LSSTCam", channels, [metric], lambda _: values, date(2026, 8, 1))
    results.put_result(
        make_result(
            1,
            90,
            detector_name=channels.rows[0].detector_name,
            pipeline="bias",
            image_type="bias",
            amps={"C00": {"mean_e": 0.5}},
            metrics={},
        )
    )
    results.close()
    return folder


def rapid(data, *arguments, code=0):
    result = RUNNER.invoke(app, ["calib", "trend", *map(str, arguments), "--data", str(data)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_what_is_followed_is_listed(data):
    listed = json.loads(rapid(data, "--json"))
    assert {one["metric"]: one["n_exposures"] for one in listed} == {"gain_electron_per_adu": 90, "mean_e": 1}
    assert [line.split() for line in rapid(data).splitlines()] == [
        ["gain_electron_per_adu", "20260801", "to", "20261029", "flat"],
        ["mean_e", "20261120", "to", "20261120", "bias"],
    ]
    assert json.loads(rapid(data, "--image-type", "bias", "--json"))[0]["metric"] == "mean_e"


def test_a_drift_is_told_drawn_and_acknowledged(data, tmp_path):
    told = rapid(data, "--alarms", code=3)
    assert "gain_electron_per_adu (flat r_57 4 s) has been drifting" in told
    (alarm,) = [one for one in json.loads(rapid(data, "--alarms", "--json", code=3)) if one["kind"] == "drift"]
    picture = tmp_path / "gain.png"
    name = alarm["detector_name"]
    shown = rapid(data, "gain_electron_per_adu", "-d", name, "--amp", alarm["amp"], "--since", "2026-08-10",
                  "--plot", picture)  # fmt: skip
    assert "81 exposures, 20260810 to 20261029" in shown
    assert "drifting" in shown
    assert picture.read_bytes().startswith(PNG)
    document = json.loads(rapid(data, "gain_electron_per_adu", "-d", alarm["detector"], "--json"))
    assert [one["id"] for one in document["alarms"] if one["kind"] == "drift"] == [alarm["id"]]
    assert len(document["series"][0]["amps"]) == 16
    with pytest.raises(AlarmError, match="reason"):
        rapid(data, "--acknowledge", alarm["id"])
    assert "board replaced" in rapid(data, "--acknowledge", alarm["id"], "--reason", "board replaced")
    with pytest.raises(AcknowledgedAlreadyError):
        rapid(data, "--acknowledge", alarm["id"], "--reason", "twice")


def test_a_map_names_the_largest_and_is_drawn(data, tmp_path):
    picture = tmp_path / "map.svg"
    told = rapid(data, "gain_electron_per_adu", "--map", "--plot", picture)
    assert told.splitlines()[1].split()[:2] == [f"{load_camera('LSSTCam').by_id[90].name}/C03", "change_percent"]
    assert b"<svg" in picture.read_bytes()
    document = json.loads(rapid(data, "gain_electron_per_adu", "--map", "--json"))
    assert sum(len(amps) for amps in document["amps"].values()) == 144
    for show in ("change", "sigma", "slope", "last"):
        assert rapid(data, "gain_electron_per_adu", "--map", "--show", show).count("R22_") == 20


def test_a_rebuild_keeps_what_is_stored(data):
    assert "1 results" in rapid(data, "--rebuild", "--since", "20261101")
    assert "mean_e" in rapid(data, "mean_e", "-d", "90")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mean_e"], "--detector"),
        (["--map"], "metric"),
        (["mean_e", "-d", "90", "--since", "yesterday"], "--since"),
        (["mean_e", "-d", "90", "--since", "20261301"], "--since"),
        (["mean_e", "-d", "90", "--since", "20261102", "--until", "20261101"], "--until"),
        (["mean_e", "--map", "--show", "colour"], "--show"),
        (["mean_e", "-d", "90", "--plot", "x.gif"], "plot"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_named(data, arguments, says):
    with pytest.raises(ConfigurationError, match=says):
        rapid(data, *arguments)


def test_what_is_not_there_is_said(data, tmp_path):
    with pytest.raises(NotFoundError, match="nothing"):
        rapid(data, "nothing", "-d", "90")
    for arguments, says in (
        (["mean_e", "-d", "R99_S99"], "has no detector R99_S99"),
        (["mean_e", "-d", "91"], "nothing was measured"),
        (["mean_e", "-d", "90", "--until", "2020-01-01"], "nothing was measured"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            rapid(data, *arguments)
    with pytest.raises(ConfigurationError, match="no results store"):
        rapid(tmp_path)
