"""Afterburners: what runs once an exposure is gathered joins its results, delays nothing, and survives what it must."""

from pathlib import Path

import pytest
import redis

from rapid.dispatch.models import BatchKey, EventKind
from rapid.results.models import DetectorResult
from tests.roles.conftest import Roles
from tests.support.night import make_plan, take_all

SITE = """
pipelines:
  - name: quicklook
    version: "1"
    description: The quick look, and how the light is spread once there is time.
    steps:
      - payload: isr
      - payload: quality
    afterburner:
      - payload: encircled_energy
        config: {min_snr: 20, radius_arcsec: 16, sky_width_arcsec: 8, min_stars: 1}
"""

ADDED = {
    "ee50_radius_arcsec", "ee80_radius_arcsec", "ee95_radius_arcsec", "ee80_radius_scatter_arcsec", "n_ee_stars",
    "ee_note",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "site.yaml").write_text(SITE)
    monkeypatch.setenv("RAPID_PIPELINE_PATH", str(folder))


def start_all(roles: Roles, *, n_workers: int = 2) -> None:
    roles.start("head", "head0", gather_timeout_s=60, regather_timeout_s=90)
    roles.start("gather", "gather0")
    for k in range(n_workers):
        roles.start("worker", f"w{k}")


def wait_for_added(roles: Roles, exposure: int) -> None:
    """Wait until the summary of an exposure is said to have more."""
    roles.wait_for(
        lambda e: (
            e.kind is EventKind.PRODUCTS_ADDED
            and e.batch_id == f"prompt.{exposure}.quicklook"
            and e.data.get("n_afterburned") == 9
        ),
        timeout_s=100.0,
    )


def results_of(roles: Roles, exposure: int) -> dict[int, DetectorResult]:
    found = roles.results.results(exposure, camera="SmallCam9")
    assert {result.pipeline for result in found} == {"quicklook"}, "an afterburner has no rows of its own"
    return {result.detector: result for result in found}


def test_an_afterburner_joins_the_results_once_and_again_after_everything_was_flushed(roles: Roles):
    exposures = take_all(
        make_plan([{"kind": "science", "n": 2, "physical_filter": "r_57", "seeing_arcsec": 8.0}]), roles.raws
    )
    start_all(roles)
    starts = []
    posted: dict[str, int] = {}
    done = set()

    def heard(event) -> bool:
        if event.kind is EventKind.JOB_STARTED:
            starts.append(event.batch_id)
        elif event.kind is EventKind.EXPOSURE_POSTED:
            posted[event.batch_id] = posted.get(event.batch_id, 0) + 1
        elif event.kind is EventKind.PRODUCTS_ADDED and event.data.get("n_afterburned"):
            assert event.data["n_afterburned"] == 9, "drawn once, when all have joined"
            done.add(event.exposure_id)
        return done == set(exposures)

    roles.wait_for(heard, timeout_s=100.0)
    for exposure in exposures:
        assert starts.index(f"prompt.{exposure}.quicklook_after") > max(
            k for k, batch in enumerate(starts) if batch == f"prompt.{exposure}.quicklook"
        ), "not before the exposure was gathered"
        for result in results_of(roles, exposure).values():
            added = result.provenance.afterburner
            assert added is not None
            assert set(added.metrics) == ADDED <= result.metrics.keys()
            assert added.payloads == {"encircled_energy": "1", "isr": result.provenance.payloads["isr"]}
            assert added.pipeline == "quicklook_after"
            assert added.config_hash != result.provenance.config_hash
            assert result.provenance.payloads.keys() == {"isr", "quality"}
            assert result.metrics["sky_level_e"] > 0
            assert {"encircled_energy_s"} <= result.timings.keys()
            radii = [result.metrics[f"ee{n}_radius_arcsec"] for n in (50, 80, 95)]
            if result.metrics["n_ee_stars"]:
                assert 2.0 < radii[0] < radii[1] < radii[2] < 16.0
        assert any(
            "ee80_radius_arcsec" in values for r in results_of(roles, exposure).values() for values in r.amps.values()
        )
        (version,) = roles.results.summary_versions("SmallCam9", exposure)
        assert (version.version, version.pipeline, version.n_afterburned) == (1, "quicklook", 9)
        assert version.metrics["ee80_radius_arcsec_median"] > 2.0
        assert version.metrics["sky_level_e_median"] > 0
        assert {"mosaic"} <= version.products.keys()

    # Flushed: one result loses what was added, as if its job had been lost. That alone is done again.
    before = {e: results_of(roles, e) for e in exposures}
    lost = before[exposures[0]][94]
    bare = lost.model_copy(
        update={
            "provenance": lost.provenance.model_copy(update={"afterburner": None, "config_hash": "another"}),
            "metrics": {name: value for name, value in lost.metrics.items() if name not in ADDED},
            "amps": {},
            "products": {"binned": lost.products["binned"]},
        }
    )
    roles.results.put_result(bare)
    (summary,) = roles.results.summary_versions("SmallCam9", exposures[0])
    roles.results.put_summary(summary.model_copy(update={"n_afterburned": 8}))
    roles.kill("head0")
    with redis.Redis.from_url(roles.valkey.url) as client:
        client.flushall()
    roles.hear_from_the_beginning()
    roles.board.load()
    roles.start("head", "head1")
    roles.start("worker", "w2")
    wait_for_added(roles, exposures[0])
    after = {e: results_of(roles, e) for e in exposures}
    changed = {(e, d) for e in exposures for d in after[e] if after[e][d] != before[e][d]}
    assert changed == {(exposures[0], 94)}
    assert after[exposures[0]][94].metrics.keys() >= ADDED
    state = roles.board.state(BatchKey(exposure_id=exposures[0], pipeline="quicklook_after"))
    assert state.expected == {94}
    assert roles.board.state(BatchKey(exposure_id=exposures[1], pipeline="quicklook_after")) is None
