"""The head node: lead, watch the raw store, fan out, and keep the board's time.

Everything it waits for wakes it: arrivals, the next lease expiry, the events of finished summaries, the
end of another head's lead. What it remembers can be lost: the raw store is swept at the start of each
lead and compared with the results store (I2), and posting twice is posting once.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from rapid.arrival.models import Arrival, ExpectedSensors, RawArrived, RawHeader, RawQuarantined
from rapid.camera.models import Camera
from rapid.campaign.plan import Listing
from rapid.control.keeper import ControlKeeper
from rapid.control.rubintv import RubinTVDoor
from rapid.control.store import AsyncControlStore
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec, EventKind
from rapid.errors import RapidError, RawError, RefusedError, StoreError
from rapid.exposure.models import ExposureInfo
from rapid.head.afterburners import Afterburners
from rapid.head.assemble import Exposures, OpenExposure
from rapid.head.builds import RUN, CalibBuilder
from rapid.head.choice import Choice, Chooser, ControlSource, Waits
from rapid.head.decide import expected_detectors, info_facts, plan_batches
from rapid.head.exclusions import Exclusions
from rapid.head.failures import FailureKeeper
from rapid.head.metrics import HeadMetrics
from rapid.head.orders import OrderDesk
from rapid.head.requests import RequestDesk
from rapid.pause import pause
from rapid.pipeline.models import PipelineBook
from rapid.pipeline.store import load_pipeline
from rapid.results.models import DetectorState, QuarantineRecord, Scalar
from rapid.results.store import ResultsStore

log = structlog.get_logger()


class RawSource(Protocol):
    """The door raws come in by, as the head needs it."""

    def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrives, from everything already there on."""
        ...

    def read_header(self, uri: str) -> RawHeader:
        """Read the header of a raw; `RawError` says what is wrong with it."""
        ...


class Head:
    """One head node; of several, the board lets one lead (I8).

    Parameters
    ----------
    head_id
        How it introduces itself.
    camera
        The camera whose raws it watches.
    lead_ttl_s
        How soon a standby takes over from a head that died.
    batch_wait_s
        How long to wait for more raws once one came, so that an exposure is posted in few calls.
    control
        Where the control state in force is read; the board's if left out.
    waits
        How long gathers wait unless the control state says otherwise.
    thresholds
        A site's own thresholds, for requests to verify calibs.
    listing
        Where raws are looked up by night, for campaigns.
    """

    def __init__(
        self,
        head_id: str,
        camera: Camera,
        board: AsyncBoard,
        results: ResultsStore,
        source: RawSource,
        book: PipelineBook,
        *,
        lead_ttl_s: float = 3.0,
        batch_wait_s: float = 0.02,
        control: ControlSource | None = None,
        waits: Waits | None = None,
        keeper: ControlKeeper | None = None,
        rubintv: RubinTVDoor | None = None,
        build_calibs: bool = True,
        thresholds: Path | None = None,
        listing: Listing | None = None,
        metrics: HeadMetrics | None = None,
    ) -> None:
        self._id = head_id
        self._camera = camera
        self._board = board
        self._results = results
        self._source = source
        self._book = book
        self._ttl_s = lead_ttl_s
        self._batch_wait_s = batch_wait_s
        self._build_calibs = build_calibs
        self._thresholds = thresholds
        self._listing = listing
        self._control = control or AsyncControlStore(board.connection, camera, book)
        self._waits = waits or Waits()
        self._keeper = keeper
        self._rubintv = rubintv
        self._exposures = Exposures()
        self._desk: RequestDesk | None = None
        self._chooser = Chooser(camera, board, book, self._control, self._waits)
        self._exclusions = Exclusions(camera, results)
        self._token = 0
        self._set_aside: set[str] = set()
        self._metrics = metrics or HeadMetrics()
        self.leading = asyncio.Event()
        self.ready = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Lead, or stand by, until ``stop`` is set."""
        structlog.contextvars.bind_contextvars(role="head", head_id=self._id)
        await self._board.load()
        self.ready.set()
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                try:
                    token, wait_s = await self._board.lead(self._id, ttl_ms=int(self._ttl_s * 1000))
                except StoreError as error:
                    log.error("cannot ask for the lead", error=error.message)
                    continue
                if token == 0:
                    waiting = asyncio.create_task(self._board.wait_for_lead(wait_s))
                    await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)
                    continue
                try:
                    await self._lead(token, stopped, lasts_s=wait_s)
                except StoreError as error:
                    log.error("the lead cannot begin", error=error.message)
                with contextlib.suppress(RapidError):
                    await self._board.resign(self._id, token)
        finally:
            stopped.cancel()
            log.info("head stopped")

    async def _lead(self, token: int, stopped: asyncio.Task[bool], *, lasts_s: float) -> None:
        """Do the leader's work until the lead is lost or the head is stopped; it must be renewed before it has passed."""
        log.info("head leads", token=token)
        self.leading.set()
        server = await self._board.server_id()
        self._exposures = Exposures()
        if self._keeper is not None:
            await self._keeper.restore()  # before anything is dispatched under the wrong state
        self._chooser = Chooser(self._camera, self._board, self._book, self._control, self._waits)
        await self._chooser.resume()
        self._token = token
        quarantined = await asyncio.to_thread(lambda: self._results.quarantined(self._camera.name, limit=10_000))
        self._set_aside = {record.uri for record in quarantined}
        desk = RequestDesk(
            self._camera,
            self._board,
            self._results,
            self._book,
            self._exposures,
            lead_token=token,
            thresholds=self._thresholds,
            listing=self._listing,
        )
        await desk.prepare()
        self._desk = desk
        tasks: dict[str, asyncio.Task[None]] = {
            "lead": asyncio.create_task(self._keep_lead(token, server, lasts_s)),
            "arrivals": asyncio.create_task(self._watch_arrivals()),
            "leases": asyncio.create_task(self._board.lease_keeper()),
            "failures": asyncio.create_task(FailureKeeper(self._camera, self._board, self._results).run()),
            "requests": asyncio.create_task(desk.run()),
            "orders": asyncio.create_task(OrderDesk(self._camera, self._board, self._results).run()),
        }
        afterburners = Afterburners(self._camera, self._board, self._results, self._book, lead_token=token)
        tasks["afterburners"] = asyncio.create_task(afterburners.run())
        if self._build_calibs:
            builder = CalibBuilder(self._camera, self._board, self._results, self._book, lead_token=token)
            tasks["calibs"] = asyncio.create_task(builder.run())
        if self._keeper is not None:
            tasks["control"] = asyncio.create_task(self._keeper.run())
        if self._rubintv is not None:
            tasks["rubintv"] = asyncio.create_task(self._rubintv.run())  # ends when it asks for a fresh start
        try:
            await asyncio.wait({*tasks.values(), stopped}, return_when=asyncio.FIRST_COMPLETED)
            for name, task in tasks.items():
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    log.error("part of the head ended", part=name, error=str(error), exc_info=error)
        finally:
            self.leading.clear()
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _keep_lead(self, token: int, server: str, lasts_s: float) -> None:
        """Renew the lead; return when it is lost, or when the server may have lost what was posted (I2).

        Parameters
        ----------
        server
            Id of the server's run at the beginning of the lead.
        lasts_s
            How long the lead lasts [s], as this process waits it; the board says so anew with each renewal.
        """
        while True:
            await pause(lasts_s / 3)
            held, lasts_s = await self._board.lead(self._id, ttl_ms=int(self._ttl_s * 1000))
            if held != token:
                log.warning("lead lost", token=token, now=held)
                return
            if await self._board.server_id() != server:
                # Its append-only file is synced every second: a power cut loses posts that were answered. Posting
                # again repeats nothing.
                log.warning("the board's server was restarted: everything is compared anew", token=token)
                return

    # Arrivals

    async def _watch_arrivals(self) -> None:
        queue: asyncio.Queue[Arrival] = asyncio.Queue(maxsize=10_000)

        async def fill() -> None:
            async for arrival in self._source.arrivals():
                await queue.put(arrival)

        filler = asyncio.create_task(fill())
        try:
            while True:
                first = asyncio.create_task(queue.get())
                await asyncio.wait({first, filler}, return_when=asyncio.FIRST_COMPLETED)
                if not first.done():
                    first.cancel()
                    await filler  # raises what ended it
                    return
                arrivals = [first.result()]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._batch_wait_s):
                        while len(arrivals) < 1000:
                            arrivals.append(await queue.get())
                await self._take(arrivals)
        finally:
            filler.cancel()
            await asyncio.gather(filler, return_exceptions=True)

    async def _take(self, arrivals: Sequence[Arrival]) -> None:
        """Sort arrivals into exposures and post those, newest first."""
        touched: dict[int, OpenExposure] = {}
        for arrival in arrivals:
            if isinstance(arrival, RawQuarantined):
                await self._quarantine(arrival)
            elif isinstance(arrival, ExpectedSensors):
                exposure = self._exposures.get(arrival.exposure_id)
                exposure.read_out = arrival.detector_names
                if exposure.raws:
                    touched[exposure.exposure_id] = exposure
            else:
                raw = await self._read(arrival)
                if raw is not None:
                    touched[raw.info.exposure_id] = self._exposures.add(raw)
        for exposure_id in sorted(touched, reverse=True):
            try:
                await self._post(touched[exposure_id])
            except StoreError:
                raise
            except RefusedError:
                raise  # another head leads: stop, and stand by
            except RapidError as error:
                log.error("exposure cannot be posted", exposure_id=exposure_id, error=error.message)
        now_s = time.monotonic()
        for arrival in arrivals:
            if isinstance(arrival, RawArrived):
                self._metrics.dispatch_seconds.observe(now_s - arrival.arrived_monotonic_s)

    async def _read(self, arrival: RawArrived) -> RawHeader | None:
        try:
            raw = await asyncio.to_thread(self._source.read_header, arrival.uri)
        except RawError as error:
            await self._quarantine(_set_aside_of(arrival, error.code, error.message))
            return None
        if raw.info.detector not in self._camera.by_id:
            reason = f"{self._camera.name} has no detector {raw.info.detector_name}"
            await self._quarantine(_set_aside_of(arrival, "raw_wrong_camera", reason))
            return None
        self._metrics.arrivals.inc()
        if arrival.uri in self._set_aside:
            self._set_aside.discard(arrival.uri)
            await asyncio.to_thread(self._results.release_quarantine, self._camera.name, arrival.uri)
        return raw

    async def _quarantine(self, raw: RawQuarantined) -> None:
        """Set a raw aside, visibly: in the results store, on the event stream, and in its exposure."""
        log.warning("raw quarantined", uri=raw.uri, code=raw.code, reason=raw.reason)
        self._metrics.quarantined.labels(code=raw.code).inc()
        detector = self._camera.by_name.get(raw.detector_name or "")
        record = QuarantineRecord(
            camera=self._camera.name,
            uri=raw.uri,
            code=raw.code,
            reason=raw.reason,
            size_bytes=raw.size_bytes,
            exposure=raw.exposure_id,
            detector=detector.id if detector else None,
            quarantined_at=datetime.now(UTC),
        )
        await asyncio.to_thread(self._results.put_quarantine, record)
        self._set_aside.add(raw.uri)
        await self._board.publish(
            EventKind.RAW_QUARANTINED, data={"uri": raw.uri, "code": raw.code, "reason": raw.reason}
        )
        if raw.exposure_id is not None and detector is not None:
            exposure = self._exposures.get(raw.exposure_id)
            exposure.quarantined[detector.id] = raw.reason
            await self._settle_quarantined(exposure)

    async def _settle_quarantined(self, exposure: OpenExposure) -> None:
        """Tell the board which detectors of an exposure will give no result (I4)."""
        for pipeline, expected in exposure.posted.items():
            reasons = {number: why for number, why in exposure.quarantined.items() if number in expected}
            if reasons:
                key = BatchKey(run=RUN, exposure_id=exposure.exposure_id, pipeline=pipeline)
                await self._board.settle(key, DetectorState.QUARANTINED, reasons)

    async def _post(self, exposure: OpenExposure) -> None:
        """Post, or add to, the batches of an exposure."""
        info = exposure.info
        if info is None:
            return
        if exposure.finished is None:
            exposure.finished = await asyncio.to_thread(
                self._results.finished_detectors, self._camera.name, exposure.exposure_id, run=RUN
            )
        choice = await self._choice_for(exposure, info)
        plans = plan_batches(
            exposure.raws.values(),
            camera=self._camera,
            book=self._book,
            expected=expected_detectors(self._camera, read_out=exposure.read_out),
            later=choice.later,
            excluded=choice.excluded,
            pipelines=choice.pipelines,
        )
        for plan in plans:
            key = BatchKey(run=RUN, exposure_id=exposure.exposure_id, pipeline=plan.pipeline)
            stored = exposure.finished.get(plan.pipeline, frozenset())
            version = 0
            finished: dict[int, dict[str, Scalar]] = {}
            if stored:
                version, finished = await self._stored(exposure.exposure_id, plan.pipeline)
                if plan.expected - plan.excluded.keys() <= stored and version:
                    continue  # done before this head began
            receipt = await self._board.post(
                BatchSpec(
                    key=key,
                    camera=self._camera.name,
                    image_type=info.image_type.value,
                    expected=plan.expected,
                    raws=plan.raws,
                    superseded=plan.superseded,
                    excluded=plan.excluded,
                    pool=plan.pool,
                    info={
                        **info_facts(info),
                        "posted_after_s": round(time.monotonic() - exposure.first_s, 3),
                        **exposure.excluded.facts,
                    },
                    config=exposure.excluded.config_for(load_pipeline(plan.pipeline, self._book)),
                    control=dict(choice.control),
                    finished=finished,
                    version=version,
                    time_limit_ms=plan.time_limit_ms,
                    gather_timeout_ms=choice.waits.gather_ms,
                    regather_timeout_ms=choice.waits.regather_ms,
                    deadline_ms=choice.waits.deadline_ms,
                ),
                lead_token=self._token,
            )
            if receipt.queued or receipt.created:
                log.info(
                    "exposure posted",
                    exposure_id=exposure.exposure_id,
                    pipeline=plan.pipeline,
                    image_type=info.image_type.value,
                    n_queued=receipt.queued,
                    n_expected=len(plan.expected),
                    created=receipt.created,
                )
            exposure.posted[plan.pipeline] = plan.expected
            if exposure.read_out is not None:
                await self._board.expect(key, plan.expected)
        if exposure.quarantined:
            await self._settle_quarantined(exposure)
        if self._desk is not None:
            self._desk.note(exposure.exposure_id)

    async def _choice_for(self, exposure: OpenExposure, info: ExposureInfo) -> Choice:
        """Return what is done with an exposure, decided when its first raw came (I9)."""
        if exposure.choice is None:
            header = next(iter(exposure.raws.values())).header
            off = exposure.excluded = await self._exclusions.of(info.begin)
            exposure.choice = await self._chooser.choose(
                info,
                header,
                age_s=time.monotonic() - exposure.first_s,
                excluded=off.detectors,
                expected=expected_detectors(self._camera, read_out=exposure.read_out),
                asked_for=self._desk is not None and self._desk.guarantees(info),
            )
        return exposure.choice

    async def _stored(self, exposure_id: int, pipeline: str) -> tuple[int, dict[int, dict[str, Scalar]]]:
        """Return the summary version and the metrics that the results store has of a batch (I2)."""
        results = await asyncio.to_thread(
            lambda: self._results.results(exposure_id, camera=self._camera.name, run=RUN, pipeline=pipeline)
        )
        versions = await asyncio.to_thread(self._results.summary_versions, self._camera.name, exposure_id)
        version = max((s.version for s in versions if s.pipeline == pipeline and s.run == RUN), default=0)
        return version, {result.detector: dict(result.metrics) for result in results}


def _set_aside_of(arrival: RawArrived, code: str, reason: str) -> RawQuarantined:
    return RawQuarantined(
        uri=arrival.uri,
        code=code,
        reason=reason,
        size_bytes=arrival.size_bytes,
        exposure_id=arrival.exposure_id,
        quarantined_at=datetime.now(UTC),
    )
