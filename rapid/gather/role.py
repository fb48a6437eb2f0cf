"""The gather role: wait for the next due gather, make its summary, say that it is there."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import numpy as np
import structlog
from numpy.typing import NDArray

import rapid
from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import EventKind, GatherJob
from rapid.dispatch.settings import GATHER_LEASE_MS
from rapid.errors import LeaseLostError, NotFoundError, RapidError, Retry, StoreError
from rapid.exposure.models import ImageType
from rapid.gather.afterburner import add_afterburner, summary_of_base
from rapid.gather.decide import summarise
from rapid.gather.field import field_metrics
from rapid.gather.metrics import GatherMetrics
from rapid.gather.mosaic import draw_mosaic
from rapid.gather.pieces import flux_scale, read_binned, without_sky
from rapid.gather.pyramid import draw_pyramid
from rapid.gather.sky_angles import moon_metrics, sky_brightness
from rapid.gather.stretch import choose_stretch
from rapid.gather.sweep import add_donut_pair, add_focus_sweep
from rapid.pause import pause
from rapid.pipeline.models import base_of
from rapid.products.naming import summary_key
from rapid.products.store import ProductsStore
from rapid.results.models import DetectorResult, ExposureSummary
from rapid.results.provenance import provenance_of
from rapid.results.store import ResultsStore

log = structlog.get_logger()

SummaryStep = Callable[[ExposureSummary, ResultsStore, ProductsStore], None]
"""What may be added to a summary after the mosaic: a function that changes it in place."""


class Gatherer:
    """Makes focal-plane summaries.

    Parameters
    ----------
    gatherer_id
        How it introduces itself to the board.
    steps
        Functions that add to a summary, in order. One that fails leaves a note in the summary; a `RapidError` that a
        retry can help fails the gather, which is then tried again.
    n_parallel
        Gathers in hand at a time. They draw one after the other; but a slow step keeps no other gather waiting.
    on_stop
        Called when it is told to stop, before it waits for the gathers in hand.
    on_summary
        Called with each summary once it is out: what may be drawn later begins there.
    lease_ms
        How long it may be silent before another makes the summary.
    """

    def __init__(
        self,
        gatherer_id: str,
        board: AsyncBoard,
        results: ResultsStore,
        products: ProductsStore,
        *,
        steps: tuple[SummaryStep, ...] = (add_focus_sweep, add_donut_pair),
        n_parallel: int = 4,
        on_stop: Callable[[], None] = lambda: None,
        on_summary: Callable[[ExposureSummary], None] = lambda _: None,
        wait_s: float = 60.0,
        metrics: GatherMetrics | None = None,
        lease_ms: int = GATHER_LEASE_MS,
    ) -> None:
        self._metrics = metrics or GatherMetrics()
        self._id = gatherer_id
        self._board = board
        self._results = results
        self._products = products
        self._steps = steps
        self._n_parallel = n_parallel
        self._on_stop = on_stop
        self._on_summary = on_summary
        self._drawing = threading.Lock()
        self._wait_s = wait_s
        self._lease_ms = lease_ms

    async def run(self, stop: asyncio.Event) -> None:
        """Gather until ``stop`` is set; a gather in hand is finished first."""
        structlog.contextvars.bind_contextvars(role="gather", gatherer_id=self._id)
        log.info("gather ready")
        stopped = asyncio.create_task(stop.wait())
        in_hand: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            if len(in_hand) >= self._n_parallel:
                await asyncio.wait({*in_hand, stopped}, return_when=asyncio.FIRST_COMPLETED)
                continue
            waiting = asyncio.create_task(
                self._board.next_gather(self._id, timeout_s=self._wait_s, lease_ms=self._lease_ms)
            )
            await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError, RapidError):
                    await waiting
                break
            try:
                gather = waiting.result()
            except StoreError as error:
                log.error("cannot look for gathers", error=error.message)
                continue
            if gather is not None:
                task = asyncio.create_task(self._gather(gather))
                in_hand.add(task)
                task.add_done_callback(in_hand.discard)
        stopped.cancel()
        if in_hand:
            self._on_stop()
            await asyncio.gather(*in_hand)
        log.info("gather stopped")

    async def _gather(self, gather: GatherJob) -> None:
        keeper = asyncio.create_task(self._keep_lease(gather))
        try:
            base = base_of(gather.batch.pipeline)
            if base is not None:
                await self._gather_afterburner(gather, base)
                return
            summary = await asyncio.to_thread(self.make_summary, gather)
            await self._board.complete_gather(gather, event_data(summary))
            self._on_summary(summary)
            now_ms = await self._board.now_ms()
            self._metrics.observe(
                summary,
                arrival_s=(now_ms - gather.posted_ms) / 1000 + float(summary.info.get("posted_after_s") or 0.0),
                due_s=(now_ms - gather.due_ms) / 1000,
            )
            log.info(
                "summary ready",
                exposure_id=summary.exposure,
                pipeline=summary.pipeline,
                version=summary.version,
                reason=summary.reason.value,
                n_finished=summary.n_finished,
                n_expected=summary.n_expected,
                total_s=summary.timings.get("total_s"),
            )
        except LeaseLostError:
            self._metrics.leases_lost.inc()
            log.warning("gather given to another", batch=gather.batch.id)
        except Exception as error:
            self._metrics.failures.labels(pipeline=gather.batch.pipeline).inc()
            log.exception("gather failed", batch=gather.batch.id, error=str(error))
            with contextlib.suppress(RapidError):
                await self._board.fail_gather(gather)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _gather_afterburner(self, gather: GatherJob, base: str) -> None:
        """Add what an afterburner found to the summary of its exposure, and say so."""

        def add() -> ExposureSummary | None:
            summary = summary_of_base(gather.batch, base, gather.camera, self._results)
            return None if summary is None else add_afterburner(summary, self._results, self._products)

        summary = await asyncio.to_thread(add)
        # Its event names the afterburner's batch; that of the summary's own tells everybody else to read it again.
        data = {"is_complete": len(gather.finished) == len(gather.expected), "n_finished": len(gather.finished)}
        await self._board.complete_gather(gather, {**data, "n_expected": len(gather.expected)})
        if summary is not None:
            told = {"version": summary.version, "products": {}, "n_afterburned": summary.n_afterburned}
            key = gather.batch.model_copy(update={"pipeline": base})
            await self._board.publish(EventKind.PRODUCTS_ADDED, batch=key, data=told)
        log.info("afterburner ready", batch=gather.batch.id, **data)

    async def _keep_lease(self, gather: GatherJob) -> None:
        while True:
            await pause(gather.lease_ms / 3000)
            with contextlib.suppress(StoreError):
                await self._board.renew_gather(gather)

    def make_summary(self, gather: GatherJob) -> ExposureSummary:
        """Make and store one version of a summary."""
        begin = time.perf_counter()
        summary = summarise(gather, run=gather.batch.run)
        found = self._results.results(
            summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline
        )
        # One at a time: the images of a whole focal plane are large.
        with self._drawing:
            images = self._load_binned(found)
            summary.timings["load_s"] = time.perf_counter() - begin
            if images and not gather.batch.pipeline.startswith("build_"):
                self._add_mosaics(summary, images, found)
            del images
        self._add_field(summary, found)
        for step in self._steps:
            self._take_step(step, summary)
        summary.timings["total_s"] = time.perf_counter() - begin
        summary.timings = {name: round(value, 4) for name, value in summary.timings.items()}
        summary.gathered_at = datetime.now(UTC)
        summary.provenance = provenance_of(
            summary.pipeline,
            (result for result in found if result.detector in gather.finished),
            software_version=rapid.__version__,
            host=socket.gethostname(),
        )
        # The row first: it is refused to a gather whose lease went to another, and with it the document.
        self._results.put_summary(summary)
        key = summary_key(summary, kind="summary", extension="json")
        self._products.put(key, summary.model_dump_json().encode(), content_type="application/json")
        if summary.version > 1 or any(result.provenance.afterburner for result in found):
            # Read anew: it may have come to the version before this one meanwhile. The first comes before all of it.
            summary = add_afterburner(summary, self._results, self._products) or summary
        return summary

    def _take_step(self, step: SummaryStep, summary: ExposureSummary) -> None:
        name = getattr(step, "__name__", type(step).__name__)
        begin = time.perf_counter()
        try:
            step(summary, self._results, self._products)
        except Exception as error:
            if isinstance(error, RapidError) and error.retry is Retry.LATER:
                raise
            log.exception("summary step failed", step=name, exposure_id=summary.exposure)
            summary.metrics[f"{name}_note"] = f"failed: {error}"
        if (took_s := time.perf_counter() - begin) > 0.01:
            summary.timings[f"{name}_s"] = took_s

    def _load_binned(self, found: Iterable[DetectorResult]) -> dict[int, NDArray[np.float32]]:
        images = {}
        for result in found:
            key = result.products.get("binned")
            if key is None:
                continue
            try:
                images[result.detector] = read_binned(self._products.get(key))
            except (NotFoundError, OSError, ValueError) as error:
                log.warning("binned image left out", key=key, error=str(error))
        return images

    def _add_mosaics(
        self, summary: ExposureSummary, images: dict[int, NDArray[np.float32]], found: Iterable[DetectorResult]
    ) -> None:
        """Draw the images as they are and, of the sky, once more without sky and on one scale of flux."""
        begin = time.perf_counter()
        camera = load_camera(summary.camera)
        images = {number: image for number, image in images.items() if number in camera.by_id}
        is_sky = not ImageType(summary.image_type).is_calibration
        self._draw(summary, "mosaic", images, is_sky=is_sky, unit="e⁻", factors={})
        if is_sky:
            seconds = summary.info.get("exposure_time_s")
            flux = flux_scale(
                {result.detector: result.metrics for result in found},
                exposure_time_s=float(seconds) if isinstance(seconds, int | float) else None,
            )
            for number, image in images.items():
                images[number] = without_sky(image, factor=flux.factors.get(number, 1.0))
            self._draw(summary, "mosaic_calibrated", images, is_sky=True, unit=flux.unit, factors=flux.factors)
        summary.timings["mosaic_s"] = time.perf_counter() - begin

    def _draw(
        self,
        summary: ExposureSummary,
        kind: str,
        images: dict[int, NDArray[np.float32]],
        *,
        is_sky: bool,
        unit: str,
        factors: dict[int, float],
    ) -> None:
        camera = load_camera(summary.camera)
        stretch = choose_stretch(images.values(), sky=is_sky)
        levels = draw_mosaic(camera, images, stretch)
        drawn = draw_pyramid(camera, levels, stretch, unit=unit, factors=factors)
        for name, extension, data, content_type in (
            (kind, "jpg", drawn.picture, "image/jpeg"),
            (f"{kind}_tiles", "zip", drawn.tiles, "application/zip"),
        ):
            key = summary_key(summary, kind=name, extension=extension)
            self._products.put(key, data, content_type=content_type)
            summary.products[name] = key

    @staticmethod
    def _add_field(summary: ExposureSummary, found: Iterable[DetectorResult]) -> None:
        if ImageType(summary.image_type).is_calibration:
            return
        camera = load_camera(summary.camera)
        summary.metrics |= field_metrics(camera, {result.detector: result.metrics for result in found})
        summary.metrics |= moon_metrics(summary.info)
        summary.metrics |= sky_brightness(summary.metrics, summary.info, pixel_scale_arcsec=camera.pixel_scale_arcsec)


def event_data(summary: ExposureSummary) -> dict[str, object]:
    """Return what the event of a new summary tells."""
    return {
        "day_obs": summary.day_obs,
        "version": summary.version,
        "reason": summary.reason.value,
        "n_finished": summary.n_finished,
        "n_expected": summary.n_expected,
        "is_complete": summary.is_complete,
        "image_type": summary.image_type,
        "products": summary.products,
    }
