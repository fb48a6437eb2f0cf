"""Add the mount's motion to summaries, as telemetry arrives: an afterburner that nothing waits for.

Told of every summary as other sinks are; a summary that is made again gets the numbers again, without another question.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from rapid.errors import StoreError
from rapid.publish.status import DestinationStatus
from rapid.results.models import ExposureSummary, Scalar
from rapid.results.store import ResultsStore
from rapid.telemetry.influx import TelemetryError, TelemetryReader
from rapid.telemetry.models import TelemetryConfig
from rapid.telemetry.mount import HEADLINE, measure_mount, span_of, with_share

log = structlog.get_logger()

REMEMBERED = 500
"""Exposures whose numbers are kept: a summary may be made again within the hour."""

MAX_WAITING = 2000
"""Summaries that wait while the archive is away: a night's; the oldest are given up first."""

RUN = "prompt"

Tell = Callable[[ExposureSummary], Awaitable[None]]


@dataclass
class _Waiting:
    summary: ExposureSummary
    first_s: float
    next_s: float


class MountMotionSink:
    """Asks for the mount's series of each exposure of the sky and adds what comes out to its summary.

    Parameters
    ----------
    tell
        Called with a summary that has more numbers than before, so that displays read it again.
    """

    name = "mount_motion"

    def __init__(self, config: TelemetryConfig, results: ResultsStore, tell: Tell) -> None:
        self._config = config
        self._reader = TelemetryReader(config)
        self._results = results
        self._tell = tell
        self._waiting: OrderedDict[tuple[int, str], _Waiting] = OrderedDict()
        self._known: OrderedDict[int, dict[str, Scalar]] = OrderedDict()
        self._wake = asyncio.Event()
        self._error = ""
        self._n_sent = 0
        self._n_given_up = 0

    def put(self, summary: ExposureSummary) -> None:
        """Take in a summary; never waits."""
        if summary.run != RUN or HEADLINE in summary.metrics or span_of(summary) is None:
            return
        now_s = time.monotonic()
        key = (summary.exposure, summary.pipeline)
        before = self._waiting.get(key)
        self._waiting[key] = _Waiting(summary, before.first_s if before else now_s, before.next_s if before else now_s)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            self._n_given_up += 1
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Ask, and add, until told to stop."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await self._serve()
                next_s = min((one.next_s for one in self._waiting.values()), default=None)
                timeout_s = None if next_s is None else max(next_s - time.monotonic(), 0.01)
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait({stopped, woken}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                await asyncio.gather(woken, return_exceptions=True)
        finally:
            stopped.cancel()

    async def drain(self, timeout_s: float) -> bool:
        """Ask once more for what waits; return whether nothing does any longer."""
        for one in self._waiting.values():
            one.next_s = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._serve()
        return not self._waiting

    async def _serve(self) -> None:
        """Look at all whose time has come, newest first."""
        self._wake.clear()
        now_s = time.monotonic()
        due = [key for key, one in self._waiting.items() if one.next_s <= now_s]
        for key in sorted(due, reverse=True):
            one = self._waiting.get(key)
            if one is not None and await self._add(one):
                if self._waiting.get(key) is one:
                    del self._waiting[key]
            elif one is not None:
                one.next_s = time.monotonic() + self._config.retry_s

    async def _add(self, one: _Waiting) -> bool:
        """Add the numbers to one summary; whether that is done, or given up."""
        summary = one.summary
        try:
            metrics = await self._metrics_of(summary)
        except TelemetryError as error:
            self._error = error.message
            if time.monotonic() - one.first_s < self._config.give_up_s:
                return False
            self._n_given_up += 1
            log.warning("mount motion given up", exposure_id=summary.exposure, error=error.message)
            metrics = {HEADLINE: None}  # a display shows that it was looked for
        else:
            self._error = ""
        try:
            changed = await asyncio.to_thread(
                lambda: self._results.add_to_summary(summary, metrics=with_share(metrics, summary))
            )
            if changed is not None:
                await self._tell(changed)
        except StoreError as error:
            log.warning("mount motion cannot be stored yet", exposure_id=summary.exposure, error=error.message)
            return time.monotonic() - one.first_s >= self._config.give_up_s
        self._n_sent += 1
        return True

    async def _metrics_of(self, summary: ExposureSummary) -> dict[str, Scalar]:
        known = self._known.get(summary.exposure)
        span = span_of(summary)
        if known is not None or span is None:
            return known or {HEADLINE: None}
        found = await asyncio.to_thread(measure_mount, self._reader, self._config, *span)
        self._known[summary.exposure] = found
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    @property
    def status(self) -> DestinationStatus:
        """How it stands."""
        notes = [f"{self._n_given_up} exposures without telemetry"] if self._n_given_up else []
        return DestinationStatus(
            name=self.name,
            is_up=not self._error,
            error=self._error or None,
            n_waiting=len(self._waiting),
            n_sent=self._n_sent,
            notes=notes,
        )
