"""Trends: every number of the calibrations over months, and alarms."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "trend_pending",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("exposure", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("pipeline", sa.String(length=64), nullable=False),
        sa.Column("detector", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    # What was stored before there were trends shall be in them as well.
    op.execute(
        "INSERT INTO trend_pending (camera, exposure, run, pipeline, detector) "
        "SELECT camera, exposure, run, pipeline, detector FROM detector_result "
        "WHERE image_type IN ('bias', 'dark', 'flat') ORDER BY exposure, detector"
    )
    op.create_table(
        "trend_channel",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("detector", sa.Integer(), nullable=False),
        sa.Column("detector_name", sa.String(length=32), nullable=False),
        sa.Column("amp", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("camera", "position", name="uq_trend_channel_position"),
        sa.UniqueConstraint("camera", "detector", "amp", name="uq_trend_channel"),
    )
    op.create_table(
        "trend_series",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("pipeline", sa.String(length=64), nullable=False),
        sa.Column("image_type", sa.String(length=32), nullable=False),
        sa.Column("condition", sa.String(length=128), nullable=False),
        sa.Column("metric", sa.String(length=128), nullable=False),
        sa.Column("unwatched_day", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "camera", "metric", "image_type", "condition", "pipeline", "run", name="uq_trend_series"
        ),
    )
    op.create_index("ix_trend_series_unwatched", "trend_series", ["camera", "unwatched_day"], unique=False)
    op.create_table(
        "trend_values",
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("exposure", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day_obs", sa.Integer(), nullable=False),
        sa.Column("taken_at", sa.DateTime(), nullable=True),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("series", "exposure"),
    )
    op.create_index("ix_trend_values_exposure", "trend_values", ["exposure"], unique=False)
    if op.get_bind().dialect.name == "postgresql":
        # Out of the row and without compression: a detector's part is then read without the rest.
        op.execute("ALTER TABLE trend_values ALTER COLUMN packed SET STORAGE EXTERNAL")
    op.create_table(
        "trend_alarm",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("series", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.String(length=128), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("detector", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("onset_day", sa.Integer(), nullable=False),
        sa.Column("raised_at", sa.DateTime(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_trend_alarm_state", "trend_alarm", ["camera", "state", "onset_day"], unique=False)
    op.create_index("ix_trend_alarm_series", "trend_alarm", ["series", "onset_day"], unique=False)


def downgrade() -> None:
    """Take the tables back to the revision before."""
    op.drop_index("ix_trend_alarm_series", table_name="trend_alarm")
    op.drop_index("ix_trend_alarm_state", table_name="trend_alarm")
    op.drop_table("trend_alarm")
    op.drop_index("ix_trend_values_exposure", table_name="trend_values")
    op.drop_table("trend_values")
    op.drop_index("ix_trend_series_unwatched", table_name="trend_series")
    op.drop_table("trend_series")
    op.drop_table("trend_channel")
    op.drop_table("trend_pending")
