"""What a place outside lacks is told from counters: complete, in order, and by place."""

from datetime import datetime

import numpy as np
import pytest

from rapid.calibs.store import CalibStore
from rapid.results.changes import Changes, DueNight
from rapid.results.models import CalibState
from tests.support.records import make_summary

CAMERA = "LSSTCam"
HERE, THERE = "butler /repo", "butler /other"


def put(results, seq_num: int, *, day_obs: int = 20261120, run: str = "prompt", **changes):
    exposure = day_obs * 100_000 + seq_num
    summary = make_summary(exposure=exposure, seq_num=seq_num, day_obs=day_obs, run=run, **changes)
    results.put_summary(summary)
    return summary


def due(changes: Changes, place: str = HERE) -> dict[str, list[int]]:
    return {
        f"{night.run} {night.day_obs}": [one.exposure % 100_000 for one in changes.due_summaries(place, CAMERA, night)]
        for night in changes.due_nights(place, CAMERA)
    }


def put_all(changes: Changes, place: str = HERE) -> None:
    for night in changes.due_nights(place, CAMERA):
        for one in changes.due_summaries(place, CAMERA, night):
            changes.note_put(place, CAMERA, one)
        changes.note_night(place, CAMERA, night)


@pytest.fixture
def changes(results) -> Changes:
    return Changes(results.engine)


def test_everything_is_due_once_newest_first_and_what_nobody_named_never(results, changes):
    for seq_num in (1, 3, 2):
        put(results, seq_num)
    put(results, 7, day_obs=20250101, run="newpsf")
    put(results, 1, run="aaa")
    put(results, 4, run="request-1-0")
    put(results, 5, n_finished=0)
    assert list(due(changes).items()) == [
        ("prompt 20261120", [3, 2, 1]), ("aaa 20261120", [1]), ("newpsf 20250101", [7]),
    ]  # fmt: skip
    assert changes.n_due(HERE, CAMERA) == 5
    assert changes.n_due(HERE, "LATISS") == 0
    put_all(changes)
    assert (due(changes), changes.n_due(HERE, CAMERA)) == ({}, 0)
    assert changes.n_due(THERE, CAMERA) == 5, "another place has nothing of it"


def test_what_changes_is_due_again_and_nothing_else(results, changes):
    summary = put(results, 1)
    put(results, 2)
    put_all(changes)
    results.add_to_summary(summary, n_afterburned=1)
    assert due(changes) == {"prompt 20261120": [1]}
    put_all(changes)
    put(results, 2, version=2)
    assert due(changes) == {"prompt 20261120": [2]}
    put_all(changes)
    assert due(changes) == {}


def test_a_change_while_it_is_put_is_due_still(results, changes):
    put(results, 1)
    (night,) = changes.due_nights(HERE, CAMERA)
    (one,) = changes.due_summaries(HERE, CAMERA, night)
    put(results, 1, version=2)
    changes.note_put(HERE, CAMERA, one)
    changes.note_night(HERE, CAMERA, night)
    assert due(changes) == {"prompt 20261120": [1]}
    assert changes.n_changes(CAMERA, day_obs=20261120, run="prompt", exposure=2026112000001, pipeline="quicklook") == 2


def test_a_place_that_is_made_anew_has_nothing(results, changes):
    put(results, 1)
    for place in (HERE, THERE):
        put_all(changes, place)
    changes.forget(HERE, CAMERA)
    assert due(changes) == {"prompt 20261120": [1]}
    assert due(changes, THERE) == {}
    assert changes.due_nights(HERE, CAMERA) == [DueNight(20261120, "prompt", 1)]


def test_calibs_are_due_when_their_state_changes(results, changes, tmp_path):
    calibs = CalibStore(tmp_path / "calibs", results)

    def certify(kind: str, value: float, physical_filter: str | None = None) -> str:
        return calibs.certify(
            kind=kind, camera=CAMERA, detector=94, image=np.full((4, 5), value, np.float32),
            valid_from=datetime(2026, 11, 1), physical_filter=physical_filter,  # noqa: DTZ001 - TAI has no zone
        ).calib_id  # fmt: skip

    first = certify("bias", 1.0)
    certify("flat", 1.0, "r_57")
    lines = changes.due_calibs(HERE, CAMERA)
    assert [(one.kind, one.detector, one.physical_filter) for one in lines] == [("flat", 94, "r_57"), ("bias", 94, "")]
    changes.note_calibs(HERE, CAMERA, lines[0].event)
    assert changes.due_calibs(HERE, CAMERA) == []
    assert changes.due_calibs(HERE, "LATISS") == []
    results.set_calib_state(CAMERA, first, CalibState.WITHDRAWN, author="me")
    assert [one.kind for one in changes.due_calibs(HERE, CAMERA)] == ["bias"]
    assert len(changes.due_calibs(THERE, CAMERA)) == 2


def test_what_was_stored_before_there_were_counters_is_due(results_url):
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    from rapid.results.engine import MIGRATIONS
    from rapid.results.store import open_results

    store = open_results(results_url)
    put(store, 1)
    put(store, 1, version=2)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
        assert not sa.inspect(connection).has_table("summary_change")
    store.close()
    store = open_results(results_url)
    try:
        assert due(Changes(store.engine)) == {"prompt 20261120": [1]}
    finally:
        store.close()
