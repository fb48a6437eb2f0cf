"""What is switched off stays out of a night taken by real processes, from the next exposure on."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis

from rapid.dispatch.models import EventKind
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.exclusions.decide import newest_begin, next_exposure_from, parse_targets
from rapid.exclusions.store import ExclusionStore
from rapid.results.models import DetectorState
from replay.simulate import NightSimulator, directory_sink
from tests.roles.conftest import Roles
from tests.support.night import adopt_small_camera, make_plan

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def camera(tmp_path, monkeypatch):
    return adopt_small_camera(tmp_path, monkeypatch)


@pytest.fixture
def roles(tmp_path, camera) -> Iterator[Roles]:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        started = Roles(tmp_path, valkey)
        yield started
        started.close()


@pytest.fixture
def night(roles):
    """Exposures of one night, to be taken one by one: each begins after the one before."""
    plan = make_plan([{"kind": "science", "n": 3, "physical_filter": "r_57"}])
    simulator = NightSimulator(plan, directory_sink(roles.raws))
    yield simulator
    simulator.close()


def take(night, n: int) -> int:
    exposure = night.exposures[n - 1]
    for _ in night.take(exposure):
        pass
    return exposure.exposure_id


def test_excluded_detectors_and_amps_are_never_missing_until_they_are_on_again(roles, night, camera):
    store = ExclusionStore(roles.results.engine)
    targets = parse_targets(["R22_S00", "R22_S01/C10"], camera)
    off, amp = store.exclude("SmallCam9", targets, reason="noisy", author="ann", valid_from=LONG_AGO, now=LONG_AGO)
    for role in ("head", "gather", "worker"):
        roles.start(role, role)

    one = take(night, 1)
    event = roles.wait_for_summary(one, n_finished=8)
    assert (event.data["n_expected"], event.data["is_complete"]) == (8, True)
    (summary,) = roles.results.summaries("SmallCam9", day_obs=20261120)
    assert summary.detectors[90].state is DetectorState.EXCLUDED
    assert summary.detectors[90].reason == off.why
    assert summary.info["excluded_amps"] == {"R22_S01": {"C10": amp.why}}
    results = {result.detector: result for result in roles.results.results(one)}
    assert sorted(results) == list(range(91, 99))
    assert results[91].amps["C10"]["excluded"] == amp.why
    assert results[91].amps["C10"]["read_noise_electron"] is None
    assert results[91].amps["C11"]["read_noise_electron"] > 0
    assert "excluded_amps" not in results[92].provenance.applied
    assert roles.board.status().dead_letters == 0

    # On again from the next exposure on, as somebody at a door would have it: now, or in a night of other dates then.
    begin = newest_begin(summary.info)
    store.end("SmallCam9", off.id, by="bob", at=next_exposure_from(begin, now=NOW), now=NOW)
    two = take(night, 2)
    assert roles.wait_for_summary(two).data["is_complete"]
    assert {result.detector for result in roles.results.results(two)} == set(range(90, 99))

    # A head that comes to both exposures anew decides as before, and does nothing twice.
    finished_at = {(e, r.detector): r.finished_at for e in (one, two) for r in roles.results.results(e)}
    # More than one, if a busy machine let the gather's time run out first.
    versions = [s.version for s in roles.results.summary_versions("SmallCam9", one)]
    with redis.Redis.from_url(roles.valkey.url) as client:
        client.flushall()
    roles._seen = "0"
    three = take(night, 3)
    assert roles.wait_for_summary(three).data["is_complete"]
    assert {(e, r.detector): r.finished_at for e in (one, two) for r in roles.results.results(e)} == finished_at
    assert [s.version for s in roles.results.summary_versions("SmallCam9", one)] == versions
    posted = {e.exposure_id for e in roles.board.events("0") if e.kind is EventKind.EXPOSURE_POSTED}
    assert posted == {three}
