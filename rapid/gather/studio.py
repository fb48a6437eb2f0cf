"""What is drawn after a summary is out: plots by matplotlib, the night's roll-up and movie, in a process of their own.

The gather offers every summary here and goes on. The newest is drawn first; what has not been begun when too much
waits is let go, and counted. When plots are there, the summary's row has them under the same version, and the board
tells ``products_added``.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from pydantic import ValidationError

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, EventKind
from rapid.errors import StoreError
from rapid.gather.studio_models import NightTask, PlotTask, StudioAnswer, StudioTask
from rapid.line_process import LineProcess, NoAnswerError
from rapid.results.models import ExposureSummary

log = structlog.get_logger()

MAX_WAITING = 64
"""Plots that wait; at 2 s each two minutes behind is enough: the newest go first."""


class StudioMetrics:
    """Counters of the studio."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.drawn = Counter("rapid_plots_drawn", "Summaries whose plots were drawn", registry=registry)
        self.failed = Counter("rapid_plots_failed", "Studio tasks that failed", registry=registry)
        self.let_go = Counter("rapid_plots_let_go", "Summaries left without plots: too many waited", registry=registry)


class Studio:
    """Draws what may come later.

    Parameters
    ----------
    board
        Where it tells of what was made.
    results_url, products_url
        Stores that its process opens.
    movie_period_s
        A running night's movie is made anew this often, and once more when no exposure has come for that long.
    task_s
        A task that takes longer is ended with its process.
    """

    def __init__(
        self,
        board: AsyncBoard,
        *,
        results_url: str,
        products_url: str,
        movie_period_s: float = 600.0,
        task_s: float = 300.0,
        metrics: StudioMetrics | None = None,
    ) -> None:
        self._board = board
        self._stores = {"results_url": results_url, "products_url": products_url}
        self._movie_period_s = movie_period_s
        self._metrics = metrics or StudioMetrics()
        self._waiting: OrderedDict[str, PlotTask] = OrderedDict()
        self._nights: dict[tuple[str, int, str], float] = {}
        self._news = asyncio.Event()
        self._process = LineProcess("rapid.gather.studio_child", answer_s=task_s)

    def offer(self, summary: ExposureSummary) -> None:
        """Have a summary drawn, some time; from the event loop's thread. An older version that waits is let go."""
        if summary.pipeline.startswith("build_"):
            return
        batch = BatchKey(exposure_id=summary.exposure, pipeline=summary.pipeline, run=summary.run)
        self._waiting.pop(batch.id, None)
        self._waiting[batch.id] = PlotTask(
            camera=summary.camera,
            exposure=summary.exposure,
            run=summary.run,
            pipeline=summary.pipeline,
            version=summary.version,
        )
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            self._metrics.let_go.inc()
        # A night's clock starts with its first exposure: the first movie comes one period later.
        self._nights.setdefault((summary.camera, summary.day_obs, summary.run), time.monotonic())
        self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Draw until ``stop`` is set; a plot in hand is given up then."""
        drawing = asyncio.create_task(self._draw_all())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({drawing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (drawing, stopped):
                task.cancel()
            await asyncio.gather(drawing, stopped, return_exceptions=True)
            await self._process.end()

    # -- inside ------------------------------------------------------------------------------------

    async def _draw_all(self) -> None:
        while True:
            try:
                if self._waiting:
                    batch_id, task = self._waiting.popitem(last=True)
                    await self._draw(BatchKey.parse(batch_id), task)
                elif (night := self._due_night()) is not None:
                    await self._add_up(night)
                else:
                    await self._wait()
            except Exception as error:
                # Plots are an extra: whatever it is, the next summary's are tried.
                self._metrics.failed.inc()
                log.exception("studio task failed", error=str(error))

    async def _wait(self) -> None:
        left = [since + self._movie_period_s - time.monotonic() for since in self._nights.values()]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), max(min(left), 0.0) if left else None)
        self._news.clear()

    def _due_night(self) -> tuple[str, int, str] | None:
        now = time.monotonic()
        return next((night for night, since in self._nights.items() if now - since >= self._movie_period_s), None)

    async def _draw(self, batch: BatchKey, task: PlotTask) -> None:
        answer = await self._ask(task)
        if answer.error is not None:
            self._metrics.failed.inc()
            log.error("plots failed", batch=batch.id, error=answer.error)
        elif answer.products:
            self._metrics.drawn.inc()
            data = {"version": task.version, "products": answer.products}
            with contextlib.suppress(StoreError):
                await self._board.publish(EventKind.PRODUCTS_ADDED, batch=batch, data=data)

    async def _add_up(self, night: tuple[str, int, str]) -> None:
        # Begun before it is made: what comes meanwhile starts the clock for the next one.
        del self._nights[night]
        camera, day_obs, run = night
        answer = await self._ask(NightTask(camera=camera, day_obs=day_obs, run=run))
        if answer.error is not None:
            self._metrics.failed.inc()
            log.error("night products failed", day_obs=day_obs, error=answer.error)
            return
        with contextlib.suppress(StoreError):
            data = {"day_obs": day_obs, "products": answer.products}
            await self._board.publish(EventKind.PRODUCTS_ADDED, data=data)

    async def _ask(self, task: PlotTask | NightTask) -> StudioAnswer:
        try:
            told = await self._process.ask(StudioTask(**self._stores, task=task).model_dump_json())
            return StudioAnswer.model_validate_json(told)
        except (NoAnswerError, ValidationError) as error:
            await self._process.end()
            return StudioAnswer(error={"code": "studio_died", "message": f"{type(error).__name__}: {error}"[:2000]})
