"""The night log in the results store. Methods block and are quick; an asyncio role calls them in a thread."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import NotFoundError, StoreError
from rapid.nightlog.models import Flag, LogEntry, LogError, RetractedAlreadyError, check_text
from rapid.results.log_schema import night_log
from rapid.results.sql import SqlStore, naive

_T = night_log.c


class NightLog(SqlStore):
    """The night logs of all cameras.

    Parameters
    ----------
    engine
        That of a results store: ``NightLog(results.engine)``.
    """

    def write(
        self,
        camera: str,
        day_obs: int,
        *,
        author: str,
        now: datetime,
        text: str = "",
        exposure_id: int | None = None,
        flag: Flag | None = None,
        replaces: int | None = None,
    ) -> LogEntry:
        """Write an entry; with ``replaces`` an earlier one of the same exposure is taken back by it.

        Raises
        ------
        LogError
            Raised for an entry that says nothing, a flag without an exposure, or a text that is too long.
        NotFoundError, RetractedAlreadyError
            Raised if the entry to replace is not there, or was taken back before.
        """
        text = check_text(text)
        if not text and flag is None:
            raise LogError("text", "an entry needs a comment or a flag")
        if flag is not None and exposure_id is None:
            raise LogError("flag", "is for an exposure, not for the night")
        row = {
            "camera": camera,
            "day_obs": day_obs,
            "exposure": exposure_id,
            "author": author[:200],
            "created_at": naive(now),
            "text": text,
            "flag": None if flag is None else flag.value,
            "replaces": replaces,
        }
        try:
            with self._begin() as connection:
                if replaces is not None:
                    self._retract(
                        connection, camera, replaces, by=author, now=now, replacement_for=exposure_id, is_replaced=True
                    )
                entry_id = connection.execute(night_log.insert().values(row)).inserted_primary_key[0]  # type: ignore[index]  # an insert of one row has it
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write to the night log: {error}") from error
        return self.get(camera, entry_id)

    def retract(self, camera: str, entry_id: int, *, by: str, now: datetime) -> LogEntry:
        """Take an entry back; it stays in the history.

        Raises
        ------
        NotFoundError, RetractedAlreadyError
            Raised if it is not there, or was taken back before.
        """
        try:
            with self._begin() as connection:
                self._retract(connection, camera, entry_id, by=by, now=now)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write to the night log: {error}") from error
        return self.get(camera, entry_id)

    def get(self, camera: str, entry_id: int) -> LogEntry:
        """Return one entry; raises `NotFoundError`."""
        rows = self._fetch(sa.select(night_log).where(_T.camera == camera, _T.id == entry_id))
        if not rows:
            raise NotFoundError("log entry", entry_id)
        return _entry(rows[0])

    def entries(
        self, camera: str, *, day_obs: int | None = None, exposure_id: int | None = None, history: bool = False
    ) -> list[LogEntry]:
        """Return entries in the order they were written.

        Parameters
        ----------
        history
            Also what was taken back.
        """
        conditions: list[Any] = [_T.camera == camera]
        if day_obs is not None:
            conditions.append(_T.day_obs == day_obs)
        if exposure_id is not None:
            conditions.append(_T.exposure == exposure_id)
        if not history:
            conditions.append(_T.retracted_at.is_(None))
        return [_entry(row) for row in self._fetch(sa.select(night_log).where(*conditions).order_by(_T.id))]

    @staticmethod
    def _retract(
        connection: sa.Connection,
        camera: str,
        entry_id: int,
        *,
        by: str,
        now: datetime,
        replacement_for: int | None = None,
        is_replaced: bool = False,
    ) -> None:
        # One statement that looks and changes: of two people who click at once, one is told what the other did.
        conditions = [_T.camera == camera, _T.id == entry_id, _T.retracted_at.is_(None)]
        changed = connection.execute(
            night_log.update().where(*conditions).values(retracted_by=by[:200], retracted_at=naive(now))
        )
        row = connection.execute(sa.select(night_log).where(_T.camera == camera, _T.id == entry_id)).one_or_none()
        if row is None:
            raise NotFoundError("log entry", entry_id)
        if changed.rowcount != 1:
            raise RetractedAlreadyError(f"{row.retracted_by} has taken this entry back, or replaced it, before")
        if is_replaced and row.exposure != replacement_for:
            raise LogError("replaces", f"entry {entry_id} is on another exposure")


def _entry(row: sa.Row[Any]) -> LogEntry:
    facts = dict(row._mapping)
    exposure = facts.pop("exposure")
    for name in ("created_at", "retracted_at"):
        facts[name] = facts[name].replace(tzinfo=UTC) if facts[name] is not None else None
    return LogEntry(**facts, exposure_id=exposure, seq_num=None if exposure is None else exposure % 100_000)
