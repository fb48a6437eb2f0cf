"""Orders and supervisors in the results store: translation, and the rule that an order ends once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import StoreError
from rapid.operations.models import ClusterOrder, OrderKind, OrderSpec, OrderState, SupervisorRecord
from rapid.results.log_schema import cluster_order, supervisor
from rapid.results.sql import SqlStore, naive

EXPIRE_S = 60.0
"""An order that nobody took by then is not carried out behind people's backs when somebody comes back."""

SUPERVISOR_GONE_S = 45.0
"""A supervisor without a sign of life for so long is not offered any more: three of its signs."""


class OperationsStore(SqlStore):
    """Orders and supervisors of all cameras.

    Parameters
    ----------
    engine
        That of a results store: ``OperationsStore(results.engine)``.
    """

    def add(self, camera: str, spec: OrderSpec, *, author: str, now: datetime) -> ClusterOrder:
        """Write an order down, waiting to be carried out."""
        row = spec.model_dump(mode="json") | {
            "camera": camera,
            "author": author[:200],
            "created_at": naive(now),
            "state": OrderState.WAITING.value,
            "outcome": "",
        }
        try:
            with self._begin() as connection:
                order_id = connection.execute(cluster_order.insert().values(row)).inserted_primary_key[0]  # type: ignore[index]  # an insert of one row has it
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write an order: {error}") from error
        return ClusterOrder(
            **spec.model_dump(), id=order_id, camera=camera, author=author, created_at=now, state=OrderState.WAITING
        )

    def end(self, order_id: int, state: OrderState, outcome: str, *, now: datetime) -> bool:
        """Say what came of an order; False if somebody has said so before."""
        t = cluster_order
        statement = (
            t.update()
            .where(t.c.id == order_id, t.c.state == OrderState.WAITING.value)
            .values(state=state.value, outcome=outcome[:1000], ended_at=naive(now))
        )
        try:
            with self._begin() as connection:
                return connection.execute(statement).rowcount == 1
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot end an order: {error}") from error

    def waiting(self, camera: str, kinds: frozenset[OrderKind], *, target: str | None = None) -> list[ClusterOrder]:
        """Return orders of some kinds that wait, oldest first; of one target, if given."""
        t = cluster_order.c
        conditions: list[Any] = [
            t.camera == camera,
            t.state == OrderState.WAITING.value,
            t.kind.in_(sorted(kind.value for kind in kinds)),
        ]
        if target is not None:
            conditions.append(t.target == target)
        rows = self._fetch(sa.select(cluster_order).where(*conditions).order_by(t.id))
        return [_order(row) for row in rows]

    def recent(self, camera: str, *, limit: int = 50) -> list[ClusterOrder]:
        """Return the newest orders, newest first."""
        t = cluster_order.c
        rows = self._fetch(sa.select(cluster_order).where(t.camera == camera).order_by(t.id.desc()).limit(limit))
        return [_order(row) for row in rows]

    def expire(self, camera: str, *, now: datetime) -> int:
        """End what nobody took in time; returns how many."""
        t = cluster_order
        before = naive(now - timedelta(seconds=EXPIRE_S))
        statement = (
            t.update()
            .where(t.c.camera == camera, t.c.state == OrderState.WAITING.value, t.c.created_at < before)
            .values(state=OrderState.EXPIRED.value, outcome="nobody was there to carry it out", ended_at=naive(now))
        )
        try:
            with self._begin() as connection:
                return connection.execute(statement).rowcount
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot expire orders: {error}") from error

    def put_supervisor(self, camera: str, record: SupervisorRecord) -> None:
        """Note a supervisor's sign of life."""
        row = record.model_dump() | {"camera": camera, "seen_at": naive(record.seen_at)}
        self._upsert(supervisor, [row], ("camera", "name"))

    def drop_supervisor(self, camera: str, name: str) -> None:
        """Forget a supervisor that stops."""
        try:
            with self._begin() as connection:
                connection.execute(supervisor.delete().where(supervisor.c.camera == camera, supervisor.c.name == name))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error

    def supervisors(self, camera: str, *, now: datetime) -> list[SupervisorRecord]:
        """Return the supervisors that give signs of life, by name."""
        t = supervisor.c
        since = naive(now - timedelta(seconds=SUPERVISOR_GONE_S))
        rows = self._fetch(sa.select(supervisor).where(t.camera == camera, t.seen_at > since).order_by(t.name))
        return [
            SupervisorRecord(
                name=row.name,
                host=row.host,
                n_workers=row.n_workers,
                max_workers=row.max_workers,
                seen_at=row.seen_at.replace(tzinfo=UTC),
            )
            for row in rows
        ]


def _order(row: sa.Row[Any]) -> ClusterOrder:
    facts = dict(row._mapping)
    for name in ("created_at", "ended_at"):
        facts[name] = facts[name].replace(tzinfo=UTC) if facts[name] is not None else None
    return ClusterOrder.model_validate(facts)
