"""Which exposures belong to a request, and which will never come."""

import pytest

from rapid.requests.decide import ExposureFacts, is_overtaken, may_belong, members_of, state_of, why_it_cannot_come
from rapid.requests.models import RequestState
from rapid.requests.selection import Selection

DAY = 2026112000000


def facts(*items):
    return {DAY + n: ExposureFacts(DAY + n, kind, *rest) for n, kind, *rest in items}


def select(**fields):
    return Selection.model_validate(fields)


KNOWN = facts(
    (1, "bias", "a", 1, 3), (2, "bias", "a", 2, 3), (3, "science", "a", 1, 1), (4, "bias", "b"), (5, "focus", "c", 2, 3)
)


@pytest.mark.parametrize(
    ("selection", "members", "missing", "n_wanted"),
    [
        ({"exposures": [DAY + 2, DAY + 9]}, (2,), (9,), 2),
        ({"group": {"group_id": "a", "image_type": "bias"}}, (1, 2), (), 3),
        ({"group": {"group_id": "a", "image_type": "bias", "n": 2}}, (1, 2), (), 2),
        ({"group": {"group_id": "b"}}, (4,), (), None),
        ({"group": {"group_id": "z"}}, (), (), None),
        ({"next": {"n": 2, "image_type": "bias"}}, (2, 4), (), 2),
        ({"next": {"n": 9}}, (2, 3, 4, 5), (), 9),
        ({"sequence": {"of": DAY + 5}}, (4, 5), (6,), 3),
        ({"sequence": {"of": DAY + 3}}, (3,), (), 1),
        ({"sequence": {"of": DAY + 8}}, (), (8,), None),
    ],
)  # fmt: skip
def test_members(selection, members, missing, n_wanted):
    found = members_of(select(**selection), KNOWN, after=(DAY + 1) % 10**12)
    assert found.members == tuple(DAY + n for n in members)
    assert found.missing == tuple(DAY + n for n in missing)
    assert found.n_wanted == n_wanted
    for n in members:
        assert may_belong(select(**selection), KNOWN[DAY + n], after=(DAY + 1) % 10**12, chosen=()) or n == 4


def test_an_exposure_that_arrives_late_pushes_none_of_the_next_ones_out():
    chosen = (DAY + 4,)
    found = members_of(select(next={"n": 2}), KNOWN, after=0, chosen=chosen)
    assert found.members == (DAY + 4, DAY + 1)


@pytest.mark.parametrize(
    ("exposure_id", "newest", "reason"),
    [
        (DAY + 7, DAY + 5, None),
        (DAY + 3, DAY + 5, None),
        (2026111900003, DAY + 5, "is over"),
        (2026112100001, DAY + 5, None),
        (2026112500001, DAY + 5, "to come"),
        (2026113100001, DAY + 5, "no date"),
        (7, DAY + 5, "no date"),
        (2020010100001, None, None),
        (3026112000007, DAY + 5, None),
    ],
    ids=["the next", "an overtaken one", "of last night", "of tomorrow", "of next week", "no date", "no day", "nothing known", "simulated"],
)  # fmt: skip
def test_what_cannot_come(exposure_id, newest, reason):
    order = None if newest is None else newest % 10**12
    found = why_it_cannot_come(exposure_id, newest=order, today=20261120)
    assert (found is None) if reason is None else reason in found


def test_overtaken_is_what_is_older_than_the_newest():
    assert is_overtaken(DAY + 3, newest=(DAY + 5) % 10**12)
    assert not is_overtaken(DAY + 6, newest=(DAY + 5) % 10**12)
    assert not is_overtaken(DAY + 3, newest=None)


@pytest.mark.parametrize(
    ("is_whole", "n_targets", "n_ended", "state"),
    [
        (False, 0, 0, RequestState.WAITING),
        (False, 2, 2, RequestState.WAITING),
        (False, 2, 1, RequestState.RUNNING),
        (True, 2, 2, RequestState.RUNNING),
    ],
)
def test_states(is_whole, n_targets, n_ended, state):
    assert state_of(is_whole=is_whole, n_targets=n_targets, n_ended=n_ended) is state
