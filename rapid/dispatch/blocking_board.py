"""The board over a blocking connection: command line, replay, tests."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

from rapid.dispatch.connection import BlockingConnection
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
from rapid.dispatch.settings import GATHER_FAILED, GATHER_LEASE_MS, GATHER_RETRY_MS, BoardSettings
from rapid.results.models import DetectorState, Scalar


class Board(BoardSettings):
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

    @property
    def connection(self) -> BlockingConnection:
        """What other protocols of the same instrument speak over."""
        return self._connection

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

        A worker that asks while it holds a job gets that job again: it seems not to have heard the answer.
        """
        jobs = self._connection.run(self._say.claim(worker, 1, timeout_s))
        return jobs[0] if jobs else None

    def claim_many(self, worker: WorkerSpec, limit: int, *, timeout_s: float = 0.0) -> tuple[Job, ...]:
        """Take up to ``limit`` current jobs of the newest exposure at once; none after the timeout.

        For jobs so short that asking for each takes longer than doing it. A worker takes no more than its
        share of what waits for anyone, and backlog only singly, so that it can be pre-empted.
        """
        return self._connection.run(self._say.claim(worker, limit, timeout_s))

    def wait_for_order(self, worker_id: str, *, timeout_s: float) -> WorkerOrder | None:
        """Wait, as a worker, busy or not, for an order; None after the timeout."""
        return self._connection.run(self._say.wait_for_order(worker_id, timeout_s))

    def heartbeat(self, worker_id: str, *jobs: Job) -> Heartbeat:
        """Give a sign of life; renew the leases on the jobs in hand (I7)."""
        return self._connection.run(self._say.heartbeat(worker_id, jobs))

    def complete(self, job: Job, metrics: Mapping[str, Scalar], *, claim_next: bool = False) -> Job | None:
        """End a job with its short metrics, products and result written; optionally take the next in the same call.

        Raises
        ------
        LeaseLostError
            Raised if the lease was given to another: this result does not count (I3).
        """
        done = self._connection.run(self._say.complete([(job, metrics)], claim_limit=int(claim_next)))
        return next_of(done)

    def complete_many(self, results: Iterable[tuple[Job, Mapping[str, Scalar]]], *, claim_limit: int = 0) -> Completion:
        """End several jobs, and take up to ``claim_limit`` new ones, in one call.

        The results that were refused are named in the answer; the others count.
        """
        return self._connection.run(self._say.complete(results, claim_limit=claim_limit))

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

    def load_of(self, pool: str, pipeline: str) -> Load:
        """Tell how much lies ahead of a new exposure in a pool: what load shedding decides on."""
        return self._connection.run(self._say.load(pool, pipeline))

    def set_mode(self, mode: WorkerMode) -> WorkerMode:
        """Switch the worker mode at once; returns it as read back."""
        return self._connection.run(self._say.set_mode(mode))

    def advance_clock(self, delta_ms: int) -> int:
        """Move the board's clock forward, as replays do to pass idle time; returns the board's time, ms."""
        return self._connection.run(self._say.advance_clock(delta_ms))

    def freeze_clock(self) -> int:
        """Stop the board's clock, so that only `advance_clock` moves it: replays and tests step by step."""
        return self._connection.run(self._say.freeze_clock())

    def set_clock_rate(self, rate: float) -> int:
        """Let the board's clock run so many times as fast, for a night that is played faster; 0 stops it.

        Gather time-outs, leases, retries, the cadence and the cost of jobs are all told by this clock. Leases last at
        least 1.5 s of real time, whatever the rate: processes are not faster than they are. Returns the board's time.
        """
        return self._connection.run(self._say.set_clock_rate(rate))

    def time(self) -> BoardTime:
        """Return the board's time and how fast it runs."""
        return self._connection.run(self._say.time())

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
