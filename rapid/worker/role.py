"""The worker: claim the newest job, run it in a child, say what came of it.

The parent process holds the lease (heartbeats go on however long a payload takes, I7), listens for orders
while the child works, and is the only one that completes the job (I3). What it is told to stop, it
finishes within its drain time or gives back.
"""

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import Job, Priority, WorkerMode, WorkerSpec
from rapid.errors import LeaseLostError, RapidError, Retry, StoreError
from rapid.pause import pause
from rapid.results.afterburner import NotJoinedError
from rapid.results.models import DetectorResult
from rapid.results.store import ResultsStore
from rapid.worker.children import PayloadChildren
from rapid.worker.facts import tell_memory
from rapid.worker.messages import ChildAnswer, ChildSettings
from rapid.worker.metrics import WorkerMetrics
from rapid.worker.orders import OrderWatch
from rapid.worker.pace import Pace, Turn
from rapid.worker.preload import Preloader
from rapid.worker.process import ChildDiedError

log = structlog.get_logger()


@dataclass
class _Outcome:
    """How a run of a job ended."""

    answer: ChildAnswer | None = None
    error: dict[str, Any] | None = None
    lost: bool = False
    preempted: bool = False
    drained: bool = False


class Worker:
    """One worker.

    Parameters
    ----------
    spec
        How it introduces itself to the board.
    board, results
        Where jobs come from and results go.
    child_settings
        What its payload child is told.
    drain_s
        How long a job may still run after the worker was told to stop.
    idle_wait_s
        How long one claim waits for a job before it is made anew.
    pace
        How many short jobs to take at once.
    camera
        If given, what announced visits will need of it is made ready.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        board: AsyncBoard,
        results: ResultsStore,
        child_settings: ChildSettings,
        *,
        drain_s: float = 25.0,
        idle_wait_s: float = 60.0,
        pace: Pace | None = None,
        metrics: WorkerMetrics | None = None,
        camera: Camera | None = None,
    ) -> None:
        self.spec = spec
        self._board = board
        self._results = results
        self._children = PayloadChildren(child_settings)
        self._orders = OrderWatch(board, spec.worker_id)
        self._drain_s = drain_s
        self._idle_wait_s = idle_wait_s
        self._pace = pace or Pace()
        self._metrics = metrics or WorkerMetrics()
        self._mode = WorkerMode.CONSUMING
        self._signed_s = 0.0
        self._turn = Turn()
        self._camera = camera
        self._is_idle = asyncio.Event()
        self.ready = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish or give back the job in hand."""
        structlog.contextvars.bind_contextvars(role="worker", worker_id=self.spec.worker_id)
        orders = asyncio.create_task(self._orders.run())
        memory = asyncio.create_task(tell_memory(self._board, self.spec.worker_id))
        visits = asyncio.create_task(self._follow_visits())
        try:
            if not await self._is_warm_before(stop):
                return
            self.ready.set()
            child = self._children.at_work
            log.info("worker ready", pools=self.spec.pools, child_pid=child.pid if child else None)
            while not stop.is_set():
                if self._orders.restart.is_set():
                    await self._start_anew()
                jobs = await self._claim(stop)
                self._turn.begin()
                while jobs:
                    jobs = await self._work(jobs, stop)
        finally:
            orders.cancel()
            memory.cancel()
            visits.cancel()
            await asyncio.gather(orders, memory, visits, return_exceptions=True)
            await self._shut_down()

    async def _is_warm_before(self, stop: asyncio.Event) -> bool:
        """Get the first child ready; return `False`, without it, if told to stop first: kernels may take minutes."""
        warming = asyncio.create_task(self._children.ready())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({warming, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if warming.done():
            warming.result()
            return True
        warming.cancel()
        with contextlib.suppress(asyncio.CancelledError, RapidError):
            await warming
        return False

    async def _follow_visits(self) -> None:
        """Make ready what announced visits will need, while there is nothing better to do."""
        if self._camera is not None:
            await Preloader(
                self.spec, self._camera, self._board, is_idle=self._is_idle, child=lambda: self._children.at_work
            ).run()

    def _is_to_end(self, stop: asyncio.Event) -> bool:
        return stop.is_set() or self._orders.restart.is_set()

    async def _start_anew(self) -> None:
        """Replace the payload processes by fresh ones."""
        self._orders.restart.clear()
        await self._children.start_anew()

    async def _claim(self, stop: asyncio.Event) -> tuple[Job, ...]:
        self._is_idle.set()
        try:
            return await self._claim_until(stop)
        finally:
            self._is_idle.clear()

    async def _claim_until(self, stop: asyncio.Event) -> tuple[Job, ...]:
        claim = asyncio.create_task(self._board.claim_many(self.spec, self._pace.limit, timeout_s=self._idle_wait_s))
        stopped = asyncio.create_task(stop.wait())
        restart = asyncio.create_task(self._orders.restart.wait())
        done, _ = await asyncio.wait({claim, stopped, restart}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        restart.cancel()
        if claim in done:
            try:
                return claim.result()
            except StoreError as error:
                log.error("cannot claim", error=error.message)
                return ()
        claim.cancel()
        with contextlib.suppress(asyncio.CancelledError, RapidError):
            await claim
        return ()

    async def _work(self, jobs: tuple[Job, ...], stop: asyncio.Event) -> tuple[Job, ...]:
        """Run jobs to their end; return the next ones if the completion brought some.

        Several jobs are taken only if they are short. Should one take long all the same, the others are
        handed back: somebody may be free for them.
        """
        waiting, done = deque(jobs), list[tuple[Job, DetectorResult]]()
        self._mode = jobs[0].mode
        begin = self._signed_s = time.monotonic()
        try:
            while waiting:
                job = waiting.popleft()
                with structlog.contextvars.bound_contextvars(
                    job_id=job.job_id, exposure_id=job.batch.exposure_id, detector=job.detector
                ):
                    outcome = await self._run(job, (*waiting, *(said for said, _ in done)), stop)
                    self._turn.end(outcome.answer)
                    if not outcome.lost:
                        outcome = await self._keep(job, outcome, (*waiting, *(said for said, _ in done)))
                    result = outcome.answer.result if outcome.answer else None
                    if result is None or outcome.lost:
                        await self._hand_back(waiting, "an earlier job of its worker went wrong")
                        await self._report(done, limit=0)
                        following = await self._conclude(job, outcome)
                        return () if following is None else (following,)
                    done.append((job, result))
                    self._pace.observe(time.monotonic() - begin, len(done))
                    if waiting and (self._is_to_end(stop) or time.monotonic() - begin > self._pace.window_s):
                        await self._hand_back(waiting, "its worker is slower than it thought")
            return await self._report(done, limit=0 if self._is_to_end(stop) else self._pace.limit)
        except LeaseLostError:
            self._metrics.leases_lost.inc()
            log.warning("lease lost, result dropped")
        except StoreError as error:
            log.error("cannot conclude the job, its lease will expire", error=error.message)
        finally:
            # Not before: a spare that starts takes the cores that the current job needs.
            self._set_mode(self._mode)
        return ()

    async def _conclude(self, job: Job, outcome: _Outcome) -> Job | None:
        """End a job that gave no result; return a current one if it makes room for that."""
        if outcome.lost:
            raise LeaseLostError("given to another")
        if outcome.preempted:
            log.info("job given back", reason="a current job takes its worker")
            return await self._board.preempted(job)
        if outcome.drained:
            reason = "its worker starts anew" if self._orders.restart.is_set() else "its worker stopped"
            await self._board.release(job, count_attempt=False, reason=reason)
            log.info("job given back", reason=reason)
            return None
        told = outcome.answer.error if outcome.answer else None
        await self._fail(job, outcome.error or told or {"code": "no_answer", "retry": "later"})
        return None

    async def _keep(self, job: Job, outcome: _Outcome, others: tuple[Job, ...]) -> _Outcome:
        """Store a result: before its completion, so that whoever hears of it finds it.

        What an afterburner found may fit no more to the result that is stored; its job has failed then.

        Not after a freeze in which the job was given away: it may have been given up meanwhile, and is then no more to
        be found finished (I1).
        """
        answer = outcome.answer
        if answer is None or (result := answer.result) is None:
            return outcome
        if time.monotonic() - self._signed_s > job.lease_ms / 1000:
            beat = await self._board.heartbeat(self.spec.worker_id, job)
            if job.job_id in beat.lost:
                raise LeaseLostError("given to another while its worker was frozen", what=job.job_id)
        store, base = self._results, answer.joins
        # Others may keep the database to themselves for a while: the leases must not end meanwhile.
        lease = asyncio.create_task(self._keep_lease(job, others))
        try:
            await asyncio.to_thread(
                lambda: store.put_result(result) if base is None else store.join_result(result, pipeline=base)
            )
        except NotJoinedError as error:
            return _Outcome(error=error.to_dict())
        finally:
            lease.cancel()
            await asyncio.gather(lease, return_exceptions=True)
        if job.attempt > 1:
            await asyncio.to_thread(self._results.forget_failure, job.job_id)
        return outcome

    async def _report(self, done: list[tuple[Job, DetectorResult]], *, limit: int) -> tuple[Job, ...]:
        """Complete jobs on the board, and take the next ones."""
        if not done:
            return ()
        answer = await self._board.complete_many([(job, result.metrics) for job, result in done], claim_limit=limit)
        for job, result in done:
            facts = {"job_id": job.job_id, "exposure_id": job.batch.exposure_id, "detector": job.detector}
            if job.job_id in answer.refused:
                self._metrics.leases_lost.inc()
                log.warning("lease lost, result dropped", **facts)
                continue
            self._metrics.observe(job, result)
            log.info(
                "job finished",
                total_s=result.timings.get("total_s"),
                max_rss_mb=result.resources.get("max_rss_mb"),
                **facts,
            )
        return answer.following

    async def _hand_back(self, waiting: deque[Job], reason: str) -> None:
        while waiting:
            job = waiting.popleft()
            with contextlib.suppress(LeaseLostError):
                await self._board.release(job, count_attempt=False, reason=reason)

    async def _fail(self, job: Job, error: dict[str, Any]) -> None:
        end = await self._board.fail(job, error)
        self._metrics.failures.labels(pipeline=job.batch.pipeline, code=str(error.get("code"))).inc()
        log.warning("job failed", code=error.get("code"), message=error.get("message"), end=end)
        if end == "dead":
            await asyncio.to_thread(
                lambda: self._results.put_failure(
                    job_id=job.job_id,
                    camera=job.camera,
                    exposure=job.batch.exposure_id,
                    detector=job.detector,
                    pipeline=job.batch.pipeline,
                    attempts=job.attempt,
                    error={**error, "raw_uri": job.raw_uri},
                    failed_at=datetime.now(UTC),
                )
            )

    async def _run(self, job: Job, others: tuple[Job, ...], stop: asyncio.Event) -> _Outcome:
        """Run a job in the child, watching lease, orders, time limit and stop; others: also in hand."""
        # From now on: a child takes seconds to start, on a busy machine longer than a lease lasts.
        lease = asyncio.create_task(self._keep_lease(job, others))
        try:
            child = await self._children.ready()
        except ChildDiedError as error:
            await _end(lease)
            return _Outcome(error=error.to_dict())
        except BaseException:
            lease.cancel()
            raise
        if lease.done():
            # The child has begun nothing: it waits for the next job.
            await _end(lease)
            return _Outcome(lost=True)
        work = asyncio.create_task(child.run(job))
        watchers: set[asyncio.Task[Any]] = {work, lease}
        orders: asyncio.Task[None] | None = None
        if job.priority is Priority.BACKLOG:
            orders = asyncio.create_task(self._orders.wait_for_preemption(job))
            watchers.add(orders)
        drain = asyncio.create_task(self._wait_for_drain(stop))
        watchers.add(drain)
        try:
            done, _ = await asyncio.wait(
                watchers, timeout=job.time_limit_ms / 1000, return_when=asyncio.FIRST_COMPLETED
            )
            if work in done:
                try:
                    return _Outcome(answer=work.result())
                except ChildDiedError as error:
                    await self._children.drop()
                    return _Outcome(error=error.to_dict())
            if orders is not None and orders in done and lease not in done:
                # What it was writing is written whole or not at all, and its job is no longer its own.
                self._children.retire()
                self._metrics.preemptions.inc()
                return _Outcome(preempted=True)
            await self._children.drop()
            if lease in done:
                return _Outcome(lost=True)
            if drain in done:
                return _Outcome(drained=True)
            message = f"stopped after its time limit of {job.time_limit_ms / 1000:.0f} s"
            return _Outcome(error={"code": "time_limit", "message": message, "retry": Retry.LATER.value})
        finally:
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _keep_lease(self, job: Job, others: tuple[Job, ...]) -> None:
        """Renew the leases until that of the running job is lost."""
        lease_ms = job.lease_ms
        while True:
            await pause(lease_ms / 3000)
            try:
                beat = await self._board.heartbeat(self.spec.worker_id, job, *others)
            except StoreError as error:
                log.warning("no sign of life possible", error=error.message)
                continue
            self._signed_s = time.monotonic()
            self._set_mode(beat.mode)
            lease_ms = beat.lease_ms or lease_ms  # the board's clock may run at another rate by now
            if job.job_id in beat.lost:
                return
            if beat.preempt:
                self._orders.preempt(job)

    async def _wait_for_drain(self, stop: asyncio.Event) -> None:
        ends = [asyncio.create_task(event.wait()) for event in (stop, self._orders.restart)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        await pause(self._drain_s)

    def _set_mode(self, mode: WorkerMode) -> None:
        """In mode preempting, keep a warm spare child ready."""
        self._mode = mode
        self._children.keep_spare(is_wanted=mode is WorkerMode.PREEMPTING)

    async def _shut_down(self) -> None:
        await self._children.end()
        with contextlib.suppress(RapidError):
            await self._board.leave(self.spec.worker_id)
        log.info("worker stopped")


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended, however it did."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
