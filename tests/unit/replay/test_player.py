"""What a player delivers: everything once, in order; after a seek only the rest; in loops again and again."""

import math
import threading

import pytest

from rapid.errors import StoreError
from rapid.requests.models import RequestSpec
from replay.clock import NightClock
from replay.events import ControlEvent, FaultEvent, NoteEvent, RequestEvent
from replay.plan import make_plan
from replay.planned import recording_of_plan
from replay.play import Player
from replay.targets import DirectoryTarget, SinkTarget

PLAN = {
    "camera": "TestCam205",
    "day_obs": 20261120,
    "stars_per_detector": 5,
    "detectors": [90, 94],
    "blocks": [{"kind": "bias", "n": 3}],
}
FIRST, SECOND, THIRD = ("000001", "000002", "000003")


@pytest.fixture
def recording():
    return recording_of_plan(make_plan(PLAN))


def played(recording, clock=None, **options):
    keys: list[str] = []
    player = Player(
        recording, SinkTarget(lambda key, _data: keys.append(key)), clock or NightClock(math.inf), **options
    )
    player.run()
    return keys, player


def exposures(keys: list[str]) -> list[str]:
    return [key.split("/")[-2].split("_")[-1] for key in keys]


def test_everything_is_delivered_once_and_in_order(recording):
    keys, player = played(recording, n_threads=2)
    assert exposures(keys) == [FIRST] * 3 + [SECOND] * 3 + [THIRD] * 3
    assert keys[0].endswith("_expectedSensors.json")
    assert len(set(keys)) == 9
    assert (player.delivered.n_raws, player.progress.n_raws, player.progress.n_done) == (6, 6, 9)
    assert player.delivered.last_raw_s.keys() == recording.exposures.keys()


def test_the_order_is_the_same_for_a_seed(recording):
    assert played(recording, seed=4)[0] == played(recording, seed=4)[0]


def test_a_loop_plays_the_night_again(recording):
    keys, player = played(recording, loops=2)
    assert exposures(keys) == ([FIRST] * 3 + [SECOND] * 3 + [THIRD] * 3) * 2
    assert player.delivered.n_duplicates == 6


def test_from_where_is_sought_only_the_rest_is_played(recording):
    clock = NightClock(math.inf)
    clock.seek(60.0)
    assert exposures(played(recording, clock)[0]) == [THIRD] * 3


def test_going_back_plays_what_was_played_again(recording):
    clock = NightClock(math.inf)
    once = iter([True])

    def back(progress):
        if progress.n_done == 6 and next(once, False):
            clock.seek(0.0)

    keys, _ = played(recording, clock, on_step=back)
    assert exposures(keys) == [FIRST] * 3 + [SECOND] * 3 + [FIRST] * 3 + [SECOND] * 3 + [THIRD] * 3


def test_a_night_that_is_stopped_delivers_no_more(recording):
    clock = NightClock(math.inf)
    keys, player = played(recording, clock, on_step=lambda progress: clock.stop() if progress.n_done == 4 else None)
    assert len(keys) == player.progress.n_done == 4


def test_idle_time_is_passed_over(recording):
    # At the night's own pace this would take over a minute.
    keys, _ = played(recording, NightClock(20.0), max_gap_s=1.0)
    assert len(keys) == 9


def test_step_by_step_nothing_happens_unasked(recording):
    clock = NightClock(1.0, stepping=True)
    keys: list[str] = []
    came = threading.Semaphore(0)

    def put(key: str, _data: bytes) -> None:
        keys.append(key)
        came.release()

    thread = threading.Thread(target=Player(recording, SinkTarget(put), clock).run)
    thread.start()
    try:
        for n in (1, 2, 3):
            clock.step()
            assert came.acquire(timeout=60)
            assert len(keys) == n
    finally:
        clock.stop()
        thread.join(60)
    assert len(keys) == 3


class Door:
    """Hears what is asked of a system."""

    def __init__(self, problem: Exception | None = None):
        self.heard: list[object] = []
        self.problem = problem

    def set_rate(self, rate: float) -> None:
        self.heard.append(rate)

    def change_control(self, event: ControlEvent) -> None:
        self.heard.append(event.change)
        if self.problem:
            raise self.problem


def with_events(recording, *events):
    recording.events = sorted([*recording.events, *events], key=lambda event: event.at_s)
    return recording


def test_control_changes_are_played_in_their_place_and_the_clock_goes_along(recording):
    door = Door()
    change = ControlEvent(at_s=40.0, change={"pattern": "all"})
    faults = []
    night = with_events(recording, change, NoteEvent(at_s=1.0, name="seen"), FaultEvent(at_s=50.0, fault={"kind": "x"}))
    order = []
    player = Player(
        night,
        SinkTarget(lambda key, _data: order.append((key.split("/")[-2][-1], len(door.heard)))),
        NightClock(500.0),
        door=door,
        on_fault=faults.append,
    )
    player.run()
    assert door.heard == [500.0, {"pattern": "all"}, 1.0]
    assert [n for exposure, n in order] == [1] * 6 + [2] * 3
    assert [fault.fault for fault in faults] == [{"kind": "x"}]


def test_a_change_that_is_refused_is_told_and_the_night_goes_on(recording):
    door = Door(StoreError("no"))
    night = with_events(recording, ControlEvent(at_s=40.0, change={"pattern": "all"}))
    keys, player = played(night, door=door)
    assert len(keys) == 9
    (problem,) = player.progress.problems
    assert "control at 40 s: no" in problem


@pytest.mark.parametrize(("rate", "goes_on"), [(10.0, 10.0), (math.inf, 1.0)])
def test_the_clock_of_a_night_that_is_ended_while_it_stands_goes_on(recording, rate, goes_on):
    door = Door()
    clock = NightClock(rate, stepping=True)
    came = threading.Event()
    player = Player(recording, SinkTarget(lambda *_: came.set()), clock, door=door, restore_rate=False)
    thread = threading.Thread(target=player.run)
    thread.start()
    clock.step(2)
    assert came.wait(60)
    clock.stop()
    thread.join(60)
    assert 0.0 in door.heard
    assert door.heard[-1] == goes_on


def test_a_request_that_is_none_is_told_and_the_night_goes_on(recording):
    door = Door()
    door.ask = lambda event: RequestSpec.model_validate(event.spec)
    asked = RequestEvent(at_s=40.0, request_id="1-1", spec={"select": {"exposures": "all"}})
    keys, player = played(with_events(recording, asked), door=door)
    assert len(keys) == 9
    (problem,) = player.progress.problems
    assert "request at 40 s" in problem
    assert "select.exposures" in problem


def test_a_directory_that_takes_nothing_is_told_of(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(StoreError, match="takes no raws"):
        DirectoryTarget(tmp_path / "file").put("Cam/20261120/a.fits", b"x")
