"""One publish role sends, another stands by; a bucket that hangs holds nobody up."""

import asyncio
import subprocess
import sys
import threading
from contextlib import AsyncExitStack

from rapid.dispatch.board import AsyncBoard
from rapid.publish.lead import Lead
from rapid.publish.outbox import Outbox, Parcel
from rapid.publish.store import get_sent
from tests.publish.test_role import DAY, LONG_S, MOSAIC, board, running, store, tell, valkey

__all__ = ["board", "valkey"]  # fixtures


async def rows_of(stage, *numbers: int) -> None:
    await stage.place.wait_for(lambda: all(str(number) in stage.table() for number in numbers))


def test_one_sends_and_the_next_goes_on_when_it_stops(valkey, board, results, products, tmp_path):
    target = str(tmp_path / "bucket")

    async def scenario():
        async with AsyncExitStack() as stopped_last, AsyncExitStack() as stopped_first:
            first = await stopped_first.enter_async_context(running(valkey.url, target, results, products))
            second = await stopped_last.enter_async_context(running(valkey.url, target, results, products))
            store(results, products, 1)
            tell(board, 1)
            await rows_of(first, 1)
            assert second.outbox.status.n_sent == 0
            store(results, products, 2)  # whoever publishes next finds it, told of or not
            await stopped_first.aclose()
            await rows_of(second, 2)
            assert await second.outbox.drain(LONG_S)
            assert second.outbox.status.n_sent > 0

    asyncio.run(scenario())


def test_a_role_that_was_killed_is_replaced_once_its_lease_has_passed(valkey, board, results, products, tmp_path):
    store(results, products, 1)

    async def scenario():
        async with AsyncBoard(valkey.url, "LSSTCam", outage_s=LONG_S) as theirs:
            dead = Lead(theirs, "publish.test", ttl_s=1.0)
            assert await dead.try_to_take() == 0.0  # and never again
            async with running(valkey.url, str(tmp_path / "bucket"), results, products) as stage:
                await rows_of(stage, 1)
                assert not dead.is_held()

    asyncio.run(scenario())


def test_two_of_one_name_are_two(valkey, board):
    async def scenario():
        async with AsyncBoard(valkey.url, "LSSTCam", outage_s=LONG_S) as board_:
            one, other = Lead(board_, "publish", ttl_s=60.0), Lead(board_, "publish", ttl_s=60.0)
            assert await one.try_to_take() == 0.0
            assert 0.0 < await other.try_to_take() <= 60.0
            assert (one.is_held(), other.is_held()) == (True, False)
            await other.resign()  # what it does not have it cannot give up
            assert await one.try_to_take() == 0.0
            waiting = asyncio.create_task(other.wait_until_free(LONG_S))
            await one.resign()
            await asyncio.wait_for(waiting, LONG_S / 2)
            assert await other.try_to_take() == 0.0

    asyncio.run(scenario())


def test_nothing_is_sent_while_the_right_is_anothers():
    class Place:
        name = "place"

        def __init__(self):
            self.got = []

        def send(self, parcel, _data):
            self.got.append(parcel.key)

        def remove(self, key):
            raise AssertionError(key)

    async def scenario():
        is_mine = [False]
        asked = asyncio.Event()

        def may_send():
            asked.set()
            return is_mine[0]

        place, stop = Place(), asyncio.Event()
        outbox = Outbox(place, may_send=may_send)
        outbox.offer(Parcel("a", lambda: b"a"))
        task = asyncio.create_task(outbox.run(stop))
        await asyncio.wait_for(asked.wait(), LONG_S)
        assert not await outbox.drain(0.05)
        assert place.got == []
        is_mine[0] = True
        outbox.wake()
        assert await outbox.drain(LONG_S)
        assert place.got == ["a"]
        stop.set()
        await asyncio.wait_for(task, LONG_S)

    asyncio.run(scenario())


HANGS = """
import asyncio, threading
from rapid.publish.outbox import Outbox, Parcel

class Place:
    name = "place"
    def send(self, parcel, data):
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait(600)
    def remove(self, key): pass

async def main():
    global loop, begun
    loop, begun, stop = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    outbox = Outbox(Place(), stop_s=0.05)
    outbox.offer(Parcel("a", lambda: b"a"))
    task = asyncio.create_task(outbox.run(stop))
    await begun.wait()
    stop.set()
    await task
    print("stopped")

asyncio.run(main())
"""


def test_a_bucket_that_hangs_holds_up_neither_the_stop_nor_the_end_of_the_process():
    told = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=300, check=True)
    assert told.stdout.splitlines()[-1] == "stopped"


def test_what_another_wrote_late_is_put_right_by_comparing_again(valkey, board, results, products, tmp_path):
    async def scenario():
        async with running(valkey.url, str(tmp_path / "bucket"), results, products) as stage:
            store(results, products, 1)
            tell(board, 1)
            key = MOSAIC.format(1)
            await stage.place.wait_for(lambda: key in stage.names())
            right = stage.bucket.get(key)
            assert await stage.outbox.drain(LONG_S)
            stage.bucket.put(key, b"of an older version", content_type="image/jpeg")
            await stage.publisher.read_night(DAY)
            assert await stage.outbox.drain(LONG_S)
            assert stage.bucket.get(key) == right

    asyncio.run(scenario())


def test_it_compares_again_by_itself_once_the_others_last_put_must_have_ended(
    valkey, board, results, products, tmp_path, monkeypatch
):
    from rapid.publish.rubintv import RubinTVPublisher

    looks = threading.Semaphore(0)
    known = RubinTVPublisher.known

    def counted(self, day_obs):
        looks.release()
        return known(self, day_obs)

    monkeypatch.setattr(RubinTVPublisher, "known", counted)
    store(results, products, 1)

    async def scenario():
        async with running(valkey.url, str(tmp_path / "bucket"), results, products, settle_s=0.1):
            for _ in range(2):  # at the start, and once more
                assert await asyncio.to_thread(looks.acquire, timeout=LONG_S)

    asyncio.run(scenario())


def test_the_board_remembers_when_a_row_was_sent(valkey, board, results, products, tmp_path):
    from datetime import UTC, datetime

    async def scenario():
        async with (
            AsyncBoard(valkey.url, "LSSTCam", outage_s=LONG_S) as ours,
            running(valkey.url, str(tmp_path / "bucket"), results, products) as stage,
        ):
            sent = asyncio.Event()
            stage.rubintv.on_row = lambda row: (stage.publisher.note_row(row), sent.set())
            store(results, products, 1, gathered_at=datetime.now(UTC))
            tell(board, 1)
            await asyncio.wait_for(sent.wait(), LONG_S)
            rows = []
            async with asyncio.timeout(LONG_S):
                while not rows:  # told with the next status, which follows by itself
                    await ours.events("$", timeout_s=0.05)
                    rows = await ours.connection.run(get_sent(ours.prefix, DAY))
            (row,) = rows
            assert (row.exposure, row.pipeline, row.version) == (DAY * 100_000 + 1, "quicklook", 1)
            assert row.destination == "rubintv"
            assert row.begin_ms <= row.end_ms

    asyncio.run(scenario())
