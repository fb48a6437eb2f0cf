"""A night is recorded while it happens, until it is over or somebody says so."""

import asyncio
import math

import pytest

from rapid.dispatch.board import AsyncBoard, Board
from rapid.dispatch.models import EventKind
from rapid.next_visit import store as visits
from rapid.next_visit.desk import VisitDesk
from rapid.next_visit.models import NextVisit, NextVisitCanceled
from rapid.results.store import open_results
from replay.clock import NightClock
from replay.events import NoteEvent, RawsEvent, VisitCanceledEvent, VisitEvent
from replay.live import LiveRecorder
from replay.play import Player
from replay.record import Recorder
from replay.recording import read_recording, write_recording
from replay.targets import DirectoryTarget, SystemDoor
from tests.replay.conftest import make_night
from tests.support.valkey import serve_valkey

BIAS = [{"kind": "bias", "n": 2}]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


async def test_what_arrives_and_what_the_board_tells_is_followed_until_told_to_stop(valkey, mini_camera, tmp_path):
    night = make_night(BIAS)
    stop, everything = asyncio.Event(), asyncio.Event()

    def on_news(notes):
        if len(notes.raws) == 18 and len(notes.sensors) == 2:
            everything.set()

    async with AsyncBoard(valkey.url, mini_camera.name) as board:
        await board.load()
        recorder = LiveRecorder(mini_camera, str(tmp_path / "raws"), board, on_news=on_news)
        with Board(valkey.url, mini_camera.name) as other:
            other.publish(EventKind.WORKER_JOINED, data={"worker": "w0"})
        running = asyncio.create_task(recorder.run(stop))
        player = Player(night, DirectoryTarget(tmp_path / "raws"), NightClock(math.inf))
        await asyncio.to_thread(player.run)
        await asyncio.wait_for(everything.wait(), 120)
        async with asyncio.timeout(60):
            while not recorder.notes.notes:
                await board.events("0", timeout_s=1.0)
        stop.set()
        notes = await asyncio.wait_for(running, 60)
    results = open_results(str(tmp_path / "results.sqlite"))
    made = Recorder(mini_camera, results).record(notes)
    results.close()
    assert {e.exposure: len(e.detectors) for e in made.events if isinstance(e, RawsEvent)} == dict.fromkeys(
        night.exposures, 9
    )
    assert [e.data["worker"] for e in made.events if isinstance(e, NoteEvent)] == ["w0"]
    assert made.headers.order == night.headers.order


async def test_a_night_is_over_when_nothing_arrives_any_more(mini_camera, tmp_path):
    night = make_night([{"kind": "bias", "n": 1}])
    Player(night, DirectoryTarget(tmp_path / "raws"), NightClock(math.inf)).run()
    recorder = LiveRecorder(mini_camera, str(tmp_path / "raws"), None, idle_s=3.0)
    notes = await asyncio.wait_for(recorder.run(asyncio.Event()), 120)
    assert {raw.exposure for raw in notes.raws} == set(night.exposures)


def announced_on(board):
    found = board.connection.run(visits.get_announced(board.prefix))
    return {visit.group_id: visit.detectors for visit, _ in found}


async def test_announced_visits_are_recorded_and_played(mini_camera, tmp_path):
    night = make_night(BIAS)
    group = "2026-11-20T22:00:00.000"
    with serve_valkey(tmp_path) as server:
        async with AsyncBoard(server.url, mini_camera.name) as board:
            await board.load()
            desk = VisitDesk(mini_camera.name, board)
            for number in (94, 90):  # as a fan-out service tells of it
                await desk.announce(
                    NextVisit(groupId=group, instrument=mini_camera.name, filters="r_57", detector=number)
                )
            await desk.announce(NextVisit(groupId="gone", instrument=mini_camera.name))
            recorder = LiveRecorder(mini_camera, str(tmp_path / "raws"), board, idle_s=3.0)
            running = asyncio.create_task(recorder.run(asyncio.Event()))
            loop = asyncio.get_running_loop()

            def cancel_between(exposure):
                if exposure == max(night.exposures):
                    canceled = desk.cancel(NextVisitCanceled(groupId="gone"))
                    asyncio.run_coroutine_threadsafe(canceled, loop).result(30)

            target = DirectoryTarget(tmp_path / "raws")
            await asyncio.to_thread(Player(night, target, NightClock(math.inf), may_begin=cancel_between).run)
            notes = await asyncio.wait_for(running, 120)
    results = open_results(str(tmp_path / "results.sqlite"))
    made = Recorder(mini_camera, results).record(notes)
    results.close()
    told = [event for event in made.events if isinstance(event, VisitEvent | VisitCanceledEvent)]
    assert [getattr(event, "group", None) or event.visit.group_id for event in told] == [group, "gone", "gone"]
    assert (told[0].visit.detectors, told[0].life_s) == ((90, 94), pytest.approx(300, abs=1))
    write_recording(made, tmp_path / "night.zip")
    again = read_recording(tmp_path / "night.zip")
    with serve_valkey(tmp_path / "other") as server, Board(server.url, mini_camera.name) as board:
        board.load()
        door = SystemDoor(mini_camera, board)
        Player(again, DirectoryTarget(tmp_path / "replayed"), NightClock(math.inf), door=door).run()
        assert announced_on(board) == {group: (90, 94)}
