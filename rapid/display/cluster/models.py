"""What is said about the cluster."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from rapid.operations.models import ClusterOrder, SupervisorRecord
from rapid.publish.status import PublishStatus


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WorkerCondition(StrEnum):
    """What an operator is told of a worker."""

    FREE = "free"
    """Waits for a job."""

    BUSY = "busy"
    QUEUED = "queued"
    """Between two jobs, with jobs of its own detectors waiting for it."""

    RESTARTING = "restarting"
    """Told to start its payload process anew, and has not done so yet."""

    MISSING = "missing"
    """Gives no sign of life; or is pinned to by the camera's plan and is not there."""


class JobInHand(_Answer):
    """What a worker does."""

    job_id: str
    run: str
    exposure_id: int
    detector: int
    detector_name: str
    pipeline: str


class WorkerView(_Answer):
    """One worker."""

    worker_id: str
    condition: WorkerCondition
    jobs: list[JobInHand]
    pools: list[str]
    pinned: list[int] = Field(description="Detectors it is pinned to; any if empty.")
    host: str
    heartbeat_age_s: float = Field(description="Since its last sign of life.")
    memory_mb: float | None = Field(default=None, description="Resident memory of worker and payload processes.")
    since_s: float | None = Field(default=None, description="How long it has had the job in hand.")


class DetectorWork(_Answer):
    """What goes on with a detector, for the focal plane."""

    detector: int
    condition: WorkerCondition
    workers: list[str] = Field(description="Who is pinned to it, or works on it now.")
    job_id: str | None = None


class QueueView(_Answer):
    """What waits in a pool."""

    pool: str
    current: int = Field(description="Jobs of the newest exposure.")
    backlog: int = Field(description="Jobs of older ones.")
    free_workers: int
    oldest_exposure: int | None = Field(default=None, description="Order of the exposure that waits longest.")


class Spread(_Answer):
    """How long something took."""

    name: str = Field(description="Pipeline, or what was measured.")
    step: str = Field(description="wait (post to start), run (start to end), total (post to summary).")
    n: int
    p50_s: float
    p99_s: float
    max_s: float


class DeadLetterView(_Answer):
    """A job that failed for good."""

    job_id: str
    exposure_id: int
    detector: int | None
    detector_name: str | None
    pipeline: str
    code: str
    message: str
    traceback: str | None = None
    attempts: int
    at: datetime = Field(description="UTC.")


class PublishView(_Answer):
    """How publishing stands."""

    status: PublishStatus = Field(description="As the role told it last.")
    age_s: float = Field(description="How long ago that was, by the board's clock [s].")


class ClusterView(_Answer):
    """The cluster at one moment."""

    as_of: datetime = Field(description="The board's time, UTC.")
    mode: str = Field(description="Worker mode: waiting, consuming, preempting.")
    leader: str = Field(description="The leading head; empty if there is none.")
    running: int
    delayed: int
    gathers_due: int
    gathers_running: int
    n_dead_letters: int
    viewers: int
    workers: list[WorkerView]
    detectors: list[DetectorWork] = Field(description="Only detectors that somebody is pinned to or works on.")
    queues: list[QueueView]
    latencies: list[Spread] = Field(description="Of what the board still remembers, some ten thousand events.")
    dead_letters: list[DeadLetterView] = Field(description="Newest first, at most 100.")
    publish: PublishView | None = Field(default=None, description="Null if nobody publishes.")
    counters: dict[str, int]
    supervisors: list[SupervisorRecord] = Field(description="Whoever starts workers here and can be told how many.")
    orders: list[ClusterOrder] = Field(description="What was ordered lately, newest first.")
