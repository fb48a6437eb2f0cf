"""Provenance: who used which calib; excluded exposures and rules."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHUNK = 2000


def upgrade() -> None:
    """Bring the tables to this revision, and fill in what the stored results tell."""
    op.create_table(
        "exposure_exclusion",
        _key(),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("exposure", sa.BigInteger(), nullable=False),
        sa.Column("detector", sa.Integer(), nullable=False),
        sa.Column("detector_name", sa.String(length=32), nullable=False),
        sa.Column("rule", sa.BigInteger(), nullable=True),
        *_history(),
    )
    op.create_index("ix_exposure_exclusion", "exposure_exclusion", ["camera", "exposure", "detector"])
    op.create_index("ix_exposure_exclusion_rule", "exposure_exclusion", ["rule"])
    op.create_table(
        "exclusion_rule",
        _key(),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("expression", sa.String(length=1000), nullable=False),
        sa.Column("first_day", sa.Integer(), nullable=False),
        sa.Column("last_day", sa.Integer(), nullable=True),
        *_history(),
    )
    op.create_index("ix_exclusion_rule", "exclusion_rule", ["camera", "ended_at"])
    op.create_table(
        "calib_name",
        _key(),
        sa.Column("calib_id", sa.String(length=200), nullable=False),
        sa.UniqueConstraint("calib_id"),
    )
    _pairs("result_calib", "calib", "result")
    op.create_index("ix_result_calib_result", "result_calib", ["result"])
    _pairs("result_input", "exposure", "result")
    op.create_index("ix_result_input_result", "result_input", ["result"])
    _pairs("calib_parent", "parent", "child")
    _pairs("calib_input", "exposure", "calib")
    _fill(op.get_bind())


def downgrade() -> None:
    """Take the tables back to the revision before."""
    for table in (
        "calib_input",
        "calib_parent",
        "result_input",
        "result_calib",
        "calib_name",
        "exclusion_rule",
        "exposure_exclusion",
    ):
        op.drop_table(table)


def _key() -> sa.Column[int]:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("id", big, primary_key=True, autoincrement=True, nullable=False)


def _history() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("ended_by", sa.String(length=200), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("end_reason", sa.String(length=500), nullable=True),
    )


def _pairs(name: str, first: str, second: str) -> None:
    op.create_table(
        name,
        sa.Column(first, sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column(second, sa.BigInteger(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint(first, second),
        sqlite_with_rowid=False,
    )


def _fill(connection: sa.Connection) -> None:
    """Read every stored result and calib once."""
    numbers: dict[str, int] = {}
    new: list[str] = []

    def number(calib_id: str) -> int:
        if calib_id not in numbers:
            numbers[calib_id] = len(numbers) + 1
            new.append(calib_id)
        return numbers[calib_id]

    def insert(table: str, first: str, second: str, pairs: set[tuple[int, int]]) -> None:
        if pairs:
            statement = sa.text(f"INSERT INTO {table} ({first}, {second}) VALUES (:a, :b)")
            connection.execute(statement, [{"a": a, "b": b} for a, b in sorted(pairs)])

    made: dict[tuple[int, str, int, str], set[str]] = {}
    last = 0
    while True:
        rows = connection.execute(
            sa.text(
                "SELECT id, detector, pipeline, exposure, camera, CAST(document AS TEXT) AS document FROM detector_result "
                "WHERE id > :last ORDER BY id LIMIT :n"
            ),
            {"last": last, "n": CHUNK},
        ).fetchall()
        if not rows:
            break
        calibs: set[tuple[int, int]] = set()
        inputs: set[tuple[int, int]] = set()
        for row in rows:
            last = row.id
            provenance = json.loads(row.document).get("provenance", {})
            used = set(provenance.get("calibs", {}).values())
            calibs |= {(number(one), row.id) for one in used}
            combined = provenance.get("inputs") or []
            inputs |= {(exposure, row.id) for exposure in combined}
            if row.pipeline.startswith("build_"):
                what = (row.detector, row.pipeline.removeprefix("build_"), len(combined), str(sorted(combined)))
                made.setdefault(what, set()).update(used)
        insert("result_calib", "calib", "result", calibs)
        insert("result_input", "exposure", "result", inputs)
    parents: set[tuple[int, int]] = set()
    exposures: set[tuple[int, int]] = set()
    for row in connection.execute(sa.text("SELECT detector, kind, CAST(document AS TEXT) AS document FROM calib")).fetchall():
        record = json.loads(row.document)
        own, combined = number(record["calib_id"]), record.get("inputs") or []
        exposures |= {(exposure, own) for exposure in combined}
        what = (row.detector, row.kind, len(combined), str(sorted(combined)))
        parents |= {(number(one), own) for one in made.get(what, set())}
    if new:
        # One by one, in order: the numbers given above are the rows'.
        for place, name in enumerate(new, start=1):
            connection.execute(sa.text("INSERT INTO calib_name (id, calib_id) VALUES (:n, :name)"), {"n": place, "name": name})
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT setval(pg_get_serial_sequence('calib_name', 'id'), :n)"), {"n": len(new)})
    insert("calib_input", "exposure", "calib", exposures)
    insert("calib_parent", "parent", "child", parents)
