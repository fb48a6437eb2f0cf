"""How often summaries and nights have changed, and what of it somebody outside has."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision; what is stored has changed once."""
    op.create_table(
        "night_change",
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("day_obs", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("camera", "day_obs", "run"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "summary_change",
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("day_obs", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("exposure", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("pipeline", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("camera", "day_obs", "run", "exposure", "pipeline"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "night_put",
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("day_obs", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("place", "camera", "day_obs", "run"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "summary_put",
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("day_obs", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("exposure", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("pipeline", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("place", "camera", "day_obs", "run", "exposure", "pipeline"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "calib_put",
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("event", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("place", "camera"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO summary_change (camera, day_obs, run, exposure, pipeline, n) "
        "SELECT DISTINCT camera, day_obs, run, exposure, pipeline, 1 FROM exposure_summary WHERE newest"
    )
    op.execute(
        "INSERT INTO night_change (camera, day_obs, run, n) SELECT DISTINCT camera, day_obs, run, 1 FROM summary_change"
    )


def downgrade() -> None:
    """Take the tables back to the revision before."""
    for name in ("calib_put", "summary_put", "night_put", "summary_change", "night_change"):
        op.drop_table(name)
