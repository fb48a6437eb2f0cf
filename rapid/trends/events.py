"""What belongs beside a trend: calibs that became valid, exclusions, alarms."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from pydantic import BaseModel, Field

from rapid.results.models import CalibRecord
from rapid.results.schema import calib, exclusion, exposure_exclusion
from rapid.results.sql import SqlStore, naive
from rapid.trends.alarms import AlarmStore
from rapid.trends.models import FIRST_DAY, LAST_DAY, Alarm, SeriesHistory, date_of

USED_BY = {
    "bias": ("bias", "defects", "linearity", "crosstalk"),
    "dark": ("bias", "dark", "defects"),
    "flat": ("bias", "dark", "flat", "ptc", "linearity", "crosstalk", "defects"),
}
"""Kinds of calib that change what is measured on an image type."""


class CalibBoundary(BaseModel):
    """A calib that became valid."""

    calib_id: str
    kind: str
    physical_filter: str | None
    valid_from: datetime
    day: int = Field(description="Observing day from which it is valid.")
    version: int
    state: str


class ExclusionEvent(BaseModel):
    """Something that was switched off, or is not to be used."""

    what: str = Field(description="detector, amp, or exposure.")
    target: str
    first_day: int
    last_day: int | None
    exposure: int | None = None
    reason: str
    author: str


class TrendEvents(BaseModel):
    """Everything that happened beside a detector's numbers."""

    calibs: list[CalibBoundary]
    exclusions: list[ExclusionEvent]
    alarms: list[Alarm]


def _day_of(moment: datetime) -> int:
    day = (moment - timedelta(hours=12)).date()
    return day.year * 10_000 + day.month * 100 + day.day


def _bounds(first_day: int, last_day: int) -> tuple[datetime, datetime]:
    noon = timedelta(hours=12)
    last = date_of(last_day)
    end = datetime.combine(min(last, date(9999, 12, 30)), datetime.min.time()) + noon + timedelta(days=1)
    return datetime.combine(date_of(first_day), datetime.min.time()) + noon, end


class EventStore(SqlStore):
    """Events from the stores that know of them."""

    def events(
        self,
        camera: str,
        histories: Sequence[SeriesHistory],
        *,
        first_day: int | None = None,
        last_day: int | None = None,
    ) -> TrendEvents:
        """Return what happened beside some histories of one detector, from their first to their last day.

        Raises
        ------
        StoreError
            Raised if the database does not answer.
        """
        days = [day for history in histories for day in history.days]
        first = max(first_day or FIRST_DAY, min(days, default=FIRST_DAY))
        last = min(last_day or LAST_DAY, max(days, default=LAST_DAY))
        if not histories:
            return TrendEvents(calibs=[], exclusions=[], alarms=[])
        detector = histories[0].detector
        series = {(h.key.image_type, h.key.condition, h.key.pipeline, h.key.run) for h in histories}
        alarms = AlarmStore(self.engine).alarms(
            camera, metric=histories[0].key.metric, detector=detector, first_day=first, last_day=last
        )
        return TrendEvents(
            calibs=self._calibs(camera, detector, histories, first, last),
            exclusions=self._exclusions(camera, detector, histories, first, last),
            alarms=[a for a in alarms if (a.image_type, a.condition, a.pipeline, a.run) in series],
        )

    def _calibs(
        self, camera: str, detector: int, histories: Sequence[SeriesHistory], first: int, last: int
    ) -> list[CalibBoundary]:
        begin, end = _bounds(first, last)
        kinds = {kind for h in histories for kind in USED_BY.get(h.key.image_type, ())}
        filters = {h.key.condition.partition(" ")[0] for h in histories if h.key.image_type == "flat"}
        c = calib.c
        rows = self._fetch(
            sa.select(sa.cast(c.document, sa.Text).label("document"), c.state)
            .where(c.camera == camera, c.detector == detector, c.kind.in_(kinds))
            .where(c.valid_from >= naive(begin), c.valid_from < naive(end))
            .order_by(c.valid_from, c.version)
        )
        found = []
        for row in rows:
            record = CalibRecord.model_validate_json(row.document)
            if record.kind == "flat" and record.physical_filter and record.physical_filter not in filters:
                continue
            found.append(
                CalibBoundary(
                    calib_id=record.calib_id,
                    kind=record.kind,
                    physical_filter=record.physical_filter,
                    valid_from=record.valid_from,
                    day=_day_of(record.valid_from.replace(tzinfo=None)),
                    version=record.version,
                    state=row.state,
                )
            )
        return found

    def _exclusions(
        self, camera: str, detector: int, histories: Sequence[SeriesHistory], first: int, last: int
    ) -> list[ExclusionEvent]:
        begin, end = _bounds(first, last)
        x, e = exclusion.c, exposure_exclusion.c
        rows = self._fetch(
            sa.select(exclusion)
            .where(x.camera == camera, x.detector == detector, x.valid_from < naive(end))
            .where(sa.or_(x.valid_to.is_(None), sa.and_(x.valid_to > naive(begin), x.valid_to > x.valid_from)))
            .order_by(x.valid_from)
        )
        found = [
            ExclusionEvent(
                what="amp" if row.amp else "detector",
                target=f"{row.detector_name}/{row.amp}" if row.amp else row.detector_name,
                first_day=_day_of(row.valid_from),
                last_day=_day_of(row.valid_to) if row.valid_to else None,
                reason=row.reason,
                author=row.author,
            )
            for row in rows
        ]
        exposures = {exposure: day for h in histories for exposure, day in zip(h.exposures, h.days, strict=True)}
        if exposures:
            bad = self._fetch(
                sa.select(exposure_exclusion)
                .where(e.camera == camera, e.ended_at.is_(None), e.detector.in_([detector, -1]))
                .where(e.exposure.between(min(exposures), max(exposures)))
                .order_by(e.exposure)
            )
            found += [
                ExclusionEvent(
                    what="exposure",
                    target=str(row.exposure),
                    first_day=exposures[row.exposure],
                    last_day=exposures[row.exposure],
                    exposure=row.exposure,
                    reason=row.reason,
                    author=row.author,
                )
                for row in bad
                if row.exposure in exposures
            ]
        return found
