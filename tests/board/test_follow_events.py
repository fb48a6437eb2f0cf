"""Tasks of the leading head follow the board's events through outages, and know when they may have missed some."""

import asyncio
from pathlib import Path

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import EventKind
from rapid.head.events import follow_events
from tests.support.valkey import serve_valkey

WAIT_S = 90.0


async def test_events_are_followed_through_an_outage_that_is_told(tmp_path: Path) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    gaps = asyncio.Event()

    async def listen(board: AsyncBoard, last_id: str) -> None:
        async for events in follow_events(board, last_id, on_gap=gaps.set):
            for event in events:
                heard.put_nowait(event.data["n"])

    with serve_valkey(tmp_path / "valkey") as server:
        async with AsyncBoard(server.url, "LSSTCam", outage_s=0.2) as board:
            await board.load()
            await board.publish(EventKind.CONTROL_CHANGED, data={"n": "before"})
            listening = asyncio.create_task(listen(board, await board.last_event_id()))
            try:
                async with asyncio.timeout(WAIT_S):
                    await board.publish(EventKind.CONTROL_CHANGED, data={"n": "first"})
                    assert await heard.get() == "first", "what was there before is not told again"
                    server.kill()
                    await gaps.wait()
                    server.start()
                    async with AsyncBoard(server.url, "LSSTCam") as another:
                        await another.publish(EventKind.CONTROL_CHANGED, data={"n": "second"})
                    while await heard.get() != "second":
                        pass  # the server's log may have kept less than was told
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)


async def test_a_wait_without_events_comes_back_so_that_what_is_due_can_be_done(tmp_path: Path) -> None:
    with serve_valkey(tmp_path / "valkey") as server:
        async with AsyncBoard(server.url, "LSSTCam") as board, asyncio.timeout(WAIT_S):
            await board.load()
            following = follow_events(board, await board.last_event_id(), wait_s=lambda: 0.01)
            assert await anext(following) == []
            await following.aclose()
