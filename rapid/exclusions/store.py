"""Exclusions in the results store: translation, and the two rules that hold between writers.

Nothing is switched off twice for the same time, and nothing is ended twice: of two people who click at once, one is
told what the other did. Methods block and are quick; an asyncio role calls them through `asyncio.to_thread`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import NotFoundError, StoreError
from rapid.exclusions.decide import check_reason
from rapid.exclusions.models import (
    MAX_NAME,
    EndedAlreadyError,
    ExcludedAlreadyError,
    Exclusion,
    ExclusionError,
    Target,
)
from rapid.results import schema
from rapid.results.sql import SqlStore, naive

EXCLUSION_LOCK = 0x6578636C
"""PostgreSQL advisory lock ("excl" in ASCII): who looks for an overlap must be the only one who adds."""

_T = schema.exclusion.c


class ExclusionStore(SqlStore):
    """Exclusions of all cameras.

    Parameters
    ----------
    engine
        That of a results store: ``ExclusionStore(results.engine)``.
    """

    def exclude(
        self,
        camera: str,
        targets: Sequence[Target],
        *,
        reason: str,
        author: str,
        valid_from: datetime,
        valid_to: datetime | None = None,
        now: datetime,
    ) -> list[Exclusion]:
        """Switch detectors or amps off: all of them, or none.

        Parameters
        ----------
        valid_from, valid_to
            Begin of the first exposure that is concerned, and of the first one that no longer is; UTC with zone.
        now
            For the history.

        Raises
        ------
        ExclusionError
            Raised, naming the field, for an empty reason or a validity that ends before it begins.
        ExcludedAlreadyError
            Raised if one of them is off already for some of that time.
        StoreError
            Raised if the database does not answer.
        """
        reason = check_reason(reason)
        if valid_to is not None and valid_to <= valid_from:
            raise ExclusionError("valid_to", "must be after valid_from")
        rows = [
            {
                "camera": camera,
                "detector": target.detector,
                "detector_name": target.detector_name,
                "amp": target.amp or "",
                "reason": reason,
                "author": author[:MAX_NAME],
                "created_at": naive(now),
                "valid_from": naive(valid_from),
                "valid_to": naive(valid_to),
            }
            for target in targets
        ]
        try:
            with self._begin() as connection:
                self._lock(connection, EXCLUSION_LOCK)
                self._refuse_overlap(connection, camera, targets, valid_from, valid_to)
                numbers = [
                    connection.execute(schema.exclusion.insert().values(**row).returning(_T.id)).scalar_one()
                    for row in rows
                ]
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exclusion: {error}") from error
        return [self.get(camera, number) for number in numbers]

    def end(
        self,
        camera: str,
        exclusion_id: int,
        *,
        by: str,
        at: datetime,
        now: datetime,
        reason: str = "",
        undo: bool = False,
    ) -> Exclusion:
        """End an exclusion, or undo it as if it had never been made.

        Parameters
        ----------
        at
            Begin of the first exposure that is no longer concerned, UTC with zone; before its begin it is undone.
        now
            For the history.

        Raises
        ------
        NotFoundError
            Raised for an exclusion that the camera does not have.
        EndedAlreadyError
            Raised if somebody has ended it before, or if it would have been over by then.
        StoreError
            Raised if the database does not answer.
        """
        reason = check_reason(reason) if reason.strip() else ""
        try:
            with self._begin() as connection:
                self._lock(connection, EXCLUSION_LOCK)
                found = connection.execute(
                    sa.select(schema.exclusion).where(_T.camera == camera, _T.id == exclusion_id)
                ).first()
                if found is None:
                    raise NotFoundError("exclusion", exclusion_id)
                exclusion = _exclusion_of(found)
                _refuse_second_end(exclusion, at, undo=undo)
                end = exclusion.valid_from if undo else max(at, exclusion.valid_from)
                connection.execute(
                    schema.exclusion.update()
                    .where(_T.id == exclusion_id)
                    .values(valid_to=naive(end), ended_by=by[:MAX_NAME], ended_at=naive(now), end_reason=reason or None)
                )
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exclusion: {error}") from error
        return self.get(camera, exclusion_id)

    def get(self, camera: str, exclusion_id: int) -> Exclusion:
        """Return one exclusion; raises `NotFoundError` if the camera has none of that number."""
        rows = self._fetch(sa.select(schema.exclusion).where(_T.camera == camera, _T.id == exclusion_id))
        if not rows:
            raise NotFoundError("exclusion", exclusion_id)
        return _exclusion_of(rows[0])

    def active(self, camera: str, at: datetime) -> list[Exclusion]:
        """Return what is off for an exposure that begins at a moment [UTC with zone], by detector and amp."""
        moment = naive(at)
        statement = sa.select(schema.exclusion).where(
            _T.camera == camera, _T.valid_from <= moment, sa.or_(_T.valid_to.is_(None), _T.valid_to > moment)
        )
        return [_exclusion_of(row) for row in self._fetch(statement.order_by(_T.detector, _T.amp, _T.id))]

    def not_over(self, camera: str, at: datetime) -> list[Exclusion]:
        """Return what is off at a moment, or will be later, by detector and amp."""
        statement = sa.select(schema.exclusion).where(
            _T.camera == camera,
            sa.or_(_T.valid_to.is_(None), sa.and_(_T.valid_to > naive(at), _T.valid_to > _T.valid_from)),
        )
        return [_exclusion_of(row) for row in self._fetch(statement.order_by(_T.detector, _T.amp, _T.id))]

    def history(
        self, camera: str, *, detector: int | None = None, limit: int = 500, before: int | None = None
    ) -> list[Exclusion]:
        """Return all exclusions there ever were, newest first.

        Parameters
        ----------
        before
            Only those with a smaller number: for paging.
        """
        conditions: list[Any] = [_T.camera == camera]
        if detector is not None:
            conditions.append(_T.detector == detector)
        if before is not None:
            conditions.append(_T.id < before)
        statement = sa.select(schema.exclusion).where(*conditions).order_by(_T.id.desc()).limit(limit)
        return [_exclusion_of(row) for row in self._fetch(statement)]

    def _refuse_overlap(
        self,
        connection: sa.Connection,
        camera: str,
        targets: Sequence[Target],
        valid_from: datetime,
        valid_to: datetime | None,
    ) -> None:
        conditions: list[Any] = [
            _T.camera == camera,
            _T.detector.in_({target.detector for target in targets}),
            sa.or_(_T.valid_to.is_(None), sa.and_(_T.valid_to > naive(valid_from), _T.valid_to > _T.valid_from)),
        ]
        if valid_to is not None:
            conditions.append(_T.valid_from < naive(valid_to))
        wanted = {(target.detector, target.amp) for target in targets}
        for row in connection.execute(sa.select(schema.exclusion).where(*conditions).order_by(_T.id)):
            other = _exclusion_of(row)
            if (other.detector, other.amp) in wanted:
                raise ExcludedAlreadyError(
                    f"{other.name} is excluded already: {other.why}", exclusion=other.id, field="targets"
                )


def _refuse_second_end(exclusion: Exclusion, at: datetime, *, undo: bool) -> None:
    if exclusion.ended_at is not None:
        raise EndedAlreadyError(
            f"{exclusion.name} was ended by {exclusion.ended_by} at {exclusion.ended_at:%Y-%m-%d %H:%M} UTC",
            exclusion=exclusion.id,
        )
    if not undo and exclusion.valid_to is not None and exclusion.valid_to <= at:
        raise EndedAlreadyError(
            f"{exclusion.name} is on again since {exclusion.valid_to:%Y-%m-%d %H:%M} UTC", exclusion=exclusion.id
        )


def _exclusion_of(row: sa.Row[Any]) -> Exclusion:
    values = {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        for name, value in row._mapping.items()
    }
    return Exclusion.model_validate({**values, "amp": values["amp"] or None})
