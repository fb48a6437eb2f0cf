"""A call to the board may be cancelled at any moment, and then it ends."""

import asyncio

import pytest

from rapid.dispatch.board import AsyncBoard


@pytest.mark.parametrize("n_steps", range(12))
async def test_a_cancelled_call_ends_however_far_it_has_come(board, valkey, n_steps):
    async with AsyncBoard(valkey.url, "LSSTCam") as other:
        await other.ping()  # connected, so that few steps lead far

        async def follow() -> None:
            while True:
                await other.now_ms()

        following = asyncio.create_task(follow())
        loop = asyncio.get_running_loop()
        for _ in range(n_steps):
            step: asyncio.Future[None] = loop.create_future()
            loop.call_soon(step.set_result, None)
            await step
        following.cancel()
        done, _ = await asyncio.wait({following}, timeout=20)
        assert done, "it goes on as if nothing had happened"
        assert following.cancelled()
