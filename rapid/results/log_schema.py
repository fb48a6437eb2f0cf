"""Tables of what people write down: comments on exposures, orders to the cluster; and who starts workers."""

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, String, Table, Text, UniqueConstraint

from rapid.results.schema import BigKey, metadata

night_log = Table(
    "night_log",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("day_obs", Integer, nullable=False),
    Column("exposure", BigInteger, nullable=True),
    Column("author", String(200), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("text", Text, nullable=False),
    Column("flag", String(16), nullable=True),
    Column("replaces", BigInteger, nullable=True),
    Column("retracted_by", String(200), nullable=True),
    Column("retracted_at", DateTime, nullable=True),
    Index("ix_night_log_night", "camera", "day_obs", "id"),
    Index("ix_night_log_exposure", "camera", "exposure"),
)
"""Never deleted from: what is taken back stays, with who took it back."""

cluster_order = Table(
    "cluster_order",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("target", String(200), nullable=False),
    Column("value", Integer, nullable=True),
    Column("reason", String(500), nullable=False),
    Column("author", String(200), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("outcome", String(1000), nullable=False),
    Column("ended_at", DateTime, nullable=True),
    Index("ix_cluster_order_state", "camera", "state"),
)

supervisor = Table(
    "supervisor",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("host", String(200), nullable=False),
    Column("n_workers", Integer, nullable=False),
    Column("max_workers", Integer, nullable=False),
    Column("seen_at", DateTime, nullable=False),
    UniqueConstraint("camera", "name", name="uq_supervisor"),
)
