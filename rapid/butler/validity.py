"""Which calib is the choice at what time, as spans: what a calibration collection of the Butler is told.

Pure. The rule is that of look-ups (`rapid.results.registry`): of those valid at a time the one whose validity began
last, and of its versions the newest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rapid.results.models import CalibRecord


@dataclass(frozen=True)
class Span:
    """A time in which a calib is the choice.

    Attributes
    ----------
    begin, end
        TAI without a zone; no end if None.
    """

    calib_id: str
    begin: datetime
    end: datetime | None


def choose_spans(records: Iterable[CalibRecord]) -> list[Span]:
    """Return who is the choice when, in order of time; a calib that a later one interrupts has several spans.

    Parameters
    ----------
    records
        Certified calibs of one detector, kind and filter.
    """
    calibs = list(records)
    moments = sorted({moment for one in calibs for moment in _ends_of(one) if moment is not None})
    found: list[Span] = []
    ends: list[datetime | None] = [*moments[1:], None]
    for begin, end in zip(moments, ends, strict=False):  # of no calib there is one end, and no begin
        valid = [one for one in calibs if _holds(one, begin)]
        if not valid:
            continue
        chosen = max(valid, key=lambda one: (_plain(one.valid_from), one.version)).calib_id
        if found and found[-1].calib_id == chosen and found[-1].end == begin:
            begin = found.pop().begin
        found.append(Span(chosen, begin, end))
    return found


def _ends_of(record: CalibRecord) -> tuple[datetime, datetime | None]:
    return _plain(record.valid_from), None if record.valid_to is None else _plain(record.valid_to)


def _holds(record: CalibRecord, moment: datetime) -> bool:
    begin, end = _ends_of(record)
    return begin <= moment and (end is None or moment < end)


def _plain(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)
