"""Bring metrics from summaries to a sink: whatever the sink does, nobody who measures waits for it.

A summary is taken in without waiting. A task reads its results and spools them; another sends what is spooled, waits
longer after each failure, and gives up what is older than its time: as a dead letter, which is counted and can be sent again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import BaseModel

from rapid.errors import StoreError
from rapid.pause import pause
from rapid.results.models import DetectorResult, ExposureSummary
from rapid.sinks.documents import documents_of
from rapid.sinks.models import MetricDocument, Sent, Sink
from rapid.sinks.spool import Parcel, Spool

log = structlog.get_logger()

MAX_QUEUED = 10_000
"""Summaries that wait to be read: ten nights. Each is some kB."""

MAX_SENT_AT_ONCE = 500
"""Documents of one call: an LSSTCam exposure has 3400, amps included."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

ResultsOf = Callable[[ExposureSummary], Sequence[DetectorResult]]


class PumpStatus(BaseModel):
    """How a sink stands."""

    name: str
    is_up: bool
    n_sent: int
    n_waiting: int
    n_dead: int
    n_lost: int
    """Summaries that never reached the spool: the queue was full, or the disk."""
    error: str = ""


class PumpMetrics:
    """What pumps tell Prometheus.

    Parameters
    ----------
    registry
        Where they are registered; a registry of its own, which nobody sees, if left out.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        kept = registry if registry is not None else CollectorRegistry()
        self.documents = Counter("rapid_sink_documents", "Metric documents", ["sink", "outcome"], registry=kept)
        self.failures = Counter("rapid_sink_failures", "Calls that failed and are made again", ["sink"], registry=kept)
        self.waiting = Gauge("rapid_sink_waiting", "Parcels that wait", ["sink"], registry=kept)
        self.up = Gauge("rapid_sink_up", "Whether the sink takes what is sent", ["sink"], registry=kept)


class MetricPump:
    """One sink and its spool.

    Parameters
    ----------
    sink
        Where metrics go.
    results_of
        Gives the results of a summary's batch; may block.
    folder
        For the spool.
    give_up_s
        What could not be sent for so long becomes a dead letter [s].
    max_bytes
        What may wait on disk.
    first_pause_s, longest_pause_s
        Between attempts; it doubles.
    """

    def __init__(
        self,
        sink: Sink,
        results_of: ResultsOf,
        folder: Path,
        *,
        give_up_s: float = 86_400.0,
        max_bytes: int = 200_000_000,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        metrics: PumpMetrics | None = None,
    ) -> None:
        self.name = sink.name
        self._sink = sink
        self._results_of = results_of
        self._spool = Spool(folder / sink.name, max_bytes=max_bytes)
        self._give_up_s = give_up_s
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._metrics = metrics or PumpMetrics()
        self._queue: deque[ExposureSummary] = deque()
        self._queued = asyncio.Event()
        self._spooled = asyncio.Event()
        self._idle = asyncio.Event()
        self._n_sent = 0
        self._n_lost = 0
        self._error = ""

    @property
    def status(self) -> PumpStatus:
        """How it stands."""
        return PumpStatus(
            name=self.name,
            is_up=not self._error,
            n_sent=self._n_sent,
            n_waiting=self._spool.n_waiting + len(self._queue),
            n_dead=self._spool.n_dead,
            n_lost=self._n_lost,
            error=self._error,
        )

    @property
    def spool(self) -> Spool:
        """What waits, and what was given up."""
        return self._spool

    def put(self, summary: ExposureSummary) -> None:
        """Take in a summary; never waits."""
        if len(self._queue) >= MAX_QUEUED:
            self._queue.popleft()
            self._lose(1, "too many summaries wait to be read")
        self._queue.append(summary)
        self._idle.clear()
        self._queued.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Read, spool and send until told to stop. What waits then is sent after the next start."""
        tasks = [
            asyncio.create_task(self._fill()),
            asyncio.create_task(self._empty()),
            asyncio.create_task(stop.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._fill_once()  # what was taken in and is not on disk yet

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all that was taken in is sent or given up; return whether it is."""
        if self._queue or self._spool.n_waiting:
            self._idle.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self._idle.is_set()

    async def _fill(self) -> None:
        while True:
            await self._fill_once()
            self._spooled.set()
            await self._queued.wait()

    async def _fill_once(self) -> None:
        """Spool what was taken in."""
        self._queued.clear()
        while self._queue:
            summary = self._queue[0]
            try:
                pushed_out = await asyncio.to_thread(self._spool_summary, summary)
                if pushed_out:
                    self._metrics.documents.labels(self.name, "pushed_out").inc(pushed_out)
                    log.warning("sink is full, the oldest were given up", sink=self.name, n_parcels=pushed_out)
            except StoreError as error:
                self._lose(1, error.message)
            if self._queue and self._queue[0] is summary:
                self._queue.popleft()
            self._spooled.set()
        self._metrics.waiting.labels(self.name).set(self._spool.n_waiting)

    def _spool_summary(self, summary: ExposureSummary) -> int:
        documents = documents_of(summary, self._results_of(summary))
        name = f"{summary.exposure} {summary.pipeline} {summary.run} version {summary.version}"
        return self._spool.put(name, documents)

    def _lose(self, n: int, why: str) -> None:
        self._n_lost += n
        self._metrics.documents.labels(self.name, "lost").inc(n)
        log.error("metrics of a summary were lost to a sink", sink=self.name, reason=why)

    async def _empty(self) -> None:
        pause_s = self._first_pause_s
        while True:
            self._spooled.clear()
            try:
                found = await asyncio.to_thread(self._spool.first)
                if found is None:
                    if not self._queue and not self._spool.n_waiting:  # one may have come since the look
                        self._idle.set()
                    await self._spooled.wait()
                    continue
                self._idle.clear()
                asked_s = await self._send(*found)
            except StoreError as error:
                self._error, asked_s = error.message, 0.0
            if asked_s is None:
                pause_s = self._first_pause_s
                continue
            self._metrics.failures.labels(self.name).inc()
            await pause(max(pause_s, asked_s))
            pause_s = min(2 * pause_s, self._longest_pause_s)

    async def _send(self, name: str, parcel: Parcel) -> float | None:
        """Send a parcel; return how long the sink asks to wait before more, None if it took or refused everything."""
        rejected: dict[str, list[MetricDocument]] = {}
        left: list[MetricDocument] = []
        trouble: Sent | None = None
        n_sent = 0
        for start in range(0, len(parcel.documents), MAX_SENT_AT_ONCE):
            part = parcel.documents[start : start + MAX_SENT_AT_ONCE]
            if trouble is not None:
                left += part
                continue
            sent = await asyncio.to_thread(self._call, part)
            for place, why in sent.rejected.items():
                rejected.setdefault(why, []).append(part[place])
            left += [part[place] for place in sent.retry]
            n_sent += len(part) - len(sent.rejected) - len(sent.retry)
            trouble = sent if sent.retry else None
        self._n_sent += n_sent
        self._metrics.documents.labels(self.name, "sent").inc(n_sent)
        for why, documents in rejected.items():
            await asyncio.to_thread(self._spool.bury, parcel.name, documents, why)
            self._metrics.documents.labels(self.name, "rejected").inc(len(documents))
            log.warning("sink refused metrics", sink=self.name, parcel=parcel.name, n=len(documents), reason=why)
        is_old = (datetime.now(UTC) - parcel.spooled_at).total_seconds() > self._give_up_s
        if left and is_old and trouble is not None:
            await asyncio.to_thread(
                self._spool.bury, parcel.name, left, f"given up after {self._give_up_s:g} s: {trouble.why}"
            )
            self._metrics.documents.labels(self.name, "given_up").inc(len(left))
            log.error("metrics given up", sink=self.name, parcel=parcel.name, n=len(left), reason=trouble.why)
            left = []
        await asyncio.to_thread(self._spool.keep, name, parcel.model_copy(update={"documents": left}))
        if trouble is None:
            if self._error:
                log.info("sink takes metrics again", sink=self.name)
            self._error = ""
        elif trouble.why != self._error:
            self._error = trouble.why
            log.warning("sink does not take metrics, they wait", sink=self.name, reason=trouble.why)
        self._metrics.up.labels(self.name).set(0 if self._error else 1)
        self._metrics.waiting.labels(self.name).set(self._spool.n_waiting)
        return None if trouble is None else (trouble.wait_s or 0.0)

    def _call(self, documents: Sequence[MetricDocument]) -> Sent:
        try:
            return self._sink.send(documents)
        except Exception as error:  # a sink of somebody else: what it cannot take must not end the others
            log.exception("sink failed", sink=self.name)
            return Sent(retry=tuple(range(len(documents))), why=f"{type(error).__name__}: {error}"[:300])
