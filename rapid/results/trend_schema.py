"""Tables of the trends, and the note that every stored calibration result leaves for them.

A result's numbers are wanted in two ways: all of one exposure (the results store's documents) and one number over
months (the trends). The note is written in the transaction that stores the result, so that no number can be lost on the
way from one to the other; `rapid.trends.store` works the notes off. Arrays are little-endian float32, one number per
channel; a channel is an amp of a camera, or with an empty amp name the detector as a whole.
"""

import sqlalchemy as sa
from sqlalchemy import JSON, BigInteger, Column, DateTime, Index, Integer, LargeBinary, String, Table, UniqueConstraint

from rapid.exposure.models import ImageType
from rapid.results.models import DetectorResult
from rapid.results.schema import BigKey, metadata

TRENDED = frozenset(kind.value for kind in ImageType if kind.is_calibration)
"""Image types whose numbers are trended: a sky image's say more of the sky than of the camera."""

trend_pending = Table(
    "trend_pending",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("exposure", BigInteger, nullable=False),
    Column("run", String(64), nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("detector", Integer, nullable=False),
)
"""Results whose numbers are not in the trends yet."""

trend_channel = Table(
    "trend_channel",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    Column("detector", Integer, nullable=False),
    Column("detector_name", String(32), nullable=False),
    Column("amp", String(32), nullable=False),
    UniqueConstraint("camera", "position", name="uq_trend_channel_position"),
    UniqueConstraint("camera", "detector", "amp", name="uq_trend_channel"),
)
"""Which place in the arrays is whose. Places are given once and for all; new amps come behind."""

trend_series = Table(
    "trend_series",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("run", String(64), nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("image_type", String(32), nullable=False),
    Column("condition", String(128), nullable=False),
    Column("metric", String(128), nullable=False),
    Column("unwatched_day", Integer, nullable=True),
    UniqueConstraint("camera", "metric", "image_type", "condition", "pipeline", "run", name="uq_trend_series"),
    Index("ix_trend_series_unwatched", "camera", "unwatched_day"),
)
"""What is measured alike, and the first day whose numbers nobody has searched for changes yet."""

trend_values = Table(
    "trend_values",
    metadata,
    Column("series", BigInteger, primary_key=True, autoincrement=False),
    Column("exposure", BigInteger, primary_key=True, autoincrement=False),
    Column("day_obs", Integer, nullable=False),
    Column("taken_at", DateTime, nullable=True),
    Column("packed", LargeBinary, nullable=False),
    Index("ix_trend_values_exposure", "exposure"),
)
"""One number of every channel for one exposure. Without compression: a part is then read by itself."""

trend_alarm = Table(
    "trend_alarm",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("camera", String(64), nullable=False),
    Column("series", BigInteger, nullable=False),
    Column("metric", String(128), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("target", String(64), nullable=False),
    Column("detector", Integer, nullable=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("onset_day", Integer, nullable=False),
    Column("raised_at", DateTime, nullable=False),
    Column("document", JSON, nullable=False),
    Index("ix_trend_alarm_state", "camera", "state", "onset_day"),
    Index("ix_trend_alarm_series", "series", "onset_day"),
)


def note_for_trends(connection: sa.Connection, result: DetectorResult) -> None:
    """Leave a note that a result's numbers are to go into the trends, if it is one of a calibration exposure."""
    if result.image_type in TRENDED and (result.amps or result.metrics):
        row = {name: getattr(result, name) for name in ("camera", "exposure", "run", "pipeline", "detector")}
        connection.execute(trend_pending.insert(), [row])
