"""Tables that tell what of the results somebody outside does not have yet, and the note that every change leaves.

The note is written in the transaction of the change, so that none is lost on the way. Numbers count the changes, of a
summary and of a night of a run; who puts results elsewhere writes down up to which number that was done. Nights whose
numbers agree need no look at their summaries.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, String, Table

from rapid.results.models import ExposureSummary
from rapid.results.schema import metadata
from rapid.results.sql import insert_for

night_change = Table(
    "night_change",
    metadata,
    Column("camera", String(64), primary_key=True),
    Column("day_obs", Integer, primary_key=True, autoincrement=False),
    Column("run", String(64), primary_key=True),
    Column("n", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

summary_change = Table(
    "summary_change",
    metadata,
    Column("camera", String(64), primary_key=True),
    Column("day_obs", Integer, primary_key=True, autoincrement=False),
    Column("run", String(64), primary_key=True),
    Column("exposure", BigInteger, primary_key=True, autoincrement=False),
    Column("pipeline", String(64), primary_key=True),
    Column("n", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Beside the summaries, as these are large documents: a night's rows are read in one go."""

night_put = Table(
    "night_put",
    metadata,
    Column("place", String(200), primary_key=True),
    Column("camera", String(64), primary_key=True),
    Column("day_obs", Integer, primary_key=True, autoincrement=False),
    Column("run", String(64), primary_key=True),
    Column("n", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

summary_put = Table(
    "summary_put",
    metadata,
    Column("place", String(200), primary_key=True),
    Column("camera", String(64), primary_key=True),
    Column("day_obs", Integer, primary_key=True, autoincrement=False),
    Column("run", String(64), primary_key=True),
    Column("exposure", BigInteger, primary_key=True, autoincrement=False),
    Column("pipeline", String(64), primary_key=True),
    Column("n", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

calib_put = Table(
    "calib_put",
    metadata,
    Column("place", String(200), primary_key=True),
    Column("camera", String(64), primary_key=True),
    Column("event", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Up to which change of a calib's state somebody outside has them all."""


def note_change(connection: sa.Connection, summary: ExposureSummary) -> None:
    """Leave a note that a summary, or what it is of, has changed; of one without any result there is nothing to put."""
    if not summary.n_finished:
        return
    night = {name: getattr(summary, name) for name in ("camera", "day_obs", "run")}
    # The summary's row first: in this order always, so that two writers never wait for each other.
    for table, keys in (
        (summary_change, {**night, "exposure": summary.exposure, "pipeline": summary.pipeline}),
        (night_change, night),
    ):
        statement: Any = insert_for(connection.dialect)(table).values(**keys, n=1)
        connection.execute(statement.on_conflict_do_update(index_elements=list(keys), set_={"n": table.c.n + 1}))
