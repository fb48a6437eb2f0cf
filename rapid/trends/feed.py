"""Bring the numbers of stored results into the trends.

Every calibration result leaves a note in the transaction that stores it (`rapid.results.trend_schema`). Here the notes
are worked off, an exposure at a time: the numbers are read from the stored documents, so that a note says *look again*
and never holds a number itself. Done twice it changes nothing; a result that was redone replaces its own numbers and
takes away those it no longer has; a process that dies in between leaves its notes to the next.
"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import StoreError
from rapid.results.schema import detector_result
from rapid.results.sql import SqlStore, naive
from rapid.results.trend_schema import TRENDED, trend_pending, trend_series, trend_values
from rapid.trends.fold import Fold

TREND_LOCK = 0x7472656E64
"""PostgreSQL advisory lock ("trend" in ASCII): one at a time gives places and patches arrays."""

NOTES_AT_ONCE = 256
"""Notes worked off in one transaction: a whole focal plane, a fraction of a second for other writers to wait."""

_P = trend_pending.c
_S = trend_series.c
_V = trend_values.c


class TrendFeed(SqlStore):
    """Works off the notes; `rapid.trends.store.TrendStore` reads what it writes."""

    def has_pending(self) -> bool:
        """Return whether a stored result's numbers are not in the trends yet."""
        return bool(self._fetch(sa.select(_P.id).limit(1)))

    def update(self) -> int:
        """Bring the numbers of all results that left a note into the trends.

        Returns
        -------
        n_results
            Results whose numbers were written.

        Raises
        ------
        StoreError
            Raised if the database does not answer; what was not done is done next time.
        """
        if not self.has_pending():
            return 0
        # What is noted while this runs is done as well, but not without end: twice what is there now.
        count = self._fetch(sa.select(sa.func.count()).select_from(trend_pending))[0][0]
        n_done = 0
        for _ in range(2 * (count // NOTES_AT_ONCE + 1)):
            n = self._work_off(NOTES_AT_ONCE)
            n_done += n
            if n == 0:
                break
        return n_done

    def rebuild(self, camera: str, *, first_day: int, last_day: int) -> int:
        """Make the trends of some days anew from the stored results.

        Numbers without a stored result are gone then; alarms stay.

        Returns
        -------
        n_results
            Results whose numbers were written.
        """
        r = detector_result.c
        wanted = sa.and_(r.camera == camera, r.day_obs.between(first_day, last_day), r.image_type.in_(TRENDED))
        of_camera = sa.select(_S.id).where(_S.camera == camera)
        columns = ["camera", "exposure", "run", "pipeline", "detector"]
        try:
            with self._begin() as connection:
                self._lock(connection, TREND_LOCK)
                connection.execute(
                    trend_values.delete().where(_V.series.in_(of_camera), _V.day_obs.between(first_day, last_day))
                )
                chosen = sa.select(*(r[name] for name in columns)).where(wanted).order_by(r.exposure, r.detector)
                connection.execute(trend_pending.insert().from_select(columns, chosen))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot rebuild trends: {error}") from error
        return self.update()

    def put_arrays(
        self,
        arrays: Sequence[tuple[int, bytes]],
        exposure: int,
        *,
        day_obs: int,
        taken_at: datetime | None = None,
    ) -> None:
        """Write whole arrays of one exposure, given with the number of their series; what was there is replaced."""
        rows = [
            {"series": series, "exposure": exposure, "day_obs": day_obs, "taken_at": naive(taken_at), "packed": packed}
            for series, packed in arrays
        ]
        self._upsert(trend_values, rows, ("series", "exposure"))

    def _work_off(self, limit: int) -> int:
        try:
            with self._begin() as connection:
                self._lock(connection, TREND_LOCK)
                notes = connection.execute(sa.select(trend_pending).order_by(_P.id).limit(limit)).fetchall()
                if not notes:
                    return 0
                Fold(connection).run(notes)
                # By their numbers: a note that was left since then is for a newer document, and stays.
                connection.execute(trend_pending.delete().where(_P.id.in_([note.id for note in notes])))
                return len({(n.camera, n.exposure, n.run, n.pipeline, n.detector) for n in notes})
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot update trends: {error}") from error
