"""The number of workers is changed by an order: within bounds, written down, nothing lost."""

from datetime import UTC, datetime

import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.operations.models import ClusterOrder, OrderSpec, OrderState
from rapid.operations.store import OperationsStore
from rapid.results.store import open_results
from rapid.wiring.scaling import Scaler
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor

CAMERA = "LSSTComCam"
WAIT_S = 120.0


@pytest.fixture
def running(tmp_path):
    (tmp_path / "raws").mkdir()
    settings = make_settings(camera=CAMERA, raws=str(tmp_path / "raws"), data=tmp_path / "data", drain_s=5)
    supervisor = Supervisor(settings, n_workers=1, pool_workers={}, with_display=False)
    scaler = Scaler(supervisor, CAMERA, max_workers=2, sign_of_life_s=1.0)
    supervisor.start()
    try:
        scaler.start()
        yield supervisor, scaler, settings
    finally:
        scaler.stop()
        supervisor.stop()


def test_workers_are_started_and_drained_by_order(running):
    supervisor, scaler, settings = running
    results = open_results(settings.results)
    store = OperationsStore(results.engine)
    with Board(supervisor.redis_url, CAMERA) as board:

        def order(n: int) -> ClusterOrder:
            """Give an order and return it as it ended."""
            last = board.last_event_id()
            given = store.add(
                CAMERA, OrderSpec(kind="scale", target=scaler.name, value=n), author="ann", now=datetime.now(UTC)
            )
            board.publish(EventKind.CLUSTER_CHANGED, data={"order": given.id, "state": "waiting"})
            while True:
                events = board.events(last, timeout_s=WAIT_S)
                assert events, "the order was not carried out"
                last = events[-1].event_id
                if any(e.data.get("order") == given.id and e.data.get("state") != "waiting" for e in events):
                    return next(one for one in store.recent(CAMERA) if one.id == given.id)

        assert order(2).outcome == "1 before, 2 now"
        assert supervisor.wait_for_process("worker-1", timeout_s=WAIT_S)
        assert store.supervisors(CAMERA, now=datetime.now(UTC))[0].n_workers == 2

        refused = order(3)
        assert (refused.state, refused.outcome) == (OrderState.FAILED, "between 1 and 2 workers can run here")

        assert order(1).outcome == "2 before, 1 now"
        assert "worker-1" not in supervisor.processes()
        assert "worker-0" in supervisor.processes()
    results.close()
