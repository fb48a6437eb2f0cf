"""Many viewers, some slow, some that come back."""

import asyncio
import json

import pytest

from rapid.display.hub import Hub, Message, stream_position


def message(n: int) -> Message:
    return Message.make("exposures", {"n": n}, event_id=f"{n}-0")


def numbers(frames: bytes) -> list[int]:
    lines = [line for line in frames.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: "))["n"] for line in lines]


async def read(viewer, heartbeat_s: float = 5.0) -> bytes:
    return await asyncio.wait_for(anext(viewer.frames(heartbeat_s=heartbeat_s)), 5)


@pytest.fixture
def hub() -> Hub:
    return Hub(history=4, limit=3)


async def test_every_viewer_hears_every_message(hub):
    with hub.subscribe(None) as one, hub.subscribe(None) as two:
        hub.publish(message(1))
        hub.publish(message(2))
        assert numbers(await read(one)) == numbers(await read(two)) == [1, 2]
    assert hub.n_viewers == 0


async def test_a_viewer_that_comes_back_gets_exactly_what_it_missed(hub):
    hub.start_at("0-0")
    for n in (1, 2, 3):
        hub.publish(message(n))
    with hub.subscribe("1-0") as viewer:
        hub.publish(message(4))
        assert numbers(await read(viewer)) == [2, 3, 4]


@pytest.mark.parametrize("after", ["1-0", "nonsense"])
async def test_one_that_was_away_too_long_is_told_so(hub, after):
    hub.start_at("0-0")
    for n in range(2, 9):
        hub.publish(message(n))
    with hub.subscribe(after) as viewer:
        assert b"event: reset" in await read(viewer)


async def test_a_slow_viewer_is_let_go_and_holds_up_nobody(hub):
    with hub.subscribe(None) as slow, hub.subscribe(None) as quick:
        heard = []
        for n in range(1, 6):
            hub.publish(message(n))
            heard += numbers(await read(quick))
        assert heard == [1, 2, 3, 4, 5]
        assert [frame async for frame in slow.frames(heartbeat_s=5)] == []


async def test_silence_brings_a_heartbeat(hub):
    with hub.subscribe(None) as viewer:
        assert b"event: heartbeat" in await read(viewer, heartbeat_s=0.01)


async def test_closing_ends_every_stream_after_what_is_queued(hub):
    with hub.subscribe(None) as viewer:
        hub.publish(message(1))
        hub.close()
        assert [numbers(frame) async for frame in viewer.frames(heartbeat_s=5)] == [[1]]
    with hub.subscribe(None) as late:
        assert [frame async for frame in late.frames(heartbeat_s=5)] == []


def test_words_with_line_breaks_stay_one_message():
    frame = Message.make("alert", {"reason": "a\n\ndata: b\r\nevent: c"}).frame
    assert frame.count(b"\n") == 3


def test_stream_ids_compare_in_order_of_time():
    assert stream_position("9-2") < stream_position("10-0") < stream_position("10-11")
