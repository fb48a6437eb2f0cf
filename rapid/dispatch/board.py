"""The board: what head, workers, gather and display share through Redis.

`Board` blocks, `AsyncBoard` awaits; they have the same methods. Every method is one atomic transition
on the server (one round trip), or waits on a list that the server pushes to. What the server keeps is
listed in `rapid.dispatch.keys`, the transitions are the Lua files in this folder, what is said is
`rapid.dispatch.commands`. Carries invariants I1 and I3 to I8; after a flush the head posts again what
has no result yet (I2).

Any method may raise `StoreError` if the server stays away for ``outage_s`` or cannot serve;
`LeaseLostError` if the caller's lease was given to another; `RefusedError` if it is not entitled.
"""

import logging
import os
import socket
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rapid.dispatch.commands import BoardCommands
from rapid.dispatch.connection import AsyncConnection, BlockingConnection
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
    WorkerState,
)
from rapid.errors import StoreError
from rapid.results.models import DetectorState, Scalar

_log = logging.getLogger(__name__)

LEASE_MS = 10_000
"""How long a worker may be silent before its job returns. Heartbeats come three times as often."""

GRACE_MS = 1_500
"""How long a job is kept for the busy worker that has its detector's calibs."""

BACKLOG_AGE_MS = 12 * 3600 * 1000
"""A job older than a night is not worth a worker's time unless asked for again."""

IDLE_WAIT_S = 5.0

GATHER_LEASE_MS = 60_000
GATHER_RETRY_MS = 5_000
GATHER_FAILED = {"code": "gather_failed", "message": "the gather failed"}

KEEPER_S = 3600.0


class _Shared:
    """What both boards are made of.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` or ``unix://`` URL of Redis >= 7 or Valkey >= 7.2.
    instrument
        Whose board: the camera's name.
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
        self.instrument = instrument
        self.lease_ms = lease_ms
        self._url = url
        self._outage_s = outage_s
        self._say = BoardCommands(
            instrument,
            boot=f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}",
            lease_ms=lease_ms,
            grace_ms=grace_ms,
            backlog_age_ms=backlog_age_ms,
        )

    @property
    def prefix(self) -> str:
        """What every key of this board begins with."""
        return self._say.prefix


class Board(_Shared):
    """The board over a blocking connection; threads may share it.

    Parameters
    ----------
    url, instrument, **settings
        As for `AsyncBoard`.

    Examples
    --------
    >>> board = Board("redis://localhost:6379", "LSSTCam")  # doctest: +SKIP
    >>> job = board.claim(WorkerSpec(worker_id="w1"), timeout_s=60)  # doctest: +SKIP
    >>> job = board.complete(job, {"sky_level_adu": 812.0}, claim_next=True)  # doctest: +SKIP
    """

    def __init__(self, url: str, instrument: str, **settings: Any) -> None:
        super().__init__(url, instrument, **settings)
        self._connection = BlockingConnection(self._url, outage_s=self._outage_s)

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Head --------------------------------------------------------------------

    def load(self) -> None:
        """Make the server's functions those of this release. Called on their own, the other methods see to it too."""
        self._connection.load_library()

    def post(self, spec: BatchSpec, *, lead_token: int | None = None) -> PostReceipt:
        """Fan out a batch in one round trip, however many jobs it has (I6).

        Posting a batch again adds new raws and detectors and repeats nothing. Jobs go to waiting workers
        at once; the rest is queued.

        Parameters
        ----------
        lead_token
            Fencing token of the head's lead: `RefusedError` if another head leads by now (I8).
        """
        return self._connection.run(self._say.post(spec, lead_token=lead_token))

    def arrive(self, key: BatchKey, raws: Mapping[int, str]) -> int:
        """Queue the jobs of raws (URI by detector) that came after the post; -1 for an unknown batch."""
        return self._connection.run(self._say.arrive(key, raws))

    def settle(self, key: BatchKey, state: DetectorState, reasons: Mapping[int, str]) -> int:
        """Settle detectors that will have no result (quarantined, excluded) or none in time (superseded).

        Those that run, or are settled, stay as they are. A superseded detector's job goes to the backlog; a
        quarantined one is taken up when a good raw arrives. Returns how many; -1 for an unknown batch.
        """
        return self._connection.run(self._say.settle(key, state, reasons))

    def expect(self, key: BatchKey, expected: Iterable[int]) -> int:
        """Say finally which detectors are expected: a partial read-out. Returns how many; -1 for an unknown batch.

        Detectors whose raw has arrived stay expected.
        """
        return self._connection.run(self._say.expect(key, expected))

    def lead(self, head_id: str, *, ttl_ms: int) -> tuple[int, float]:
        """Take or keep the lead: fencing token (0 if another leads), seconds until it may change (I8)."""
        return self._connection.run(self._say.lead(head_id, ttl_ms))

    def wait_for_lead(self, timeout_s: float) -> None:
        """Wait, as a standby, until the leader resigns or a time has passed."""
        self._connection.run(self._say.wait_for_lead(timeout_s))

    def resign(self, head_id: str, token: int) -> None:
        """Give up the lead and wake a standby."""
        self._connection.run(self._say.resign(head_id, token))

    # Worker ------------------------------------------------------------------

    def claim(self, worker: WorkerSpec, *, timeout_s: float = 0.0) -> Job | None:
        """Take the newest job the worker may have (I5), waiting for one if there is none; None after the timeout.

        A worker holds one job. One that asks while it holds a job gets that job again: it seems not to
        have heard the answer.
        """
        return self._connection.run(self._say.claim(worker, timeout_s))

    def wait_for_order(self, worker_id: str, *, timeout_s: float) -> Order | None:
        """Wait, as a busy worker, for an order of the board; None after the timeout."""
        return self._connection.run(self._say.wait_for_order(worker_id, timeout_s))

    def heartbeat(self, worker_id: str, job: Job | None = None) -> Heartbeat:
        """Give a sign of life; renew the lease on the running job (I7)."""
        return self._connection.run(self._say.heartbeat(worker_id, job))

    def complete(self, job: Job, metrics: Mapping[str, Scalar], *, claim_next: bool = False) -> Job | None:
        """End a job with its short metrics, products and result written; optionally take the next in the same call.

        Raises
        ------
        LeaseLostError
            Raised if the lease was given to another: this result does not count (I3).
        """
        return self._connection.run(self._say.complete(job, metrics, claim_next=claim_next))

    def fail(self, job: Job, error: Mapping[str, Any]) -> str:
        """End an attempt with an error, whose ``retry`` (see `rapid.errors.Retry`) says what may follow.

        Returns ``queued`` (tried again after a wait), ``dead`` (a dead letter; the detector is settled as
        failed) or ``settled`` (ignored: nothing was lost).
        """
        return self._connection.run(self._say.fail(job, error))

    def release(self, job: Job, *, count_attempt: bool = False, reason: str = "released") -> str:
        """Give a job back to its queue at once."""
        outcome, _ = self._connection.run(self._say.release(job, count_attempt=count_attempt, reason=reason))
        return outcome

    def preempted(self, job: Job) -> Job | None:
        """Give a backlog job back, attempt not counted, and take the current one: the answer to a preempt order."""
        _, current = self._connection.run(
            self._say.release(job, count_attempt=False, reason="a current job took its worker", claim_next=True)
        )
        return current

    def leave(self, worker_id: str) -> None:
        """Take a stopping worker off the board; what it holds goes back, attempt not counted."""
        self._connection.run(self._say.leave(worker_id))

    # Gather ------------------------------------------------------------------

    def next_gather(self, gatherer_id: str, *, timeout_s: float, lease_ms: int = GATHER_LEASE_MS) -> GatherJob | None:
        """Take the newest due gather, waiting until one is due (I4); None after the timeout."""
        return self._connection.run(self._say.next_gather(gatherer_id, timeout_s, lease_ms))

    def renew_gather(self, gather: GatherJob) -> None:
        """Keep the lease on a long gather; `LeaseLostError` if it is gone."""
        self._connection.run(self._say.renew_gather(gather))

    def complete_gather(self, gather: GatherJob, data: Mapping[str, Any] | None = None) -> int:
        """End a gather and announce its summary; returns the version.

        ``data`` goes into the ``summary_ready`` event beside version, reason and counts.
        `LeaseLostError` if another took the gather over.
        """
        return self._connection.run(self._say.complete_gather(gather, data or {}))

    def fail_gather(
        self,
        gather: GatherJob,
        *,
        error: Mapping[str, Any] | None = None,
        wait_ms: int = GATHER_RETRY_MS,
        max_failures: int = 3,
    ) -> str:
        """Give a failed gather back (``queued``), or after some failures to the dead letters (``dead``)."""
        return self._connection.run(
            self._say.fail_gather(gather, error or GATHER_FAILED, wait_ms=wait_ms, max_failures=max_failures)
        )

    # Timers ------------------------------------------------------------------

    def tick(self, *, worker_timeout_ms: int | None = None) -> float | None:
        """Run the timers that are due: leases, retries, grace, expiry. Seconds until the next one, None if none is set.

        Workers silent for ``worker_timeout_ms`` (default: three of their leases) leave.
        """
        return self._connection.run(self._say.tick(worker_timeout_ms))

    def keep_leases(self, *, timeout_s: float) -> None:
        """Run timers as they fall due, for so long: waits for the next one or for an earlier one to be set.

        Head and gather roles keep this running; any number of keepers may.
        """
        self._connection.run(self._say.keep_leases(timeout_s))

    # Control, events, looking ------------------------------------------------

    def set_mode(self, mode: WorkerMode) -> WorkerMode:
        """Switch the worker mode at once; returns it as read back."""
        return self._connection.run(self._say.set_mode(mode))

    def advance_clock(self, delta_ms: int) -> int:
        """Move the board's clock forward, as replays do to pass idle time; returns the board's time, ms."""
        return self._connection.run(self._say.advance_clock(delta_ms))

    def now_ms(self) -> int:
        """Return the board's time: the server's plus what `advance_clock` added, ms since the Unix epoch."""
        return self._connection.run(self._say.now_ms())

    def publish(
        self,
        kind: EventKind,
        *,
        batch: BatchKey | None = None,
        detector: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Put an event on the stream."""
        self._connection.run(self._say.publish(kind, batch=batch, detector=detector, data=data or {}))

    def last_event_id(self) -> str:
        """Return the id of the newest event, ``0-0`` if there is none."""
        return self._connection.run(self._say.last_event_id())

    def events(self, after_id: str = "$", *, timeout_s: float = 10.0, limit: int = 500) -> list[Event]:
        """Wait for events after an id (``$``: from now on; ``0``: from the oldest kept); empty after the timeout.

        To follow without a gap, begin with `last_event_id` and go on from the last event's id.
        """
        return self._connection.run(self._say.events(after_id, timeout_s, limit))

    def state(self, key: BatchKey) -> BatchState | None:
        """Return one consistent reading of a batch; None if the board does not know it."""
        return self._connection.run(self._say.state(key))

    def recent(self, n: int = 100) -> list[BatchKey]:
        """Return the batches posted last, newest first."""
        return self._connection.run(self._say.recent(n))

    def status(self) -> BoardStatus:
        """Look at queues, workers, counters."""
        return self._connection.run(self._say.status())

    def workers(self) -> tuple[WorkerState, ...]:
        """Return the workers that give signs of life."""
        return self.status().workers

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, newest first."""
        return self._connection.run(self._say.dead_letters(limit))

    def retry_dead_letter(self, job_id: str) -> None:
        """Queue a dead letter's job (or gather) again; `NotFoundError` if there is none.

        `RefusedError` if its batch has left the board: post the exposure again.
        """
        self._connection.run(self._say.retry_dead_letter(job_id))

    def discard_dead_letter(self, job_id: str) -> bool:
        """Drop a dead letter, its detector stays failed; False if there was none."""
        return self._connection.run(self._say.discard_dead_letter(job_id))

    def ping(self) -> None:
        """Raise `StoreError` if the server does not answer."""
        self._connection.run(self._say.ping())


class AsyncBoard(_Shared):
    """The board for asyncio roles: the same methods as `Board`, awaited.

    A call may be cancelled at any time; what it had claimed is given again at the next claim.
    """

    def __init__(self, url: str, instrument: str, **settings: Any) -> None:
        super().__init__(url, instrument, **settings)
        self._connection = AsyncConnection(self._url, outage_s=self._outage_s)

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
        return await self._connection.run(self._say.claim(worker, timeout_s))

    async def wait_for_order(self, worker_id: str, *, timeout_s: float) -> Order | None:
        """See `Board.wait_for_order`."""
        return await self._connection.run(self._say.wait_for_order(worker_id, timeout_s))

    async def heartbeat(self, worker_id: str, job: Job | None = None) -> Heartbeat:
        """See `Board.heartbeat`."""
        return await self._connection.run(self._say.heartbeat(worker_id, job))

    async def complete(self, job: Job, metrics: Mapping[str, Scalar], *, claim_next: bool = False) -> Job | None:
        """See `Board.complete`."""
        return await self._connection.run(self._say.complete(job, metrics, claim_next=claim_next))

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

    async def set_mode(self, mode: WorkerMode) -> WorkerMode:
        """See `Board.set_mode`."""
        return await self._connection.run(self._say.set_mode(mode))

    async def advance_clock(self, delta_ms: int) -> int:
        """See `Board.advance_clock`."""
        return await self._connection.run(self._say.advance_clock(delta_ms))

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
