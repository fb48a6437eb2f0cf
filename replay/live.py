"""Record a night while it happens: follow what arrives and what the board tells, until told to stop or it is over."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.errors import StoreError
from rapid.next_visit import store as visits
from replay.announced import seen_visits
from replay.record import NightNotes
from replay.seen import follow

EVENTS_WAIT_S = 5.0


class LiveRecorder:
    """Follows one system.

    Parameters
    ----------
    raws
        Directory or bucket, as for the head.
    board
        Its board; None to do without what only the board tells.
    day_obs
        Only this night's; every night's if None.
    idle_s
        The night is over when nothing has arrived for so long [s]; 0 for never.
    on_news
        Called whenever something was noted.
    """

    def __init__(
        self,
        camera: Camera,
        raws: str,
        board: AsyncBoard | None,
        *,
        day_obs: int | None = None,
        idle_s: float = 0.0,
        on_news: Callable[[NightNotes], None] = lambda _notes: None,
    ) -> None:
        self.notes = NightNotes()
        self._camera = camera
        self._raws = raws
        self._board = board
        self._day_obs = day_obs
        self._idle_s = idle_s
        self._on_news = on_news
        self._arrived = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> NightNotes:
        """Follow until ``stop`` is set or the night is over; return what was noted.

        Raises
        ------
        StoreError
            Raised if the raws cannot be followed.
        """
        tasks = [asyncio.create_task(self._follow_raws()), asyncio.create_task(stop.wait())]
        if self._idle_s:
            tasks.append(asyncio.create_task(self._wait_until_idle()))
        heard = [] if self._board is None else [self._follow_board(self._board), self._follow_visits(self._board)]
        hearing = [asyncio.create_task(one) for one in heard]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *hearing):
                task.cancel()
            await asyncio.gather(*tasks, *hearing, return_exceptions=True)
        return self.notes

    async def _follow_raws(self) -> None:
        async for seen in follow(self._raws, camera=self._camera, day_obs=self._day_obs):
            self.notes.take(seen)
            self._arrived.set()
            self._on_news(self.notes)

    async def _wait_until_idle(self) -> None:
        await self._arrived.wait()
        while True:
            self._arrived.clear()
            try:
                async with asyncio.timeout(self._idle_s):
                    await self._arrived.wait()
            except TimeoutError:
                return

    async def _follow_visits(self, board: AsyncBoard) -> None:
        last = "0-0"
        while True:
            with contextlib.suppress(StoreError):
                news = await board.connection.run(visits.follow(board.prefix, last, timeout_s=EVENTS_WAIT_S))
                if news:
                    last = news[-1].entry_id
                    self.notes.visits += seen_visits(news)

    async def _follow_board(self, board: AsyncBoard) -> None:
        last = "0"
        while True:
            with contextlib.suppress(StoreError):  # it may be away, and come back: its stream is kept
                if last == "0":
                    time = await board.time()
                    self.notes.times.note(datetime.now(UTC).timestamp() * 1000, time.now_ms)
                events = await board.events(last, timeout_s=EVENTS_WAIT_S)
                if events:
                    last = events[-1].event_id
                    self.notes.hear(events)
