"""The publish role: follow the board, keep the nights of RubinTV's tables, and hand out what others read.

It follows the event stream and looks everything else up in the results store; it keeps nothing that it could not read
again. At its start, after a lost connection and after a flush of Redis it reads the last nights from the results store,
compares with what the bucket has, and sends what differs (invariants I2 and I10).
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchState, Event, EventKind
from rapid.errors import RapidError, StoreError
from rapid.pause import pause
from rapid.publish.cluster import ClusterView, decide_streams, put_streams
from rapid.publish.decide import posted_of
from rapid.publish.lead import Lead, Turns
from rapid.publish.metrics import PublishMetrics
from rapid.publish.outbox import Outbox
from rapid.publish.rubintv import RubinTVPublisher
from rapid.publish.sinks import CatchingUpSink, RowSink
from rapid.publish.status import DestinationStatus, PublishStatus, SentRow
from rapid.publish.store import get_marks, put_marks, put_sent, put_status
from rapid.publish.threads import in_thread
from rapid.results.changes import UNNAMED
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

WAIT_S = 10.0
"""How long one blocking read of the board lasts; events end it at once. Status and cluster are told as often at least."""

RETRY_S = 1.0

SETTLE_S = 240.0
"""Longer than a PUT of another role may last that lost its right while it was under way: three tries of a minute each."""

N_RECENT = 64
"""Batches read from the board at start: more than are ever in work at once."""

N_CLUSTER = 4
"""Batches that the cluster status looks at."""

MAX_NIGHT = 20_000
"""Summaries of one night."""

N_TROUBLES = 20

MARK_MARGIN = timedelta(minutes=10)
"""A sink that had everything may not have had what was gathered just before: its event could still be on the way."""

_CHANGES_SUMMARY = frozenset({EventKind.SUMMARY_READY, EventKind.PRODUCTS_ADDED})


class Publisher:
    """The role's loop.

    Parameters
    ----------
    rubintv, outbox
        RubinTV's bucket, if there is one.
    sinks
        Others that are told of summaries.
    campaign_sinks
        Those of them that are told of campaigns' summaries, too: nights processed again under a name of their own. What
        is stored already they find by themselves.
    n_nights
        Nights read at the start, the newest first.
    report_s
        Shortest time between two versions of a night's report [s].
    cluster_s
        Shortest time between two cluster status documents [s]; None to write none.
    lead
        The right to publish; whoever does not have it stands by.
    settle_s
        After so long the bucket is compared once more [s].
    """

    def __init__(
        self,
        name: str,
        board: AsyncBoard,
        results: ResultsStore,
        *,
        camera: str,
        rubintv: RubinTVPublisher | None,
        outbox: Outbox | None,
        sinks: Sequence[RowSink] = (),
        campaign_sinks: Sequence[CatchingUpSink] = (),
        run: str = "prompt",
        n_nights: int = 2,
        report_s: float = 120.0,
        cluster_s: float | None = 1.0,
        drain_s: float = 20.0,
        lead: Lead | None = None,
        settle_s: float = SETTLE_S,
        metrics: PublishMetrics | None = None,
        today: Callable[[], int] | None = None,
    ) -> None:
        self._name = name
        self._board = board
        self._results = results
        self._camera = camera
        self._rubintv = rubintv
        self._outbox = outbox
        self._sinks = sinks
        self._campaign_sinks = campaign_sinks
        self._run = run
        self._n_nights = n_nights
        self._report_s = report_s
        self._cluster_s = cluster_s
        self._drain_s = drain_s
        self._lead = lead or Lead(board, name)
        self._settle_s = settle_s
        self._sent_rows: list[SentRow] = []
        self._metrics = metrics or PublishMetrics()
        self._today = today or _today
        self._as_of = "0-0"
        self._troubles: deque[str] = deque(maxlen=N_TROUBLES)
        self._newest: int | None = None
        self._changed_nights: set[int] = set()
        self._cluster_due = asyncio.Event()
        self._report_due = asyncio.Event()
        self._behind_s: float | None = None
        self._marks: dict[str, datetime] = {}
        self.ready = asyncio.Event()
        """Set once the nights are read in, or another role publishes and this one stands by."""

    def note_published(self, seconds: float) -> None:
        """Take note of how long it took from a summary to its row in the bucket."""
        self._behind_s = round(seconds, 3)
        self._metrics.behind.observe(seconds)

    def note_row(self, row: SentRow) -> None:
        """Take note that a row was sent."""
        self._sent_rows.append(row)
        self._cluster_due.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until ``stop`` is set; what waits then is sent for some seconds more."""
        structlog.contextvars.bind_contextvars(role="publish", name=self._name)
        stop_sending = asyncio.Event()
        senders = [asyncio.create_task(sink.run(stop_sending)) for sink in self._sinks]
        if self._outbox is not None:
            senders.append(asyncio.create_task(self._outbox.run(stop_sending)))
        turns = Turns(self._lead, self._begin_turn, on_standby=self.ready.set)
        leading = asyncio.create_task(turns.run())
        stopped = asyncio.create_task(stop.wait())
        log.info("publish ready to begin", n_sinks=len(self._sinks))
        try:
            done, _ = await asyncio.wait({stopped, leading, *senders}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # none of them ends by itself: its error is ours
        finally:
            stopped.cancel()
            await turns.stop_steps()
            # What waits is still ours to send: the right to do so is kept until then.
            if self._outbox is not None and self._lead.is_held() and not await self._outbox.drain(self._drain_s):
                log.warning("stopped with something left to send; the next start finds it", **self._left())
            stop_sending.set()
            leading.cancel()
            await asyncio.gather(leading, *senders, return_exceptions=True)
            await self._lead.resign()
        log.info("publish stopped")

    # One at a time

    def _begin_turn(self) -> list[Coroutine[Any, Any, None]]:
        if self._outbox is not None:
            self._outbox.wake()
        steps = [self._follow(), self._tell_reports(), self._tell_status(), self._look_again()]
        return steps + [sink.catch_up() for sink in self._campaign_sinks]

    async def _look_again(self) -> None:
        """Compare with the bucket once more: another role's last PUT may have ended after ours began."""
        await pause(self._settle_s)
        try:
            await self._read_nights()
        except StoreError as error:
            self._trouble(f"the bucket was not compared again: {error.message}")
        await asyncio.Event().wait()

    def _left(self) -> dict[str, int]:
        return {"n_waiting": self._outbox.status.n_waiting} if self._outbox is not None else {}

    # Following

    async def _follow(self) -> None:
        while True:
            try:
                await self._rebuild()
                self.ready.set()
                while True:
                    events = await self._board.events(self._as_of, timeout_s=WAIT_S)
                    if events:
                        await self._apply(events)
                    if self._outbox is not None and self._outbox.is_incomplete and self._outbox.status.n_waiting == 0:
                        self._outbox.is_incomplete = False
                        await self._read_nights()
            except StoreError as error:
                log.warning("publish lost a source", error=error.message)
                self._trouble(f"lost a source: {error.message}")
            except Exception as error:
                log.exception("publish cannot follow the board", error=repr(error))
                self._trouble(f"{type(error).__name__}: {error}")
            await pause(RETRY_S)

    async def _rebuild(self) -> None:
        # The last id is taken first: an event that is then both in the stores and in the stream changes nothing twice.
        as_of = await self._board.last_event_id()
        self._marks = await self._board.connection.run(get_marks(self._board.prefix)) | self._marks
        await self._read_nights()
        for key in reversed(await self._board.recent(N_RECENT)):
            await self._take_posted(key)
        self._as_of = as_of
        self._cluster_due.set()

    async def _read_nights(self) -> None:
        """Read the newest nights from the results store and offer what the bucket lacks of them."""
        nights = await asyncio.to_thread(self._results.nights, self._camera)
        for day_obs, _ in nights[: self._n_nights]:
            await self.read_night(day_obs)

    async def read_night(self, day_obs: int) -> int:
        """Offer everything of a night; return how many summaries it has.

        Raises
        ------
        StoreError
            Raised if the results store does not answer.
        """
        if self._rubintv is not None:
            try:
                rubintv = self._rubintv
                known = await in_thread(lambda: rubintv.known(day_obs))
                self._rubintv.take_known(known)
            except RapidError as error:
                # It is sent again then: the same bytes under the same keys.
                self._trouble(f"the bucket does not tell what it has: {error.message}")
        summaries = await asyncio.to_thread(self._summaries_of, day_obs)
        for summary in summaries:
            self._take(summary, is_stored=True)
        log.info("night read", day_obs=day_obs, n_summaries=len(summaries))
        return len(summaries)

    def _summaries_of(self, day_obs: int) -> list[ExposureSummary]:
        return self._results.summaries(self._camera, day_obs=day_obs, limit=MAX_NIGHT, run=self._run)

    def _is_campaign(self, run: str) -> bool:
        """Whether results of a run go to the sinks that take more than the night's own: it has a name of its own."""
        return bool(self._campaign_sinks) and run != self._run and not run.startswith(UNNAMED)

    async def _apply(self, events: Sequence[Event]) -> None:
        wanted: dict[BatchKey, str] = {}
        for event in events:
            self._as_of = event.event_id
            if event.kind is EventKind.CALIB_CERTIFIED:
                for sink in self._campaign_sinks:
                    sink.look_again()
            if event.batch_id is None:
                if event.kind is EventKind.PRODUCTS_ADDED:  # of a whole night: its movie
                    self._note_night(event.data.get("day_obs"))
                continue
            try:
                key = BatchKey.parse(event.batch_id)
            except ValueError:
                self._trouble(f"event {event.event_id} names no batch: {event.batch_id[:80]}")
                continue
            if key.run != self._run and not self._is_campaign(key.run):
                continue
            if event.kind in _CHANGES_SUMMARY:
                wanted[key] = "summary"
            elif event.kind is EventKind.EXPOSURE_POSTED:
                wanted.setdefault(key, "posted")
        self._cluster_due.set()
        for key, kind in wanted.items():
            try:
                if kind == "summary":
                    await self._take_summary(key)
                else:
                    await self._take_posted(key)
            except StoreError:
                raise
            except Exception as error:
                # One row that makes no sense must not stop the others.
                log.exception("not published", batch=key.id, error=repr(error))
                self._trouble(f"{key.id}: {type(error).__name__}: {error}")

    def _note_night(self, day_obs: object) -> None:
        if isinstance(day_obs, int) and self._rubintv is not None and day_obs in self._rubintv.nights:
            self._changed_nights.add(day_obs)
            self._report_due.set()

    async def _take_summary(self, key: BatchKey) -> None:
        summary = await asyncio.to_thread(
            lambda: self._results.latest_summary(self._camera, key.exposure_id, pipeline=key.pipeline, run=key.run)
        )
        if summary is not None:
            self._take(summary)

    def _take(self, summary: ExposureSummary, *, is_stored: bool = False) -> None:
        if summary.run != self._run:
            for other in self._campaign_sinks:
                other.put(summary)
            return
        self._newest = max(self._newest or 0, summary.day_obs)
        try:
            if self._rubintv is not None and self._rubintv.put(summary, day_obs=summary.day_obs):
                self._changed_nights.add(summary.day_obs)
                self._report_due.set()
            for sink in self._sinks:
                if not is_stored or (sink not in self._campaign_sinks and self._is_news(sink.name, summary)):
                    sink.put(summary)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            log.exception("summary left out", exposure_id=summary.exposure, pipeline=summary.pipeline)
            self._trouble(f"{summary.exposure} {summary.pipeline}: {type(error).__name__}: {error}")

    def _is_news(self, sink: str, summary: ExposureSummary) -> bool:
        """Whether a stored summary may not have reached a sink: rows cost the other side something."""
        mark = self._marks.get(sink)
        return mark is None or summary.gathered_at is None or _utc(summary.gathered_at) > mark - MARK_MARGIN

    async def _note_marks(self) -> None:
        """Note, where the next start finds it, up to when a sink has had everything."""
        now = datetime.now(UTC)
        marks = {sink.name: now for sink in self._sinks if sink.status.n_waiting == 0}
        if marks and self.ready.is_set():
            self._marks |= marks
            await self._board.connection.run(put_marks(self._board.prefix, marks))

    async def _take_posted(self, key: BatchKey) -> None:
        if self._rubintv is None or key.run != self._run:
            return
        state = await self._board.state(key)
        if state is None:
            return
        found = posted_of(state)
        day_obs = int(found.info.get("day_obs") or _day_of(key.exposure_id))
        self._newest = max(self._newest or 0, day_obs)
        try:
            self._rubintv.put(found, day_obs=day_obs)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            self._trouble(f"{key.id}: {type(error).__name__}: {error}")

    def _trouble(self, text: str) -> None:
        self._metrics.unreadable.inc()
        self._troubles.appendleft(f"{datetime.now(UTC):%H:%M:%S} {text}"[:300])

    # The night's report

    async def _tell_reports(self) -> None:
        """Make the report of nights that changed, not more often than every `report_s`; the last of a night as well."""
        ended: set[int] = set()
        while self._rubintv is not None:
            self._report_due.clear()
            today = self._today()
            past = {day for day in self._rubintv.nights if day < today} - ended
            for day_obs in sorted(self._changed_nights | past, reverse=True):
                self._changed_nights.discard(day_obs)
                is_over = day_obs < today
                try:
                    rubintv = self._rubintv
                    last = await in_thread(lambda: rubintv.last_frame(day_obs))  # noqa: B023 - called in this very turn
                    self._rubintv.offer_report(day_obs, is_over=is_over, last_frame=last)
                except RapidError as error:
                    self._trouble(f"report of {day_obs}: {error.message}")
                    continue
                if is_over:
                    ended.add(day_obs)
            begin = time.monotonic()
            await _wait_for(self._report_due, WAIT_S)
            if self._changed_nights:
                await pause(max(self._report_s - (time.monotonic() - begin), 0.0))
        await asyncio.Event().wait()

    # Cluster and status

    async def _tell_status(self) -> None:
        from rapid.camera.store import load_camera

        camera = load_camera(self._camera)
        if self._outbox is not None:
            self._outbox.on_change = self._cluster_due.set
        while True:
            try:
                if self._cluster_s is not None:
                    view = ClusterView(
                        await self._board.status(), await self._newest_batches(), tuple(self._destinations())
                    )
                    await self._board.connection.run(put_streams(decide_streams(camera, view)))
                await self._board.connection.run(put_status(self._board.prefix, await self._status()))
                await self._keep_sent()
                await self._note_marks()
            except StoreError as error:
                log.warning("cluster status waits for the board", error=error.message)
                await pause(RETRY_S)
            except Exception as error:
                log.exception("cluster status failed", error=repr(error))
                self._trouble(f"cluster status: {type(error).__name__}: {error}")
                await pause(WAIT_S)
            await pause(self._cluster_s or RETRY_S)
            await _wait_for(self._cluster_due, WAIT_S)
            self._cluster_due.clear()

    async def _keep_sent(self) -> None:
        """Tell the board when rows were sent."""
        rows, self._sent_rows = self._sent_rows, []
        for day_obs in {_day_of(row.exposure) for row in rows}:
            of_day = [row for row in rows if _day_of(row.exposure) == day_obs]
            await self._board.connection.run(put_sent(self._board.prefix, day_obs, of_day))

    async def _newest_batches(self) -> list[BatchState]:
        found = []
        for key in await self._board.recent(N_CLUSTER):
            state = await self._board.state(key)
            if state is not None:
                found.append(state)
        return found

    def _destinations(self) -> list[DestinationStatus]:
        own = [self._outbox.status] if self._outbox is not None else []
        return own + [sink.status for sink in self._sinks]

    async def _status(self) -> PublishStatus:
        night = self._rubintv.nights.get(self._newest) if self._rubintv is not None and self._newest else None
        return PublishStatus(
            name=self._name,
            camera=self._camera,
            at_ms=await self._board.now_ms(),
            night=self._newest,
            n_exposures=night.n_exposures if night is not None else 0,
            behind_s=self._behind_s,
            destinations=self._destinations(),
            troubles=list(self._troubles),
        )


def _day_of(exposure_id: int) -> int:
    return exposure_id // 100_000 % 100_000_000


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _today() -> int:
    return int((datetime.now(UTC) - timedelta(hours=12)).strftime("%Y%m%d"))


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
