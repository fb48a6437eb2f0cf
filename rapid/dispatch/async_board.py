"""The board over an asyncio connection: what the roles use."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rapid.dispatch.connection import AsyncConnection
from rapid.dispatch.models import (
    BatchKey,
    BatchSpec,
    BatchState,
    BoardStatus,
    BoardTime,
    Completion,
    DeadLetter,
    Event,
    EventKind,
    GatherJob,
    Heartbeat,
    Job,
    Load,
    PostReceipt,
    WorkerMode,
    WorkerOrder,
    WorkerSpec,
    WorkerState,
)
from rapid.dispatch.replies import next_of
from rapid.dispatch.settings import GATHER_FAILED, GATHER_LEASE_MS, GATHER_RETRY_MS, IDLE_WAIT_S, BoardSettings
from rapid.errors import StoreError
from rapid.results.models import DetectorState, Scalar

_log = logging.getLogger(__name__)

KEEPER_S = 3600.0


class AsyncBoard(BoardSettings):
    """The board for asyncio roles: the same methods as `Board`, awaited.

    A call may be cancelled at any time; what it had claimed is given again at the next claim.
    """

    def __init__(self, url: str, instrument: str, **settings: Any) -> None:
        super().__init__(url, instrument, **settings)
        self._connection = AsyncConnection(self._url, outage_s=self._outage_s)

    @property
    def connection(self) -> AsyncConnection:
        """What other protocols of the same instrument speak over."""
        return self._connection

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def lease_keeper(self) -> None:
        """Run timers as they fall due, until cancelled; goes on when a server that was away is back."""
        while True:
            try:
                await self.keep_leases(timeout_s=KEEPER_S)
            except StoreError as error:
                _log.warning("the board's server is away: timers wait", extra={"error": error.message})

    # Head --------------------------------------------------------------------

    async def load(self) -> None:
        """See `Board.load`."""
        await self._connection.load_library()

    async def post(self, spec: BatchSpec, *, lead_token: int | None = None) -> PostReceipt:
        """See `Board.post`."""
        return await self._connection.run(self._say.post(spec, lead_token=lead_token))

    async def arrive(self, key: BatchKey, raws: Mapping[int, str]) -> int:
        """See `Board.arrive`."""
        return await self._connection.run(self._say.arrive(key, raws))

    async def settle(self, key: BatchKey, state: DetectorState, reasons: Mapping[int, str]) -> int:
        """See `Board.settle`."""
        return await self._connection.run(self._say.settle(key, state, reasons))

    async def expect(self, key: BatchKey, expected: Iterable[int]) -> int:
        """See `Board.expect`."""
        return await self._connection.run(self._say.expect(key, expected))

    async def lead(self, head_id: str, *, ttl_ms: int) -> tuple[int, float]:
        """See `Board.lead`."""
        return await self._connection.run(self._say.lead(head_id, ttl_ms))

    async def wait_for_lead(self, timeout_s: float) -> None:
        """See `Board.wait_for_lead`."""
        await self._connection.run(self._say.wait_for_lead(timeout_s))

    async def resign(self, head_id: str, token: int) -> None:
        """See `Board.resign`."""
        await self._connection.run(self._say.resign(head_id, token))

    # Worker ------------------------------------------------------------------

    async def claim(self, worker: WorkerSpec, *, timeout_s: float = IDLE_WAIT_S) -> Job | None:
        """See `Board.claim`."""
        jobs = await self._connection.run(self._say.claim(worker, 1, timeout_s))
        return jobs[0] if jobs else None

    async def claim_many(self, worker: WorkerSpec, limit: int, *, timeout_s: float = IDLE_WAIT_S) -> tuple[Job, ...]:
        """See `Board.claim_many`."""
        return await self._connection.run(self._say.claim(worker, limit, timeout_s))

    async def wait_for_order(self, worker_id: str, *, timeout_s: float) -> WorkerOrder | None:
        """See `Board.wait_for_order`."""
        return await self._connection.run(self._say.wait_for_order(worker_id, timeout_s))

    async def heartbeat(self, worker_id: str, *jobs: Job) -> Heartbeat:
        """See `Board.heartbeat`."""
        return await self._connection.run(self._say.heartbeat(worker_id, jobs))

    async def complete(self, job: Job, metrics: Mapping[str, Scalar], *, claim_next: bool = False) -> Job | None:
        """See `Board.complete`."""
        done = await self._connection.run(self._say.complete([(job, metrics)], claim_limit=int(claim_next)))
        return next_of(done)

    async def complete_many(
        self, results: Iterable[tuple[Job, Mapping[str, Scalar]]], *, claim_limit: int = 0
    ) -> Completion:
        """See `Board.complete_many`."""
        return await self._connection.run(self._say.complete(results, claim_limit=claim_limit))

    async def fail(self, job: Job, error: Mapping[str, Any]) -> str:
        """See `Board.fail`."""
        return await self._connection.run(self._say.fail(job, error))

    async def release(self, job: Job, *, count_attempt: bool = False, reason: str = "released") -> str:
        """See `Board.release`."""
        outcome, _ = await self._connection.run(self._say.release(job, count_attempt=count_attempt, reason=reason))
        return outcome

    async def preempted(self, job: Job) -> Job | None:
        """See `Board.preempted`."""
        _, current = await self._connection.run(
            self._say.release(job, count_attempt=False, reason="a current job took its worker", claim_next=True)
        )
        return current

    async def leave(self, worker_id: str) -> None:
        """See `Board.leave`."""
        await self._connection.run(self._say.leave(worker_id))

    # Gather ------------------------------------------------------------------

    async def next_gather(
        self, gatherer_id: str, *, timeout_s: float, lease_ms: int = GATHER_LEASE_MS
    ) -> GatherJob | None:
        """See `Board.next_gather`."""
        return await self._connection.run(self._say.next_gather(gatherer_id, timeout_s, lease_ms))

    async def renew_gather(self, gather: GatherJob) -> None:
        """See `Board.renew_gather`."""
        await self._connection.run(self._say.renew_gather(gather))

    async def complete_gather(self, gather: GatherJob, data: Mapping[str, Any] | None = None) -> int:
        """See `Board.complete_gather`."""
        return await self._connection.run(self._say.complete_gather(gather, data or {}))

    async def fail_gather(
        self,
        gather: GatherJob,
        *,
        error: Mapping[str, Any] | None = None,
        wait_ms: int = GATHER_RETRY_MS,
        max_failures: int = 3,
    ) -> str:
        """See `Board.fail_gather`."""
        return await self._connection.run(
            self._say.fail_gather(gather, error or GATHER_FAILED, wait_ms=wait_ms, max_failures=max_failures)
        )

    # Timers ------------------------------------------------------------------

    async def tick(self, *, worker_timeout_ms: int | None = None) -> float | None:
        """See `Board.tick`."""
        return await self._connection.run(self._say.tick(worker_timeout_ms))

    async def keep_leases(self, *, timeout_s: float) -> None:
        """See `Board.keep_leases`."""
        await self._connection.run(self._say.keep_leases(timeout_s))

    # Control, events, looking ------------------------------------------------

    async def load_of(self, pool: str, pipeline: str) -> Load:
        """See `Board.load_of`."""
        return await self._connection.run(self._say.load(pool, pipeline))

    async def set_mode(self, mode: WorkerMode) -> WorkerMode:
        """See `Board.set_mode`."""
        return await self._connection.run(self._say.set_mode(mode))

    async def advance_clock(self, delta_ms: int) -> int:
        """See `Board.advance_clock`."""
        return await self._connection.run(self._say.advance_clock(delta_ms))

    async def freeze_clock(self) -> int:
        """See `Board.freeze_clock`."""
        return await self._connection.run(self._say.freeze_clock())

    async def set_clock_rate(self, rate: float) -> int:
        """See `Board.set_clock_rate`."""
        return await self._connection.run(self._say.set_clock_rate(rate))

    async def time(self) -> BoardTime:
        """See `Board.time`."""
        return await self._connection.run(self._say.time())

    async def now_ms(self) -> int:
        """See `Board.now_ms`."""
        return await self._connection.run(self._say.now_ms())

    async def publish(
        self,
        kind: EventKind,
        *,
        batch: BatchKey | None = None,
        detector: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """See `Board.publish`."""
        await self._connection.run(self._say.publish(kind, batch=batch, detector=detector, data=data or {}))

    async def last_event_id(self) -> str:
        """See `Board.last_event_id`."""
        return await self._connection.run(self._say.last_event_id())

    async def events(self, after_id: str = "$", *, timeout_s: float = 10.0, limit: int = 500) -> list[Event]:
        """See `Board.events`."""
        return await self._connection.run(self._say.events(after_id, timeout_s, limit))

    async def state(self, key: BatchKey) -> BatchState | None:
        """See `Board.state`."""
        return await self._connection.run(self._say.state(key))

    async def recent(self, n: int = 100) -> list[BatchKey]:
        """See `Board.recent`."""
        return await self._connection.run(self._say.recent(n))

    async def status(self) -> BoardStatus:
        """See `Board.status`."""
        return await self._connection.run(self._say.status())

    async def workers(self) -> tuple[WorkerState, ...]:
        """See `Board.workers`."""
        return (await self.status()).workers

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """See `Board.dead_letters`."""
        return await self._connection.run(self._say.dead_letters(limit))

    async def retry_dead_letter(self, job_id: str) -> None:
        """See `Board.retry_dead_letter`."""
        await self._connection.run(self._say.retry_dead_letter(job_id))

    async def discard_dead_letter(self, job_id: str) -> bool:
        """See `Board.discard_dead_letter`."""
        return await self._connection.run(self._say.discard_dead_letter(job_id))

    async def ping(self) -> None:
        """See `Board.ping`."""
        await self._connection.run(self._say.ping())

    async def server_id(self) -> str:
        """Return an id of the server's run: another one after every restart, which may have lost the last writes."""
        return await self._connection.run(self._say.server_id())
