"""Write down what a result or a calib was made with: the index behind "which results used flat X?".

Filled in the transaction that stores the result or registers the calib, so that the two cannot part. A result that is
stored again forgets what the earlier one used.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from rapid.results import schema
from rapid.results.models import CalibRecord, DetectorResult
from rapid.results.sql import insert_for


def _insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        insert = insert_for(connection.dialect)
        statement: Any = insert(table)
        connection.execute(statement.on_conflict_do_nothing(), rows)


def calib_numbers(connection: sa.Connection, calib_ids: Iterable[str]) -> dict[str, int]:
    """Return the number of each calib id, a new one where it has none yet."""
    wanted = sorted(set(calib_ids))  # in one order: two writers must not wait for each other
    t = schema.calib_name

    def known() -> dict[str, int]:
        rows = connection.execute(sa.select(t.c.calib_id, t.c.id).where(t.c.calib_id.in_(wanted)))
        return {row.calib_id: row.id for row in rows}

    if not wanted:
        return {}
    found = known()
    missing = [calib_id for calib_id in wanted if calib_id not in found]
    if missing:
        _insert_new(connection, t, [{"calib_id": calib_id} for calib_id in missing])
        found = known()
    return found


def record_result_uses(connection: sa.Connection, result_key: int, result: DetectorResult) -> None:
    """Write down the calibs and the combined exposures of a result.

    Parameters
    ----------
    result_key
        Number of its row.
    """
    provenance = result.provenance
    calibs = calib_numbers(connection, provenance.calibs.values())
    for table, column, values in (
        (schema.result_calib, "calib", set(calibs.values())),
        (schema.result_input, "exposure", set(provenance.inputs)),
    ):
        stored = connection.execute(sa.select(table.c[column]).where(table.c.result == result_key)).scalars()
        before = set(stored)
        if gone := before - values:
            connection.execute(table.delete().where(table.c.result == result_key, table.c[column].in_(gone)))
        rows = [{column: value, "result": result_key} for value in sorted(values - before)]
        _insert_new(connection, table, rows)


def record_calib_origin(connection: sa.Connection, record: CalibRecord) -> None:
    """Write down the calibs and exposures that a calib was built from."""
    parents = sorted(set(record.provenance.calibs.values())) if record.provenance else []
    numbers = calib_numbers(connection, [record.calib_id, *parents])
    own = numbers[record.calib_id]
    _insert_new(connection, schema.calib_parent, [{"parent": numbers[p], "child": own} for p in parents])
    _insert_new(connection, schema.calib_input, [{"exposure": e, "calib": own} for e in sorted(set(record.inputs))])
