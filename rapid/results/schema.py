"""Tables of the results store, the same in SQLite and PostgreSQL.

The migrations under ``migrations/`` make exactly these tables; a test compares the two. Documents are
kept whole as JSON beside the columns that queries need.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()

BigKey = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in an INTEGER key."""

detector_result = Table(
    "detector_result",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("run", String(64), nullable=False),
    Column("camera", String(64), nullable=False),
    Column("day_obs", Integer, nullable=False),
    Column("seq_num", Integer, nullable=False),
    Column("exposure", BigInteger, nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("detector", Integer, nullable=False),
    Column("image_type", String(32), nullable=False),
    Column("finished_at", DateTime, nullable=True),
    Column("document", JSON, nullable=False),
    UniqueConstraint("camera", "exposure", "run", "pipeline", "detector", name="uq_detector_result"),
    Index("ix_detector_result_day", "camera", "day_obs"),
)

exposure_summary = Table(
    "exposure_summary",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("run", String(64), nullable=False),
    Column("camera", String(64), nullable=False),
    Column("day_obs", Integer, nullable=False),
    Column("seq_num", Integer, nullable=False),
    Column("exposure", BigInteger, nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("image_type", String(32), nullable=False),
    Column("version", Integer, nullable=False),
    Column("newest", Boolean, nullable=False),
    Column("is_complete", Boolean, nullable=False),
    Column("gathered_at", DateTime, nullable=True),
    Column("document", JSON, nullable=False),
    UniqueConstraint("camera", "exposure", "run", "pipeline", "version", name="uq_exposure_summary"),
    Index("ix_exposure_summary_night", "camera", "day_obs", "newest", "seq_num"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("uri", String(2000), nullable=False),
    Column("code", String(64), nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("size_bytes", BigInteger, nullable=True),
    Column("exposure", BigInteger, nullable=True),
    Column("detector", Integer, nullable=True),
    Column("quarantined_at", DateTime, nullable=False),
    UniqueConstraint("camera", "uri", name="uq_quarantine"),
    Index("ix_quarantine_when", "camera", "quarantined_at"),
)

failure = Table(
    "failure",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("job_id", String(200), nullable=False, unique=True),
    Column("camera", String(64), nullable=False),
    Column("exposure", BigInteger, nullable=False),
    Column("detector", Integer, nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("code", String(64), nullable=False),
    Column("message", String(4000), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failed_at", DateTime, nullable=False),
    Column("document", JSON, nullable=False),
    Index("ix_failure_exposure", "camera", "exposure"),
)

calib = Table(
    "calib",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("calib_id", String(200), nullable=False, unique=True),
    Column("camera", String(64), nullable=False),
    Column("detector", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("physical_filter", String(64), nullable=False, server_default=""),
    Column("valid_from", DateTime, nullable=False),
    Column("valid_to", DateTime, nullable=True),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("state", String(16), nullable=False, server_default="certified"),
    Column("document", JSON, nullable=False),
    UniqueConstraint("camera", "detector", "kind", "physical_filter", "valid_from", "version", name="uq_calib"),
    Index("ix_calib_choice", "camera", "kind", "detector", "physical_filter", "valid_from"),
)

calib_event = Table(
    "calib_event",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("calib_id", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("at", DateTime, nullable=False),
    Column("author", String(200), nullable=False),
    Column("reason", String(1000), nullable=False, server_default=""),
    Column("is_override", Boolean, nullable=False),
    Index("ix_calib_event_calib", "calib_id", "at"),
)

control_change = Table(
    "control_change",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("door", String(32), nullable=False),
    Column("reason", String(1000), nullable=False),
    Column("change", JSON, nullable=False),
    Column("state", JSON, nullable=False),
    UniqueConstraint("camera", "version", name="uq_control_change"),
)

exclusion = Table(
    "exclusion",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("detector", Integer, nullable=False),
    Column("detector_name", String(32), nullable=False),
    Column("amp", String(32), nullable=False, server_default=""),
    Column("reason", String(500), nullable=False),
    Column("author", String(200), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("valid_from", DateTime, nullable=False),
    Column("valid_to", DateTime, nullable=True),
    Column("ended_by", String(200), nullable=True),
    Column("ended_at", DateTime, nullable=True),
    Column("end_reason", String(500), nullable=True),
    Index("ix_exclusion_when", "camera", "valid_from"),
)

request = Table(
    "request",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("client_key", String(128), nullable=True),
    Column("run", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("document", JSON, nullable=False),
    UniqueConstraint("camera", "request_id", name="uq_request"),
    Index("ix_request_open", "camera", "is_open", "created_ms"),
    Index("ix_request_key", "camera", "client_key"),
    Index("ix_request_run", "camera", "run"),
)

exposure_exclusion = Table(
    "exposure_exclusion",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("exposure", BigInteger, nullable=False),
    Column("detector", Integer, nullable=False),
    Column("detector_name", String(32), nullable=False),
    Column("rule", BigInteger, nullable=True),
    Column("reason", String(500), nullable=False),
    Column("author", String(200), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("ended_by", String(200), nullable=True),
    Column("ended_at", DateTime, nullable=True),
    Column("end_reason", String(500), nullable=True),
    Index("ix_exposure_exclusion", "camera", "exposure", "detector"),
    Index("ix_exposure_exclusion_rule", "rule"),
)

exclusion_rule = Table(
    "exclusion_rule",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("expression", String(1000), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("author", String(200), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("first_day", Integer, nullable=False),
    Column("last_day", Integer, nullable=True),
    Column("ended_by", String(200), nullable=True),
    Column("ended_at", DateTime, nullable=True),
    Column("end_reason", String(500), nullable=True),
    Index("ix_exclusion_rule", "camera", "ended_at"),
)

calib_name = Table(
    "calib_name",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("calib_id", String(200), nullable=False, unique=True),
)
"""Calib ids as numbers: the table of uses has a row per result and calib, hundreds of millions in a year."""

result_calib = Table(
    "result_calib",
    metadata,
    Column("calib", BigInteger, primary_key=True, autoincrement=False),
    Column("result", BigInteger, primary_key=True, autoincrement=False),
    Index("ix_result_calib_result", "result"),
    sqlite_with_rowid=False,
)

result_input = Table(
    "result_input",
    metadata,
    Column("exposure", BigInteger, primary_key=True, autoincrement=False),
    Column("result", BigInteger, primary_key=True, autoincrement=False),
    Index("ix_result_input_result", "result"),
    sqlite_with_rowid=False,
)

calib_parent = Table(
    "calib_parent",
    metadata,
    Column("parent", BigInteger, primary_key=True, autoincrement=False),
    Column("child", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

calib_input = Table(
    "calib_input",
    metadata,
    Column("exposure", BigInteger, primary_key=True, autoincrement=False),
    Column("calib", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
