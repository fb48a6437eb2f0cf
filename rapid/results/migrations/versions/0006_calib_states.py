"""States of calibs, and their history."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision; calibs that are there were all certified when they were made."""
    with op.batch_alter_table("calib") as calib:
        calib.add_column(sa.Column("state", sa.String(length=16), server_default="certified", nullable=False))
    op.create_table(
        "calib_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("calib_id", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(length=1000), server_default="", nullable=False),
        sa.Column("is_override", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_calib_event_calib", "calib_event", ["calib_id", "at"], unique=False)
    calibs = sa.table("calib", sa.column("id"), sa.column("camera"), sa.column("calib_id"), sa.column("created_at"))
    op.execute(
        sa.table(
            "calib_event",
            *(sa.column(name) for name in ("camera", "calib_id", "state", "at", "author", "reason", "is_override")),
        )
        .insert()
        .from_select(
            ["camera", "calib_id", "state", "at", "author", "reason", "is_override"],
            sa.select(
                calibs.c.camera,
                calibs.c.calib_id,
                sa.literal("certified"),
                calibs.c.created_at,
                sa.literal("policy"),
                sa.literal(""),
                sa.false(),
            ).order_by(calibs.c.id),
        )
    )


def downgrade() -> None:
    """Take the tables back to the revision before."""
    op.drop_index("ix_calib_event_calib", table_name="calib_event")
    op.drop_table("calib_event")
    with op.batch_alter_table("calib") as calib:
        calib.drop_column("state")
