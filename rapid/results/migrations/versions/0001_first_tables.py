"""First tables: detector results, exposure summaries, quarantine, failures, calibs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table('calib',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('calib_id', sa.String(length=200), nullable=False),
    sa.Column('camera', sa.String(length=64), nullable=False),
    sa.Column('detector', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('physical_filter', sa.String(length=64), server_default='', nullable=False),
    sa.Column('valid_from', sa.DateTime(), nullable=False),
    sa.Column('valid_to', sa.DateTime(), nullable=True),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('document', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('calib_id'),
    sa.UniqueConstraint('camera', 'detector', 'kind', 'physical_filter', 'valid_from', 'version', name='uq_calib')
    )
    op.create_index('ix_calib_choice', 'calib', ['camera', 'kind', 'detector', 'physical_filter', 'valid_from'], unique=False)
    op.create_table('detector_result',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('run', sa.String(length=64), nullable=False),
    sa.Column('camera', sa.String(length=64), nullable=False),
    sa.Column('day_obs', sa.Integer(), nullable=False),
    sa.Column('seq_num', sa.Integer(), nullable=False),
    sa.Column('exposure', sa.BigInteger(), nullable=False),
    sa.Column('pipeline', sa.String(length=64), nullable=False),
    sa.Column('detector', sa.Integer(), nullable=False),
    sa.Column('image_type', sa.String(length=32), nullable=False),
    sa.Column('finished_at', sa.DateTime(), nullable=True),
    sa.Column('document', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('camera', 'exposure', 'run', 'pipeline', 'detector', name='uq_detector_result')
    )
    op.create_index('ix_detector_result_day', 'detector_result', ['camera', 'day_obs'], unique=False)
    op.create_table('exposure_summary',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('run', sa.String(length=64), nullable=False),
    sa.Column('camera', sa.String(length=64), nullable=False),
    sa.Column('day_obs', sa.Integer(), nullable=False),
    sa.Column('seq_num', sa.Integer(), nullable=False),
    sa.Column('exposure', sa.BigInteger(), nullable=False),
    sa.Column('pipeline', sa.String(length=64), nullable=False),
    sa.Column('image_type', sa.String(length=32), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('newest', sa.Boolean(), nullable=False),
    sa.Column('is_complete', sa.Boolean(), nullable=False),
    sa.Column('gathered_at', sa.DateTime(), nullable=True),
    sa.Column('document', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('camera', 'exposure', 'run', 'pipeline', 'version', name='uq_exposure_summary')
    )
    op.create_index('ix_exposure_summary_night', 'exposure_summary', ['camera', 'day_obs', 'newest', 'seq_num'], unique=False)
    op.create_table('failure',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('job_id', sa.String(length=200), nullable=False),
    sa.Column('camera', sa.String(length=64), nullable=False),
    sa.Column('exposure', sa.BigInteger(), nullable=False),
    sa.Column('detector', sa.Integer(), nullable=False),
    sa.Column('pipeline', sa.String(length=64), nullable=False),
    sa.Column('code', sa.String(length=64), nullable=False),
    sa.Column('message', sa.String(length=4000), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('failed_at', sa.DateTime(), nullable=False),
    sa.Column('document', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('job_id')
    )
    op.create_index('ix_failure_exposure', 'failure', ['camera', 'exposure'], unique=False)
    op.create_table('quarantine',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('camera', sa.String(length=64), nullable=False),
    sa.Column('uri', sa.String(length=2000), nullable=False),
    sa.Column('code', sa.String(length=64), nullable=False),
    sa.Column('reason', sa.String(length=2000), nullable=False),
    sa.Column('size_bytes', sa.BigInteger(), nullable=True),
    sa.Column('exposure', sa.BigInteger(), nullable=True),
    sa.Column('detector', sa.Integer(), nullable=True),
    sa.Column('quarantined_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('camera', 'uri', name='uq_quarantine')
    )
    op.create_index('ix_quarantine_when', 'quarantine', ['camera', 'quarantined_at'], unique=False)


def downgrade() -> None:
    """Take the tables back to the revision before."""
    op.drop_index('ix_quarantine_when', table_name='quarantine')
    op.drop_table('quarantine')
    op.drop_index('ix_failure_exposure', table_name='failure')
    op.drop_table('failure')
    op.drop_index('ix_exposure_summary_night', table_name='exposure_summary')
    op.drop_table('exposure_summary')
    op.drop_index('ix_detector_result_day', table_name='detector_result')
    op.drop_table('detector_result')
    op.drop_index('ix_calib_choice', table_name='calib')
    op.drop_table('calib')
