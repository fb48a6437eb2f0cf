"""Requests."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "request",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("client_key", sa.String(length=128), nullable=True),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("camera", "request_id", name="uq_request"),
    )
    op.create_index("ix_request_open", "request", ["camera", "is_open", "created_ms"], unique=False)
    op.create_index("ix_request_key", "request", ["camera", "client_key"], unique=False)
    op.create_index("ix_request_run", "request", ["camera", "run"], unique=False)


def downgrade() -> None:
    """Take the tables back to the revision before."""
    op.drop_index("ix_request_run", table_name="request")
    op.drop_index("ix_request_key", table_name="request")
    op.drop_index("ix_request_open", table_name="request")
    op.drop_table("request")
