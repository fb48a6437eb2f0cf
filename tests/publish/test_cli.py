"""`rapid publish` at the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rapid.cli import app
from rapid.errors import ConfigurationError
from rapid.products.directory import DirectoryStore
from rapid.results.store import open_results
from tests.support.records import make_summary

DAY = 20261120


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # They would go to the runner's own standard error, which is closed when the next test logs.
    monkeypatch.setattr("rapid.wiring.logs.configure_logs", lambda **_: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    products = DirectoryStore(folder / "products")
    with_mosaic = {"mosaic": "LSSTCam/20261120/000002/prompt/quicklook/mosaic.v1.jpg"}
    products.put(with_mosaic["mosaic"], b"a mosaic")
    store = open_results(str(folder / "results.sqlite"))
    store.put_summary(make_summary(1))
    store.put_summary(make_summary(2, products=with_mosaic))
    store.put_summary(make_summary(1, day_obs=20261119))
    store.close()
    return folder


def run(data: Path, bucket: Path, *arguments: str):
    given = ["publish", "--camera", "LSSTCam", "--data", str(data), "--rubintv", str(bucket), *arguments]
    return CliRunner().invoke(app, given)


def test_a_night_of_the_past_is_published_whole_and_only_once(data, tmp_path):
    first = run(data, tmp_path / "bucket", "--night", str(DAY))

    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout.splitlines()[-1])
    assert told["nights"] == {str(DAY): 2}
    assert told["is_complete"]
    table = json.loads((tmp_path / "bucket/lsstcam/2026-11-20/metadata.json").read_text())
    assert list(table) == ["1", "2"]
    assert len(list((tmp_path / "bucket").rglob("*.jpg"))) == 1
    assert not (tmp_path / "bucket/lsstcam/2026-11-19").exists()

    second = run(data, tmp_path / "bucket", "--night", str(DAY))
    assert json.loads(second.stdout.splitlines()[-1])["n_sent"] == 0


def test_what_could_not_be_published_is_told_by_the_exit_status(data, tmp_path):
    (data / "products/LSSTCam/20261120/000002/prompt/quicklook/mosaic.v1.jpg").unlink()
    done = run(data, tmp_path / "bucket", "--night", str(DAY))

    assert done.exit_code == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["n_dead"] == 1
    assert "focal_plane_mosaic/000002" in told["dead"][0]["key"]


def test_without_anybody_to_publish_to_it_says_so(data):
    done = CliRunner().invoke(app, ["publish", "--camera", "LSSTCam", "--data", str(data)])

    assert isinstance(done.exception, ConfigurationError)
    assert "nobody to publish to" in done.exception.message


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--rubintv", "ftp://x", "--night", "20261120"), "neither a path nor"),
        (("--channels", "/nowhere.yaml", "--night", "20261120"), "/nowhere.yaml"),
        (("--night", "20261340"), "is no day as YYYYMMDD"),
    ],
)
def test_a_mistake_is_named(data, tmp_path, arguments, complaint):
    done = run(data, tmp_path / "bucket", *arguments)

    assert isinstance(done.exception, ConfigurationError)
    assert complaint in done.exception.message
