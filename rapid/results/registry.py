"""The registry of calibs: which there are, since when, in which state, and every change of it.

A calib's row never goes away. Look-ups choose among the certified ones; ``as_of`` asks what a look-up would have found at
a moment, whatever was certified, rejected or withdrawn since.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import NotFoundError, StoreError
from rapid.results import schema
from rapid.results.models import CalibEvent, CalibRecord, CalibState
from rapid.results.sql import SqlStore, finite, naive
from rapid.results.uses import record_calib_origin

CALIB_LOCK = 0x63616C6962
"""PostgreSQL advisory lock ("calib" in ASCII): versions are given, and become visible, in order."""

MAX_REASON = 1000


def _text(document: sa.Column[Any]) -> sa.Label[str]:
    """Return a document as text: a model reads it three times as fast as from Python's own JSON."""
    return sa.cast(document, sa.Text).label("document")


class CalibRegistry(SqlStore):
    """The rows of calibs in the results store."""

    def add_calib(self, make: Callable[[int], CalibRecord]) -> CalibRecord:
        """Register a calib under the next free version of its validity.

        Parameters
        ----------
        make
            Returns the record for a version number, with its state. Called once or twice, within the transaction.

        Returns
        -------
        CalibRecord
            The record; the earlier one, in the state it has now, if the same file (by its checksum) was registered
            before for the same camera, detector, kind, filter and begin of validity.
        """
        t = schema.calib
        draft = make(1)
        same = (
            (t.c.camera == draft.camera)
            & (t.c.detector == draft.detector)
            & (t.c.kind == draft.kind)
            & (t.c.physical_filter == (draft.physical_filter or ""))
            & (t.c.valid_from == naive(draft.valid_from))
        )
        try:
            with self._begin() as connection:
                self._lock(connection, CALIB_LOCK)
                rows = connection.execute(sa.select(t.c.version, _text(t.c.document)).where(same)).fetchall()
                for row in rows:
                    known = CalibRecord.model_validate_json(row.document)
                    if known.sha256 == draft.sha256:
                        return known
                record = make(max((row.version for row in rows), default=0) + 1)
                connection.execute(
                    t.insert(),
                    [
                        {
                            "calib_id": record.calib_id,
                            "camera": record.camera,
                            "detector": record.detector,
                            "kind": record.kind,
                            "physical_filter": record.physical_filter or "",
                            "valid_from": naive(record.valid_from),
                            "valid_to": naive(record.valid_to),
                            "version": record.version,
                            "created_at": naive(record.created_at),
                            "state": record.state.value,
                            "document": finite(record.model_dump(mode="json")),
                        }
                    ],
                )
                record_calib_origin(connection, record)
                self._add_event(
                    connection, record, at=record.created_at, author=record.certified_by, reason=record.state_reason
                )
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot register calib: {error}") from error
        return record

    @staticmethod
    def _add_event(connection: sa.Connection, record: CalibRecord, *, at: datetime, author: str, reason: str) -> None:
        connection.execute(
            schema.calib_event.insert(),
            [
                {
                    "camera": record.camera,
                    "calib_id": record.calib_id,
                    "state": record.state.value,
                    "at": naive(at),
                    "author": author[:200],
                    "reason": reason[:MAX_REASON],
                    "is_override": record.is_overridden,
                }
            ],
        )

    def set_calib_state(
        self,
        camera: str,
        calib_id: str,
        state: CalibState,
        *,
        author: str,
        reason: str = "",
        is_override: bool = False,
        at: datetime | None = None,
    ) -> CalibRecord:
        """Change a calib's state, and write down who did it and why.

        What look-ups found before stays reproducible with ``as_of``. Asking for the state it has changes nothing.

        Parameters
        ----------
        is_override
            It is certified though its verification failed.
        at
            Now, if left out.

        Raises
        ------
        NotFoundError
            Raised if the camera has no such calib.
        """
        t = schema.calib
        try:
            with self._begin() as connection:
                self._lock(connection, CALIB_LOCK)
                here = (t.c.camera == camera) & (t.c.calib_id == calib_id)
                row = connection.execute(sa.select(_text(t.c.document)).where(here)).fetchone()
                if row is None:
                    raise NotFoundError("calib", calib_id, owner=camera)
                before = CalibRecord.model_validate_json(row.document)
                if before.state is state:
                    return before
                is_overridden = state is CalibState.CERTIFIED and (is_override or before.is_overridden)
                after = before.model_copy(
                    update={"state": state, "is_overridden": is_overridden, "state_reason": reason[:MAX_REASON]}
                )
                if state is CalibState.CERTIFIED:
                    after = after.model_copy(update={"certified_by": author[:200]})
                connection.execute(
                    t.update().where(here).values(state=state.value, document=finite(after.model_dump(mode="json")))
                )
                # Never before what is known of it already: histories of two clocks would contradict each other.
                newest = connection.execute(
                    sa.select(sa.func.max(schema.calib_event.c.at)).where(schema.calib_event.c.calib_id == calib_id)
                ).scalar()
                moment = naive(at or datetime.now(UTC))
                if newest is not None and moment is not None:
                    moment = max(moment, newest)
                self._add_event(connection, after, at=moment or datetime.now(UTC), author=author, reason=reason)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot change a calib's state: {error}") from error
        return after

    def set_calib_verification(
        self,
        camera: str,
        calib_id: str,
        *,
        outcome: str,
        failures: Iterable[str],
        document: Mapping[str, Any],
    ) -> CalibRecord:
        """Write down what a verification of a calib found; its state stays.

        Raises
        ------
        NotFoundError
            Raised if the camera has no such calib.
        """
        t = schema.calib
        here = (t.c.camera == camera) & (t.c.calib_id == calib_id)
        try:
            with self._begin() as connection:
                self._lock(connection, CALIB_LOCK)
                row = connection.execute(sa.select(_text(t.c.document)).where(here)).fetchone()
                if row is None:
                    raise NotFoundError("calib", calib_id, owner=camera)
                changes = {"outcome": outcome, "failures": list(failures), "verification": dict(document)}
                after = CalibRecord.model_validate_json(row.document).model_copy(update=changes)
                connection.execute(t.update().where(here).values(document=finite(after.model_dump(mode="json"))))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write a calib's verification: {error}") from error
        return after

    def calibs(
        self,
        camera: str,
        *,
        kind: str | None = None,
        detector: int | None = None,
        physical_filter: str | None = None,
        at: datetime | None = None,
        as_of: datetime | None = None,
        state: CalibState | None = CalibState.CERTIFIED,
        limit: int | None = None,
    ) -> list[CalibRecord]:
        """Return calibs, the preferred one first.

        Parameters
        ----------
        at
            Only those valid at this time [TAI].
        as_of
            Only those that were in the state then [UTC]: what a look-up would have found.
        state
            Only those in this state; None for all.
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
            moment = naive(at)
            conditions.extend((t.valid_from <= moment, sa.or_(t.valid_to.is_(None), t.valid_to > moment)))
        if as_of is not None:
            conditions.append(t.created_at <= naive(as_of))
        if state is not None and as_of is not None:
            e = schema.calib_event.c
            state_then = (
                sa.select(e.state)
                .where(e.calib_id == t.calib_id, e.at <= naive(as_of))
                .order_by(e.at.desc(), e.id.desc())
                .limit(1)
                .correlate(schema.calib)
                .scalar_subquery()
            )
            conditions.append(state_then == state.value)
        elif state is not None:
            conditions.append(t.state == state.value)
        statement = (
            sa.select(_text(t.document)).where(*conditions).order_by(t.valid_from.desc(), t.version.desc(), t.id.desc())
        )
        return [CalibRecord.model_validate_json(row.document) for row in self._fetch(statement.limit(limit))]

    def calib(self, camera: str, calib_id: str) -> CalibRecord:
        """Return a calib, whatever its state.

        Raises
        ------
        NotFoundError
            Raised if the camera has no such calib.
        """
        t = schema.calib.c
        rows = self._fetch(sa.select(_text(t.document)).where(t.camera == camera, t.calib_id == calib_id))
        if not rows:
            raise NotFoundError("calib", calib_id, owner=camera)
        return CalibRecord.model_validate_json(rows[0].document)

    def calib_events(
        self, camera: str, calib_id: str | None = None, *, since: datetime | None = None
    ) -> list[CalibEvent]:
        """Return the changes of a calib's state, or of all calibs', oldest first."""
        t = schema.calib_event.c
        conditions: list[Any] = [t.camera == camera]
        if calib_id is not None:
            conditions.append(t.calib_id == calib_id)
        if since is not None:
            conditions.append(t.at >= naive(since))
        rows = self._fetch(sa.select(schema.calib_event).where(*conditions).order_by(t.at, t.id))
        return [
            CalibEvent(
                calib_id=row.calib_id,
                state=CalibState(row.state),
                at=row.at.replace(tzinfo=UTC),
                author=row.author,
                reason=row.reason,
                is_override=row.is_override,
            )
            for row in rows
        ]

    def calib_generation(self) -> int:
        """Return a number that grows with every change of what may be chosen: the cheap question of a cache."""
        return int(self._fetch(sa.select(sa.func.coalesce(sa.func.max(schema.calib_event.c.id), 0)))[0][0])
