"""Announced visits of a night: as the board tells them, and as events of a recording.

A fan-out service tells of each detector by itself: what is said close together of one visit becomes one event.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rapid.next_visit.models import NextVisit
from rapid.next_visit.store import VisitNews
from replay.events import VisitCanceledEvent, VisitEvent
from replay.night_time import NightTime

LEAD_S = 300.0
"""A night begins so long before its first raw at most: what was announced still earlier is announced as it begins."""

TOGETHER_S = 10.0
"""Within so long a fan-out service has told of all detectors."""


class SeenVisit(NamedTuple):
    """A visit that was announced; or taken back, if there is none.

    Attributes
    ----------
    at_s
        When, by our clock, seconds since the Unix epoch.
    """

    at_s: float
    group: str
    visit: NextVisit | None

    @property
    def until_s(self) -> float:
        """Until when it counts."""
        return self.at_s + (self.visit.life_s(now_s=self.at_s) if self.visit is not None else 0.0)


def seen_visits(news: Iterable[VisitNews]) -> Iterator[SeenVisit]:
    """Yield what the board's stream of announcements tells: an entry's id is when the server took it."""
    for one in news:
        written_ms = one.entry_id.partition("-")[0]
        if written_ms.isdecimal():
            yield SeenVisit(int(written_ms) / 1000, one.group_id, one.visit)


def visits_of_night(seen: Iterable[SeenVisit], first_s: float, last_s: float) -> list[SeenVisit]:
    """Return what counted while a night's raws came: neither what was over by then nor what came after.

    Examples
    --------
    >>> visit = NextVisit(groupId="g", instrument="LSSTCam")
    >>> [one.at_s for one in visits_of_night([SeenVisit(t, "g", visit) for t in (0.0, 900.0, 2000.0)], 1000.0, 1500.0)]
    [900.0]
    """
    kept: list[SeenVisit] = []
    for one in sorted(seen, key=lambda one: one.at_s):
        if one.at_s > last_s:
            continue
        if one.visit is not None:
            if one.until_s >= first_s:
                kept.append(one)
        elif one.at_s < first_s:
            kept = [other for other in kept if other.group != one.group]
        elif any(other.group == one.group for other in kept):
            kept.append(one)
    return kept


def visit_events(seen: Iterable[SeenVisit], times: NightTime, begin_s: float) -> list[VisitEvent | VisitCanceledEvent]:
    """Return the events of announcements, in order of time.

    Parameters
    ----------
    begin_s
        The night's begin by the board's clock [s since the epoch].
    """
    events: list[VisitEvent | VisitCanceledEvent] = []
    places: dict[str, tuple[int, float]] = {}
    for one in seen:
        at_s = round(max(times.board_s(one.at_s) - begin_s, 0.0), 3)
        if one.visit is None:
            places.pop(one.group, None)
            events.append(VisitCanceledEvent(at_s=at_s, group=one.group))
            continue
        place, begun_s = places.get(one.group, (-1, 0.0))
        before = events[place] if place >= 0 and one.at_s - begun_s <= TOGETHER_S else None
        if isinstance(before, VisitEvent) and before.visit.said == one.visit.said:
            events[place] = before.model_copy(update={"visit": one.visit.joined_to(before.visit)})
            continue
        places[one.group] = (len(events), one.at_s)
        events.append(VisitEvent(at_s=at_s, visit=one.visit, life_s=round(one.until_s - one.at_s, 3)))
    return events
