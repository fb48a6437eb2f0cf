"""What is said over the board.

A *batch* is a set of jobs that are gathered together: one exposure's detectors under one pipeline.
A *job* is one detector of a batch. Ids are readable and deterministic, so that posting twice is
posting once:

* batch ``prompt.2026112000012.quicklook``  (run, exposure id, pipeline)
* job   ``prompt.2026112000012.quicklook.094``
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from rapid.results.models import DetectorStatus, GatherReason, Scalar

NAME = r"^[A-Za-z0-9_-]+$"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BatchKey(_Message):
    """Identity of a batch."""

    run: str = Field(default="prompt", pattern=NAME)
    exposure_id: int = Field(gt=0)
    pipeline: str = Field(pattern=NAME)

    @property
    def id(self) -> str:
        """Readable, deterministic id."""
        return f"{self.run}.{self.exposure_id}.{self.pipeline}"

    @classmethod
    def parse(cls, batch_id: str) -> "BatchKey":
        """Read an id back.

        Raises
        ------
        ValueError
            Raised if the text is not a batch id.
        """
        run, exposure_id, pipeline = batch_id.split(".")
        return cls(run=run, exposure_id=int(exposure_id), pipeline=pipeline)

    def job_id(self, detector: int) -> str:
        """Return the id of a detector's job."""
        return f"{self.id}.{detector:03d}"


class Priority(StrEnum):
    """Class of a job. Within a class the newest exposure goes first."""

    CURRENT = "current"
    BACKLOG = "backlog"


class WorkerMode(StrEnum):
    """What a free worker takes, and whether a current job may interrupt backlog."""

    WAITING = "waiting"
    CONSUMING = "consuming"
    PREEMPTING = "preempting"

    @classmethod
    def _missing_(cls, value: object) -> "WorkerMode | None":
        # The system we replace spells the last one MURDEROUS, and all of them in capitals.
        if isinstance(value, str):
            text = value.lower()
            if text == "murderous":
                return cls.PREEMPTING
            return next((mode for mode in cls if mode.value == text), None)
        return None


class BatchSpec(_Message):
    """A batch to post: everything an exposure's fan-out says, in one message."""

    key: BatchKey
    camera: str
    image_type: str
    expected: frozenset[int] = Field(description="Detectors this batch wants; an empty set is complete at once.")
    raws: dict[int, str] = Field(
        default_factory=dict, description="URI of the raw, for each detector whose raw has arrived."
    )
    excluded: dict[int, str] = Field(default_factory=dict, description="Detectors switched off, with the reason.")
    superseded: dict[int, str] = Field(
        default_factory=dict,
        description="Detectors left for later, with the reason: posted as backlog, settled for the gather.",
    )
    priority: Priority = Priority.CURRENT
    pool: str = Field(default="science", pattern=NAME, description="Which worker group may take the jobs.")
    info: dict[str, Any] = Field(default_factory=dict, description="ExposureInfo facts for gather and display.")
    config: dict[str, Any] = Field(default_factory=dict, description="Per-payload config overrides.")
    inputs: tuple[int, ...] = Field(default=(), description="Exposures to combine, for a build.")
    control: dict[str, Any] = Field(default_factory=dict, description="Control state it was dispatched under (I9).")
    finished: dict[int, dict[str, Scalar]] = Field(
        default_factory=dict,
        description="Detectors whose results are already stored: recovery does not redo them (I2).",
    )
    version: int = Field(default=0, ge=0, description="Summaries already stored, after a recovery.")
    summary_finished: int | None = Field(
        default=None,
        ge=0,
        description="How many detectors the newest stored summary shows; all of finished if left out.",
    )
    order: int | None = Field(default=None, ge=0, description="What newest means; the exposure's time if left out.")
    is_expected_final: bool = Field(
        default=True, description="False while the expected set may still grow: such a batch is never complete."
    )
    deadline_ms: int = Field(default=120_000, gt=0, description="From the post to a gather with whatever there is.")
    ttl_ms: int | None = Field(
        default=None,
        gt=0,
        description="How long the board remembers the batch after its last change; the board's own if left out.",
    )
    gather_timeout_ms: int = Field(default=5_000, gt=0, description="From the first result to the gather.")
    regather_timeout_ms: int = Field(default=45_000, gt=0, description="From the first result to the re-gather.")
    max_attempts: int = Field(default=3, gt=0)
    retry_backoff_ms: int = Field(default=1_000, ge=0, description="Wait after failure n is n squared times this.")
    time_limit_ms: int = Field(default=120_000, gt=0, description="Hard limit of one run of one job.")


class WorkerSpec(_Message):
    """A worker as it introduces itself."""

    worker_id: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    pools: tuple[str, ...] = ("science",)
    pinned: frozenset[int] = Field(default=frozenset(), description="If given, the only detectors it takes.")
    host: str = ""


class Job(_Message):
    """A claimed job: what to run, and the right to run it."""

    job_id: str
    batch: BatchKey
    detector: int
    raw_uri: str
    camera: str
    image_type: str
    priority: Priority
    attempt: int = Field(ge=1)
    token: int = Field(description="Fencing token: a completion with an older one is refused (I3).")
    lease_ms: int = Field(gt=0, description="Renew before this has passed.")
    time_limit_ms: int
    posted_ms: int = Field(description="Redis time of the post.")
    claimed_ms: int = Field(description="Redis time of the claim.")
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    mode: WorkerMode = Field(default=WorkerMode.CONSUMING, description="Mode in force when it was given.")


class GatherJob(_Message):
    """A claimed gather: the batch, why now, and one consistent reading of its state."""

    batch: BatchKey
    camera: str
    image_type: str
    reason: GatherReason
    version: int = Field(ge=1)
    token: int
    lease_ms: int
    expected: frozenset[int]
    finished: frozenset[int]
    detectors: dict[int, DetectorStatus]
    results: dict[int, dict[str, Scalar]] = Field(
        default_factory=dict, description="The short metrics each completion carried."
    )
    info: dict[str, Any] = Field(default_factory=dict)
    control: dict[str, Any] = Field(default_factory=dict, description="Control state it was dispatched under (I9).")
    posted_ms: int
    first_result_ms: int | None = None
    last_result_ms: int | None = None
    due_ms: int


class EventKind(StrEnum):
    """What happened, on the event stream that displays follow."""

    EXPOSURE_POSTED = "exposure_posted"
    JOB_STARTED = "job_started"
    JOB_FINISHED = "job_finished"
    JOB_FAILED = "job_failed"
    JOB_RETURNED = "job_returned"
    """Lease lost, released or pre-empted: the job is queued again."""

    SUMMARY_READY = "summary_ready"
    PRODUCTS_ADDED = "products_added"
    """Plots that are drawn after a summary, or a night's movie: the summary's version stays what it is."""

    RAW_QUARANTINED = "raw_quarantined"
    CALIB_CERTIFIED = "calib_certified"
    CONTROL_CHANGED = "control_changed"
    REQUEST_CHANGED = "request_changed"
    EXCLUSION_CHANGED = "exclusion_changed"
    LOG_CHANGED = "log_changed"
    """An observer has written a comment or set a flag, or taken one back."""

    CLUSTER_CHANGED = "cluster_changed"
    """Somebody has ordered something of workers or dead letters, or an order was carried out."""

    WORKER_JOINED = "worker_joined"
    WORKER_LEFT = "worker_left"


class Load(_Message):
    """What lies ahead of a new exposure in a pool."""

    workers: int = Field(description="Workers that serve the pool and give signs of life.")
    running_current: int
    running_backlog: int
    queued_current: int
    job_s: float | None = Field(default=None, description="Running mean of what a job takes [s]; None if none ran yet.")


class Event(_Message):
    """One entry of the event stream."""

    event_id: str = Field(
        default="", description="Stream id; give it back to resume after it. Shared by events of one entry."
    )
    kind: EventKind
    at_ms: int = Field(description="Redis time.")
    batch_id: str | None = None
    exposure_id: int | None = None
    detector: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class Order(StrEnum):
    """What a worker is told, busy or not."""

    PREEMPT = "preempt"
    """Give up a backlog job: a current one waits."""

    RESTART = "restart"
    """Start the payload processes anew."""


class WorkerOrder(_Message):
    """An order as a worker hears it."""

    order: Order
    job_id: str = Field(default="", description="Job to give up; empty where the order is for the worker itself.")
    token: int = Field(default=0, description="Fencing token of that job's lease: an order for an older one is void.")


class Heartbeat(_Message):
    """Answer to a sign of life."""

    lost: frozenset[str] = Field(
        default=frozenset(), description="Jobs whose lease was given to another: abandon them."
    )
    preempt: bool = Field(default=False, description="A current job waits for this worker: give up the backlog job.")
    mode: WorkerMode
    lease_ms: int = Field(default=0, description="How long the leases last from now, as their holder waits it.")

    @property
    def held(self) -> bool:
        """Whether all jobs in hand are still the worker's."""
        return not self.lost


class BoardTime(_Message):
    """The one clock of time-outs, leases and cadence."""

    now_ms: int = Field(description="Since the Unix epoch, unless the clock was moved.")
    rate: float = Field(
        default=1.0, description="Seconds of it per second: more than 1 if a night is played faster, 0 if it stands."
    )


class Completion(_Message):
    """Answer to the results of one or several jobs."""

    following: tuple[Job, ...] = Field(default=(), description="The worker's next jobs, leased to it.")
    refused: frozenset[str] = Field(default=frozenset(), description="Jobs whose lease was lost: not counted (I3).")


class PostReceipt(_Message):
    """Answer to a posted batch."""

    created: bool = Field(description="False if it was already there.")
    queued: int = Field(description="Jobs put on the board by this post.")
    started: int = Field(default=0, description="Of these, jobs handed to waiting workers at once.")
    unexpected: tuple[int, ...] = Field(default=(), description="Detectors with a raw that the batch does not want.")
    priority: Priority


class BatchState(_Message):
    """One consistent reading of a batch."""

    key: BatchKey
    camera: str
    image_type: str
    priority: Priority
    pool: str
    version: int = Field(description="Gathers completed.")
    gathering: bool
    changed: bool = Field(description="The finished set is not the one of the last summary.")
    is_expected_final: bool = True
    expected: frozenset[int]
    finished: frozenset[int]
    detectors: dict[int, DetectorStatus]
    metrics: dict[int, dict[str, Scalar]] = Field(default_factory=dict)
    info: dict[str, Any] = Field(default_factory=dict)
    control: dict[str, Any] = Field(default_factory=dict, description="Control state it was dispatched under (I9).")
    posted_ms: int
    first_result_ms: int | None = None
    last_result_ms: int | None = None


class DeadLetter(_Message):
    """A job, or a gather, that failed for good."""

    job_id: str = Field(description="Id of the job; of a gather, its batch id and ``.gather``.")
    error: dict[str, Any] = Field(description="code, message, traceback and facts of the last attempt.")
    attempts: int
    at_ms: int
    raw_uri: str = ""
    spec: dict[str, Any] = Field(default_factory=dict, description="Its inputs: camera, image type, config, control.")

    @property
    def batch(self) -> BatchKey:
        """Batch of the job."""
        return BatchKey.parse(self.job_id.rpartition(".")[0])

    @property
    def detector(self) -> int | None:
        """Detector of the job; None for a gather."""
        last = self.job_id.rpartition(".")[2]
        return None if last == "gather" else int(last)


class QueueDepth(_Message):
    """How much waits in a pool, and who waits for it."""

    pool: str
    current: int
    backlog: int
    parked: int
    oldest: int | None = Field(default=None, description="Exposure's order (id without controller) queued longest.")


class WorkerState(_Message):
    """A worker as the board sees it."""

    worker_id: str
    state: str = Field(description="parked (waits for a job), busy, idle (between two calls), silent (lease lost).")
    jobs: tuple[str, ...] = Field(default=(), description="Jobs in hand; more than one only if they are short.")
    seen_ms: int
    pools: str = ""
    pinned: str = ""
    host: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def job_id(self) -> str:
        """The first job in hand, or nothing."""
        return self.jobs[0] if self.jobs else ""

    @field_validator("jobs", mode="before")
    @classmethod
    def _words(cls, jobs: object) -> object:
        return tuple(jobs.split()) if isinstance(jobs, str) else jobs


class BoardStatus(_Message):
    """The board at one moment."""

    now_ms: int
    mode: WorkerMode
    queues: tuple[QueueDepth, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    running: int
    delayed: int
    gathers_due: int
    gathers_running: int
    dead_letters: int
    leader: str = ""
    leader_until_ms: int = 0
    counters: dict[str, int] = Field(default_factory=dict)
