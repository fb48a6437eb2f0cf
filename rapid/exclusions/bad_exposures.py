"""Exposures that are left out of builds: named by somebody, or found by a rule on their metrics.

An exclusion of a detector or amp (`rapid.exclusions.models`) is for a time, and keeps images from being processed. This
one is for exposures that are there: they stay processed and shown, and no bias, dark, flat or gain is built from them.
Nothing is deleted: what was undone stays in the history, with who did it.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import NotFoundError, StoreError
from rapid.exclusions.decide import check_reason
from rapid.exclusions.models import (
    MAX_NAME,
    MAX_REASON,
    EndedAlreadyError,
    ExcludedAlreadyError,
    ExclusionError,
    Target,
)
from rapid.results import schema
from rapid.results.sql import SqlStore, naive

BAD_EXPOSURE_LOCK = 0x62616465
"""PostgreSQL advisory lock ("bade" in ASCII): who looks for a double must be the only one who adds."""

WHOLE = -1
"""Stands for every detector."""

MAX_EXPOSURES = 1000
"""A long night; a longer list is a mistake."""

_T = schema.exposure_exclusion.c


class BadExposure(BaseModel):
    """An exposure, or one detector of it, that nothing is built from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    camera: str
    exposure: int
    detector: int | None = Field(default=None, description="None for every detector.")
    detector_name: str | None = None
    rule: int | None = Field(default=None, description="Number of the rule that found it; None if somebody named it.")
    reason: str = Field(min_length=1, max_length=MAX_REASON)
    author: str = Field(description="Who excluded it, or made the rule.")
    created_at: datetime = Field(description="UTC.")
    ended_by: str | None = None
    ended_at: datetime | None = Field(default=None, description="When it was undone, UTC.")
    end_reason: str | None = None

    @property
    def name(self) -> str:
        """``2026112000012``, or ``2026112000012/R22_S11`` for one detector."""
        return f"{self.exposure}/{self.detector_name}" if self.detector is not None else str(self.exposure)

    @property
    def why(self) -> str:
        """The reason with who and, if one found it, which rule."""
        return f"{self.reason} ({self.author}{f', rule {self.rule}' if self.rule is not None else ''})"

    @property
    def is_active(self) -> bool:
        """Whether it has not been undone."""
        return self.ended_at is None


class BadExposureStore(SqlStore):
    """Exposures that are left out of builds, in the results store.

    Parameters
    ----------
    engine
        That of a results store: ``BadExposureStore(results.engine)``.
    """

    def exclude(
        self,
        camera: str,
        exposures: Sequence[int],
        *,
        targets: Sequence[Target] = (),
        reason: str,
        author: str,
        now: datetime,
    ) -> list[BadExposure]:
        """Leave exposures out of builds: all of them, or none if one is left out already.

        Parameters
        ----------
        targets
            Detectors; every one if empty.
        now
            For the history.

        Raises
        ------
        ExclusionError
            Raised, naming the field, for an empty reason, no exposure, too many, or an amp.
        ExcludedAlreadyError
            Raised if one of them is left out already.
        StoreError
            Raised if the database does not answer.
        """
        reason = check_reason(reason)
        wanted = list(dict.fromkeys(exposures))
        if not wanted:
            raise ExclusionError("exposures", "names no exposure")
        if len(wanted) > MAX_EXPOSURES:
            raise ExclusionError("exposures", f"names {len(wanted)} exposures; {MAX_EXPOSURES} at most")
        for target in targets:
            if target.amp is not None:
                raise ExclusionError("detectors", f"{target.name} is an amp; an exposure goes by whole detectors")
        places = [(target.detector, target.detector_name) for target in targets] or [(WHOLE, "")]
        rows = [
            {**_row(camera, exposure, place, author, now), "reason": reason} for exposure in wanted for place in places
        ]
        return self._add(camera, rows, refuse_known=True)

    def add_found(
        self, camera: str, rule: int, found: Iterable[tuple[int, int, str, str]], *, author: str, now: datetime
    ) -> list[BadExposure]:
        """Leave out what a rule has found; what is left out already stays as it is.

        A detector whose exclusion by the same rule somebody has undone is not excluded again.

        Parameters
        ----------
        found
            Exposure, detector, its name, and the reason with the value measured.
        """
        rows = [
            {**_row(camera, exposure, (detector, name), author, now), "reason": reason[:MAX_REASON], "rule": rule}
            for exposure, detector, name, reason in found
        ]
        return self._add(camera, rows, refuse_known=False)

    def _add(self, camera: str, rows: list[dict[str, Any]], *, refuse_known: bool) -> list[BadExposure]:
        if not rows:
            return []
        try:
            with self._begin() as connection:
                self._lock(connection, BAD_EXPOSURE_LOCK)
                table = sa.select(schema.exposure_exclusion)
                ids = {row["exposure"] for row in rows}
                stored = connection.execute(table.where(_T.camera == camera, _T.exposure.in_(ids)).order_by(_T.id))
                known = [_of_row(row) for row in stored]
                made = []
                for row in rows:
                    double = next((one for one in known if _is_double(one, row)), None)
                    if double is None:
                        insert = schema.exposure_exclusion.insert().values(**row).returning(_T.id)
                        made.append(connection.execute(insert).scalar_one())
                    elif refuse_known:
                        raise ExcludedAlreadyError(
                            f"{double.name} is excluded already: {double.why}", exclusion=double.id, field="exposures"
                        )
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exclusion: {error}") from error
        return self._where(_T.camera == camera, _T.id.in_(made))

    def undo(self, camera: str, number: int, *, by: str, now: datetime, reason: str = "") -> BadExposure:
        """Let an exposure be built from again.

        Raises
        ------
        NotFoundError
            Raised for a number that the camera does not have.
        EndedAlreadyError
            Raised if somebody has undone it before.
        """
        reason = check_reason(reason) if reason.strip() else ""
        try:
            with self._begin() as connection:
                done = connection.execute(
                    schema.exposure_exclusion.update()
                    .where(_T.camera == camera, _T.id == number, _T.ended_at.is_(None))
                    .values(ended_by=by[:MAX_NAME], ended_at=naive(now), end_reason=reason or None)
                ).rowcount
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exclusion: {error}") from error
        found = self.get(camera, number)
        if not done:
            raise EndedAlreadyError(f"{found.name} was included again by {found.ended_by}", exclusion=number)
        return found

    def undo_rule(self, camera: str, rule: int, *, by: str, now: datetime, reason: str) -> int:
        """Let everything a rule has found be built from again; how many."""
        try:
            with self._begin() as connection:
                done = connection.execute(
                    schema.exposure_exclusion.update()
                    .where(_T.camera == camera, _T.rule == rule, _T.ended_at.is_(None))
                    .values(ended_by=by[:MAX_NAME], ended_at=naive(now), end_reason=reason[:MAX_REASON] or None)
                )
                return int(done.rowcount)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write exclusion: {error}") from error

    def get(self, camera: str, number: int) -> BadExposure:
        """Return one of them; raises `NotFoundError` if the camera has none of that number."""
        found = self._where(_T.camera == camera, _T.id == number)
        if not found:
            raise NotFoundError("exposure exclusion", number, owner=camera)
        return found[0]

    def excluded_inputs(self, camera: str, exposures: Iterable[int], detector: int) -> dict[int, str]:
        """Return the reasons of those of some exposures that a detector's calib is not built from."""
        wanted = list(exposures)
        rows = self._where(
            _T.camera == camera, _T.exposure.in_(wanted), _T.detector.in_([WHOLE, detector]), _T.ended_at.is_(None)
        )
        return {row.exposure: row.why for row in reversed(rows)}

    def whole_exposures(self, camera: str, exposures: Iterable[int]) -> dict[int, str]:
        """Return the reasons of those of some exposures that are left out on every detector."""
        rows = self._where(
            _T.camera == camera, _T.exposure.in_(list(exposures)), _T.detector == WHOLE, _T.ended_at.is_(None)
        )
        return {row.exposure: row.why for row in reversed(rows)}

    def listed(
        self,
        camera: str,
        *,
        exposure: int | None = None,
        day_obs: int | None = None,
        rule: int | None = None,
        with_history: bool = False,
        limit: int = 500,
    ) -> list[BadExposure]:
        """Return what is left out, newest first.

        Parameters
        ----------
        with_history
            Also what was undone.
        """
        conditions: list[Any] = [_T.camera == camera]
        if exposure is not None:
            conditions.append(_T.exposure == exposure)
        if day_obs is not None:
            conditions += [_T.exposure >= day_obs * 100_000, _T.exposure < (day_obs + 1) * 100_000]
        if rule is not None:
            conditions.append(_T.rule == rule)
        if not with_history:
            conditions.append(_T.ended_at.is_(None))
        return self._where(*conditions, limit=limit)

    def _where(self, *conditions: Any, limit: int | None = None) -> list[BadExposure]:
        statement = sa.select(schema.exposure_exclusion).where(*conditions).order_by(_T.id.desc()).limit(limit)
        return [_of_row(row) for row in self._fetch(statement)]


def _row(camera: str, exposure: int, place: tuple[int, str], author: str, now: datetime) -> dict[str, Any]:
    return {
        "camera": camera,
        "exposure": exposure,
        "detector": place[0],
        "detector_name": place[1],
        "author": author[:MAX_NAME],
        "created_at": naive(now),
    }


def _is_double(known: BadExposure, row: dict[str, Any]) -> bool:
    detector = WHOLE if known.detector is None else known.detector
    if known.exposure != row["exposure"] or detector not in {WHOLE, row["detector"]}:
        return False
    return known.is_active or (row.get("rule") is not None and known.rule == row["rule"])


def _of_row(row: sa.Row[Any]) -> BadExposure:
    values = {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        for name, value in row._mapping.items()
    }
    whole = values["detector"] == WHOLE
    return BadExposure.model_validate(
        {**values, "detector": None if whole else values["detector"], "detector_name": values["detector_name"] or None}
    )
