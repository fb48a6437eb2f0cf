"""The leading head's desk for requests, beside a stage whose workers and gather are played by hand."""

import asyncio
import threading

from rapid.campaign.plan import Listing
from rapid.dispatch.board import AsyncBoard
from rapid.head.assemble import Exposures
from rapid.head.requests import RequestDesk
from rapid.pipeline.store import default_book
from tests.display.stage import WAIT_S, Stage


class Desk:
    """The leading head's desk for requests, in a thread of its own."""

    def __init__(self, stage: Stage, *, listing: Listing | None = None) -> None:
        self._stage = stage
        self._listing = listing
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def _run(self) -> None:
        async def main() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            board = AsyncBoard(self._stage.settings.redis_url, self._stage.camera.name)
            try:
                await board.load()
                token, _ = await board.lead("head-a", ttl_ms=600_000)
                desk = RequestDesk(
                    self._stage.camera,
                    board,
                    self._stage.results,
                    default_book(),
                    Exposures(),
                    lead_token=token,
                    listing=self._listing,
                )
                await desk.prepare()
                self._ready.set()
                await desk.run()
            finally:
                await board.close()

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - told where the thread is joined
            self._error = error
        finally:
            self._ready.set()

    def __enter__(self) -> "Desk":
        self._thread.start()
        assert self._ready.wait(WAIT_S)
        assert self._error is None, self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._task is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        assert self._error is None, self._error
