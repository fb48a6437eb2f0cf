"""Orders: which are valid, and that each ends once."""

from datetime import UTC, datetime, timedelta

import pytest

from rapid.operations.models import OrderError, OrderKind, OrderSpec, OrderState, SupervisorRecord, check_order
from rapid.operations.store import EXPIRE_S, SUPERVISOR_GONE_S, OperationsStore
from rapid.results.store import open_results

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    results = open_results(str(tmp_path / "results.sqlite"))
    yield OperationsStore(results.engine)
    results.close()


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"kind": "restart_workers", "target": "no pool"}, "target"),
        ({"kind": "restart_worker"}, "target"),
        ({"kind": "retry"}, "target"),
        ({"kind": "scale", "target": "here"}, "value"),
        ({"kind": "discard", "target": "a.1.b.001", "value": 3}, "value"),
    ],
)
def test_an_order_that_nobody_could_carry_out_names_its_field(facts, field):
    with pytest.raises(OrderError) as refused:
        check_order(OrderSpec(**facts))
    assert refused.value.field == field


def test_an_order_ends_once(store):
    order = store.add("C", OrderSpec(kind="retry", target="a.1.b.001", reason="why"), author="ann", now=NOW)
    assert store.waiting("C", frozenset({OrderKind.RETRY})) == [order]
    assert store.end(order.id, OrderState.DONE, "queued again", now=NOW)
    assert not store.end(order.id, OrderState.FAILED, "too late", now=NOW)
    (found,) = store.recent("C")
    assert (found.state, found.outcome, found.author, found.reason) == (OrderState.DONE, "queued again", "ann", "why")


def test_an_order_that_nobody_took_expires(store):
    store.add("C", OrderSpec(kind="restart_workers"), author="ann", now=NOW)
    assert store.expire("C", now=NOW + timedelta(seconds=EXPIRE_S - 1)) == 0
    assert store.expire("C", now=NOW + timedelta(seconds=EXPIRE_S + 1)) == 1
    assert store.recent("C")[0].state is OrderState.EXPIRED


def test_a_supervisor_is_offered_while_it_gives_signs_of_life(store):
    record = SupervisorRecord(name="vm:/data", host="vm", n_workers=2, max_workers=8, seen_at=NOW)
    store.put_supervisor("C", record)
    store.put_supervisor("C", record.model_copy(update={"n_workers": 3}))
    (found,) = store.supervisors("C", now=NOW + timedelta(seconds=SUPERVISOR_GONE_S - 1))
    assert found.n_workers == 3
    assert store.supervisors("C", now=NOW + timedelta(seconds=SUPERVISOR_GONE_S + 1)) == []
    store.drop_supervisor("C", "vm:/data")
    assert store.supervisors("C", now=NOW) == []
