"""What the board itself tells Prometheus: read when it is asked for, so that nobody polls."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BoardStatus
from rapid.errors import RapidError


class BoardMetrics(Collector):
    """Gauges and totals of the board, as of the last `refresh`.

    Parameters
    ----------
    board
        What to read.
    """

    def __init__(self, board: AsyncBoard, registry: CollectorRegistry = REGISTRY) -> None:
        self._board = board
        self._status: BoardStatus | None = None
        registry.register(self)

    async def refresh(self) -> None:
        """Read the board. One that does not answer shows as ``rapid_board_up 0``."""
        try:
            self._status = await self._board.status()
        except RapidError:
            self._status = None

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        status = self._status
        yield GaugeMetricFamily("rapid_board_up", "Whether the board answers", value=float(status is not None))
        if status is None:
            return
        depth = GaugeMetricFamily("rapid_queue_jobs", "Jobs that wait", labels=["pool", "class"])
        idle = GaugeMetricFamily("rapid_workers_waiting", "Workers that wait for a job", labels=["pool"])
        for queue in status.queues:
            depth.add_metric([queue.pool, "current"], queue.current)
            depth.add_metric([queue.pool, "backlog"], queue.backlog)
            idle.add_metric([queue.pool], queue.parked)
        yield depth
        yield idle
        age = GaugeMetricFamily(
            "rapid_worker_heartbeat_age_seconds", "Since a worker's sign of life", labels=["worker"]
        )
        states: dict[str, int] = {}
        for worker in status.workers:
            age.add_metric([worker.worker_id], (status.now_ms - worker.seen_ms) / 1000)
            states[worker.state] = states.get(worker.state, 0) + 1
        yield age
        workers = GaugeMetricFamily("rapid_workers", "Workers by state", labels=["state"])
        for state, number in sorted(states.items()):
            workers.add_metric([state], number)
        yield workers
        for name, text, value in (
            ("rapid_jobs_running", "Leased jobs", status.running),
            ("rapid_jobs_delayed", "Jobs that wait for another attempt", status.delayed),
            ("rapid_gathers_due", "Gathers that wait or will be due", status.gathers_due),
            ("rapid_gathers_running", "Leased gathers", status.gathers_running),
            ("rapid_dead_letters", "Jobs and gathers given up", status.dead_letters),
            ("rapid_board_has_leader", "Whether a head leads", float(bool(status.leader))),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        totals = CounterMetricFamily(
            "rapid_board_events", "What happened on the board since it began", labels=["event"]
        )
        for event, total in sorted(status.counters.items()):
            totals.add_metric([event], total)
        yield totals
