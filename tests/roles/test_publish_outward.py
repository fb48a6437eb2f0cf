"""All roles as processes: what the publish role adds to a summary, and puts into a Butler repository."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from lsst.daf.butler import Butler

from rapid.dispatch.models import EventKind
from rapid.products.naming import summary_key
from rapid.products.store import open_products
from rapid.results.models import ExposureSummary
from rapid.telemetry.mount import HEADLINE
from tests.roles.conftest import Roles
from tests.support.influx import Influx, serve_influx
from tests.support.night import make_plan, take_all

pytestmark = pytest.mark.timeout(900)

WAIT_S = 240.0
"""Warming a worker up takes a minute and more beside other work, where kernels are compiled anew."""
AZIMUTH_ARCSEC = 0.5

SITE = """
pipelines:
  - name: quicklook
    version: "1"
    description: The quick look; the calibrated images are kept once there is time.
    steps:
      - payload: isr
      - payload: quality
    afterburner:
      - payload: keep_calibrated
"""


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "site.yaml").write_text(SITE)
    monkeypatch.setenv("RAPID_PIPELINE_PATH", str(folder))


@pytest.fixture
def influx(tmp_path: Path):
    folder = tmp_path / "influx"
    folder.mkdir()
    with serve_influx(folder) as server:
        server.query("CREATE DATABASE efd")
        yield server


def write_mount(influx: Influx, begin_tai: datetime) -> None:
    """Write the series of a mount that shakes in azimuth, from before an exposure's begin to long after its end."""
    first = (begin_tai - timedelta(seconds=37 + 3)).replace(tzinfo=UTC)  # the archive's times are UTC
    names = {"MTMount.azimuth": AZIMUTH_ARCSEC, "MTMount.elevation": 0.0, "MTRotator.rotation": 0.0}
    lines = []
    for t in np.arange(0.0, 60.0, 0.05):
        ns = (
            round((first + timedelta(seconds=float(t)) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6) * 1000
        )
        for name, shake in names.items():
            demand = 45.0 + 0.003 * float(t)
            actual = demand + shake / 3600 * float(np.sin(2 * np.pi * t / 1.5))
            lines.append(f"lsst.sal.{name} actualPosition={actual!r},demandPosition={demand!r} {ns}")
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{influx.url}/write?db=efd&precision=ns", data="\n".join(lines).encode()
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310 - our own server
        assert answer.status == 204


def summary_of(roles: Roles, exposure: int) -> ExposureSummary:
    found = roles.results.latest_summary("SmallCam9", exposure, pipeline="quicklook", run="prompt")
    assert found is not None
    return found


def wait_for_added(roles: Roles, exposure: int, wanted: Callable[[ExposureSummary], bool]) -> None:
    """Wait until something has joined the exposure's summary."""
    roles.wait_for(
        lambda event: (
            event.kind is EventKind.PRODUCTS_ADDED
            and event.exposure_id == exposure
            and wanted(summary_of(roles, exposure))
        ),
        timeout_s=WAIT_S,
    )


def wait_for_datasets(repo: Path, name: str, n: int) -> list:
    """Wait until a repository has so many datasets of a type; a repository tells nobody of what is put."""
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    found: list = []
    while time.monotonic() < deadline:
        if (repo / "butler.yaml").exists():
            with Butler.from_config(str(repo)) as butler:
                if butler.collections.query("SmallCam9/rapid/prompt*") and butler.registry.queryDatasetTypes(name):
                    found = butler.query_datasets(
                        name, collections="SmallCam9/rapid/prompt", explain=False, find_first=True
                    )
                    if len(found) == n:
                        return found
        pause.wait(0.25)
    pytest.fail(f"{len(found)} datasets of {name} after {WAIT_S:g} s")


def test_calibrated_images_reach_the_butler_and_the_mounts_motion_the_summary(roles: Roles, influx: Influx) -> None:
    repo = roles.folder / "repo"
    (exposure,) = take_all(
        make_plan([{"kind": "science", "n": 1, "physical_filter": "r_57", "seeing_arcsec": 2.0}]), roles.raws
    )
    roles.start("head", "head0", gather_timeout_s=240, regather_timeout_s=240, deadline_s=600)
    roles.start("gather", "gather0")
    roles.start("worker", "w0")
    telemetry = f'{{"url": "{influx.url}", "database": "efd", "retry_s": 0.2, "give_up_s": {WAIT_S}}}'
    roles.start("publish", "publish0", publish_butler=repo, telemetry=telemetry)
    # One after the other, so that what is written last is known.
    wait_for_added(roles, exposure, lambda now: now.n_afterburned == 9)
    write_mount(influx, datetime.fromisoformat(str(summary_of(roles, exposure).info["begin"])))
    wait_for_added(roles, exposure, lambda now: HEADLINE in now.metrics)
    summary = summary_of(roles, exposure)
    document = json.loads(
        open_products(str(roles.folder / "data/products")).get(summary_key(summary, kind="summary", extension="json"))
    )
    assert document["metrics"] == summary.metrics
    metrics = summary.metrics
    assert metrics["mount_azimuth_rms_arcsec"] == pytest.approx(AZIMUTH_ARCSEC / np.sqrt(2), rel=0.05)
    assert 0 < metrics["mount_motion_share_percent"] < 100

    refs = wait_for_datasets(repo, "rapid_quicklook_calibrated", 9)
    assert roles.stop("publish0") == 0
    with Butler.from_config(str(repo), collections="SmallCam9/rapid/defaults", instrument="SmallCam9") as butler:
        image = butler.get(refs[0])
        binned = butler.get("rapid_quicklook_binned", refs[0].dataId)[0].data
        facts = butler.get("rapid_quicklook_metrics", refs[0].dataId)
    ny, nx = (side // 8 * 8 for side in image.image.shape)
    means = image.image[:ny, :nx].reshape(ny // 8, 8, nx // 8, 8).mean(axis=(1, 3))
    assert image.header["BUNIT"] == "electron"
    assert (image.variance > 0).mean() > 0.9
    assert np.median(np.abs(means - binned[: ny // 8, : nx // 8])) < 1.0
    assert "keep_calibrated" in facts["provenance"]["afterburner"]["payloads"]
