"""What an order is, and who starts workers."""

import re
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from rapid.errors import RapidError

MAX_TARGET = 200
MAX_TEXT = 500
MAX_WORKERS = 1024
"""More workers than any site has cores; a supervisor has its own, lower bound."""

_POOL = re.compile(r"[A-Za-z0-9_-]*")


class OrderError(RapidError):
    """An order is not valid; ``field`` names where."""

    code = "bad_order"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}", field=field)
        self.field = field
        self.reason = reason


class OrderKind(StrEnum):
    """What can be ordered."""

    RESTART_WORKERS = "restart_workers"
    """Target: a pool, or nothing for all. A job in hand is finished first, or given back after the drain time."""

    RESTART_WORKER = "restart_worker"
    """Target: a worker."""

    RETRY = "retry"
    """Target: a dead letter's job; it is queued again."""

    DISCARD = "discard"
    """Target: a dead letter's job; it is dropped."""

    SCALE = "scale"
    """Target: a supervisor. Value: how many ordinary workers it is to run."""


class OrderState(StrEnum):
    """How far an order is."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    """Nobody took it in time: no head leads, or the supervisor is gone."""


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OrderSpec(_Fact):
    """An order as it is given."""

    kind: OrderKind
    target: str = Field(default="", max_length=MAX_TARGET, description="Pool, worker, job or supervisor; see the kind.")
    value: int | None = Field(default=None, ge=1, le=MAX_WORKERS, description="Number of workers, for scale.")
    reason: str = Field(default="", max_length=MAX_TEXT, description="Why; for the log.")


def check_order(spec: OrderSpec) -> None:
    """Refuse an order that says too little or too much.

    Raises
    ------
    OrderError
        Raised, naming the field.
    """
    if spec.kind is OrderKind.RESTART_WORKERS:
        if not _POOL.fullmatch(spec.target):
            raise OrderError("target", f"{spec.target!r} is no pool")
    elif not spec.target:
        raise OrderError("target", f"{spec.kind.value} needs one")
    if spec.kind is OrderKind.SCALE and spec.value is None:
        raise OrderError("value", "say how many workers")
    if spec.kind is not OrderKind.SCALE and spec.value is not None:
        raise OrderError("value", f"{spec.kind.value} takes none")


class ClusterOrder(OrderSpec):
    """An order in the log."""

    id: int
    camera: str
    author: str
    created_at: datetime = Field(description="UTC.")
    state: OrderState
    outcome: str = Field(default="", description="What came of it, in a sentence.")
    ended_at: datetime | None = Field(default=None, description="UTC.")


class SupervisorRecord(_Fact):
    """A process that starts workers and can be told how many."""

    name: str = Field(description="Host and folder: unique among those that serve the camera.")
    host: str
    n_workers: int = Field(description="Ordinary workers it runs, or is about to.")
    max_workers: int = Field(description="More it will not start.")
    seen_at: datetime = Field(description="Last sign of life, UTC.")
