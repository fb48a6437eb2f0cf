"""Results in SQL: SQLite on one machine, PostgreSQL at the summit.

Translation, no policy. Methods block and are quick; an asyncio role calls them through
`asyncio.to_thread`. Several processes may write to one SQLite file: write-ahead log and a busy timeout
make them wait for each other. NaN and infinities never reach a document (models hold None).
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from rapid.errors import ConfigurationError, StoreError
from rapid.results import schema
from rapid.results.models import CalibRecord, DetectorResult, ExposureSummary, QuarantineRecord

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another one before it is an error."""

MIGRATION_LOCK = 0x7261706964
"""PostgreSQL advisory lock ("rapid" in ASCII) that serialises roles which start together."""


def _naive(moment: datetime | None) -> datetime | None:
    """Return a moment as UTC without zone: how the tables keep it."""
    if moment is not None and moment.tzinfo is not None:
        return moment.astimezone(UTC).replace(tzinfo=None)
    return moment


class ResultsStore:
    """The results store.

    Parameters
    ----------
    engine
        An engine whose tables are at the newest migration; see `open_results`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()

    def ping(self) -> None:
        """Raise `StoreError` if the database does not answer."""
        self._fetch(sa.select(sa.literal(1)))

    def _begin(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def _fetch(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        try:
            with self.engine.connect() as connection:
                return connection.execute(statement).fetchall()
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error

    def _upsert(self, table: sa.Table, rows: list[dict[str, Any]], keys: Sequence[str]) -> None:
        if not rows:
            return
        insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        statement: Any = insert(table)
        updates = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=updates)
        try:
            with self._begin() as connection:
                connection.execute(statement, rows)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write {table.name}: {error}") from error

    # Detector results

    def put_result(self, result: DetectorResult) -> None:
        """Write a detector's result; the newest of the same run, exposure, pipeline and detector stands."""
        row = {
            "run": result.run,
            "camera": result.camera,
            "day_obs": result.day_obs,
            "seq_num": result.seq_num,
            "exposure": result.exposure,
            "pipeline": result.pipeline,
            "detector": result.detector,
            "image_type": result.image_type,
            "finished_at": _naive(result.finished_at),
            "document": result.model_dump(mode="json"),
        }
        self._upsert(schema.detector_result, [row], ("camera", "exposure", "run", "pipeline", "detector"))

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
        rows = self._fetch(sa.select(t.document).where(*conditions).order_by(t.detector, t.id))
        return [DetectorResult.model_validate(row.document) for row in rows]

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
        """Write one version of a summary and make it the newest if no later version exists."""
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
            "gathered_at": _naive(summary.gathered_at),
            "document": summary.model_dump(mode="json"),
        }
        same = (
            (t.c.camera == summary.camera)
            & (t.c.exposure == summary.exposure)
            & (t.c.run == summary.run)
            & (t.c.pipeline == summary.pipeline)
        )
        insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        keys = ["camera", "exposure", "run", "pipeline", "version"]
        statement: Any = insert(t)
        updates = {name: statement.excluded[name] for name in row if name not in keys}
        try:
            with self._begin() as connection:
                connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=updates), [row])
                top = connection.execute(sa.select(sa.func.max(t.c.version)).where(same)).scalar_one()
                connection.execute(t.update().where(same).values(newest=(t.c.version == top)))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exposure_summary: {error}") from error

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
        statement = sa.select(t.document).where(*conditions).order_by(t.exposure.desc(), t.pipeline).limit(limit)
        return [ExposureSummary.model_validate(row.document) for row in self._fetch(statement)]

    def summary_versions(self, camera: str, exposure: int) -> list[ExposureSummary]:
        """Return every version of every summary of an exposure, newest version first."""
        t = schema.exposure_summary.c
        statement = (
            sa.select(t.document)
            .where(t.camera == camera, t.exposure == exposure)
            .order_by(t.run, t.pipeline, t.version.desc())
        )
        return [ExposureSummary.model_validate(row.document) for row in self._fetch(statement)]

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
        row["quarantined_at"] = _naive(record.quarantined_at)
        row["reason"] = record.reason[:2000]
        self._upsert(schema.quarantine, [row], ("camera", "uri"))

    def quarantined(self, camera: str, *, limit: int = 200) -> list[QuarantineRecord]:
        """Return quarantined raws, newest first."""
        table = schema.quarantine
        statement = sa.select(table).where(table.c.camera == camera).order_by(table.c.quarantined_at.desc()).limit(limit)
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
            "failed_at": _naive(failed_at),
            "document": error,
        }
        self._upsert(schema.failure, [row], ("job_id",))

    def failures(self, camera: str, *, exposure: int | None = None, limit: int = 200) -> list[dict[str, Any]]:
        """Return failed jobs, newest first: the row's columns and the error document."""
        table = schema.failure
        conditions = [table.c.camera == camera]
        if exposure is not None:
            conditions.append(table.c.exposure == exposure)
        rows = self._fetch(sa.select(table).where(*conditions).order_by(table.c.failed_at.desc()).limit(limit))
        return [
            {name: value for name, value in row._mapping.items() if name != "id"}
            for row in rows
        ]

    def forget_failure(self, job_id: str) -> None:
        """Remove a failure: its job was retried with success, or discarded."""
        table = schema.failure
        try:
            with self._begin() as connection:
                connection.execute(table.delete().where(table.c.job_id == job_id))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error

    # Calibs

    def put_calib(self, record: CalibRecord) -> None:
        """Register a certified calib; an id is never reused for another."""
        row = {
            "calib_id": record.calib_id,
            "camera": record.camera,
            "detector": record.detector,
            "kind": record.kind,
            "physical_filter": record.physical_filter or "",
            "valid_from": _naive(record.valid_from),
            "valid_to": _naive(record.valid_to),
            "version": record.version,
            "created_at": _naive(record.created_at),
            "document": record.model_dump(mode="json"),
        }
        self._upsert(schema.calib, [row], ("calib_id",))

    def calibs(
        self,
        camera: str,
        *,
        kind: str | None = None,
        detector: int | None = None,
        physical_filter: str | None = None,
        at: datetime | None = None,
        as_of: datetime | None = None,
    ) -> list[CalibRecord]:
        """Return certified calibs, the preferred one first.

        Parameters
        ----------
        at
            Only those valid at this time.
        as_of
            Only those that had been certified by then: what a look-up would have found.
        """
        t = schema.calib.c
        conditions: list[Any] = [t.camera == camera]
        if kind is not None:
            conditions.append(t.kind == kind)
        if detector is not None:
            conditions.append(t.detector == detector)
        if physical_filter is not None:
            conditions.append(t.physical_filter == physical_filter)
        if at is not None:
            moment = _naive(at)
            conditions.extend((t.valid_from <= moment, sa.or_(t.valid_to.is_(None), t.valid_to > moment)))
        if as_of is not None:
            conditions.append(t.created_at <= _naive(as_of))
        statement = sa.select(t.document).where(*conditions).order_by(t.valid_from.desc(), t.version.desc(), t.id.desc())
        return [CalibRecord.model_validate(row.document) for row in self._fetch(statement)]

    def calib_generation(self) -> int:
        """Return a number that grows with every certified calib: the cheap question of a cache."""
        return int(self._fetch(sa.select(sa.func.coalesce(sa.func.max(schema.calib.c.id), 0)))[0][0])


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={int(BUSY_TIMEOUT_S * 1000)}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        else:
            # Roles that start together take turns: look and migrate are one transaction.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def open_results(url: str) -> ResultsStore:
    """Open the results store and bring its tables to the newest migration.

    Parameters
    ----------
    url
        ``sqlite:////absolute/path`` , ``postgresql+psycopg://...``, or the path of an SQLite file.

    Raises
    ------
    ConfigurationError
        Raised for a URL that names no database.
    StoreError
        Raised if the database does not answer.
    """
    if "://" not in url:
        path = Path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{path.absolute()}"
    try:
        is_sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if is_sqlite else {"pool_pre_ping": True}
        engine = sa.create_engine(url, **options)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        raise ConfigurationError("results_url", str(error)) from error
    if is_sqlite:
        sa.event.listen(engine, "connect", _configure_sqlite)
    try:
        _retry_busy(lambda: _migrate(engine))
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(f"results store {engine.url!r}: {error}") from error
    return ResultsStore(engine)


def _retry_busy(action: Any) -> None:
    """Do an action again while another process switches the file to write-ahead logging."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            action()
        except (OperationalError, DBAPIError) as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        else:
            return


def summaries_by_exposure(summaries: Iterable[ExposureSummary]) -> dict[int, list[ExposureSummary]]:
    """Return summaries grouped by exposure, order kept."""
    grouped: dict[int, list[ExposureSummary]] = {}
    for summary in summaries:
        grouped.setdefault(summary.exposure, []).append(summary)
    return grouped
