"""How many pods a camera needs: a queue simulated exposure by exposure, on costs that were measured.

Each exposure's raws arrive over a few seconds; each is a job for one of the workers, which are identical; jobs of an
exposure wait for those of the one before only if it is late (newest first: the older ones then become backlog, and are
counted as given up for the moment). Service times are drawn from the measured distribution, log-normal about its
median. A node that fails takes its workers away until they have been started elsewhere; what they had in hand begins
again after the lease. Latencies are from the shutter's raws being there to the summary.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Costs(BaseModel):
    """What one job of a payload costs, measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    core_s: float = Field(gt=0, description="Median CPU time of one detector [s].")
    spread: float = Field(default=0.25, ge=0, le=2, description="Scatter of its logarithm.")
    fixed_s: float = Field(
        default=0.02,
        ge=0,
        description="What a job keeps its worker beside that: raw, products, results store, board, waiting [s].",
    )
    memory_gb: float = Field(default=0.6, gt=0, description="Peak memory of a payload process [GB].")
    gather_s: float = Field(default=0.8, ge=0, description="From the last result to the summary [s].")
    start_s: float = Field(default=5.0, ge=0, description="From the start of a pod to its first job [s].")
    source: str = Field(default="", description="Where the numbers come from.")


class Demand(BaseModel):
    """What is to be kept up with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detectors: int = Field(gt=0)
    cadence_s: float = Field(gt=0)
    arrival_s: float = Field(default=2.0, ge=0, description="Over which the raws of an exposure come [s].")
    raw_mb: float = Field(default=17.0, ge=0)
    exposures: int = Field(default=1000, gt=0, description="Of a night.")
    spare_processes: int = Field(default=1, ge=0, description="Warm payload processes beside the working one.")


class Nodes(BaseModel):
    """The machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cores: int = Field(default=32, gt=0, description="Of one node.")
    memory_gb: float = Field(default=128.0, gt=0, description="Of one node.")
    reserved: float = Field(default=0.1, ge=0, lt=1, description="Share kept for the system.")


@dataclass(frozen=True)
class Latency:
    """What a simulated night came to.

    Attributes
    ----------
    p50_s, p90_s, p99_s, worst_s
        From the first raw to the summary of whole exposures [s].
    late
        Share of exposures that were not whole when the next one began.
    busy
        Share of the workers' time that was used.
    """

    p50_s: float
    p90_s: float
    p99_s: float
    worst_s: float
    late: float
    busy: float


@dataclass(frozen=True)
class Plan:
    """What is needed, and what it gives."""

    workers: int
    cores: float
    memory_gb: float
    nodes: int
    redis_mb: float
    latency: Latency
    after_node_failure: Latency
    sheds: bool
    advice: tuple[str, ...]


def simulate_latency(
    demand: Demand,
    costs: Costs,
    workers: int,
    *,
    n_exposures: int = 200,
    lost_workers: int = 0,
    seed: int = 1,
) -> Latency:
    """Simulate a run of exposures.

    Parameters
    ----------
    lost_workers
        Workers that are away from the middle of the run on, for as long as a start takes.

    Returns
    -------
    Latency
        Over all exposures, the first one left out.
    """
    random = np.random.default_rng(seed)
    free = [0.0] * workers
    heapq.heapify(free)
    middle = n_exposures // 2 * demand.cadence_s
    finish = np.empty(n_exposures)
    used = 0.0
    is_lost = False
    for number in range(n_exposures):
        begin = number * demand.cadence_s
        if lost_workers and not is_lost and begin >= middle:
            # The busiest go: their jobs begin again elsewhere, and the pods are back after a start.
            gone = sorted(free)[-lost_workers:]
            kept = sorted(free)[: workers - len(gone)]
            free = [*kept, *(max(begin, one) + costs.start_s for one in gone)]
            heapq.heapify(free)
            is_lost = True
        arrivals = np.sort(random.uniform(begin, begin + demand.arrival_s, demand.detectors))
        service = costs.core_s * np.exp(costs.spread * random.standard_normal(demand.detectors)) + costs.fixed_s
        used += float(service.sum())
        last = begin
        for arrival, seconds in zip(arrivals, service, strict=True):
            done = max(heapq.heappop(free), arrival) + seconds
            heapq.heappush(free, done)
            last = max(last, done)
        finish[number] = last - begin + costs.gather_s
    latencies = finish[1:] if n_exposures > 1 else finish
    p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
    return Latency(
        float(p50),
        float(p90),
        float(p99),
        float(np.max(latencies)),
        float(np.mean(latencies - costs.gather_s > demand.cadence_s)),
        used / (workers * n_exposures * demand.cadence_s),
    )


def plan_cluster(
    demand: Demand,
    costs: Costs,
    nodes: Nodes,
    *,
    latency_s: float | None = None,
    workers: int | None = None,
    seed: int = 1,
) -> Plan:
    """Return how many workers keep up, or what a given number of them does.

    Parameters
    ----------
    latency_s
        Wanted for 99 % of exposures [s]; left out, half the cadence.
    workers
        Take this many instead of looking for the fewest that do.
    """
    wanted_s = latency_s if latency_s is not None else 0.5 * demand.cadence_s
    advice: list[str] = []
    if workers is None:
        workers = _fewest(demand, costs, wanted_s, seed)
        floor_s = demand.arrival_s + costs.core_s + costs.fixed_s + costs.gather_s
        if workers is None:
            workers = demand.detectors
            advice.append(
                f"{wanted_s:.1f} s cannot be had: raws arrive over {demand.arrival_s:.1f} s, and one job and the gather "
                f"take {floor_s - demand.arrival_s:.1f} s; with a worker for each detector it is what is shown"
            )
    latency = simulate_latency(demand, costs, workers, seed=seed)
    per_worker_gb = costs.memory_gb * (1 + demand.spare_processes) + 0.15
    per_node = max(
        1,
        math.floor(min(nodes.cores * (1 - nodes.reserved), nodes.memory_gb * (1 - nodes.reserved) / per_worker_gb)),
    )
    n_nodes = math.ceil(workers / per_node)
    failed = simulate_latency(demand, costs, workers, lost_workers=min(per_node, workers), seed=seed)
    load = demand.detectors * (costs.core_s * math.exp(costs.spread**2 / 2) + costs.fixed_s) / demand.cadence_s
    sheds = load > workers
    if sheds:
        share = workers / load
        advice.append(
            f"shed: {workers} workers do {share:.0%} of what comes; let the ladder go to "
            f"{'ccd_checkerboard' if share >= 0.5 else 'raft_checkerboard or fewer'}, or have at least {math.ceil(load * 1.1)} workers"
        )
    elif latency.late > 0:
        advice.append(
            f"{latency.late:.1%} of exposures are not whole when the next one begins: expect shedding at times"
        )
    if n_nodes == 1:
        advice.append("all workers are on one node: its failure is an outage until its pods have started elsewhere")
    return Plan(
        workers=workers,
        cores=float(workers + 4),
        memory_gb=workers * per_worker_gb + 4.0,
        nodes=n_nodes,
        redis_mb=redis_mb(demand),
        latency=latency,
        after_node_failure=failed,
        sheds=sheds,
        advice=tuple(advice),
    )


def redis_mb(demand: Demand) -> float:
    """Return the board's memory [MB]: measured 10 MB for 205 detectors, nearly all of it the event stream.

    It does not grow with the season (docs/board.md, a hundred thousand exposures), only with detectors; a rewrite of
    the append-only file may need as much again.
    """
    return 2 * (5.0 + 5.0 * demand.detectors / 205)


def _fewest(demand: Demand, costs: Costs, wanted_s: float, seed: int) -> int | None:
    """Return the fewest workers that do, by bisection; None if not even one for each detector does."""

    def does(workers: int) -> bool:
        latency = simulate_latency(demand, costs, workers, n_exposures=60, seed=seed)
        return latency.p99_s <= wanted_s and latency.late == 0

    low, high = 1, demand.detectors
    if not does(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if does(middle):
            high = middle
        else:
            low = middle + 1
    return low


def with_measured(
    costs: Costs, jobs: Sequence[Mapping[str, float]], memory_mb: Sequence[float], *, source: str
) -> Costs:
    """Return costs with what was measured in place of what was assumed.

    Parameters
    ----------
    jobs
        Timings of single jobs [s]: ``cpu_s`` and ``total_s`` of the pipeline, ``worker_s`` of the worker, from one
        answer to the next. What was not measured is left out.
    memory_mb
        Peak memory of jobs [MB].

    Notes
    -----
    The median CPU time and its scatter are those of the pipeline; all else that a job keeps its worker for goes into
    ``fixed_s`` such that the mean service time is the measured one: whole exposures take as long as the sum of jobs.
    """
    cpu = np.array([job["cpu_s"] for job in jobs if job.get("cpu_s", 0.0) > 0])
    if cpu.size == 0:
        return costs
    median = float(np.median(cpu))
    spread = min(float(1.4826 * np.median(np.abs(np.log(cpu / median)))), 2.0)
    measured = costs.model_copy(update={"core_s": median, "spread": spread, "source": source})
    service = [job["worker_s"] for job in jobs if job.get("worker_s", 0.0) > 0]
    # Of results that older versions stored, the pipeline's own time is all that is known.
    service = service or [job["total_s"] for job in jobs if job.get("total_s", 0.0) > 0]
    if service:
        # One job that waited for a stalled disk says nothing of the next.
        mean = float(np.mean(np.minimum(service, np.percentile(service, 99))))
        measured = measured.model_copy(update={"fixed_s": max(mean - median * math.exp(spread**2 / 2), 0.0)})
    if memory_mb:
        measured = measured.model_copy(update={"memory_gb": float(np.percentile(memory_mb, 95)) / 1000})
    return measured
