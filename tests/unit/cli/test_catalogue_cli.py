"""Catalogues are made, learnt and shown from the command line."""

import json

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from rapid.cli import app
from rapid.errors import ConfigurationError, NotFoundError
from tests.truth.observatory import FILTER, make_observatory

RUNNER = CliRunner()


def rapid(*arguments):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(1)
    stars = Table({"RA": 60 + rng.uniform(-0.2, 0.2, 50), "DE": -30 + rng.uniform(-0.2, 0.2, 50)})
    stars["rMag"] = np.ma.array(rng.uniform(16, 20, 50), mask=np.arange(50) == 3)
    path = tmp_path / "stars.ecsv"
    stars.write(path)
    return path


def test_a_table_becomes_a_catalogue_that_shows_its_stars(table, tmp_path):
    assert "50 stars" in rapid(
        "catalogue", "make", table, "--into", tmp_path / "c", "--ra", "RA", "--dec", "DE", "--mag", "r=rMag"
    )
    shown = json.loads(rapid("catalogue", "show", tmp_path / "c", "--ra", 60, "--dec", -30, "--radius", 1, "--json"))
    assert (shown["name"], shown["system"], shown["bands"]) == ("stars", "AB", ["r"])
    assert len(shown["stars"]) == 49  # one has no magnitude
    assert "49 stars within" in rapid("catalogue", "show", tmp_path / "c", "--ra", 60, "--dec", -30, "--radius", 1)


def test_what_is_wrong_with_a_table_is_said(table, tmp_path):
    arguments = ["--into", tmp_path / "c", "--ra", "RA", "--dec", "DE"]
    with pytest.raises(ConfigurationError, match="BAND=COLUMN"):
        rapid("catalogue", "make", table, *arguments, "--mag", "rMag")
    with pytest.raises(ConfigurationError, match="has no gMag; it has RA, DE, rMag"):
        rapid("catalogue", "make", table, *arguments, "--mag", "g=gMag")
    with pytest.raises(NotFoundError):
        rapid("catalogue", "make", tmp_path / "none.fits", *arguments, "--mag", "r=rMag")
    table.write_text("no table at all")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        rapid("catalogue", "make", table, *arguments, "--mag", "r=rMag")


def test_a_cloud_shows_against_what_was_learnt_of_a_good_exposure(tmp_path, monkeypatch):
    observatory = make_observatory(tmp_path, monkeypatch)
    exposure = observatory.plan(
        {"kind": "science", "n": 1, "physical_filter": FILTER}, stars_per_detector=120, first_seq_num=5
    )[0]
    good, cloudy = tmp_path / f"{exposure.obs_id}_R22_S11.fits.fz", tmp_path / "cloudy.fits.fz"
    good.write_bytes(observatory.take(exposure)[0])
    cloudy.write_bytes(observatory.take(exposure.model_copy(update={"transparency": 0.5}))[0])
    assert "stars of 1 raws" in rapid("catalogue", "learn", good, "--into", tmp_path / "own")
    site = tmp_path / "pipelines"
    site.mkdir()
    (site / "site.yaml").write_text(
        "pipelines:\n  - name: against_own\n    version: '1'\n    description: Quick look with a reference.\n"
        f"    steps:\n      - payload: isr\n      - payload: quality\n        config: {{reference_catalogue: {tmp_path / 'own'}}}\n"
    )
    monkeypatch.setenv("RAPID_PIPELINE_PATH", str(site))
    found = {}
    for path in (good, cloudy):
        document = json.loads(rapid("process", path, "--pipeline", "against_own", "--json"))
        assert "error" not in document, document
        found[path] = document["metrics"]
    assert found[good]["transparency"] == pytest.approx(1.0, abs=0.01)
    assert found[cloudy]["transparency"] == pytest.approx(0.5, abs=0.02)
    assert found[cloudy]["zero_point_system"] == "instrument"
    dark = observatory.plan({"kind": "dark", "n": 1, "exposure_time_s": 5.0}, first_seq_num=9)[0]
    (tmp_path / "dark.fits.fz").write_bytes(observatory.take(dark)[0])
    with pytest.raises(ConfigurationError, match="no raw has stars"):
        rapid("catalogue", "learn", tmp_path / "dark.fits.fz", "--into", tmp_path / "none")
