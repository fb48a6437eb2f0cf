"""The same no-op jobs and one gather in other queues, each as its documentation would have it for speed.

Every gather pushes to the list ``done``, which the measuring process waits on. Where a queue has a primitive for "after
all of these" it is used (celery's chord, rq's dependencies, dramatiq's group callbacks, dask's futures); arq and taskiq
have none: there the jobs count themselves with INCR and the last one gathers.
"""

import asyncio
import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

N_JOBS = 189
N_WORKERS = 2
SPAWN = multiprocessing.get_context("spawn")
URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")


@contextlib.contextmanager
def _processes(target: Callable[..., None], n: int = N_WORKERS) -> Iterator[None]:
    started = [SPAWN.Process(target=target) for _ in range(n)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.join(10)
            process.kill()


def _done() -> None:
    with redis.Redis.from_url(URL) as client:
        client.lpush("done", 1)


class _Waiting:
    """Enqueue, then wait for the gather's push."""

    def __init__(self, enqueue: Callable[[int], None]) -> None:
        self.enqueue = enqueue
        self.client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])

    def run_round(self, number: int) -> float:
        import time

        begin = time.perf_counter()
        self.enqueue(number)
        if self.client.blpop(["done"], 60) is None:
            raise TimeoutError("no gather within 60 s")
        return time.perf_counter() - begin


# rq ---------------------------------------------------------------------------


def rq_job(detector: int) -> int:
    return detector


def rq_gather() -> None:
    _done()


def rq_worker() -> None:
    from rq import Queue, SimpleWorker

    connection = redis.Redis.from_url(URL)
    SimpleWorker([Queue(connection=connection)], connection=connection).work(logging_level="ERROR")


@contextlib.contextmanager
def serve_rq(url: str) -> Iterator[_Waiting]:
    from rq import Queue

    queue = Queue(connection=redis.Redis.from_url(url))

    def enqueue(_number: int) -> None:
        jobs = queue.enqueue_many([Queue.prepare_data(rq_job, args=(d,)) for d in range(N_JOBS)])
        queue.enqueue(rq_gather, depends_on=jobs)

    with _processes(rq_worker):
        yield _Waiting(enqueue)


# arq --------------------------------------------------------------------------


async def arq_job(ctx: dict[str, Any], number: int, detector: int) -> int:
    if await ctx["redis"].incr(f"arq-count:{number}") == N_JOBS:
        await ctx["redis"].lpush("done", 1)
    return detector


def arq_worker() -> None:
    from arq.connections import RedisSettings
    from arq.worker import Worker

    asyncio.set_event_loop(asyncio.new_event_loop())
    Worker([arq_job], redis_settings=RedisSettings.from_dsn(URL), poll_delay=0.01, max_jobs=50).run()


@contextlib.contextmanager
def serve_arq(url: str) -> Iterator[_Waiting]:
    from arq import create_pool
    from arq.connections import RedisSettings

    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(create_pool(RedisSettings.from_dsn(url)))

    async def enqueue_all(number: int) -> None:
        await asyncio.gather(*(pool.enqueue_job("arq_job", number, d) for d in range(N_JOBS)))

    with _processes(arq_worker):
        yield _Waiting(lambda number: loop.run_until_complete(enqueue_all(number)))


# dramatiq ---------------------------------------------------------------------


def _dramatiq() -> tuple[Any, Any, Any]:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.middleware import GroupCallbacks
    from dramatiq.rate_limits.backends import RedisBackend

    broker = RedisBroker(url=URL)
    broker.add_middleware(GroupCallbacks(RedisBackend(url=URL)))
    dramatiq.set_broker(broker)

    @dramatiq.actor(broker=broker)
    def dramatiq_job(detector: int) -> None:
        del detector

    @dramatiq.actor(broker=broker)
    def dramatiq_gather() -> None:
        _done()

    return broker, dramatiq_job, dramatiq_gather


def dramatiq_worker() -> None:
    import threading

    import dramatiq

    broker, _, _ = _dramatiq()
    dramatiq.Worker(broker, worker_threads=8).start()
    threading.Event().wait()


@contextlib.contextmanager
def serve_dramatiq(_url: str) -> Iterator[_Waiting]:
    import dramatiq

    broker, job, gather = _dramatiq()

    def enqueue(_number: int) -> None:
        group = dramatiq.group([job.message(d) for d in range(N_JOBS)], broker=broker)
        group.add_completion_callback(gather.message())
        group.run()

    with _processes(dramatiq_worker):
        yield _Waiting(enqueue)


# celery -----------------------------------------------------------------------


def _celery() -> tuple[Any, Any, Any]:
    from celery import Celery

    app = Celery("bench", broker=URL, backend=URL)
    app.conf.update(
        worker_prefetch_multiplier=16, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False
    )

    @app.task(name="celery_job")
    def celery_job(detector: int) -> int:
        return detector

    @app.task(name="celery_gather")
    def celery_gather(results: list[int]) -> int:
        _done()
        return len(results)

    return app, celery_job, celery_gather


def celery_worker() -> None:
    app, _, _ = _celery()
    app.worker_main(
        ["worker", "-c", str(N_WORKERS), "--pool", "prefork", "--without-gossip", "--without-mingle", "-l", "ERROR"]
    )


@contextlib.contextmanager
def serve_celery(_url: str) -> Iterator[_Waiting]:
    from celery import chord

    _, job, gather = _celery()
    with _processes(celery_worker, 1):
        yield _Waiting(lambda _number: chord([job.s(d) for d in range(N_JOBS)])(gather.s()) and None)


# taskiq -----------------------------------------------------------------------


def _taskiq() -> tuple[Any, Any]:
    import redis.asyncio
    from taskiq_redis import RedisStreamBroker

    broker = RedisStreamBroker(url=URL)
    client = redis.asyncio.Redis.from_url(URL)

    @broker.task(task_name="taskiq_job")
    async def taskiq_job(number: int, detector: int) -> int:
        if await client.incr(f"taskiq-count:{number}") == N_JOBS:
            await client.lpush("done", 1)
        return detector

    return broker, taskiq_job


def taskiq_worker() -> None:
    from taskiq.api import run_receiver_task

    async def run() -> None:
        broker, _ = _taskiq()
        await run_receiver_task(broker, run_startup=True)

    asyncio.run(run())


@contextlib.contextmanager
def serve_taskiq(_url: str) -> Iterator[_Waiting]:
    loop = asyncio.new_event_loop()
    broker, job = _taskiq()
    loop.run_until_complete(broker.startup())

    async def enqueue_all(number: int) -> None:
        await asyncio.gather(*(job.kiq(number, d) for d in range(N_JOBS)))

    with _processes(taskiq_worker):
        yield _Waiting(lambda number: loop.run_until_complete(enqueue_all(number)))


# dask.distributed ---------------------------------------------------------------


class _Dask:
    def __init__(self, client: Any) -> None:
        self.client = client

    def run_round(self, number: int) -> float:
        import time

        begin = time.perf_counter()
        jobs = self.client.map(_dask_job, [(number, d) for d in range(N_JOBS)], pure=False)
        if self.client.submit(len, jobs, pure=False).result(timeout=60) != N_JOBS:
            raise AssertionError("jobs are missing")
        return time.perf_counter() - begin


def _dask_job(place: tuple[int, int]) -> int:
    return place[1]


@contextlib.contextmanager
def serve_dask(_url: str) -> Iterator[_Dask]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield _Dask(client)


@dataclass(frozen=True)
class Peer:
    """A queue to compare with: the module that must be there, and what serves it."""

    module: str
    start: Callable[[str], Any]

    @contextlib.contextmanager
    def serve(self, url: str) -> Iterator[Any]:
        """Run its workers; the URL is handed to them by the environment."""
        global URL
        os.environ["BENCH_REDIS_URL"] = URL = url
        with self.start(url) as system:
            yield system


PEERS = {
    "rq": Peer("rq", serve_rq),
    "arq": Peer("arq", serve_arq),
    "dramatiq": Peer("dramatiq", serve_dramatiq),
    "celery": Peer("celery", serve_celery),
    "taskiq": Peer("taskiq_redis", serve_taskiq),
    "dask.distributed": Peer("distributed", serve_dask),
}
