"""What is switched off is kept, and nothing is forgotten."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from rapid.errors import NotFoundError
from rapid.exclusions.models import EndedAlreadyError, ExcludedAlreadyError, ExclusionError, Target

T0 = datetime(2026, 11, 20, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
CCD = Target(detector=94, detector_name="R22_S11")
AMP = Target(detector=94, detector_name="R22_S11", amp="C00")
OTHER = Target(detector=95, detector_name="R22_S12")


def off(store, *targets, **changes):
    given = {"reason": "noisy", "author": "ann", "valid_from": T0, "now": T0}
    return store.exclude("LSSTCam", targets or (CCD,), **{**given, **changes})


def names(exclusions):
    return [exclusion.name for exclusion in exclusions]


def test_an_exclusion_comes_back_with_all_that_was_said(store):
    (made,) = off(store, AMP, valid_to=T0 + HOUR, now=T0 - HOUR)
    (found,) = store.history("LSSTCam")
    assert found == made
    assert (found.name, found.reason, found.author) == ("R22_S11/C00", "noisy", "ann")
    assert (found.created_at, found.valid_from, found.valid_to) == (T0 - HOUR, T0, T0 + HOUR)
    assert (found.ended_by, found.ended_at, found.end_reason) == (None, None, None)


def test_it_holds_from_its_begin_until_before_its_end(store):
    off(store, valid_to=T0 + HOUR)
    ms = timedelta(milliseconds=1)
    assert [names(store.active("LSSTCam", at)) for at in (T0 - ms, T0, T0 + HOUR - ms, T0 + HOUR)] == [
        [],
        ["R22_S11"],
        ["R22_S11"],
        [],
    ]


def test_cameras_are_told_apart(store):
    off(store)
    assert store.active("LATISS", T0) == []
    assert store.history("LATISS") == []
    with pytest.raises(NotFoundError):
        store.end("LATISS", store.history("LSSTCam")[0].id, by="bob", at=T0, now=T0)


def test_an_ended_exclusion_stays_in_the_history_with_who_ended_it(store):
    (made,) = off(store)
    ended = store.end("LSSTCam", made.id, by="bob", at=T0 + HOUR, now=T0 + 2 * HOUR, reason="board replaced")
    assert (ended.ended_by, ended.ended_at, ended.end_reason) == ("bob", T0 + 2 * HOUR, "board replaced")
    assert names(store.active("LSSTCam", T0)) == ["R22_S11"]
    assert store.active("LSSTCam", T0 + HOUR) == []
    assert store.history("LSSTCam") == [ended]


def test_an_undone_exclusion_never_held_and_is_still_on_record(store):
    (made,) = off(store)
    undone = store.end("LSSTCam", made.id, by="ann", at=T0 + HOUR, now=T0 + HOUR, undo=True)
    assert undone.is_undone
    assert store.active("LSSTCam", T0) == []
    assert store.active("LSSTCam", T0 + 9 * HOUR) == []
    assert store.history("LSSTCam") == [undone]
    assert names(off(store)) == ["R22_S11"], "it can be switched off again"


def test_an_end_before_the_begin_undoes(store):
    (made,) = off(store, valid_from=T0 + 5 * HOUR)
    assert store.end("LSSTCam", made.id, by="ann", at=T0, now=T0).is_undone
    assert store.not_over("LSSTCam", T0) == []


def test_nothing_is_ended_twice(store):
    (made,) = off(store)
    store.end("LSSTCam", made.id, by="bob", at=T0 + HOUR, now=T0)
    with pytest.raises(EndedAlreadyError, match="R22_S11 was ended by bob at 2026-11-20 20:00 UTC"):
        store.end("LSSTCam", made.id, by="ann", at=T0 + 2 * HOUR, now=T0)


def test_a_planned_end_can_be_brought_forward_and_not_put_off(store):
    (made,) = off(store, valid_to=T0 + 5 * HOUR)
    with pytest.raises(EndedAlreadyError, match="on again since 2026-11-21 01:00 UTC"):
        store.end("LSSTCam", made.id, by="ann", at=T0 + 6 * HOUR, now=T0)
    assert store.end("LSSTCam", made.id, by="ann", at=T0 + HOUR, now=T0).valid_to == T0 + HOUR


def test_what_is_off_cannot_be_switched_off_again(store):
    off(store)
    with pytest.raises(ExcludedAlreadyError, match=r"R22_S11 is excluded already: noisy \(ann, since"):
        off(store, OTHER, CCD, valid_from=T0 + HOUR)
    assert names(store.history("LSSTCam")) == ["R22_S11"], "all or nothing"
    assert names(off(store, AMP)) == ["R22_S11/C00"], "an amp of it is another thing"


@pytest.mark.parametrize(
    ("begin", "end", "is_refused"),
    [
        pytest.param(-2, -1, False, id="before"),
        pytest.param(-2, 0, False, id="up to it"),
        pytest.param(-2, 1, True, id="into it"),
        pytest.param(-2, None, True, id="open from before"),
        pytest.param(1, 2, True, id="within"),
        pytest.param(3, 4, False, id="from its end"),
        pytest.param(5, None, False, id="open from after"),
    ],
)
def test_times_of_one_target_do_not_overlap(store, begin, end, is_refused):
    off(store, valid_to=T0 + 3 * HOUR)
    times = {"valid_from": T0 + begin * HOUR, "valid_to": None if end is None else T0 + end * HOUR}
    if is_refused:
        with pytest.raises(ExcludedAlreadyError):
            off(store, **times)
    else:
        off(store, **times)


def test_of_two_who_switch_off_at_once_one_is_told(store):
    def attempt(author):
        try:
            return off(store, author=author)[0].author
        except ExcludedAlreadyError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, ["ann", "bob", "eve", "joe"]))
    assert outcomes.count("excluded_already") == 3
    assert [exclusion.author for exclusion in store.history("LSSTCam")] == [
        outcome for outcome in outcomes if outcome != "excluded_already"
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"reason": "  "}, "reason", id="no reason"),
        pytest.param({"reason": "x" * 501}, "reason", id="endless reason"),
        pytest.param({"reason": "a\nb"}, "reason", id="reason of two lines"),
        pytest.param({"valid_to": T0}, "valid_to", id="ends as it begins"),
    ],
)
def test_what_makes_no_sense_is_refused_by_field(store, changes, field):
    with pytest.raises(ExclusionError) as caught:
        off(store, **changes)
    assert caught.value.field == field
    assert store.history("LSSTCam") == []


def test_the_history_comes_in_pages(store):
    for number in range(5):
        off(store, valid_from=T0 + number * HOUR, valid_to=T0 + (number + 1) * HOUR)
    off(store, OTHER)
    first = store.history("LSSTCam", detector=94, limit=2)
    assert [exclusion.valid_from for exclusion in first] == [T0 + 4 * HOUR, T0 + 3 * HOUR]
    rest = store.history("LSSTCam", detector=94, before=first[-1].id)
    assert len(rest) == 3
