"""Announcements of a night: which belong to it, and what becomes one event."""

import pytest

from rapid.next_visit.models import NextVisit
from rapid.next_visit.store import VisitNews
from replay.announced import SeenVisit, seen_visits, visit_events, visits_of_night
from replay.events import VisitCanceledEvent, VisitEvent
from replay.night_time import NightTime

T_S = 1_790_000_000.0
BEGIN_TAI_S = T_S + 37.0 + 600.0


def visit(group="g", **facts):
    return NextVisit.model_validate({"groupId": group, "instrument": "LSSTCam"} | facts)


def seen(at_s, one=None, *, group="g"):
    return SeenVisit(T_S + at_s, one.group_id if one is not None else group, one)


def kept(*told, first_s=1000.0, last_s=2000.0):
    return [(one.at_s - T_S, one.group) for one in visits_of_night(told, T_S + first_s, T_S + last_s)]


def test_times_are_those_at_which_the_server_took_them():
    news = [VisitNews("1790000000500-3", "g", visit()), VisitNews("1790000001000-0", "g", None)]
    assert list(seen_visits(news)) == [seen(0.5, visit()), seen(1.0)]


def test_what_was_over_before_the_night_or_came_after_it_is_none_of_it():
    assert kept(seen(600, visit("old")), seen(800, visit("just")), seen(2100, visit("next"))) == [(800, "just")]


def test_an_announcement_for_later_counts_until_then():
    later = visit("later", startTime=BEGIN_TAI_S, duration=120.0)
    assert seen(0, later).until_s - T_S == pytest.approx(600 + 120 + 300)
    assert kept(seen(0, later)) == [(0, "later")]


def test_what_was_taken_back_before_the_night_began_is_left_out():
    assert kept(seen(800, visit("a")), seen(900, group="a"), seen(950, visit("b")), seen(1100, group="b")) == [
        (950, "b"),
        (1100, "b"),
    ]


def test_a_cancellation_of_what_nobody_announced_is_left_out():
    assert kept(seen(1100, group="x")) == []


def test_what_a_fan_out_service_tells_by_detector_is_one_event():
    told = [seen(1 + place / 10, visit(detector=number)) for place, number in enumerate((3, 1, 2))]
    (event,) = visit_events(told, NightTime(), T_S)
    assert isinstance(event, VisitEvent)
    assert (event.at_s, event.visit.detectors) == (1.0, (1, 2, 3))


def test_what_is_said_anew_otherwise_or_much_later_is_another_event():
    told = [seen(1, visit(filters="r_57")), seen(2, visit(filters="g_6")), seen(100, visit(filters="g_6"))]
    assert [(event.at_s, event.visit.filters) for event in visit_events(told, NightTime(), T_S)] == [
        (1.0, "r_57"),
        (2.0, "g_6"),
        (100.0, "g_6"),
    ]


def test_announced_cancelled_and_announced_again():
    told = [seen(1, visit(detector=1)), seen(2), seen(3, visit(detector=1))]
    assert [type(event) for event in visit_events(told, NightTime(), T_S)] == [
        VisitEvent,
        VisitCanceledEvent,
        VisitEvent,
    ]


def test_what_came_before_the_begin_comes_with_it_and_times_are_the_boards():
    times = NightTime()
    times.note((T_S + 0) * 1000, (T_S + 0) * 1000)
    times.note((T_S + 100) * 1000, (T_S + 1000) * 1000)  # ten times as fast
    told = [seen(-50, visit("a")), seen(50, visit("b"))]
    assert [event.at_s for event in visit_events(told, times, T_S)] == pytest.approx([0.0, 500.0], abs=1)
