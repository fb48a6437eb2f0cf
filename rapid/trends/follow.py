"""Keep trends and alarms up to date while a role runs.

A gather step wakes it when a calibration exposure is complete; it also looks once when it starts, for what came while
nobody watched. A search in hand takes all that came meanwhile, so that twenty biases in a row cost no twenty searches.
"""

import asyncio
import contextlib
from typing import Any

import sqlalchemy as sa
import structlog

from rapid.errors import StoreError
from rapid.results.models import ExposureSummary
from rapid.results.trend_schema import TRENDED

log = structlog.get_logger()

INTERVAL_S = 30.0
"""Between two searches: alarms of a change over days can wait so long, and a search of a focal plane takes seconds."""

RETRY_S = 60.0
"""Until the results store is asked again after it did not answer, if no exposure comes first."""


class TrendFollower:
    """Watches trends as summaries are made.

    An object of it is a gather step: put it among the steps, and run `run` beside the gatherer.

    Parameters
    ----------
    engine
        That of a results store.
    interval_s
        Least time between two searches, and before the first one that nothing asked for.
    """

    def __init__(self, engine: sa.Engine, camera: str, *, interval_s: float = INTERVAL_S) -> None:
        self._engine = engine
        self._camera = camera
        self._interval_s = interval_s
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, summary: ExposureSummary, _results: Any, _products: Any) -> None:
        """Note that an exposure is complete; called from a thread of the gatherer's."""
        if summary.image_type in TRENDED and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closing: the next start looks again
                self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until ``stop`` is set; a search in hand is finished first."""
        self._loop = asyncio.get_running_loop()
        stopping = asyncio.create_task(stop.wait())
        # What came while nobody watched can wait until the role has started.
        wait_s: float | None = self._interval_s
        try:
            while not stop.is_set():
                waking = asyncio.create_task(self._wake.wait())
                await asyncio.wait({waking, stopping}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
                if stop.is_set():
                    return
                self._wake.clear()
                wait_s = None
                try:
                    await asyncio.to_thread(self._search, stop)
                except StoreError as error:
                    log.warning("trends wait for the results store", error=error.message)
                    wait_s = RETRY_S
                except Exception as error:
                    # Science of old numbers must not stop the making of new pictures.
                    log.exception("trends could not be searched", error=str(error))
                await asyncio.wait({stopping}, timeout=self._interval_s)
        finally:
            stopping.cancel()

    def _search(self, stop: asyncio.Event) -> None:
        # Here and not above: compiled kernels take a second to load, and a gather role has better things to begin with.
        from rapid.trends.watch import TrendWatch

        TrendWatch(self._engine).run(self._camera, should_stop=stop.is_set)
