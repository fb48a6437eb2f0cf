"""A system that cannot keep up leaves gaps, says so, and fills them when there is time."""

import contextlib
from collections.abc import Iterator

from rapid.control.store import ControlStore
from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.pipeline.store import default_book
from rapid.results.models import DetectorState
from rapid.wiring.camera import adopt_camera
from tests.roles.test_small_installation import run_of
from tests.support.night import make_plan, take_all

SCIENCE = [{"kind": "science", "n": 1, "physical_filter": "r_57"}]


@contextlib.contextmanager
def control_of(roles) -> Iterator[ControlStore]:
    with Board(roles.valkey.url, "SmallCam9") as board:
        yield ControlStore(board.connection, adopt_camera("SmallCam9"), default_book())


def test_an_exposure_that_would_be_late_is_shed_and_its_gaps_are_filled_later(roles):
    run_of(roles)
    (first,) = take_all(make_plan(SCIENCE), roles.raws)
    roles.wait_for_summary(first)
    with control_of(roles) as control:
        # Nobody can be done in a millisecond: every exposure from now on would be late.
        control.change({"shedding": {"cadence_s": 0.001, "ladder": ["ccd_checkerboard"]}}, by="test", door="cli")
    (second,) = take_all(make_plan(SCIENCE, first_seq_num=2), roles.raws)
    roles.wait_for(lambda e: e.kind is EventKind.SUMMARY_READY and e.exposure_id == second, timeout_s=100)
    versions = roles.results.summary_versions("SmallCam9", second)
    summary = min(versions, key=lambda s: s.version)
    assert summary.control["shed_level"] == 1
    assert summary.control["shed_to"] == "ccd_checkerboard"
    assert summary.control["predicted_s"] > summary.control["cadence_s"] == 0.001
    roles.wait_for_summary(second, n_finished=9)
    newest = max(roles.results.summary_versions("SmallCam9", second), key=lambda s: s.version)
    assert {status.state for status in newest.detectors.values()} == {DetectorState.FINISHED}
    assert roles.results.summary_versions("SmallCam9", first)[0].control["shed_level"] == 0


def test_in_mode_waiting_the_backlog_stays_and_the_gaps_are_named(roles):
    run_of(roles)
    with control_of(roles) as control:
        control.change({"pattern": "ccd_checkerboard", "worker_mode": "waiting"}, by="test", door="cli")
    (exposure,) = take_all(make_plan(SCIENCE), roles.raws)
    roles.wait_for(lambda e: e.kind is EventKind.SUMMARY_READY and e.exposure_id == exposure, timeout_s=100)
    (summary,) = roles.results.summary_versions("SmallCam9", exposure)
    left = {n for n, status in summary.detectors.items() if status.state is DetectorState.SUPERSEDED}
    assert summary.n_finished == 9 - len(left)
    assert 0 < len(left) < 9
    assert {summary.detectors[n].reason for n in left} == {"not in pattern ccd_checkerboard"}
    (queue,) = [q for q in roles.board.status().queues if q.pool == "science"]
    assert (queue.current, queue.backlog) == (0, len(left))
