"""Every key of the board: what it holds, who writes and reads it, and when it goes.

The server-side functions build keys from these names; a test holds the two together. All keys of one
instrument share the hash tag ``{INSTRUMENT}``, so that a Redis Cluster keeps them in one slot.
"""

import re
from dataclasses import dataclass

from rapid.errors import ConfigurationError

BATCH_EXPIRY = "with its batch: all its keys at once, ttl_ms after the last change"
WAKE_EXPIRY = "60 s after the push"


@dataclass(frozen=True)
class KeySpec:
    """One kind of key. ``name`` follows the prefix; words in capitals stand for ids."""

    name: str
    type: str
    writer: str
    reader: str
    expiry: str
    meaning: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """What matches keys of this kind, prefix left out."""
        text = re.escape(self.name)
        for word, expression in {
            "BATCH": r"[\w.-]+",
            "POOL": r"[\w-]+",
            "WORKER": r"[\w.-]+",
            "DETECTOR": r"\d+",
            "LETTER": r"[\w.-]+",
            "REQUEST": r"\d+-\d+",
            "GROUP": r".+",
            "EXPOSURE": r"\d+(\.\w+)?",
        }.items():
            text = text.replace(word, expression)
        return re.compile(text)


KEYS = (
    KeySpec("batch:BATCH", "hash", "head, gather", "all", BATCH_EXPIRY, "what was posted, its timers and its gather state"),
    KeySpec("expected:BATCH", "set", "head", "gather", BATCH_EXPIRY, "detectors the batch wants"),
    KeySpec("waiting:BATCH", "set", "head", "gather", BATCH_EXPIRY, "expected; the raw has not arrived"),
    KeySpec("unsettled:BATCH", "set", "head, worker", "all", BATCH_EXPIRY, "expected, not settled; gone means complete"),
    KeySpec("finished:BATCH", "set", "worker", "gather", BATCH_EXPIRY, "detectors with a result"),
    KeySpec("reasons:BATCH", "hash", "head, worker", "gather", BATCH_EXPIRY, "detector: state|reason, settled without a result"),
    KeySpec("raws:BATCH", "hash", "head", "worker", BATCH_EXPIRY, "detector: URI of the raw"),
    KeySpec("metrics:BATCH", "hash", "worker", "gather", BATCH_EXPIRY, "detector: short metrics, JSON"),
    KeySpec("attempts:BATCH", "hash", "worker", "worker", BATCH_EXPIRY, "detector: attempts counted"),
    KeySpec("leases:BATCH", "hash", "worker", "all", BATCH_EXPIRY, "detector: token|worker|class|since|state of its last lease"),
    KeySpec("queue:POOL", "zset", "head", "worker", "entries leave with their batch", "jobs anyone may take, by score"),
    KeySpec("held:POOL", "zset", "head", "keeper", "entries leave after the grace time", "jobs that wait for the worker with their calibs, by score"),
    KeySpec("own:POOL:WORKER", "zset", "head", "worker", "with its worker", "jobs of detectors whose calibs the worker has, by score"),
    KeySpec("owners:POOL", "hash", "head", "worker", "entries leave with their jobs", "job: whose own queue it is in"),
    KeySpec("pinned:POOL:DETECTOR", "zset", "head", "worker", "with the last worker pinned to it", "jobs of a pinned detector, by score"),
    KeySpec("pins:POOL", "hash", "worker", "head", "entries leave with their workers", "detector: workers pinned to it"),
    KeySpec("affinity:POOL", "hash", "worker", "head", "never; one entry per detector", "detector: worker that ran it last"),
    KeySpec("parked:POOL", "zset", "worker", "head", "entries leave with a job or their worker", "workers that wait, by time"),
    KeySpec("stealable:POOL", "zset", "worker", "head", "entries leave with the job", "workers that run backlog, by time"),
    KeySpec("preempting:POOL", "zset", "head", "head", "entries leave with the job", "workers asked to give up their job"),
    KeySpec("worker:WORKER", "hash", "worker", "all", "with its worker: three leases without a sign of life", "a worker and what it does"),
    KeySpec("workers", "zset", "worker", "all", "entries leave with their worker", "workers by last sign of life"),
    KeySpec("wake:WORKER", "list", "head", "worker", WAKE_EXPIRY, "a leased job for a worker that waits"),
    KeySpec("orders:WORKER", "list", "head", "worker", WAKE_EXPIRY, "jobs that a worker is to give up"),
    KeySpec("restart:WORKER", "list", "person, head", "worker", WAKE_EXPIRY, "a worker is to start its payload process anew"),
    KeySpec("timers", "zset", "all", "keeper", "entries leave when due", "leases, retries, grace and expiry times, by due time"),
    KeySpec("keeper_wake", "list", "all", "keeper", WAKE_EXPIRY, "the first timer changed"),
    KeySpec("gathers", "zset", "head, worker", "gather", "entries leave when claimed", "batches by the time their gather is due"),
    KeySpec("gather_wake", "list", "head, worker", "gather", WAKE_EXPIRY, "the first gather time changed"),
    KeySpec("leader", "hash", "head", "head", "never; one", "leading head, its token and until when"),
    KeySpec("leader_wake", "list", "head", "head", WAKE_EXPIRY, "the leader has resigned"),
    KeySpec("dead", "zset", "worker", "person", "10 d; 5000 are kept", "dead letters by time"),
    KeySpec("dead:LETTER", "hash", "worker", "person", "with its entry in dead", "job or gather given up: error, attempts, inputs"),
    KeySpec("recent", "zset", "head", "display", "5000 are kept", "batches by time of post"),
    KeySpec("pools", "set", "head", "display", "never; a handful", "pools that were posted to"),
    KeySpec("counters", "hash", "all", "display", "never; a handful", "totals since the board began"),
    KeySpec("events", "stream", "all", "display", "about 20000 are kept", "what happened"),
    KeySpec("costs", "hash", "worker", "head", "never; one entry per pipeline", "pipeline: running mean of ms a job takes"),
    KeySpec("fence", "string", "all", "all", "never; one", "last fencing token"),
    KeySpec("control", "hash", "person, head, replay", "all", "never; one", "worker mode, newest exposure of each pool, whether a pair is under way, ms the clock is ahead or where it stands, how fast it runs since when"),
    KeySpec("control_state", "hash", "person, head", "all", "never; one", "what is done with the next exposure: the state as JSON, its version, who made it so"),
    KeySpec("control_log", "list", "person, head", "all", "500 are kept", "who changed what in the control state, newest first; all are in the results store"),
    KeySpec("requests", "stream", "anyone who may ask", "head", "entries leave when they were looked at", "inbox of requests and cancellations"),
    KeySpec("request:REQUEST", "string", "head", "all", "7 d after it ended", "a request and what became of it, JSON; or which one it repeats"),
    KeySpec("request_log:REQUEST", "stream", "head", "all", "with its request; about 200 entries are kept", "changes of a request: waiters block on it"),
    KeySpec("answer:REQUEST", "list", "head", "all", "with its request", "the request once it has ended: one element"),
    KeySpec("requests_open", "set", "head", "head", "entries leave when the request ends", "requests that have not ended"),
    KeySpec("requests_recent", "zset", "head", "all", "5000 are kept", "requests by time of acceptance"),
    KeySpec("requests_refused", "list", "head", "all", "500 are kept", "requests that were refused, newest first"),
    KeySpec("publish_lead", "string", "publish", "publish", "15 s after it was renewed last", "which publish role publishes: another stands by"),
    KeySpec("publish_lead_wake", "list", "publish", "publish", WAKE_EXPIRY, "the role that published has stopped"),
    KeySpec("publish_sent:DAY", "hash", "publish", "display", "3 d after the last row", "exposure, pipeline and version: when its row was begun and sent, by destination [ms]"),
    KeySpec("publish_marks", "hash", "publish", "publish", "never; one entry per sink", "sink: up to when it has had everything, so that a restart does not tell it again"),
    KeySpec("publish_status", "string", "publish", "display", "60 s after the last sign of life", "how publishing stands: destinations, what waits, what was given up, JSON"),
    KeySpec("ingest_queue", "list", "ingest, anyone who may tell", "ingest", "entries leave when taken", "files told of over HTTP, or tried again, that wait to be ingested: URIs"),
    KeySpec("ingest_taken:WORKER", "list", "ingest", "ingest", "entries leave when dealt with", "files an ingest process has in hand; put back if it dies"),
    KeySpec("ingest_names", "set", "ingest", "ingest", "entries leave with their process", "ingest processes"),
    KeySpec("ingest_lists", "set", "ingest", "ingest", "entries leave with their process", "embargo-butler's lists that ingest processes take from, JSON: process, queue, list of what it has in hand"),
    KeySpec("ingest_status:WORKER", "string", "ingest", "all", "60 s after the last sign of life", "how an ingest process stands, JSON"),
    KeySpec("ingest_set_aside", "hash", "ingest", "person", "5000 are kept", "URI: why a file was not ingested, JSON"),
    KeySpec("ingest_handled", "zset", "ingest", "ingest", "200000 are kept", "files that handlers outside the repository have taken, by time"),
    KeySpec("ingested", "stream", "ingest", "all", "about 20000 are kept", "raws that are in the Butler repository, by exposure: consumers wait on it"),
    KeySpec("ingested:EXPOSURE", "set", "ingest", "all", "3 d after the last raw", "detectors of an exposure that were told to be in the repository"),
    KeySpec("visits", "stream", "head, script", "worker", "about 10000 are kept", "visits that were announced or canceled"),
    KeySpec("visit:GROUP", "string", "head, script", "all", "some minutes after it should have been over", "an announced visit, JSON"),
    KeySpec("visit_detectors:GROUP", "set", "head, script", "all", "with its visit", "detectors that an announcement is for, each behind a digest of it; * is all"),
    KeySpec("visits_recent", "zset", "head, script", "all", "1000 are kept", "groups of announced visits by time"),
)  # fmt: skip


def prefix(instrument: str) -> str:
    """Return what every key of an instrument begins with.

    Raises
    ------
    ConfigurationError
        Raised if the name cannot be part of a key.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", instrument):
        raise ConfigurationError("instrument", f"{instrument!r} cannot be part of a Redis key")
    return f"rapid:{{{instrument}}}:"


def find_key(name: str) -> KeySpec | None:
    """Return the kind of a key given without its prefix, or None for a key the board does not have."""
    return next((spec for spec in KEYS if spec.pattern.fullmatch(name)), None)


def render_keys() -> str:
    """Return the table of keys as Markdown, for the documentation."""
    lines = ["| key | type | writer | reader | expiry | meaning |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{key.name}` | {key.type} | {key.writer} | {key.reader} | {key.expiry} | {key.meaning.replace('|', chr(92) + '|')} |"
        for key in KEYS
    ]
    return "\n".join(lines) + "\n"
