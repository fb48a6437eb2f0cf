"""Results in SQL: SQLite on one machine, PostgreSQL at the summit.

Translation, no policy. Methods block and are quick; an asyncio role calls them through
`asyncio.to_thread`. Several processes may write to one SQLite file: write-ahead log and a busy timeout
make them wait for each other. NaN and infinities become None on the way in: JSON has no word for them.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import LeaseLostError, StoreError
from rapid.results import schema
from rapid.results.afterburner import OutdatedError, join_results, keep_joined
from rapid.results.changes_schema import note_change
from rapid.results.damaged import read_results, read_summary
from rapid.results.engine import open_engine
from rapid.results.models import DetectorResult, ExposureSummary, QuarantineRecord, Scalar
from rapid.results.registry import CalibRegistry
from rapid.results.sql import finite, insert_for, naive
from rapid.results.trend_schema import note_for_trends
from rapid.results.uses import record_result_uses


def _text(document: sa.Column[Any] | sa.ColumnElement[Any]) -> sa.Label[str]:
    """Return a document as text: a model reads it three times as fast as from Python's own JSON."""
    return sa.cast(document, sa.Text).label("document")


def _summary() -> tuple[Any, ...]:
    """Return the columns that a summary is read from, also if its document is damaged."""
    t = schema.exposure_summary.c
    return _text(t.document), t.run, t.camera, t.exposure, t.day_obs, t.seq_num, t.pipeline, t.image_type, t.version


class ResultsStore(CalibRegistry):
    """The results store; see `open_results`."""

    # Detector results

    def put_result(self, result: DetectorResult) -> None:
        """Write a detector's result; the newest of the same run, exposure, pipeline and detector stands.

        What an afterburner had added stays, if the result was made alike (`rapid.results.afterburner`).
        """
        try:
            with self._begin() as connection:
                stored = self._stored_result(connection, result, pipeline=result.pipeline)
                self._write_result(connection, result if stored is None else keep_joined(result, stored))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write detector_result: {error}") from error

    def join_result(self, after: DetectorResult, *, pipeline: str) -> DetectorResult:
        """Add what an afterburner found to the result it belongs to, in one transaction; return that result.

        Parameters
        ----------
        after
            The afterburner's own numbers, as `rapid.results.afterburner.join_results` takes them.
        pipeline
            The pipeline of the result.

        Raises
        ------
        NotJoinedError
            Raised if there is no such result, or if it is not the one that the afterburner has measured.
        StoreError
            Raised if the database does not answer.
        """
        try:
            with self._begin() as connection:
                stored = self._stored_result(connection, after, pipeline=pipeline)
                if stored is None:
                    raise OutdatedError(f"exposure {after.exposure} has no {pipeline} of detector {after.detector}")
                joined = join_results(stored, after)
                self._write_result(connection, joined)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write detector_result: {error}") from error
        return joined

    def _stored_result(
        self, connection: sa.Connection, like: DetectorResult, *, pipeline: str
    ) -> DetectorResult | None:
        """Return the stored result of a run, exposure, pipeline and detector; nobody else changes it meanwhile."""
        if self.engine.dialect.name != "postgresql":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # SQLite has one writer; this is one
        t = schema.detector_result.c
        statement = sa.select(_text(t.document), t.exposure, t.detector).where(
            t.camera == like.camera,
            t.exposure == like.exposure,
            t.run == like.run,
            t.pipeline == pipeline,
            t.detector == like.detector,
        )
        rows = connection.execute(statement.with_for_update()).fetchall()
        found = read_results(rows)
        return found[0] if found else None

    @staticmethod
    def _write_result(connection: sa.Connection, result: DetectorResult) -> None:
        row = {
            "run": result.run,
            "camera": result.camera,
            "day_obs": result.day_obs,
            "seq_num": result.seq_num,
            "exposure": result.exposure,
            "pipeline": result.pipeline,
            "detector": result.detector,
            "image_type": result.image_type,
            "finished_at": naive(result.finished_at),
            "document": finite(result.model_dump(mode="json")),
        }
        t = schema.detector_result
        insert = insert_for(connection.dialect)
        keys = ("camera", "exposure", "run", "pipeline", "detector")
        statement: Any = insert(t).values(row)
        updates = {name: statement.excluded[name] for name in row if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=updates).returning(t.c.id)
        result_key = connection.execute(statement).scalar_one()
        record_result_uses(connection, result_key, result)
        note_for_trends(connection, result)

    def results(
        self,
        exposure: int,
        *,
        camera: str | None = None,
        run: str | None = None,
        pipeline: str | None = None,
        detector: int | None = None,
    ) -> list[DetectorResult]:
        """Return the detector results of an exposure, by detector."""
        t = schema.detector_result.c
        conditions = [t.exposure == exposure]
        for column, value in ((t.camera, camera), (t.run, run), (t.pipeline, pipeline), (t.detector, detector)):
            if value is not None:
                conditions.append(column == value)
        columns = (_text(t.document), t.exposure, t.detector)
        return read_results(self._fetch(sa.select(*columns).where(*conditions).order_by(t.detector, t.id)))

    def night_results(
        self, camera: str, day_obs: int, *, detector: int, pipeline: str | None = None, run: str = "prompt"
    ) -> list[DetectorResult]:
        """Return a detector's results of a night, in the order they were taken: the history of its metrics."""
        t = schema.detector_result.c
        conditions = [t.camera == camera, t.day_obs == day_obs, t.detector == detector, t.run == run]
        if pipeline is not None:
            conditions.append(t.pipeline == pipeline)
        columns = (_text(t.document), t.exposure, t.detector)
        return read_results(self._fetch(sa.select(*columns).where(*conditions).order_by(t.exposure, t.pipeline)))

    def finished_detectors(self, camera: str, exposure: int, *, run: str = "prompt") -> dict[str, frozenset[int]]:
        """Return, by pipeline, the detectors of an exposure that have a result (recovery, invariant I2)."""
        t = schema.detector_result.c
        rows = self._fetch(
            sa.select(t.pipeline, t.detector).where(t.camera == camera, t.exposure == exposure, t.run == run)
        )
        found: dict[str, set[int]] = {}
        for row in rows:
            found.setdefault(row.pipeline, set()).add(row.detector)
        return {pipeline: frozenset(detectors) for pipeline, detectors in found.items()}

    # Exposure summaries

    def put_summary(self, summary: ExposureSummary) -> None:
        """Write one version of a summary and make it the newest if no later version exists.

        Raises
        ------
        LeaseLostError
            Raised if another gather, which began later, has written this version: who was silent for so long is late (I3).
        """
        t = schema.exposure_summary
        row = {
            "run": summary.run,
            "camera": summary.camera,
            "day_obs": summary.day_obs,
            "seq_num": summary.seq_num,
            "exposure": summary.exposure,
            "pipeline": summary.pipeline,
            "image_type": summary.image_type,
            "version": summary.version,
            "newest": True,
            "is_complete": summary.is_complete,
            "gathered_at": naive(summary.gathered_at),
            "document": finite(summary.model_dump(mode="json")),
        }
        same = (
            (t.c.camera == summary.camera)
            & (t.c.exposure == summary.exposure)
            & (t.c.run == summary.run)
            & (t.c.pipeline == summary.pipeline)
        )
        insert = insert_for(self.engine.dialect)
        keys = ["camera", "exposure", "run", "pipeline", "version"]
        statement: Any = insert(t)
        updates = {name: statement.excluded[name] for name in row if name not in keys}
        try:
            with self._begin() as connection:
                # Two versions written at once must not both end as the newest. SQLite has one writer anyway.
                self._lock(connection, summary.exposure)
                written = sa.select(t.c.document).where(same & (t.c.version == summary.version))
                before = connection.execute(written).scalar_one_or_none()
                if before is not None and before.get("token", 0) > summary.token:
                    what = f"summary {summary.version} of {summary.pipeline} of exposure {summary.exposure}"
                    raise LeaseLostError(f"the lease on {what} was given to another", what=what)
                connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=updates), [row])
                top = connection.execute(sa.select(sa.func.max(t.c.version)).where(same)).scalar_one()
                connection.execute(t.update().where(same).values(newest=(t.c.version == top)))
                note_change(connection, summary)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exposure_summary: {error}") from error

    def add_to_summary(
        self,
        summary: ExposureSummary,
        *,
        products: Mapping[str, str] | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        timings: Mapping[str, float] | None = None,
        n_afterburned: int | None = None,
        afterburners: Mapping[str, str] | None = None,
    ) -> ExposureSummary | None:
        """Add to one version of a summary what was made after it, in one transaction; return it as it stands then.

        Several do so, each with something else: plots, an afterburner's numbers with their origin. None if there is no
        such version.
        """
        t = schema.exposure_summary.c
        same = (
            (t.camera == summary.camera)
            & (t.exposure == summary.exposure)
            & (t.run == summary.run)
            & (t.pipeline == summary.pipeline)
            & (t.version == summary.version)
        )
        try:
            with self._begin() as connection:
                self._lock(connection, summary.exposure)
                row = connection.execute(sa.select(*_summary()).where(same)).one_or_none()
                if row is None:
                    return None
                stored = read_summary(row)
                origin = stored.provenance
                if origin is not None and afterburners is not None:
                    origin = origin.model_copy(update={"afterburners": dict(afterburners)})
                changed = stored.model_copy(
                    update={
                        "provenance": origin,
                        "products": {**stored.products, **(products or {})},
                        "metrics": {**stored.metrics, **(metrics or {})},
                        "timings": {**stored.timings, **(timings or {})},
                        "n_afterburned": stored.n_afterburned if n_afterburned is None else n_afterburned,
                    }
                )
                document = finite(changed.model_dump(mode="json"))
                connection.execute(schema.exposure_summary.update().where(same).values(document=document))
                note_change(connection, changed)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exposure_summary: {error}") from error
        return changed

    def summaries(
        self,
        camera: str,
        *,
        day_obs: int | None = None,
        limit: int = 1000,
        before: int | None = None,
        run: str | None = "prompt",
    ) -> list[ExposureSummary]:
        """Return the newest version of each summary, newest exposure first.

        Parameters
        ----------
        day_obs
            Only this night's.
        before
            Only exposures with a smaller id: for paging.
        """
        t = schema.exposure_summary.c
        conditions: list[Any] = [t.camera == camera, t.newest]
        if day_obs is not None:
            conditions.append(t.day_obs == day_obs)
        if before is not None:
            conditions.append(t.exposure < before)
        if run is not None:
            conditions.append(t.run == run)
        statement = sa.select(*_summary()).where(*conditions).order_by(t.exposure.desc(), t.pipeline).limit(limit)
        return [read_summary(row) for row in self._fetch(statement)]

    def summary_versions(self, camera: str, exposure: int) -> list[ExposureSummary]:
        """Return every version of every summary of an exposure, newest version first."""
        t = schema.exposure_summary.c
        statement = (
            sa.select(*_summary())
            .where(t.camera == camera, t.exposure == exposure)
            .order_by(t.run, t.pipeline, t.version.desc())
        )
        return [read_summary(row) for row in self._fetch(statement)]

    def same_summary(self, summary: ExposureSummary) -> ExposureSummary | None:
        """Return a version of a summary as it stands now; None if it is not there."""
        return self.summary_version(
            summary.camera, summary.exposure, run=summary.run, pipeline=summary.pipeline, version=summary.version
        )

    def summary_version(
        self, camera: str, exposure: int, *, run: str, pipeline: str, version: int
    ) -> ExposureSummary | None:
        """Return one version of one summary; None if it is not there."""
        t = schema.exposure_summary.c
        same = (t.camera == camera, t.exposure == exposure, t.run == run, t.pipeline == pipeline, t.version == version)
        rows = self._fetch(sa.select(*_summary()).where(*same))
        return read_summary(rows[0]) if rows else None

    def latest_summary(
        self, camera: str, exposure: int, *, pipeline: str | None = None, run: str = "prompt"
    ) -> ExposureSummary | None:
        """Return the newest version of an exposure's summary; of several pipelines', the one gathered last."""
        t = schema.exposure_summary.c
        conditions: list[Any] = [t.camera == camera, t.exposure == exposure, t.run == run, t.newest]
        if pipeline is not None:
            conditions.append(t.pipeline == pipeline)
        rows = self._fetch(
            sa.select(*_summary()).where(*conditions).order_by(t.gathered_at.desc(), t.id.desc()).limit(1)
        )
        return read_summary(rows[0]) if rows else None

    def complete_batches(self, camera: str, *, day_obs: int, run: str = "prompt") -> frozenset[tuple[int, str]]:
        """Return (exposure, pipeline) of every summary of a night whose newest version is complete."""
        t = schema.exposure_summary.c
        rows = self._fetch(
            sa.select(t.exposure, t.pipeline).where(
                t.camera == camera, t.day_obs == day_obs, t.run == run, t.newest, t.is_complete
            )
        )
        return frozenset((row.exposure, row.pipeline) for row in rows)

    def nights(self, camera: str) -> list[tuple[int, int]]:
        """Return day_obs and number of exposures of every night, newest first."""
        t = schema.exposure_summary.c
        count = sa.func.count(sa.distinct(t.exposure))
        statement = sa.select(t.day_obs, count.label("n")).where(t.camera == camera)
        rows = self._fetch(statement.group_by(t.day_obs).order_by(t.day_obs.desc()))
        return [(row.day_obs, row.n) for row in rows]

    # Quarantine and failures

    def put_quarantine(self, record: QuarantineRecord) -> None:
        """Record a raw that could not be read; the newest reason for a URI stands."""
        row = record.model_dump()
        row["quarantined_at"] = naive(record.quarantined_at)
        row["reason"] = record.reason[:2000]
        self._upsert(schema.quarantine, [row], ("camera", "uri"))

    def quarantined(self, camera: str, *, limit: int = 200) -> list[QuarantineRecord]:
        """Return quarantined raws, newest first."""
        table = schema.quarantine
        statement = (
            sa.select(table).where(table.c.camera == camera).order_by(table.c.quarantined_at.desc()).limit(limit)
        )
        return [
            QuarantineRecord.model_validate(
                {
                    name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
                    for name, value in row._mapping.items()
                    if name != "id"
                }
            )
            for row in self._fetch(statement)
        ]

    def release_quarantine(self, camera: str, uri: str) -> None:
        """Forget a quarantined raw: a good one came under the same name."""
        table = schema.quarantine
        try:
            with self._begin() as connection:
                connection.execute(table.delete().where(table.c.camera == camera, table.c.uri == uri))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error

    def put_failure(
        self,
        *,
        job_id: str,
        camera: str,
        exposure: int,
        detector: int,
        pipeline: str,
        attempts: int,
        error: dict[str, Any],
        failed_at: datetime,
    ) -> None:
        """Record a job that ended in the dead letters."""
        row = {
            "job_id": job_id,
            "camera": camera,
            "exposure": exposure,
            "detector": detector,
            "pipeline": pipeline,
            "code": str(error.get("code", "unknown"))[:64],
            "message": str(error.get("message", ""))[:4000],
            "attempts": attempts,
            "failed_at": naive(failed_at),
            "document": finite(error),
        }
        self._upsert(schema.failure, [row], ("job_id",))

    def failures(self, camera: str, *, exposure: int | None = None, limit: int = 200) -> list[dict[str, Any]]:
        """Return failed jobs, newest first: the row's columns and the error document."""
        table = schema.failure
        conditions = [table.c.camera == camera]
        if exposure is not None:
            conditions.append(table.c.exposure == exposure)
        rows = self._fetch(sa.select(table).where(*conditions).order_by(table.c.failed_at.desc()).limit(limit))
        return [{name: value for name, value in row._mapping.items() if name != "id"} for row in rows]

    def forget_failure(self, job_id: str) -> None:
        """Remove a failure: its job was retried with success, or discarded."""
        table = schema.failure
        try:
            with self._begin() as connection:
                connection.execute(table.delete().where(table.c.job_id == job_id))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error


def open_results(url: str) -> ResultsStore:
    """Open the results store and bring its tables to the newest migration.

    Parameters
    ----------
    url
        ``sqlite:////absolute/path``, ``postgresql://user@host/name``, or the path of an SQLite file.

    Raises
    ------
    ConfigurationError
        Raised for a URL that names no database, or a database that newer software has migrated.
    StoreError
        Raised if the database does not answer.
    """
    return ResultsStore(open_engine(url))


def summaries_by_exposure(summaries: Iterable[ExposureSummary]) -> dict[int, list[ExposureSummary]]:
    """Return summaries grouped by exposure, order kept."""
    grouped: dict[int, list[ExposureSummary]] = {}
    for summary in summaries:
        grouped.setdefault(summary.exposure, []).append(summary)
    return grouped
