"""Hand records on, and commit them once they are safe: each at least once, and a bad one stops no other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from prometheus_client import Counter, Gauge

from rapid.errors import RapidError, StoreError
from rapid.kafka.models import Record, Taken
from rapid.kafka.subscription import Subscription

log = structlog.get_logger()

LIMIT = 500
"""Records of one round: what a kill between taking and committing has come again."""

ROUND_S = 1.0
"""How long a round waits for the first record; a stop waits no longer."""

PAUSE_S = 0.5
PAUSE_MAX_S = 30.0
"""Well within the five minutes after which a silent member is put out of its group."""

RECORDS = Counter("rapid_kafka_records", "Records of topics, by what became of them", ["topic", "outcome"])
IS_UP = Gauge("rapid_kafka_up", "Whether topics are read and what they hold is taken", ["role"])

Take = Callable[[Record], Awaitable[Taken]]
"""Makes a record safe. Raises `StoreError` if that cannot be now, `PayloadError` if never."""


class Relay:
    """Hands on what a subscription gets, until told to stop.

    Parameters
    ----------
    open_subscription
        Called in the thread that reads.
    role
        Who reads, for metrics and logs.
    """

    def __init__(self, open_subscription: Callable[[], Subscription], take: Take, *, role: str) -> None:
        self._open = open_subscription
        self._take = take
        self._role = role
        self._failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Hand records on until ``stop`` is set.

        Raises
        ------
        ConfigurationError
            Raised if the subscription cannot be made.
        """
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="kafka")
        subscription = await loop.run_in_executor(thread, self._open)
        try:
            while not stop.is_set():
                records: list[Record] = []
                done: list[Record] = []
                try:
                    records = await loop.run_in_executor(thread, lambda: subscription.take(LIMIT, timeout_s=ROUND_S))
                    for record in records:
                        await self._hand_on(record)
                        done.append(record)
                    if done:
                        await loop.run_in_executor(thread, subscription.commit, done)
                    self._note_up()
                except StoreError as error:
                    left = records[len(done) :]
                    await loop.run_in_executor(thread, subscription.put_back, left)
                    with contextlib.suppress(StoreError):  # then they come again: nothing counts twice
                        if left and done:
                            await loop.run_in_executor(thread, subscription.commit, done)
                    await self._note_away(error, stop)
        finally:
            await loop.run_in_executor(thread, subscription.close)
            thread.shutdown(wait=False)

    async def _hand_on(self, record: Record) -> None:
        try:
            outcome = Taken.IGNORED if record.value is None else await self._take(record)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one record does to its reader, the next one follows
            outcome = Taken.BAD
            log.warning(
                "bad record of a topic",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=error.message if isinstance(error, RapidError) else f"{type(error).__name__}: {error}",
            )
        RECORDS.labels(topic=record.topic, outcome=outcome.value).inc()

    def _note_up(self) -> None:
        if self._failures:
            log.info("topics are read again", role=self._role)
        self._failures = 0
        IS_UP.labels(role=self._role).set(1)

    async def _note_away(self, error: StoreError, stop: asyncio.Event) -> None:
        if not self._failures:
            log.error("topics wait for a store that does not answer", role=self._role, error=error.message)
        IS_UP.labels(role=self._role).set(0)
        pause_s = min(PAUSE_S * 2.0 ** min(self._failures, 10), PAUSE_MAX_S)
        self._failures += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.wait()
