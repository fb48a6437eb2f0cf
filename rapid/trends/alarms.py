"""Alarms in the results store: raised, brought up to date, acknowledged.

An alarm is one change. Searching again finds the same change with better numbers, and moves its alarm; it never makes
a second one, nor does it take back what somebody has acknowledged.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from payloads.trend.search import Kind
from rapid.errors import NotFoundError, RapidError, RefusedError, StoreError
from rapid.results.sql import SqlStore, finite, naive
from rapid.results.trend_schema import trend_alarm, trend_series
from rapid.trends.feed import TREND_LOCK
from rapid.trends.models import Alarm, AlarmState, date_of

NEAR_DAYS = 4.0
"""Changes of the same thing this close are the same change, better known."""

MAX_REASON = 500
_A = trend_alarm.c
_S = trend_series.c

LASTING = frozenset({Kind.DRIFT, Kind.GROWTH})
CHANGES = LASTING | {Kind.STEP, Kind.DEAD}

REDATED_DAYS = 60
"""A slow drift is first seen as a step in its middle; weeks later it is told to have begun long before."""


class AlarmError(RapidError):
    """What is said of an alarm is not valid; ``field`` names where."""

    code = "bad_alarm"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}", field=field)
        self.field = field
        self.reason = reason


class AcknowledgedAlreadyError(RefusedError):
    """Somebody else was first."""

    code = "acknowledged_already"


def _is_same(known: Alarm, found: Alarm) -> bool:
    if known.scope != found.scope or known.target != found.target:
        return False
    if (known.kind is Kind.MISSING) != (found.kind is Kind.MISSING):
        return False
    apart = abs(date_of(known.onset_day).toordinal() - date_of(found.onset_day).toordinal())
    # A drift is dated the better the longer it lasts.
    near = max(NEAR_DAYS, 3.0 * known.onset_error_days, 3.0 * found.onset_error_days)
    if Kind.OUTLIER in {known.kind, found.kind} and known.kind != found.kind:
        return apart <= NEAR_DAYS
    if known.kind is Kind.OUTLIER:
        return known.exposure == found.exposure or (known.state is AlarmState.OPEN and apart <= 1)
    return apart <= near


class AlarmStore(SqlStore):
    """Alarms of all cameras.

    Parameters
    ----------
    engine
        That of a results store: ``AlarmStore(results.engine)``.
    """

    def alarms(
        self,
        camera: str,
        *,
        state: AlarmState | None = None,
        metric: str | None = None,
        detector: int | None = None,
        first_day: int | None = None,
        last_day: int | None = None,
        before: int | None = None,
        limit: int = 500,
    ) -> list[Alarm]:
        """Return alarms, the newest change first.

        Parameters
        ----------
        detector
            Those of this detector and its amps, and those that it shares with others.
        before
            Only those with a smaller number: for paging.
        """
        conditions: list[Any] = [_A.camera == camera]
        if state is not None:
            conditions.append(_A.state == state.value)
        if metric is not None:
            conditions.append(_A.metric == metric)
        if detector is not None:
            conditions.append(sa.or_(_A.detector == detector, _A.detector.is_(None)))
        if first_day is not None:
            conditions.append(_A.onset_day >= first_day)
        if last_day is not None:
            conditions.append(_A.onset_day <= last_day)
        if before is not None:
            conditions.append(_A.id < before)
        statement = sa.select(_A.id, sa.cast(_A.document, sa.Text).label("document")).where(*conditions)
        rows = self._fetch(statement.order_by(_A.onset_day.desc(), _A.id.desc()).limit(limit))
        found = [_alarm_of(row) for row in rows]
        if detector is None:
            return found
        return [one for one in found if one.detector == detector or not one.detectors or detector in one.detectors]

    def n_open(self, camera: str) -> int:
        """Return how many alarms of a camera are open."""
        count = sa.select(sa.func.count()).select_from(trend_alarm)
        return int(self._fetch(count.where(_A.camera == camera, _A.state == AlarmState.OPEN.value))[0][0])

    def get(self, camera: str, alarm_id: int) -> Alarm:
        """Return one alarm; raises `NotFoundError` if the camera has none of that number."""
        statement = sa.select(_A.id, sa.cast(_A.document, sa.Text).label("document"))
        rows = self._fetch(statement.where(_A.camera == camera, _A.id == alarm_id))
        if not rows:
            raise NotFoundError("alarm", alarm_id)
        return _alarm_of(rows[0])

    def acknowledge(self, camera: str, alarm_id: int, *, by: str, reason: str, now: datetime) -> Alarm:
        """Say that somebody knows of an alarm: it stays in the list, and is no longer open.

        Raises
        ------
        NotFoundError
            Raised for an alarm that the camera does not have.
        AlarmError
            Raised without a reason or a name.
        AcknowledgedAlreadyError
            Raised if somebody else was first.
        """
        reason = " ".join(reason.split())
        if not reason:
            raise AlarmError("reason", "must say what it was, or what is done about it")
        if len(reason) > MAX_REASON:
            raise AlarmError("reason", f"is longer than {MAX_REASON} characters")
        if not by.strip():
            raise AlarmError("by", "must say who acknowledges")
        try:
            with self._begin() as connection:
                self._lock(connection, TREND_LOCK)
                known = self._read(connection, sa.and_(_A.camera == camera, _A.id == alarm_id))
                if not known:
                    raise NotFoundError("alarm", alarm_id)
                if known[0].acknowledged_at is not None:
                    raise AcknowledgedAlreadyError(
                        f"alarm {alarm_id} was acknowledged by {known[0].acknowledged_by} before", alarm=alarm_id
                    )
                changes: dict[str, Any] = {
                    "acknowledged_by": by[:200],
                    "acknowledged_at": now,
                    "acknowledge_reason": reason,
                }
                if known[0].state is AlarmState.OPEN:
                    changes["state"] = AlarmState.ACKNOWLEDGED
                changed = known[0].model_copy(update=changes)
                self._replace(connection, changed)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot acknowledge: {error}") from error
        return changed

    def reconcile(
        self,
        series: int,
        found: Sequence[Alarm],
        *,
        window_first_day: int,
        outliers_from: int,
        watched: int | None,
    ) -> list[Alarm]:
        """Bring a series' alarms up to date with what a search has found.

        Parameters
        ----------
        found
            Alarms as the search sees them.
        window_first_day
            First day that the search saw; alarms of earlier changes are left alone.
        outliers_from
            First day in which it looked for single bad exposures.
        watched
            The mark of new numbers that was there before the search; taken away if it is still the same.

        Returns
        -------
        raised
            Alarms that are new.
        """
        raised = []
        try:
            with self._begin() as connection:
                self._lock(connection, TREND_LOCK)
                known = self._read(connection, _A.series == series)
                left = {one.id: one for one in known}
                # The closest first: what is left may be the same change too, told and dated otherwise by now.
                for one, is_same in _in_turn(found, left, window_first_day):
                    same = [k for k in left.values() if is_same(k, one)]
                    if same:
                        match = min(same, key=lambda k: abs(k.onset_day - one.onset_day))
                        del left[match.id]
                        self._replace(connection, _moved(match, one, window_first_day))
                        continue
                    number = connection.execute(trend_alarm.insert().values(**_row(one)).returning(_A.id)).scalar_one()
                    raised.append(one.model_copy(update={"id": number}))
                for one in left.values():
                    first = outliers_from if one.kind is Kind.OUTLIER else window_first_day
                    if one.state is not AlarmState.OVER and one.onset_day >= first:
                        gone = {"state": AlarmState.OVER, "over_reason": "the numbers no longer show it"}
                        self._replace(connection, one.model_copy(update=gone))
                same_mark = sa.and_(_S.id == series, _S.unwatched_day == watched)
                connection.execute(trend_series.update().where(same_mark).values(unwatched_day=None))
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write alarms: {error}") from error
        return raised

    def unwatched(self, camera: str | None = None) -> dict[int, int]:
        """Return the series that have new numbers, with the first day of these."""
        conditions: list[Any] = [_S.unwatched_day.is_not(None)]
        if camera is not None:
            conditions.append(_S.camera == camera)
        rows = self._fetch(sa.select(_S.id, _S.unwatched_day).where(*conditions).order_by(_S.id))
        return {row.id: row.unwatched_day for row in rows}

    @staticmethod
    def _read(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Alarm]:
        statement = sa.select(_A.id, sa.cast(_A.document, sa.Text).label("document")).where(where).order_by(_A.id)
        return [_alarm_of(row) for row in connection.execute(statement)]

    @staticmethod
    def _replace(connection: sa.Connection, alarm: Alarm) -> None:
        connection.execute(trend_alarm.update().where(_A.id == alarm.id).values(**_row(alarm)))


def _in_turn(
    found: Sequence[Alarm], left: dict[int, Alarm], window_first_day: int
) -> Iterator[tuple[Alarm, Callable[[Alarm, Alarm], bool]]]:
    """Yield each finding with the strictest test that finds its alarm among those left."""
    waiting = list(found)
    tests: tuple[Callable[[Alarm, Alarm], bool], ...] = (
        _is_same,
        lambda known, one: _goes_on(known, one, window_first_day),
        _is_redated,
    )
    for test in tests:
        later = []
        for one in waiting:
            if any(test(known, one) for known in left.values()):
                yield one, test
            else:
                later.append(one)
        waiting = later
    yield from ((one, _is_same) for one in waiting)


def _is_redated(known: Alarm, found: Alarm) -> bool:
    """Return whether a step may be what a drift's first days looked like, or a change better dated by later days."""
    if known.scope != found.scope or known.target != found.target or known.state is AlarmState.OVER:
        return False
    if known.kind not in CHANGES or found.kind not in CHANGES:
        return False
    if ((known.size or known.relative or 0.0) > 0.0) != ((found.size or found.relative or 0.0) > 0.0):
        return False
    apart = abs(date_of(known.onset_day).toordinal() - date_of(found.onset_day).toordinal())
    return apart <= REDATED_DAYS


def _goes_on(known: Alarm, found: Alarm, window_first_day: int) -> bool:
    """Return whether a change that the search sees from its first days on is one that began before them."""
    return (
        known.target == found.target
        and known.scope == found.scope
        and known.kind in LASTING
        and found.kind in LASTING
        and known.onset_day <= window_first_day
        and date_of(found.onset_day).toordinal() - date_of(window_first_day).toordinal() <= NEAR_DAYS * 5
    )


def _moved(known: Alarm, found: Alarm, window_first_day: int) -> Alarm:
    """Return an alarm with the newer numbers of the same change."""
    if known.onset_day < window_first_day:
        return known  # it was seen whole before, and is not any more
    keep = ("id", "raised_day", "raised_at", "acknowledged_by", "acknowledged_at", "acknowledge_reason")
    changes = {name: getattr(known, name) for name in keep}
    if known.acknowledged_at and found.state is AlarmState.OPEN:
        changes["state"] = AlarmState.ACKNOWLEDGED
    moved = found.model_copy(update=changes)
    if known.kind is Kind.OUTLIER and found.kind is Kind.OUTLIER and known.exposure is not None:
        first = known if known.onset_day <= found.onset_day else found
        moved = moved.model_copy(update={"exposure": first.exposure, "onset_day": first.onset_day})
    unchanged = moved.model_dump(exclude={"updated_at"}) == known.model_dump(exclude={"updated_at"})
    return known if unchanged else moved


def _row(alarm: Alarm) -> dict[str, Any]:
    return {
        "camera": alarm.camera,
        "series": alarm.series,
        "metric": alarm.metric,
        "scope": alarm.scope.value,
        "target": alarm.target[:64],
        "detector": alarm.detector,
        "kind": alarm.kind.value,
        "state": alarm.state.value,
        "onset_day": alarm.onset_day,
        "raised_at": naive(alarm.raised_at),
        "document": finite(alarm.model_dump(mode="json", exclude={"id"})),
    }


def _alarm_of(row: sa.Row[Any]) -> Alarm:
    return Alarm.model_validate({**json.loads(row.document), "id": row.id})
