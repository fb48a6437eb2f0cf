"""The ingest role: take in whatever arrives, have it ingested in batches, tell everybody, and forget nothing.

A file comes by a raw source (a directory, or a bucket's notifications and listing) or by a list in Redis. A source
begins every watch with everything that is there, and a list keeps an entry until it is dealt with: so this process may
be killed at any moment (invariant I1). "Already ingested" is success. What cannot be ingested is set aside with its
reason, where a person finds it.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.errors import StoreError
from rapid.ingest import store
from rapid.ingest.decide import Failure, RetryPolicy, Step, decide_retry, pause_of
from rapid.ingest.desk import IngestDesk, Outcome
from rapid.ingest.feeds import RawSource, follow_source, take_list
from rapid.ingest.inbox import Inbox
from rapid.ingest.ledger import Ledger
from rapid.ingest.metrics import IngestMetrics
from rapid.ingest.models import Fate, IngestStatus, Item
from rapid.ingest.tree import FileTree

log = structlog.get_logger()

STATUS_S = 5.0
ORPHANS_S = 30.0
RETRY_S = 1.0
N_LOOKS = 8
"""Files of the lists that are looked at together."""


@dataclass(frozen=True)
class Batching:
    """How files are put together.

    Attributes
    ----------
    limit
        Most files of a transaction.
    linger_s
        How long the first of them waits for others: a transaction for hundreds costs little more than one for one.
    """

    limit: int = 250
    linger_s: float = 0.05


class Ingester:
    """One ingest process; of several, each takes what the others have not.

    Parameters
    ----------
    name
        How it introduces itself; a restart under the same name goes on with what it had in hand.
    desk
        Talks to the repository, in a thread of its own.
    repository
        Name of the repository, for people.
    sources
        Where raws arrive: each yields everything that is there, then what comes.
    trees
        Where files arrive that are no raws.
    queues
        Lists in Redis by which files are told of, beside our own.
    """

    def __init__(
        self,
        name: str,
        camera: Camera,
        board: AsyncBoard,
        desk: IngestDesk,
        *,
        repository: str,
        sources: Sequence[RawSource] = (),
        trees: Sequence[FileTree] = (),
        queues: Sequence[store.QueueNames] = (),
        policy: RetryPolicy | None = None,
        batching: Batching | None = None,
        metrics: IngestMetrics | None = None,
    ) -> None:
        self._name = name
        self._camera = camera
        self._board = board
        self._prefix = board.prefix
        self._desk = desk
        self._repository = repository
        self._sources = sources
        self._trees = trees
        self._queues = (store.own_queue(self._prefix, name), *queues)
        self._policy = policy or RetryPolicy()
        self._batching = batching or Batching()
        self._metrics = metrics or IngestMetrics()
        self._ledger = Ledger(camera, board, run=desk.run, metrics=self._metrics)
        self._inbox = Inbox()
        self._in_hand: list[Item] = []
        self._error: str | None = None
        self._outages = 0
        self._changed = asyncio.Event()
        self._butler_thread = ThreadPoolExecutor(1, thread_name_prefix="butler")
        self._looks = ThreadPoolExecutor(N_LOOKS, thread_name_prefix="look")
        self.ready = asyncio.Event()
        """Set once the repository is open."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Files dealt with since the start, by what became of them."""
        return self._ledger.counts

    async def run(self, stop: asyncio.Event) -> None:
        """Ingest until ``stop`` is set; a batch in hand is finished.

        Raises
        ------
        ConfigurationError
            Raised if the repository cannot be used.
        """
        structlog.contextvars.bind_contextvars(role="ingest", name=self._name)
        stopped = asyncio.create_task(stop.wait())
        tasks = [asyncio.create_task(self._repeat(self._tell_status))]
        work: asyncio.Task[None] | None = None
        try:
            if not await self._open(stop):
                return
            await self._ledger.prepare()
            doors: list[Callable[[], Awaitable[None]]] = [
                lambda source=source: follow_source(source, self._inbox, self._ledger.quarantine)  # type: ignore[misc]
                for source in self._sources
            ]
            doors += [
                lambda names=names: take_list(self._board, names, self._inbox, self._ledger.refuse)  # type: ignore[misc]
                for names in self._queues
            ]
            doors += [lambda tree=tree: tree.follow(self._inbox) for tree in self._trees]  # type: ignore[misc]
            tasks += [asyncio.create_task(self._repeat(door)) for door in (*doors, self._adopt_orphans)]
            work = asyncio.create_task(self._work(stop))
            self.ready.set()
            log.info("ingest begins", repository=self._repository, n_sources=len(self._sources))
            await asyncio.wait({stopped, work, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, *tasks):
                if task.done():
                    task.result()  # none of them ends by itself: its error is ours
        finally:
            stop.set()
            if work is not None:
                await asyncio.gather(work, return_exceptions=True)
            for pending in (stopped, *tasks):
                pending.cancel()
            await asyncio.gather(stopped, *tasks, return_exceptions=True)
            await asyncio.get_running_loop().run_in_executor(self._butler_thread, self._desk.close)
            self._butler_thread.shutdown(wait=False)
            self._looks.shutdown(wait=False, cancel_futures=True)
            log.info("ingest stopped", **self._ledger.counts)

    async def _open(self, stop: asyncio.Event) -> bool:
        """Open the repository, however long that takes; return False if told to stop before."""
        while not stop.is_set():
            try:
                await asyncio.get_running_loop().run_in_executor(self._butler_thread, self._desk.open)
            except StoreError as error:
                self._note_outage(error.message)
                await _wait_for(stop, pause_of(self._outages, self._policy))
            else:
                self._note_up()
                return True
        return False

    async def _repeat(self, do: Callable[[], Awaitable[None]]) -> None:
        """Do something that goes on for ever, again after a store was away."""
        while True:
            try:
                await do()
            except StoreError as error:
                log.warning("ingest has lost a store for now", error=error.message)
            await _wait_for(asyncio.Event(), RETRY_S)

    async def _adopt_orphans(self) -> None:
        """Take over what dead processes had in hand."""
        while True:
            n = await self._board.connection.run(store.adopt_orphans(self._prefix))
            if n:
                log.warning("files of a dead ingest process are taken over", n=n)
            await _wait_for(asyncio.Event(), ORPHANS_S)

    # Work

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            items = await self._inbox.take(self._batching.limit, linger_s=self._batching.linger_s, timeout_s=0.5)
            if not items:
                continue
            self._in_hand = items
            begin_s = time.monotonic()
            outcomes = await self._ingest(items)
            self._metrics.batch_seconds.observe(time.monotonic() - begin_s)
            is_outage = await self._settle(outcomes)
            self._in_hand = []
            self._changed.set()
            if is_outage:
                await _wait_for(stop, pause_of(self._outages, self._policy))

    async def _ingest(self, items: Sequence[Item]) -> list[Outcome]:
        """Look at files, hand them to the repository, and return one outcome for each."""
        loop = asyncio.get_running_loop()
        looks = [loop.run_in_executor(self._looks, self._desk.look, item) for item in items]
        ended = [outcome for outcome in await asyncio.gather(*looks) if outcome is not None]
        done = {id(outcome.item) for outcome in ended}
        for item in items:
            if id(item) not in done and self._desk.hands_on(item):
                try:
                    was_handled = await self._board.connection.run(
                        store.was_handled(self._prefix, item.uri, _mark(item))
                    )
                except StoreError as error:
                    ended.append(Outcome(item, failure=Failure.OUTAGE, code=error.code, reason=error.message))
                    done.add(id(item))
                    continue
                if was_handled:
                    ended.append(Outcome(item, fate=Fate.ALREADY))
                    done.add(id(item))
        rest = [item for item in items if id(item) not in done]
        if rest:
            ended += await loop.run_in_executor(self._butler_thread, self._desk.ingest, rest)
        return ended

    async def _settle(self, outcomes: Sequence[Outcome]) -> bool:
        """Settle what has come to an end, put back the rest; return whether somebody does not answer."""
        ends: list[Outcome] = []
        outage: str | None = None
        unreachable: str | None = None
        for outcome in outcomes:
            if outcome.failure is None:
                ends.append(outcome)
                continue
            item = outcome.item
            attempts = 0
            if outcome.failure is Failure.OUTAGE:
                outage = outcome.reason
            elif outcome.failure is Failure.UNREACHABLE:
                unreachable = outcome.reason
                attempts = item.waits = item.waits + 1
            else:
                attempts = item.attempts = item.attempts + 1
            step, pause_s = decide_retry(
                outcome.failure,
                attempts=attempts,
                age_s=time.monotonic() - item.since_s,
                policy=self._policy,
            )
            if step is Step.SET_ASIDE:
                ends.append(outcome)
                continue
            self._metrics.retries.labels(why=outcome.failure.value).inc()
            if outcome.failure is Failure.REFUSED:
                log.warning("file will be tried again", uri=item.uri, attempts=item.attempts, reason=outcome.reason)
            self._inbox.put_back(item, 0.0 if outcome.failure is Failure.OUTAGE else pause_s)
        for outcome in ends:
            if outcome.fate is Fate.HANDLED and self._desk.hands_on(outcome.item):
                with contextlib.suppress(StoreError):  # it is handed on once more after a restart
                    at_s = await self._board.now_ms() / 1000.0
                    await self._board.connection.run(
                        store.note_handled(self._prefix, outcome.item.uri, _mark(outcome.item), at_s=at_s)
                    )
        for item in await self._ledger.settle(ends):
            outage = outage or "the board does not answer"
            self._inbox.put_back(item)
        if outage is not None:
            self._note_outage(outage)
        elif any(outcome.fate is not None for outcome in outcomes):
            self._note_up()
        elif unreachable is not None:
            self._note_outage(unreachable)
        return outage is not None

    def _note_outage(self, message: str) -> None:
        self._outages += 1
        if self._error is None:
            log.error("ingest waits for a store that does not answer", error=message)
        self._error = message
        self._metrics.is_up.set(0)
        self._changed.set()

    def _note_up(self) -> None:
        if self._error is not None:
            log.info("the store answers again")
        self._error = None
        self._outages = 0
        self._metrics.is_up.set(1)

    # Status

    async def _tell_status(self) -> None:
        """Say how this process stands, and that it lives, every few seconds."""
        while True:
            self._changed.clear()
            await self._board.connection.run(store.put_status(self._prefix, await self._status(), self._queues))
            await _wait_for(self._changed, STATUS_S)
            await _wait_for(asyncio.Event(), 0.2)  # not more often than that

    async def _status(self) -> IngestStatus:
        connection = self._board.connection
        n_queued = sum([await connection.run(store.n_queued(names)) for names in self._queues])
        n_aside = await connection.run(store.n_set_aside(self._prefix))
        oldest = min([item.since_s for item in self._in_hand] + [self._inbox.oldest_since_s or time.monotonic()])
        n_waiting = len(self._inbox) + len(self._in_hand)
        self._metrics.waiting.set(n_waiting)
        self._metrics.queued.set(n_queued)
        self._metrics.set_aside.set(n_aside)
        return IngestStatus(
            name=self._name,
            camera=self._camera.name,
            repository=self._repository,
            at_ms=await self._board.now_ms(),
            is_up=self._error is None,
            error=self._error,
            n_waiting=n_waiting,
            n_queued=n_queued,
            oldest_s=round(time.monotonic() - oldest, 1) if n_waiting else 0.0,
            counts=dict(self._ledger.counts),
            n_set_aside=n_aside,
        )


def _mark(item: Item) -> str:
    """Return what tells a file's content from another's, as far as it is known."""
    return str(item.size_bytes)


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
