"""Steps that add to a summary: one that fails takes nothing else with it."""

import pytest

from rapid.dispatch.models import BatchKey, GatherJob
from rapid.errors import StoreError
from rapid.gather.installed import installed_steps
from rapid.gather.role import Gatherer
from rapid.plugins import entries_of
from rapid.products.store import open_products
from rapid.results.models import DetectorState, DetectorStatus, GatherReason
from rapid.results.store import open_results

JOB = GatherJob(
    batch=BatchKey(exposure_id=2026112000001, pipeline="quicklook"), camera="LSSTCam", image_type="science",
    reason=GatherReason.COMPLETE, version=1, token=1, lease_ms=60_000, expected=frozenset({94}),
    finished=frozenset({94}), detectors={94: DetectorStatus(state=DetectorState.FINISHED)}, posted_ms=0, due_ms=0,
)  # fmt: skip


def add_number(summary, results, products):
    summary.metrics["number"] = 7


def add_trouble(summary, results, products):
    summary.metrics["half"] = 1
    raise KeyError("no such thing")


def ask_later(summary, results, products):
    raise StoreError("the store is away")


@pytest.fixture
def gatherer_with(tmp_path):
    results = open_results(str(tmp_path / "results.sqlite"))
    products = open_products(str(tmp_path / "products"))

    def make(*steps):
        from prometheus_client import CollectorRegistry

        from rapid.gather.metrics import GatherMetrics

        return Gatherer("g", None, results, products, steps=steps, metrics=GatherMetrics(CollectorRegistry()))

    yield make
    results.close()


def test_a_step_that_fails_leaves_a_note_and_the_others_go_on(gatherer_with):
    summary = gatherer_with(add_trouble, add_number).make_summary(JOB)
    assert summary.metrics["number"] == 7
    assert "no such thing" in summary.metrics["add_trouble_note"]
    assert summary.gathered_at is not None


def test_what_a_retry_can_help_fails_the_gather(gatherer_with):
    with pytest.raises(StoreError, match="away"):
        gatherer_with(ask_later, add_number).make_summary(JOB)


def test_a_packages_step_that_cannot_be_imported_is_left_out(tmp_path, monkeypatch):
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[rapid.gather_steps]\ngood = their_steps:step\nbad = no_such_module:step\n")
    (tmp_path / "their_steps.py").write_text("def step(summary, results, products):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries_of.cache_clear()
    try:
        assert [step.__module__ for step in installed_steps()] == ["their_steps"]
    finally:
        entries_of.cache_clear()
