"""The board: one class in front of the server-side functions, sync and asyncio.

Translation, no policy: every transition is one atomic call (invariants I3, I4, I6). A wait is a blocking
read on a list that the functions push to; its timeout is the next moment something is known to be due.
"""

import contextlib
import random
import threading
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapid.dispatch import commands, keys
from rapid.dispatch.commands import Command, Wait
from rapid.dispatch.models import (
    BatchKey,
    BatchSpec,
    BatchState,
    BoardStatus,
    DeadLetter,
    Event,
    EventKind,
    GatherJob,
    Heartbeat,
    Job,
    Order,
    PostReceipt,
    WorkerMode,
    WorkerSpec,
)
from rapid.errors import StoreError
from rapid.results.models import DetectorState, Scalar

T = TypeVar("T")

LEASE_MS = 10_000
"""How long a worker may be silent before its job returns. Heartbeats come three times as often."""

GRACE_MS = 1_500
"""How long a job is kept for the worker that has its detector's calibs."""

BACKLOG_AGE_MS = 12 * 3600 * 1000
"""A job older than a night is not worth a worker's time unless asked for again."""

IDLE_WAIT_S = 5.0
"""An idle worker asks at least this often: its sign of life."""

GATHER_LEASE_MS = 60_000
RECONNECT_S = 0.2
RECONNECT_MAX_S = 2.0


def _missing_library(error: ResponseError) -> bool:
    return "Function not found" in str(error)


class _Shared:
    """What both boards know."""

    def __init__(self, instrument: str, *, lease_ms: int, grace_ms: int, backlog_age_ms: int, outage_s: float) -> None:
        self.instrument = instrument
        self.prefix = keys.prefix(instrument)
        self.lease_ms = lease_ms
        self.grace_ms = grace_ms
        self.backlog_age_ms = backlog_age_ms
        self.outage_s = outage_s

    def _name(self, command: Command[Any]) -> str:
        return f"{commands.LIBRARY}_{command.function}"

    def _claim(self, worker: WorkerSpec) -> Command[Job | Wait]:
        return commands.claim(
            worker, lease_ms=self.lease_ms, grace_ms=self.grace_ms, backlog_age_ms=self.backlog_age_ms
        )

    @staticmethod
    def _refusal(error: ResponseError) -> Exception:
        return commands.error_of(str(error)) or StoreError(f"board: {error}")


class AsyncBoard(_Shared):
    """The board for asyncio roles.

    Parameters
    ----------
    url
        Of the Redis or Valkey server.
    instrument
        Whose board.
    lease_ms, grace_ms, backlog_age_ms
        See the module's constants.
    outage_s
        How long a call goes on trying to reach a server that does not answer.
    """

    def __init__(
        self,
        url: str,
        instrument: str,
        *,
        lease_ms: int = LEASE_MS,
        grace_ms: int = GRACE_MS,
        backlog_age_ms: int = BACKLOG_AGE_MS,
        outage_s: float = 30.0,
    ) -> None:
        super().__init__(
            instrument, lease_ms=lease_ms, grace_ms=grace_ms, backlog_age_ms=backlog_age_ms, outage_s=outage_s
        )
        # Blocking reads carry their own timeout; the socket's only has to be longer.
        self._redis: Any = redis.asyncio.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=None)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def load(self) -> None:
        """Load the server-side functions; replaces an older load of the same version."""
        await self._try(lambda: self._redis.function_load(commands.library_source(), replace=True))

    async def _try(self, call: Any) -> Any:
        """Do a call, again and again while the server is away, within bounds."""
        import asyncio  # noqa: PLC0415 - the sync board must not need it

        deadline = time.monotonic() + self.outage_s
        pause = RECONNECT_S
        while True:
            try:
                return await call()
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                if time.monotonic() > deadline:
                    raise StoreError(f"board: no answer from the server: {error}") from error
                # Nothing can wake us when the server is back: the one place that has to wait and see.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), pause * random.uniform(0.5, 1.5))  # noqa: S311
                pause = min(pause * 1.5, RECONNECT_MAX_S)

    async def _call(self, command: Command[T]) -> T:
        async def call() -> Any:
            return await self._redis.fcall(self._name(command), 1, self.prefix, *command.arguments)

        try:
            try:
                answer = await self._try(call)
            except ResponseError as error:
                if not _missing_library(error):
                    raise
                # The server was restarted without its data (I2).
                await self.load()
                answer = await self._try(call)
        except ResponseError as error:
            raise self._refusal(error) from error
        return command.read(answer)

    async def _pop(self, name: str, timeout_s: float) -> Any:
        """Wait for an entry of a list; None after the timeout or when the server went away."""
        try:
            found = await self._redis.blpop([self.prefix + name], timeout=max(timeout_s, 0.01))
        except (RedisConnectionError, RedisTimeoutError, OSError):
            return None
        except RedisError as error:
            raise StoreError(f"board: {error}") from error
        return found[1] if found else None

    async def post(self, spec: BatchSpec) -> PostReceipt:
        """Fan out a batch in one round trip. Posting twice is posting once; new raws are added."""
        return await self._call(commands.post(spec))

    async def arrive(self, key: BatchKey, raws: Mapping[int, str]) -> int:
        """Queue the jobs of raws that came after the post; -1 for an unknown batch."""
        return await self._call(commands.arrive(key, raws))

    async def settle(self, key: BatchKey, state: DetectorState, reasons: Mapping[int, str]) -> int:
        """Settle detectors that will have no result."""
        return await self._call(commands.settle(key, state, reasons))

    async def expect(self, key: BatchKey, expected: frozenset[int]) -> int:
        """Replace the expected set of a batch."""
        return await self._call(commands.expect(key, expected))

    async def claim(self, worker: WorkerSpec, *, timeout_s: float = IDLE_WAIT_S) -> Job | None:
        """Take the newest job the worker may have, waiting for one if there is none.

        Returns
        -------
        Job or None
            None after the timeout.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            answer = await self._call(self._claim(worker))
            if isinstance(answer, Job):
                return answer
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            wait_s = min(left, answer.wait_ms / 1000) if answer.wait_ms else left
            message = await self._pop(f"wake:{worker.worker_id}", wait_s)
            while message is not None:
                woken = commands.read_wake(message)
                if isinstance(woken, Job):
                    return woken
                if woken.order is not Order.ASK:
                    break
                wait_s = min(max(deadline - time.monotonic(), 0.0), woken.wait_ms / 1000)
                message = await self._pop(f"wake:{worker.worker_id}", wait_s)

    async def wait_for_order(self, worker_id: str, *, timeout_s: float) -> Order | None:
        """Wait, as a busy worker, for an order of the board."""
        message = await self._pop(f"wake:{worker_id}", timeout_s)
        if message is None:
            return None
        woken = commands.read_wake(message)
        # A job for a busy worker can only be a lost lease's: its fence protects it.
        return None if isinstance(woken, Job) else woken.order

    async def heartbeat(self, worker_id: str, job: Job | None = None) -> Heartbeat:
        """Give a sign of life; renew the lease on the running job."""
        return await self._call(commands.heartbeat(worker_id, job, lease_ms=self.lease_ms))

    async def complete(self, job: Job, metrics: Mapping[str, Scalar], *, claim_next: bool = False) -> Job | None:
        """End a job with its short metrics.

        Raises
        ------
        LeaseLostError
            Raised if the lease was given to another: this result does not count.
        """
        return await self._call(commands.complete(job, metrics, claim_next=claim_next))

    async def fail(self, job: Job, error: Mapping[str, Any]) -> str:
        """End an attempt with an error: queued again, dead letter, or settled."""
        return await self._call(commands.fail(job, error))

    async def release(self, job: Job, *, count_attempt: bool = False, reason: str = "released") -> str:
        """Give a job back to its queue."""
        return await self._call(commands.release(job, count_attempt=count_attempt, reason=reason))

    async def leave(self, worker_id: str) -> None:
        """Take a stopping worker off the board."""
        await self._call(commands.leave(worker_id))

    async def tick(self, *, worker_timeout_ms: int = 3 * LEASE_MS) -> float | None:
        """Expire leases and bring back delayed jobs; seconds until the next is due, None if none is known."""
        next_ms = await self._call(commands.tick(worker_timeout_ms=worker_timeout_ms))
        return None if next_ms < 0 else next_ms / 1000

    async def next_gather(
        self, gatherer_id: str, *, timeout_s: float, lease_ms: int = GATHER_LEASE_MS
    ) -> GatherJob | None:
        """Take the newest due gather, waiting until one is due."""
        deadline = time.monotonic() + timeout_s
        while True:
            answer = await self._call(commands.claim_gather(gatherer_id, lease_ms=lease_ms))
            if isinstance(answer, GatherJob):
                return answer
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            await self._pop("gather_wake", min(left, answer.wait_ms / 1000) if answer.wait_ms >= 0 else left)

    async def renew_gather(self, gather: GatherJob) -> None:
        """Keep the lease on a long gather; `LeaseLostError` if it is gone."""
        await self._call(commands.renew_gather(gather))

    async def complete_gather(self, gather: GatherJob, data: Mapping[str, Any]) -> int:
        """End a gather and announce its summary; `LeaseLostError` if another took it over."""
        return await self._call(commands.complete_gather(gather, data))

    async def fail_gather(self, gather: GatherJob, *, wait_ms: int = 5_000, max_failures: int = 3) -> str:
        """Give a failed gather back, or give it up after some failures."""
        return await self._call(commands.fail_gather(gather, wait_ms=wait_ms, max_failures=max_failures))

    async def lead(self, head_id: str, *, ttl_ms: int) -> tuple[int, float]:
        """Take or keep the lead: fencing token (0 if another leads), seconds until it may change."""
        token, wait_ms = await self._call(commands.lead(head_id, ttl_ms=ttl_ms))
        return token, wait_ms / 1000

    async def wait_for_lead(self, timeout_s: float) -> None:
        """Wait, as a standby, until the leader resigns or a time has passed."""
        await self._pop("leader_wake", timeout_s)

    async def resign(self, head_id: str, token: int) -> None:
        """Give up the lead and wake a standby."""
        await self._call(commands.resign(head_id, token))

    async def state(self, key: BatchKey) -> BatchState | None:
        """Read a batch; None if the board does not know it."""
        return await self._call(commands.state(key))

    async def recent(self, n: int = 100) -> list[BatchKey]:
        """Return the batches posted last, newest first."""
        found = await self._try(lambda: self._redis.zrevrange(self.prefix + "recent", 0, n - 1))
        return [BatchKey.parse(batch.decode()) for batch in found]

    async def status(self) -> BoardStatus:
        """Look at queues, workers, counters."""
        return await self._call(commands.status())

    async def set_mode(self, mode: WorkerMode) -> WorkerMode:
        """Switch the worker mode at once."""
        return await self._call(commands.set_mode(mode))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, newest first."""
        return await self._call(commands.dead_letters(limit))

    async def retry_dead_letter(self, job_id: str) -> None:
        """Queue a dead letter's job again; `NotFoundError` if there is none."""
        await self._call(commands.retry_dead_letter(job_id))

    async def discard_dead_letter(self, job_id: str) -> bool:
        """Drop a dead letter; False if there was none."""
        return await self._call(commands.discard_dead_letter(job_id)) == 1

    async def publish(
        self, kind: EventKind, *, batch: BatchKey | None = None, detector: int | None = None, data: Mapping[str, Any]
    ) -> None:
        """Put an event on the stream."""
        await self._call(commands.publish(kind, batch_id=batch.id if batch else "", detector=detector, data=data))

    async def events(self, after_id: str = "$", *, timeout_s: float = 10.0, limit: int = 500) -> list[Event]:
        """Wait for events after an id (``$``: from now on; ``0``: from the beginning kept)."""
        try:
            found = await self._redis.xread(
                {self.prefix + "events": after_id}, count=limit, block=max(int(timeout_s * 1000), 1)
            )
        except (RedisError, OSError) as error:
            raise StoreError(f"board: {error}") from error
        entries = next(iter(found.values()))[0] if isinstance(found, dict) and found else (found[0][1] if found else [])
        return [commands.read_event(event_id, entry) for event_id, entry in entries]

    async def last_event_id(self) -> str:
        """Return the id of the newest event, ``0`` if there is none."""
        newest = await self._try(lambda: self._redis.xrevrange(self.prefix + "events", count=1))
        return newest[0][0].decode() if newest else "0"

    async def ping(self) -> None:
        """Raise `StoreError` if the server does not answer."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise StoreError(f"board: {error}") from error


class Board(_Shared):
    """The board for programs without an event loop: command line, replay, tests."""

    def __init__(
        self,
        url: str,
        instrument: str,
        *,
        lease_ms: int = LEASE_MS,
        grace_ms: int = GRACE_MS,
        backlog_age_ms: int = BACKLOG_AGE_MS,
        outage_s: float = 5.0,
    ) -> None:
        super().__init__(
            instrument, lease_ms=lease_ms, grace_ms=grace_ms, backlog_age_ms=backlog_age_ms, outage_s=outage_s
        )
        self._redis: Any = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=None)

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self) -> None:
        """Load the server-side functions."""
        self._try(lambda: self._redis.function_load(commands.library_source(), replace=True))

    def _try(self, call: Any) -> Any:
        deadline = time.monotonic() + self.outage_s
        pause = RECONNECT_S
        while True:
            try:
                return call()
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                if time.monotonic() > deadline:
                    raise StoreError(f"board: no answer from the server: {error}") from error
                threading.Event().wait(pause)
                pause = min(pause * 1.5, RECONNECT_MAX_S)

    def call(self, command: Command[T]) -> T:
        """Run one command of `rapid.dispatch.commands`."""

        def fcall() -> Any:
            return self._redis.fcall(self._name(command), 1, self.prefix, *command.arguments)

        try:
            try:
                answer = self._try(fcall)
            except ResponseError as error:
                if not _missing_library(error):
                    raise
                self.load()
                answer = self._try(fcall)
        except ResponseError as error:
            raise self._refusal(error) from error
        return command.read(answer)

    def post(self, spec: BatchSpec) -> PostReceipt:
        """Fan out a batch in one round trip."""
        return self.call(commands.post(spec))

    def claim(self, worker: WorkerSpec) -> Job | None:
        """Take a job if there is one; never waits."""
        answer = self.call(self._claim(worker))
        return answer if isinstance(answer, Job) else None

    def complete(self, job: Job, metrics: Mapping[str, Scalar], *, claim_next: bool = False) -> Job | None:
        """End a job; `LeaseLostError` if the lease was given to another."""
        return self.call(commands.complete(job, metrics, claim_next=claim_next))

    def fail(self, job: Job, error: Mapping[str, Any]) -> str:
        """End an attempt with an error."""
        return self.call(commands.fail(job, error))

    def release(self, job: Job, *, count_attempt: bool = False, reason: str = "released") -> str:
        """Give a job back."""
        return self.call(commands.release(job, count_attempt=count_attempt, reason=reason))

    def heartbeat(self, worker_id: str, job: Job | None = None) -> Heartbeat:
        """Give a sign of life."""
        return self.call(commands.heartbeat(worker_id, job, lease_ms=self.lease_ms))

    def tick(self, *, worker_timeout_ms: int = 3 * LEASE_MS) -> int:
        """Expire leases; ms until the next is due, -1 if none."""
        return self.call(commands.tick(worker_timeout_ms=worker_timeout_ms))

    def claim_gather(self, gatherer_id: str, *, lease_ms: int = GATHER_LEASE_MS) -> GatherJob | None:
        """Take a due gather if there is one; never waits."""
        answer = self.call(commands.claim_gather(gatherer_id, lease_ms=lease_ms))
        return answer if isinstance(answer, GatherJob) else None

    def complete_gather(self, gather: GatherJob, data: Mapping[str, Any]) -> int:
        """End a gather."""
        return self.call(commands.complete_gather(gather, data))

    def state(self, key: BatchKey) -> BatchState | None:
        """Read a batch."""
        return self.call(commands.state(key))

    def status(self) -> BoardStatus:
        """Look at the whole board."""
        return self.call(commands.status())

    def recent(self, n: int = 100) -> list[BatchKey]:
        """Return the batches posted last, newest first."""
        found = self._try(lambda: self._redis.zrevrange(self.prefix + "recent", 0, n - 1))
        return [BatchKey.parse(batch.decode()) for batch in found]

    def set_clock_offset(self, offset_ms: int) -> None:
        """Move the board's clock, for replays and tests."""
        self._try(lambda: self._redis.set(self.prefix + "clock_offset", offset_ms))
