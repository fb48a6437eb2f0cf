"""The night log, orders to the cluster, and who starts workers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "night_log",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("day_obs", sa.Integer(), nullable=False),
        sa.Column("exposure", sa.BigInteger(), nullable=True),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("flag", sa.String(length=16), nullable=True),
        sa.Column("replaces", sa.BigInteger(), nullable=True),
        sa.Column("retracted_by", sa.String(length=200), nullable=True),
        sa.Column("retracted_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_night_log_night", "night_log", ["camera", "day_obs", "id"], unique=False)
    op.create_index("ix_night_log_exposure", "night_log", ["camera", "exposure"], unique=False)
    op.create_table(
        "cluster_order",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("value", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=1000), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_cluster_order_state", "cluster_order", ["camera", "state"], unique=False)
    op.create_table(
        "supervisor",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("n_workers", sa.Integer(), nullable=False),
        sa.Column("max_workers", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("camera", "name", name="uq_supervisor"),
    )


def downgrade() -> None:
    """Take the tables back to the revision before."""
    op.drop_table("supervisor")
    op.drop_index("ix_cluster_order_state", table_name="cluster_order")
    op.drop_table("cluster_order")
    op.drop_index("ix_night_log_exposure", table_name="night_log")
    op.drop_index("ix_night_log_night", table_name="night_log")
    op.drop_table("night_log")
