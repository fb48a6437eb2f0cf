"""What of the results has not been put into a place outside yet: told from two counters, not by looking at it all."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import StoreError
from rapid.results import schema
from rapid.results.changes_schema import calib_put, night_change, night_put, summary_change, summary_put
from rapid.results.sql import SqlStore

UNNAMED = "request-"
"""Begins the run of a request that nobody gave a name: asked for by the way, and kept by nobody."""


@dataclass(frozen=True)
class DueNight:
    """A night of a run with something that is not there yet.

    Attributes
    ----------
    n
        Its number of changes: to be noted as put once nothing of it is due.
    """

    day_obs: int
    run: str
    n: int


@dataclass(frozen=True)
class DueSummary:
    """A summary that is not there yet, or not as it is now."""

    exposure: int
    day_obs: int
    run: str
    pipeline: str
    n: int


@dataclass(frozen=True)
class CalibLine:
    """All calibs of a kind of a detector, of flats those of a filter: of them one is chosen at a time.

    Attributes
    ----------
    event
        Newest change of the state of one of them.
    """

    kind: str
    detector: int
    physical_filter: str
    event: int


class Changes(SqlStore):
    """What a place outside lacks.

    Methods block. Each raises `StoreError` if the database does not answer.
    """

    def due_nights(self, place: str, camera: str) -> list[DueNight]:
        """Return the nights with something due, newest first; the night's own run before campaigns'."""
        c, p = night_change.c, night_put.c
        joined = night_change.outerjoin(
            night_put,
            (p.place == place) & (p.camera == c.camera) & (p.day_obs == c.day_obs) & (p.run == c.run),
        )
        statement = (
            sa.select(c.day_obs, c.run, c.n)
            .select_from(joined)
            .where(c.camera == camera, ~c.run.startswith(UNNAMED, autoescape=True), sa.or_(p.n.is_(None), p.n != c.n))
        )
        found = [DueNight(row.day_obs, row.run, row.n) for row in self._fetch(statement)]
        return sorted(found, key=lambda one: (-one.day_obs, one.run != "prompt", one.run))

    def due_summaries(self, place: str, camera: str, night: DueNight) -> list[DueSummary]:
        """Return what is due of a night, newest exposure first."""
        c = summary_change.c
        statement = (
            sa.select(c.exposure, c.pipeline, c.n)
            .select_from(self._summaries(place))
            .where(c.camera == camera, c.day_obs == night.day_obs, c.run == night.run, self._is_due())
            .order_by(c.exposure.desc(), c.pipeline)
        )
        return [
            DueSummary(row.exposure, night.day_obs, night.run, row.pipeline, row.n) for row in self._fetch(statement)
        ]

    def n_due(self, place: str, camera: str) -> int:
        """Return how many summaries are due, of all nights and runs."""
        c, p = night_change.c, night_put.c
        nights = self._summaries(place).join(
            night_change,
            (c.camera == summary_change.c.camera)
            & (c.day_obs == summary_change.c.day_obs)
            & (c.run == summary_change.c.run),
        )
        nights = nights.outerjoin(
            night_put, (p.place == place) & (p.camera == c.camera) & (p.day_obs == c.day_obs) & (p.run == c.run)
        )
        statement = (
            sa.select(sa.func.count())
            .select_from(nights)
            .where(c.camera == camera, ~c.run.startswith(UNNAMED, autoescape=True), self._is_due())
            .where(sa.or_(p.n.is_(None), p.n != c.n))
        )
        return int(self._fetch(statement)[0][0])

    @staticmethod
    def _summaries(place: str) -> sa.Join:
        c, p = summary_change.c, summary_put.c
        return summary_change.outerjoin(
            summary_put,
            (p.place == place)
            & (p.camera == c.camera)
            & (p.day_obs == c.day_obs)
            & (p.run == c.run)
            & (p.exposure == c.exposure)
            & (p.pipeline == c.pipeline),
        )

    @staticmethod
    def _is_due() -> sa.ColumnElement[bool]:
        return sa.or_(summary_put.c.n.is_(None), summary_put.c.n != summary_change.c.n)

    def n_changes(self, camera: str, *, day_obs: int, run: str, exposure: int, pipeline: str) -> int:
        """Return how often a summary has changed; to be asked before it is read."""
        c = summary_change.c
        rows = self._fetch(
            sa.select(c.n).where(
                c.camera == camera,
                c.day_obs == day_obs,
                c.run == run,
                c.exposure == exposure,
                c.pipeline == pipeline,
            )
        )
        return int(rows[0].n) if rows else 0

    def note_put(self, place: str, camera: str, put: DueSummary) -> None:
        """Note that a summary is there, as it was after so many changes."""
        row = {
            "place": place,
            "camera": camera,
            "day_obs": put.day_obs,
            "run": put.run,
            "exposure": put.exposure,
            "pipeline": put.pipeline,
            "n": put.n,
        }
        self._upsert(summary_put, [row], ("place", "camera", "day_obs", "run", "exposure", "pipeline"))

    def note_night(self, place: str, camera: str, night: DueNight) -> None:
        """Note that all of a night is there, as it was after so many changes."""
        row = {"place": place, "camera": camera, "day_obs": night.day_obs, "run": night.run, "n": night.n}
        self._upsert(night_put, [row], ("place", "camera", "day_obs", "run"))

    def due_calibs(self, place: str, camera: str) -> list[CalibLine]:
        """Return the calibs of which one has changed its state, the last changed first."""
        e, c = schema.calib_event.c, schema.calib.c
        newest = sa.func.max(e.id).label("event")
        done = sa.func.coalesce(
            sa.select(calib_put.c.event)
            .where(calib_put.c.place == place, calib_put.c.camera == camera)
            .scalar_subquery(),
            0,
        )
        statement = (
            sa.select(c.kind, c.detector, c.physical_filter, newest)
            .select_from(schema.calib_event.join(schema.calib, c.calib_id == e.calib_id))
            .where(e.camera == camera, e.id > done)
            .group_by(c.kind, c.detector, c.physical_filter)
            .order_by(newest.desc())
        )
        return [CalibLine(row.kind, row.detector, row.physical_filter, row.event) for row in self._fetch(statement)]

    def note_calibs(self, place: str, camera: str, event: int) -> None:
        """Note that all changes of calibs up to one are there."""
        self._upsert(calib_put, [{"place": place, "camera": camera, "event": event}], ("place", "camera"))

    def forget(self, place: str, camera: str) -> None:
        """Note that a place has nothing: it was made anew."""
        try:
            with self._begin() as connection:
                for table in (night_put, summary_put, calib_put):
                    here: Any = (table.c.place == place) & (table.c.camera == camera)
                    connection.execute(table.delete().where(here))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error
