"""What holds up an afternoon's builds: its own exposures alone, not those of other days, runs or pipelines."""

import pytest

from rapid.dispatch.models import BatchKey
from rapid.head.builds import ungathered_of
from rapid.head.decide import calib_groups, choose_builds
from tests.support.records import make_summary

TODAY, YESTERDAY = 20261120, 20261119


def key(seq_num: int, *, day_obs: int = TODAY, pipeline: str = "bias", run: str = "prompt") -> BatchKey:
    return BatchKey(run=run, exposure_id=day_obs * 100_000 + seq_num, pipeline=pipeline)


def bias(seq_num: int, *, day_obs: int = TODAY):
    info = {"group_id": f"{day_obs}-b", "group_size": 2}
    return make_summary(seq_num, day_obs=day_obs, pipeline="bias", image_type="bias", info=info)


@pytest.mark.parametrize(
    ("recent", "held"),
    [
        pytest.param([key(1), key(2)], set(), id="all gathered"),
        pytest.param([key(1), key(2), key(3)], {TODAY * 100_000 + 3}, id="one on its way"),
        pytest.param([key(1, day_obs=YESTERDAY)], set(), id="those of the afternoon before are not this one's"),
        pytest.param([key(3, run="request-7")], set(), id="nor what somebody has asked for"),
        pytest.param([key(3, pipeline="quicklook")], set(), id="nor images of the sky"),
        pytest.param([key(2, pipeline="dark")], {TODAY * 100_000 + 2}, id="the same exposure under another pipeline is"),
    ],
)  # fmt: skip
def test_only_calibration_exposures_of_the_night_that_are_not_gathered_hold_up_its_builds(recent, held):
    assert ungathered_of(TODAY, recent, [bias(1), bias(2)]) == held


def test_the_second_afternoon_is_built_while_the_board_remembers_the_first():
    recent = [key(n, day_obs=day) for day in (YESTERDAY, TODAY) for n in (1, 2)]
    today = [bias(1), bias(2)]
    (group,) = calib_groups(today)
    assert choose_builds([group], {}, ungathered=ungathered_of(TODAY, recent, today)) == [group]
