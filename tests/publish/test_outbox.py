"""What waits to be sent: order, outages, bad parcels."""

import asyncio
import threading
from collections import defaultdict

import pytest

from rapid.errors import NotFoundError, RefusedError, StoreError
from rapid.publish.outbox import Outbox, Parcel

LONG_S = 30.0


class Place:
    """A destination that records, fails on demand, and holds what is under way until it is let go."""

    name = "place"

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.removed: list[str] = []
        self.is_down = False
        self.bad: dict[str, Exception] = {}
        self.attempts: dict[str, int] = defaultdict(int)
        self.under_way: set[str] = set()
        self.hold: threading.Event | None = None
        self.started = threading.Event()
        self._lock = threading.Lock()

    def send(self, parcel: Parcel, data: bytes) -> None:
        with self._lock:
            assert parcel.key not in self.under_way, "two parcels of one key at a time"
            self.under_way.add(parcel.key)
            self.attempts[parcel.key] += 1
        self.started.set()
        try:
            if self.hold is not None:
                assert self.hold.wait(LONG_S)
            if parcel.key in self.bad:
                raise self.bad[parcel.key]
            if self.is_down:
                raise StoreError("no answer")
            with self._lock:
                self.got.append((parcel.key, data))
        finally:
            with self._lock:
                self.under_way.discard(parcel.key)

    def remove(self, key: str) -> None:
        self.removed.append(key)


def parcel(key: str, text: str = "", *, version: int = 0, rank: int = 0, **more) -> Parcel:
    return Parcel(key, lambda: (text or key).encode(), version=version, rank=(rank,), **more)


@pytest.fixture
def place() -> Place:
    return Place()


async def sending(outbox: Outbox, work) -> None:
    """Run an outbox while some work is done."""
    stop = asyncio.Event()
    task = asyncio.create_task(outbox.run(stop))
    try:
        await asyncio.wait_for(work(), LONG_S)
    finally:
        stop.set()
        await asyncio.wait_for(task, LONG_S)


def quick(place: Place, **more) -> Outbox:
    return Outbox(place, **{"pause_s": 0.005, "pause_max_s": 0.02} | more)


def test_the_most_urgent_goes_first(place):
    async def scenario():
        outbox = quick(place, n_parallel=1)
        for number in (3, 1, 2):
            outbox.offer(parcel(f"k{number}", rank=number))
        await sending(outbox, lambda: outbox.drain(LONG_S))

    asyncio.run(scenario())
    assert [key for key, _ in place.got] == ["k1", "k2", "k3"]


def test_an_older_version_is_left_out_and_a_newer_one_replaces(place):
    async def scenario():
        outbox = quick(place)
        assert outbox.offer(parcel("k", "v1", version=1))
        assert outbox.offer(parcel("k", "v3", version=3))
        assert not outbox.offer(parcel("k", "v2", version=2))
        await sending(outbox, lambda: outbox.drain(LONG_S))
        assert not outbox.offer(parcel("k", "v2", version=2)), "also after it was sent"

    asyncio.run(scenario())
    assert place.got == [("k", b"v3")]


def test_what_comes_while_its_key_is_under_way_is_sent_after_it(place):
    place.hold = threading.Event()

    async def scenario():
        outbox = quick(place)

        async def work():
            outbox.offer(parcel("k", "v1", version=1))
            assert await asyncio.to_thread(place.started.wait, LONG_S)
            outbox.offer(parcel("k", "v2", version=2))
            place.hold.set()
            assert await outbox.drain(LONG_S)

        await sending(outbox, work)

    asyncio.run(scenario())
    assert place.got == [("k", b"v1"), ("k", b"v2")]


def test_the_same_contents_are_not_sent_twice(place):
    async def scenario():
        outbox = quick(place)

        async def work():
            outbox.offer(parcel("k", "same", version=1))
            await outbox.drain(LONG_S)
            outbox.offer(parcel("k", "same", version=2))
            outbox.know({"other": "2510c39011c5be704182423e3a695e91"})  # of b"h"
            outbox.offer(parcel("other", "h"))
            await outbox.drain(LONG_S)

        await sending(outbox, work)

    asyncio.run(scenario())
    assert place.got == [("k", b"same")]


def test_an_outage_loses_nothing_and_gives_nothing_up(place):
    place.is_down = True

    async def scenario():
        outbox = quick(place, max_failures=2)
        told = asyncio.Event()
        outbox.on_change = told.set

        async def work():
            for number in range(30):
                outbox.offer(parcel(f"k{number:02d}", rank=number))
            await asyncio.wait_for(told.wait(), LONG_S)
            status = outbox.status
            assert not status.is_up
            assert status.error == "no answer"
            assert status.n_waiting == 30
            # Others offer on: nothing blocks.
            outbox.offer(parcel("k99", rank=99))
            tries = sum(place.attempts.values())
            while sum(place.attempts.values()) < tries + 5:
                await asyncio.wait_for(asyncio.to_thread(threading.Event().wait, 0.01), LONG_S)
            place.is_down = False
            assert await outbox.drain(LONG_S)
            assert outbox.status.is_up
            assert outbox.status.n_dead == 0

        await sending(outbox, work)

    asyncio.run(scenario())
    assert len(place.got) == 31


def test_one_bad_parcel_ends_visibly_and_stops_no_other(place):
    place.bad = {"k05": StoreError("this one never")}

    async def scenario():
        outbox = quick(place, max_failures=3)

        async def work():
            for number in range(10):
                outbox.offer(parcel(f"k{number:02d}", rank=number))
            offered = 10
            while outbox.status.n_dead == 0:
                # Its failures count only while others get through.
                outbox.offer(parcel(f"m{offered}", rank=offered))
                offered += 1
                await asyncio.wait_for(asyncio.to_thread(threading.Event().wait, 0.005), LONG_S)
            assert await outbox.drain(LONG_S)

        await sending(outbox, work)
        assert [letter.key for letter in outbox.status.dead] == ["k05"]
        assert outbox.status.dead[0].error == "this one never"
        assert outbox.status.dead[0].failures == 3
        # Offered again, it gets another chance; and is no longer listed.
        place.bad = {}
        assert outbox.offer(parcel("k05"))
        await sending(outbox, lambda: outbox.drain(LONG_S))
        assert outbox.status.dead == []

    asyncio.run(scenario())
    assert "k05" in dict(place.got)


@pytest.mark.parametrize(
    "error", [NotFoundError("product", "gone"), ValueError("nonsense"), RefusedError("not you")], ids=type
)
def test_what_cannot_be_made_is_given_up_at_once(place, error):
    def broken() -> bytes:
        raise error

    async def scenario():
        outbox = quick(place)
        outbox.offer(Parcel("bad", broken, rank=(0,)))
        outbox.offer(parcel("good", rank=1))
        await sending(outbox, lambda: outbox.drain(LONG_S))
        assert [letter.key for letter in outbox.status.dead] == ["bad"]

    asyncio.run(scenario())
    assert [key for key, _ in place.got] == ["good"]


def test_there_is_room_for_so_many_and_the_least_urgent_give_way(place):
    async def scenario():
        outbox = quick(place, max_waiting=5)
        for number in range(9):
            outbox.offer(parcel(f"k{number}", rank=number))
        assert outbox.status.n_waiting == 5
        assert outbox.is_incomplete
        await sending(outbox, lambda: outbox.drain(LONG_S))
        assert outbox.offer(parcel("k8", rank=8)), "what was left out can come again"

    asyncio.run(scenario())
    assert sorted(key for key, _ in place.got) == [f"k{number}" for number in range(5)]


def test_what_is_obsolete_goes_once_the_new_one_is_there(place):
    async def scenario():
        outbox = quick(place)
        seen = []
        outbox.offer(parcel("movie2", obsolete=("movie1",), on_sent=lambda: seen.append(list(place.removed))))
        await sending(outbox, lambda: outbox.drain(LONG_S))
        assert seen == [["movie1"]]

    asyncio.run(scenario())
    assert place.removed == ["movie1"]


def test_stopping_finishes_what_is_under_way(place):
    place.hold = threading.Event()

    async def scenario():
        outbox = quick(place)
        stop = asyncio.Event()
        task = asyncio.create_task(outbox.run(stop))
        outbox.offer(parcel("k"))
        assert await asyncio.to_thread(place.started.wait, LONG_S)
        stop.set()
        place.hold.set()
        await asyncio.wait_for(task, LONG_S)

    asyncio.run(scenario())
    assert place.got == [("k", b"k")]


def test_in_an_outage_one_tries_at_a_time(place):
    place.is_down = True

    async def scenario():
        outbox = quick(place, n_parallel=8)
        told = asyncio.Event()
        outbox.on_change = told.set

        async def work():
            outbox.offer(parcel("first"))
            await asyncio.wait_for(told.wait(), LONG_S)
            for number in range(8):
                outbox.offer(parcel(f"k{number}"))
            for _ in range(30):
                assert len(place.under_way) <= 1
                await asyncio.wait_for(asyncio.to_thread(threading.Event().wait, 0.003), LONG_S)
            place.is_down = False
            assert await outbox.drain(LONG_S)

        await sending(outbox, work)

    asyncio.run(scenario())
