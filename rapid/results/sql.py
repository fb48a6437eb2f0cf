"""The little that both databases need said differently, and what documents look like on the way in."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import StoreError


def naive(moment: datetime | None) -> datetime | None:
    """Return a moment as UTC without zone: how the tables keep it."""
    if moment is not None and moment.tzinfo is not None:
        return moment.astimezone(UTC).replace(tzinfo=None)
    return moment


def finite(value: Any) -> Any:
    """Return a JSON document with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def insert_for(dialect: sa.Dialect) -> Any:
    """Return the database's own ``insert``, which knows what to do on a conflict.

    Imported when it is needed: a worker is told to start in a second, and the other database's takes half of one.
    """
    if dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql

        return insert_postgresql
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite

    return insert_sqlite


class SqlStore:
    """What a store on SQL is built on.

    Parameters
    ----------
    engine
        An engine whose tables are at the newest migration; see `rapid.results.engine`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()

    def ping(self) -> None:
        """Raise `StoreError` if the database does not answer."""
        self._fetch(sa.select(sa.literal(1)))

    def _begin(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def _lock(self, connection: sa.Connection, number: int) -> None:
        """Let other writers of the same thing wait until the transaction ends."""
        if self.engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _fetch(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        try:
            with self.engine.connect() as connection:
                return connection.execute(statement).fetchall()
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error

    def _upsert(self, table: sa.Table, rows: list[dict[str, Any]], keys: Sequence[str]) -> None:
        if not rows:
            return
        statement: Any = insert_for(self.engine.dialect)(table)
        updates = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=updates)
        try:
            with self._begin() as connection:
                connection.execute(statement, rows)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write {table.name}: {error}") from error
