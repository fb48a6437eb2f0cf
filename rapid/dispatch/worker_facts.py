"""What a person wants to know of workers and the board's own decisions do not need: memory, restarts, since when."""

import json

from pydantic import BaseModel, ConfigDict, Field

from rapid.dispatch.library import function_name
from rapid.dispatch.talk import Command, Talk


class WorkerFacts(BaseModel):
    """A worker, beyond its state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_restarting: bool = Field(default=False, description="Told to start anew, and has not taken notice yet.")
    memory_mb: float | None = Field(default=None, description="Resident memory of it and its payload processes.")
    n_own: int = Field(default=0, description="Jobs that wait for it: of its detectors, or pinned to it.")
    since_ms: int | None = Field(default=None, description="Board time since which it has its first job in hand.")


def tell_worker(prefix: str, worker_id: str, *, memory_mb: float) -> Talk[bool]:
    """Tell the board, as a worker, what it cannot see; ends in whether it knows the worker."""
    known = yield Command(("FCALL", function_name("tell_worker"), 1, prefix, worker_id, round(memory_mb, 1)))
    return bool(known)


def read_worker_facts(prefix: str) -> Talk[dict[str, WorkerFacts]]:
    """Return what is known of each worker beside its state."""
    reply = yield Command(("FCALL_RO", function_name("worker_facts"), 1, prefix))
    return {name: WorkerFacts.model_validate(facts) for name, facts in json.loads(reply).items()}
