"""How many pods a camera needs: a queue simulated exposure by exposure, on costs that were measured.

Each exposure's raws arrive over a few seconds; each is a job for one of the workers, which are identical; a free worker
takes a job of the newest exposure that has one, as the board gives them out. Service times are drawn from the measured
distribution, log-normal about its median. A node that fails takes its workers away until they have been started
elsewhere; what they had in hand begins again when its lease has ended. Latencies are from the first raw to the summary.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rapid.errors import ConfigurationError


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
    common: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Scatter of the logarithm from exposure to exposure, of all its jobs alike: crowded fields, a busy machine.",
    )
    memory_gb: float = Field(default=0.6, gt=0, description="Peak memory of a payload process [GB].")
    gather_s: float = Field(default=0.8, ge=0, description="From the last result to the summary [s].")
    source: str = Field(default="", description="Where the numbers come from.")


class Demand(BaseModel):
    """What is to be kept up with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detectors: int = Field(gt=0)
    cadence_s: float = Field(gt=0)
    arrival_s: float = Field(default=2.0, ge=0, description="Over which the raws of an exposure come [s].")
    spare_processes: int = Field(default=1, ge=0, description="Warm payload processes beside the working one.")


class Nodes(BaseModel):
    """The machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cores: int = Field(default=32, gt=0, description="Of one node.")
    memory_gb: float = Field(default=128.0, gt=0, description="Of one node.")
    reserved: float = Field(default=0.1, ge=0, lt=1, description="Share kept for the system.")
    failover_s: float = Field(
        default=340.0,
        ge=0,
        description="From a node's failure until its pods work elsewhere [s]: Kubernetes calls it lost after 40 s, and "
        "moves its pods after another 300 s, those of a StatefulSet only once somebody has taken the node out of service.",
    )
    lease_s: float = Field(default=10.0, ge=0, description="Until the board gives a lost worker's job to another [s].")


class Role(BaseModel):
    """What the pods of a role beside the workers ask for, as k8s/ has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pods: int
    cores: float
    memory_gb: float


ROLES = (
    Role(name="head", pods=2, cores=0.25, memory_gb=0.403),
    Role(name="gather", pods=2, cores=1.0, memory_gb=1.611),
    Role(name="display", pods=2, cores=0.25, memory_gb=0.403),
    Role(name="publish", pods=1, cores=0.25, memory_gb=0.537),
    Role(name="valkey", pods=1, cores=0.5, memory_gb=0.134),
    Role(name="elastic", pods=1, cores=0.05, memory_gb=0.268),
)
"""The requests of the summit; docs/kubernetes.md has what was measured."""

LEAST_EXPOSURES = 3
"""Of fewer no scatter is told."""

WORKER_PARENT_GB = 0.2
"""What a worker holds beside its payload processes [GB]."""


@dataclass(frozen=True)
class Latency:
    """What a simulated night came to.

    Attributes
    ----------
    p50_s, p90_s, p99_s, worst_s
        From the first raw to the summary of whole exposures [s].
    late, n_late
        Share and number of exposures that were not whole when the next one began.
    busy
        Share of the workers' time that was used.
    """

    p50_s: float
    p90_s: float
    p99_s: float
    worst_s: float
    late: float
    n_late: int
    busy: float


@dataclass(frozen=True)
class Plan:
    """What is needed, and what it gives.

    Attributes
    ----------
    pods
        Of every role.
    lost_workers
        Those of one node.
    """

    workers: int
    pods: dict[str, int]
    cores: float
    memory_gb: float
    nodes: int
    redis_mb: float
    latency: Latency
    lost_workers: int
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
    nodes: Nodes | None = None,
    seed: int = 1,
) -> Latency:
    """Simulate a run of exposures.

    Parameters
    ----------
    lost_workers
        Workers that fail in the middle of the run, when the raws of an exposure have just come.
    nodes
        How long it takes to be without them, and until others begin again what they had in hand.

    Returns
    -------
    Latency
        Over all exposures, the first one left out.
    """
    random = np.random.default_rng(seed)
    shape = (n_exposures, demand.detectors)
    begins = np.arange(n_exposures) * demand.cadence_s
    arrivals = begins[:, None] + random.uniform(0.0, demand.arrival_s, shape)
    service = costs.core_s * np.exp(costs.spread * random.standard_normal(shape)) + costs.fixed_s
    # Of mean one: the measured mean of a job has it in already.
    service *= np.exp(costs.common * random.standard_normal((n_exposures, 1)) - costs.common**2 / 2)
    loss = None
    if lost_workers:
        nodes = nodes or Nodes()
        at_s = n_exposures // 2 * demand.cadence_s + demand.arrival_s
        loss = Loss(lost_workers, at_s, at_s + nodes.lease_s, at_s + nodes.failover_s)
    latencies = last_done(arrivals, service, workers, loss) - begins + costs.gather_s
    latencies = latencies[1:] if n_exposures > 1 else latencies
    is_late = latencies - costs.gather_s > demand.cadence_s
    p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
    return Latency(
        float(p50),
        float(p90),
        float(p99),
        float(np.max(latencies)),
        float(np.mean(is_late)),
        int(np.sum(is_late)),
        min(float(service.sum()) / (workers * n_exposures * demand.cadence_s), 1.0),
    )


@dataclass(frozen=True)
class Loss:
    """Workers 0 to ``n`` - 1 fail at ``at_s``; their jobs are queued again at ``jobs_s``, they are back at ``back_s``."""

    n: int
    at_s: float
    jobs_s: float
    back_s: float


def last_done(
    arrivals: NDArray[np.float64], service: NDArray[np.float64], workers: int, loss: Loss | None
) -> NDArray[np.float64]:
    """Return when the last job of each exposure is done [s].

    Parameters
    ----------
    arrivals, service
        Of shape (exposures, detectors) [s].
    """
    coming = [
        (float(arrival), exposure, float(seconds))
        for exposure, (row, took) in enumerate(zip(arrivals, service, strict=True))
        for arrival, seconds in zip(row, took, strict=True)
    ]
    heapq.heapify(coming)
    waiting: list[tuple[int, float]] = []
    free = [(0.0, worker) for worker in range(workers)]
    done = np.zeros(len(arrivals))
    now = 0.0
    while coming or waiting:
        free_at, worker = heapq.heappop(free)
        now = max(now, free_at)
        if not waiting:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            _, exposure, seconds = heapq.heappop(coming)
            heapq.heappush(waiting, (-exposure, seconds))
        is_to_fail = loss is not None and worker < loss.n and free_at < loss.back_s
        if loss is not None and is_to_fail and now >= loss.at_s:
            heapq.heappush(free, (loss.back_s, worker))
            continue
        newest, seconds = heapq.heappop(waiting)
        end = now + seconds
        if loss is not None and is_to_fail and end > loss.at_s:
            heapq.heappush(coming, (loss.jobs_s, -newest, seconds))
            end = loss.back_s
        else:
            done[-newest] = max(done[-newest], end)
        heapq.heappush(free, (end, worker))
    return done


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

    Raises
    ------
    ConfigurationError
        Raised if a node holds not even one worker.
    """
    wanted_s = latency_s if latency_s is not None else 0.5 * demand.cadence_s
    advice: list[str] = []
    if workers is None:
        workers = _fewest(demand, costs, wanted_s, seed)
        if workers is None:
            workers = demand.detectors
            one_s = costs.core_s + costs.fixed_s + costs.gather_s
            advice.append(
                f"{wanted_s:.1f} s cannot be had: raws arrive over {demand.arrival_s:.1f} s, and one job and the gather "
                f"take {one_s:.1f} s; with a worker for each detector it is what is shown"
            )
    elif workers > demand.detectors:
        advice.append(f"{workers - demand.detectors} workers more than detectors: they have nothing to do")
    worker_gb = costs.memory_gb * (1 + demand.spare_processes) + WORKER_PARENT_GB
    cores = workers + sum(role.pods * role.cores for role in ROLES)
    memory_gb = workers * worker_gb + sum(role.pods * role.memory_gb for role in ROLES)
    n_nodes = _nodes(nodes, workers, worker_gb, cores=cores, memory_gb=memory_gb)
    lost = math.ceil(workers / n_nodes)
    latency = simulate_latency(demand, costs, workers, seed=seed)
    load = demand.detectors * (costs.core_s * math.exp(costs.spread**2 / 2) + costs.fixed_s) / demand.cadence_s
    advice += _advice(demand, latency, load, workers)
    if n_nodes == 1:
        advice.append("all workers are on one node: its failure is an outage until its pods have started elsewhere")
    elif load <= workers and load > workers - lost:
        advice.append(
            f"with a node lost, {workers - lost} workers do {(workers - lost) / load:.0%} of what comes: {_shed((workers - lost) / load)} "
            f"until its pods are back, or have {math.ceil(load * 1.1) + lost - workers} workers more"
        )
    return Plan(
        workers=workers,
        pods={"worker": workers, **{role.name: role.pods for role in ROLES}},
        cores=cores,
        memory_gb=memory_gb,
        nodes=n_nodes,
        redis_mb=redis_mb(demand),
        latency=latency,
        lost_workers=lost,
        after_node_failure=simulate_latency(demand, costs, workers, lost_workers=lost, nodes=nodes, seed=seed),
        sheds=load > workers,
        advice=tuple(advice),
    )


def _nodes(nodes: Nodes, workers: int, worker_gb: float, *, cores: float, memory_gb: float) -> int:
    """Return how many nodes hold the workers, whole ones on each, and all other pods beside them."""
    usable_cores, usable_gb = nodes.cores * (1 - nodes.reserved), nodes.memory_gb * (1 - nodes.reserved)
    per_node = math.floor(min(usable_cores, usable_gb / worker_gb))
    if per_node < 1:
        message = f"a worker wants 1 core and {worker_gb:.1f} GB; of a node {usable_cores:.1f} cores and {usable_gb:.1f} GB can be used"
        raise ConfigurationError("node", message)
    return max(math.ceil(workers / per_node), math.ceil(cores / usable_cores), math.ceil(memory_gb / usable_gb))


def _advice(demand: Demand, latency: Latency, load: float, workers: int) -> list[str]:
    """Return what to do if the workers do not suffice."""
    if load > workers:
        share = workers / load
        enough = math.ceil(load * 1.1)
        return [
            f"shed: {workers} workers do {share:.0%} of what comes; {_shed(share)}, or have at least {enough} workers"
        ]
    if demand.arrival_s >= demand.cadence_s:
        return [
            f"raws of an exposure arrive over {demand.arrival_s:.1f} s: none is whole before the next begins, whatever the workers"
        ]
    if latency.late > 0:
        return [f"{latency.late:.1%} of exposures are not whole when the next one begins: expect shedding at times"]
    return []


def _shed(share: float) -> str:
    return f"let the ladder go to {'ccd_checkerboard' if share >= 0.5 else 'raft_checkerboard or fewer'}"


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
    costs: Costs,
    jobs: Sequence[Mapping[str, float]],
    memory_mb: Sequence[float],
    *,
    source: str,
    exposures: Sequence[int] = (),
) -> Costs:
    """Return costs with what was measured in place of what was assumed.

    Parameters
    ----------
    jobs
        Timings of single jobs [s]: ``cpu_s`` and ``total_s`` of the pipeline, ``worker_s`` of the worker, from one
        answer to the next. What was not measured is left out.
    memory_mb
        Peak memory of jobs [MB].
    exposures
        Exposure of each job; with fewer than three nothing is said of their scatter.

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
    measured = measured.model_copy(update={"common": _common_scatter(jobs, exposures)})
    service = [job["worker_s"] for job in jobs if job.get("worker_s", 0.0) > 0]
    # Of results that older versions stored, the pipeline's own time is all that is known.
    service = service or [job["total_s"] for job in jobs if job.get("total_s", 0.0) > 0]
    if service:
        mean = float(np.mean(service))
        measured = measured.model_copy(update={"fixed_s": max(mean - median * math.exp(spread**2 / 2), 0.0)})
    if memory_mb:
        measured = measured.model_copy(update={"memory_gb": float(np.percentile(memory_mb, 95)) / 1000})
    return measured


def _common_scatter(jobs: Sequence[Mapping[str, float]], exposures: Sequence[int]) -> float:
    """Return the scatter of the logarithm of what the jobs of an exposure take on average, from exposure to exposure."""
    taken: dict[int, list[float]] = {}
    for job, exposure in zip(jobs, exposures, strict=False):
        if job.get("worker_s", 0.0) > 0:
            taken.setdefault(exposure, []).append(job["worker_s"])
    if len(taken) < LEAST_EXPOSURES:
        return 0.0
    each = [np.log(np.mean(one)) for one in taken.values()]
    # What is left if all jobs scatter by themselves alone.
    own = np.mean([np.var(np.log(one)) / len(one) for one in taken.values()])
    return float(min(math.sqrt(max(np.var(each, ddof=1) - own, 0.0)), 2.0))
