"""Every Redis key of the board, in one place.

All keys of one instrument carry the hash tag ``{INSTRUMENT}``, so that Redis Cluster keeps them in one
slot and one server-side function can touch them all. The functions build the same names from the prefix.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class KeyFact:
    """One line of the table of keys."""

    name: str
    type: str
    holds: str
    writer: str
    reader: str
    expiry: str


BATCH_EXPIRY = "2.5 d after the batch last changed, all keys of a batch together"

KEYS: tuple[KeyFact, ...] = (
    KeyFact("batch:BATCH", "hash", "spec, info, order, timers and gather state", "head, worker, gather", "all", BATCH_EXPIRY),
    KeyFact("expected:BATCH", "set", "detectors the batch wants", "head", "gather", BATCH_EXPIRY),
    KeyFact("waiting:BATCH", "set", "expected, raw not arrived", "head", "head, gather", BATCH_EXPIRY),
    KeyFact("unsettled:BATCH", "set", "expected, not settled; empty means complete", "head, worker", "gather", BATCH_EXPIRY),
    KeyFact("finished:BATCH", "set", "detectors with a result", "worker", "gather", BATCH_EXPIRY),
    KeyFact("reasons:BATCH", "hash", "detector to state|reason, settled without a result", "head, worker", "gather", BATCH_EXPIRY),
    KeyFact("raws:BATCH", "hash", "detector to URI of its raw", "head", "worker", BATCH_EXPIRY),
    KeyFact("metrics:BATCH", "hash", "detector to short metrics", "worker", "gather, display", BATCH_EXPIRY),
    KeyFact("attempts:BATCH", "hash", "detector to attempts counted", "worker", "worker", BATCH_EXPIRY),
    KeyFact("queue:POOL:CLASS", "sorted set", "job ids, newest exposure highest", "head, worker", "worker", "empties itself; expired batches are dropped when met"),
    KeyFact("delayed", "sorted set", "job ids by the time of their next attempt", "worker", "head", "empties itself"),
    KeyFact("lease:JOB", "hash", "token, worker and class of a running job", "worker", "worker, head", "10 d; deleted when the job ends"),
    KeyFact("leases", "sorted set", "job ids by lease expiry", "worker", "head", "empties itself"),
    KeyFact("gathers", "sorted set", "batch ids by the time their gather is due", "worker, head", "gather", "empties itself"),
    KeyFact("gather_leases", "sorted set", "batch ids by lease expiry of a running gather", "gather", "head", "empties itself"),
    KeyFact("wake:WORKER", "list", "a leased job or an order", "head, worker", "worker", "1 min"),
    KeyFact("gather_wake", "list", "wakes a waiting gather", "head, worker", "gather", "1 min"),
    KeyFact("parked:POOL", "sorted set", "workers that wait for a job", "worker", "head, worker", "one entry per living worker"),
    KeyFact("worker:WORKER", "hash", "a worker and what it does", "worker", "head, display", "1 d after its last claim"),
    KeyFact("workers", "sorted set", "worker ids by last sign of life", "worker", "head, display", "entries leave with the worker"),
    KeyFact("stealable", "sorted set", "workers running a backlog job", "worker", "head", "entries leave with the job"),
    KeyFact("affinity", "hash", "pool:detector to the worker that last ran it", "worker", "worker", "one field per pool and detector"),
    KeyFact("dead", "sorted set", "dead letters by time", "worker, head", "operator, display", "the newest 5000 are kept"),
    KeyFact("dead:JOB", "hash", "error with traceback, attempts, raw", "worker, head", "operator, display", "10 d"),
    KeyFact("leader", "hash", "leading head: id, token, until", "head", "head", "the lease decides"),
    KeyFact("leader_wake", "list", "wakes a standby head", "head", "head", "1 min"),
    KeyFact("recent", "sorted set", "batch ids by post time", "head", "display", "the newest 2000 are kept"),
    KeyFact("counters", "hash", "totals since the board began", "all", "display, metrics", "fixed fields"),
    KeyFact("events", "stream", "what happened", "all", "display", "about 50 000 entries are kept"),
    KeyFact("pools", "set", "names of pools ever used", "head", "all", "a handful"),
    KeyFact("mode", "string", "worker mode", "operator", "worker, head", "none"),
    KeyFact("fence", "string", "the last fencing token", "all", "all", "none"),
    KeyFact("clock_offset", "string", "ms that a replay moves the clock by", "replay", "all", "none"),
)  # fmt: skip


def prefix(instrument: str) -> str:
    """Return what all keys of an instrument begin with.

    Examples
    --------
    >>> prefix("LSSTCam")
    'rapid:{LSSTCam}:'
    """
    return f"rapid:{{{instrument}}}:"


def table() -> str:
    """Return the table of keys in Markdown, as it stands in docs/redis.md."""
    lines = ["| key | type | holds | written by | read by | expiry |", "|---|---|---|---|---|---|"]
    lines += [f"| `{k.name}` | {k.type} | {k.holds} | {k.writer} | {k.reader} | {k.expiry} |" for k in KEYS]
    return "\n".join(lines) + "\n"
