"""What the Kubernetes API says of our pods, and what follows from it and the board together."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupKind(StrEnum):
    """What keeps the pods of a group."""

    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"


class Group(_Fact):
    """Pods of one kind, kept by one Deployment or StatefulSet."""

    name: str
    kind: GroupKind
    component: str = Field(description="Role: head, worker, gather, display...")
    image: str
    wanted: int = Field(description="Pods it should have.")
    ready: int
    updated: int = Field(description="Pods of the newest version.")
    partition: int = Field(default=0, description="Of a StatefulSet: ordinals from here on get the newest version.")
    generation: int = 0
    observed_generation: int = 0
    revision: str = Field(default="", description="Of a StatefulSet: its newest version.")
    pools: str = ""
    pinned: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether every pod it should have is there, ready, and of the version it should be."""
        new = max(self.wanted - self.partition, 0) if self.kind is GroupKind.STATEFUL_SET else self.wanted
        return self.observed_generation >= self.generation and self.ready == self.wanted and self.updated >= new


class Pod(_Fact):
    """One pod."""

    name: str
    uid: str = ""
    group: str = Field(default="", description="Name of the Deployment or StatefulSet that keeps it.")
    component: str = ""
    node: str = ""
    phase: str = ""
    is_ready: bool = False
    is_leaving: bool = Field(default=False, description="Told to stop.")
    restarts: int = Field(default=0, description="Of its containers.")
    image: str = ""
    revision: str = ""
    started_at: datetime | None = None
    reason: str = Field(default="", description="Why its container waits or ended last: CrashLoopBackOff, OOMKilled...")


class PodRow(_Fact):
    """A pod joined with what the board knows of the worker in it."""

    pod: Pod
    worker_state: str = Field(
        default="", description="parked, busy, idle, silent; empty if the board has not heard of it."
    )
    jobs: tuple[str, ...] = ()
    pinned: tuple[int, ...] = ()
    heartbeat_age_s: float | None = None

    @property
    def is_odd(self) -> bool:
        """Whether Kubernetes and the board disagree, or something is wrong."""
        silent = self.pod.component == "worker" and self.worker_state in {"", "silent"}
        return bool(self.pod.reason) or not self.pod.is_ready or silent


class ClusterStatus(_Fact):
    """Cluster and board at one moment."""

    namespace: str
    camera: str
    groups: tuple[Group, ...]
    pods: tuple[PodRow, ...]
    strangers: tuple[str, ...] = Field(
        default=(), description="Workers on the board that no pod of the namespace runs."
    )
    unowned: tuple[int, ...] = Field(
        default=(), description="Detectors that no living worker is pinned to or would take from a pool."
    )
    board_error: str = Field(default="", description="Why the board could not be asked.")
