"""One transaction of the feed: notes become numbers in arrays."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from rapid.results.models import DetectorResult
from rapid.results.schema import detector_result, exposure_summary
from rapid.results.sql import insert_for, naive
from rapid.results.trend_schema import trend_series, trend_values
from rapid.trends.channels import Channels, load_channels, save_channels
from rapid.trends.packing import ITEM, patched

_S = trend_series.c
_V = trend_values.c

Batch = tuple[str, int, str, str]
"""Camera, exposure, run, pipeline."""

Measured = tuple[str, str, str]
"""Metric, image type, condition: a series of a batch's camera, run and pipeline."""

NOT_TRENDED = frozenset({"verify_n_failed_amps"})
"""Numbers that are judgements on others."""


def condition_of(image_type: str, physical_filter: str | None, exposure_time_s: float | None, *, is_build: bool) -> str:
    """Return the conditions under which exposures can be compared.

    Examples
    --------
    >>> condition_of("flat", "r_57", 4.0, is_build=False)
    'r_57 4 s'
    >>> condition_of("flat", "r_57", 4.0, is_build=True)
    'r_57'
    >>> condition_of("bias", "r_57", 0.0, is_build=False)
    ''
    """
    words = [physical_filter] if image_type == "flat" and physical_filter else []
    if image_type != "bias" and exposure_time_s and not is_build:
        words.append(f"{exposure_time_s:.3g} s")
    return " ".join(words)[:128]


@dataclass
class _Document:
    """What one result says, by metric and amp."""

    detector: int
    detector_name: str
    day_obs: int
    image_type: str
    condition: str
    taken_at: datetime | None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


def _document_of(result: DetectorResult, info: dict[str, Any]) -> _Document:
    # Results from before these facts were part of them: the exposure's summary has them.
    physical_filter = result.physical_filter or info.get("physical_filter")
    exposure_time_s = result.exposure_time_s if result.exposure_time_s is not None else info.get("exposure_time_s")
    found = _Document(
        detector=result.detector,
        detector_name=result.detector_name,
        day_obs=result.day_obs,
        image_type=result.image_type,
        condition=condition_of(
            result.image_type, physical_filter, exposure_time_s, is_build=bool(result.provenance.inputs)
        ),
        taken_at=naive(result.begin),
    )
    for amp, row in {"": result.metrics, **result.amps}.items():
        for name, value in row.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if is_number and name not in NOT_TRENDED and len(name) <= 128:
                found.metrics.setdefault(name, {})[amp] = float(value or 0.0)
    return found


class Fold:
    """Writes what notes are about; within a transaction that alone may do so."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._insert = insert_for(connection.dialect)
        self._channels: dict[str, Channels] = {}

    def run(self, notes: Sequence[sa.Row[Any]]) -> None:
        """Bring the numbers of the noted results into the arrays."""
        batches: dict[Batch, set[int]] = {}
        for note in notes:
            batches.setdefault((note.camera, note.exposure, note.run, note.pipeline), set()).add(note.detector)
        sizes: dict[str, int] = {}
        for batch, detectors in batches.items():
            if batch[0] not in self._channels:
                channels = self._channels[batch[0]] = load_channels(self._connection, batch[0])
                sizes[batch[0]] = len(channels)
            self._fold(batch, detectors)
        for camera, channels in self._channels.items():
            save_channels(self._connection, camera, channels, since=sizes[camera])

    def _fold(self, batch: Batch, detectors: set[int]) -> None:
        documents = self._documents(batch, detectors)
        channels = self._channels[batch[0]]
        # All places of these detectors are emptied first: what a result no longer has must go.
        blank = np.array([row.position for row in channels.rows if row.detector in detectors], np.int64)
        numbers = _by_series(documents, channels)
        stored = self._stored(batch)
        known = self._series(batch, numbers)
        day_obs = documents[0].day_obs if documents else batch[1] // 100_000
        taken_at = min((one.taken_at for one in documents if one.taken_at is not None), default=None)
        rows: list[dict[str, Any]] = [
            {
                "series": known[key],
                "exposure": batch[1],
                "day_obs": day_obs,
                "taken_at": taken_at,
                "packed": patched(_emptied(stored.pop(known[key], None), blank), positions, values),
            }
            for key, (positions, values) in numbers.items()
        ]
        touched = {known[key] for key in numbers} | self._clear(batch[1], stored, blank)
        self._write(rows)
        mark_unwatched(self._connection, touched, day_obs)

    def _clear(self, exposure: int, stored: dict[int, bytes], blank: NDArray[np.int64]) -> set[int]:
        """Take numbers out of series to which the newest documents add none."""
        touched = set()
        for series, packed in stored.items():
            emptied = _emptied(packed, blank)
            if emptied == packed:
                continue
            touched.add(series)
            same = sa.and_(_V.series == series, _V.exposure == exposure)
            if np.isfinite(np.frombuffer(emptied or b"", "<f4")).any():
                self._connection.execute(trend_values.update().where(same).values(packed=emptied))
            else:
                self._connection.execute(trend_values.delete().where(same))
        return touched

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        statement: Any = self._insert(trend_values)
        new = statement.excluded
        updates = {
            "packed": new.packed,
            "day_obs": new.day_obs,
            "taken_at": sa.func.coalesce(new.taken_at, _V.taken_at),
        }
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["series", "exposure"], set_=updates), rows
        )

    def _documents(self, batch: Batch, detectors: set[int]) -> list[_Document]:
        camera, exposure, run, pipeline = batch
        r = detector_result.c
        rows = self._connection.execute(
            sa.select(sa.cast(r.document, sa.Text).label("document"))
            .where(r.camera == camera, r.exposure == exposure, r.run == run, r.pipeline == pipeline)
            .where(r.detector.in_(detectors))
            .order_by(r.detector)
        ).fetchall()
        results = [DetectorResult.model_validate_json(row.document) for row in rows]
        info = self._summary_info(batch) if any(result.begin is None for result in results) else {}
        return [_document_of(result, info) for result in results]

    def _summary_info(self, batch: Batch) -> dict[str, Any]:
        camera, exposure, run, pipeline = batch
        s = exposure_summary.c
        row = self._connection.execute(
            sa.select(sa.cast(s.document, sa.Text).label("document")).where(
                s.camera == camera, s.exposure == exposure, s.run == run, s.pipeline == pipeline, s.newest
            )
        ).first()
        found = json.loads(row.document).get("info") if row else None
        return found if isinstance(found, dict) else {}

    def _stored(self, batch: Batch) -> dict[int, bytes]:
        camera, exposure, run, pipeline = batch
        rows = self._connection.execute(
            sa.select(_V.series, _V.packed)
            .join(trend_series, _S.id == _V.series)
            .where(_V.exposure == exposure, _S.camera == camera, _S.run == run, _S.pipeline == pipeline)
        )
        return {row.series: bytes(row.packed) for row in rows}

    def _series(self, batch: Batch, keys: Iterable[Measured]) -> dict[Measured, int]:
        camera, _, run, pipeline = batch
        return ensure_series(self._connection, camera, run, pipeline, keys)


def _by_series(
    documents: Iterable[_Document], channels: Channels
) -> dict[Measured, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return places and numbers of every series; gives places to amps that are new."""
    found: dict[Measured, tuple[list[int], list[float]]] = {}
    for one in documents:
        place: dict[str, int] = {}
        for amp in ("", *sorted({amp for values in one.metrics.values() for amp in values} - {""})):
            known = channels.position(one.detector, amp)
            place[amp] = channels.add(one.detector, one.detector_name, amp).position if known is None else known
        for metric, values in one.metrics.items():
            positions, numbers = found.setdefault((metric, one.image_type, one.condition), ([], []))
            positions.extend(place[amp] for amp in values)
            numbers.extend(values.values())
    return {key: (np.array(positions, np.int64), np.array(numbers)) for key, (positions, numbers) in found.items()}


def _emptied(packed: bytes | None, blank: NDArray[np.int64]) -> bytes | None:
    if packed is None:
        return None
    known = blank[blank < len(packed) // ITEM]
    return patched(packed, known, np.full(len(known), np.nan))


def ensure_series(
    connection: sa.Connection, camera: str, run: str, pipeline: str, keys: Iterable[Measured]
) -> dict[Measured, int]:
    """Return the numbers of a pipeline's series, with those made that were not there."""
    wanted = sa.select(_S.id, _S.metric, _S.image_type, _S.condition).where(
        _S.camera == camera, _S.run == run, _S.pipeline == pipeline
    )

    def known() -> dict[Measured, int]:
        return {(row.metric, row.image_type, row.condition): row.id for row in connection.execute(wanted)}

    found = known()
    missing = [key for key in keys if key not in found]
    if missing:
        shared = {"camera": camera, "run": run, "pipeline": pipeline}
        rows = [{**shared, "metric": metric, "image_type": kind, "condition": c} for metric, kind, c in missing]
        connection.execute(trend_series.insert(), rows)
        found = known()
    return found


def mark_unwatched(connection: sa.Connection, series: set[int], day_obs: int) -> None:
    """Note that the numbers of a day are new, for whoever searches for changes."""
    if series:
        earliest = sa.case((_S.unwatched_day < day_obs, _S.unwatched_day), else_=day_obs)
        connection.execute(trend_series.update().where(_S.id.in_(series)).values(unwatched_day=earliest))
