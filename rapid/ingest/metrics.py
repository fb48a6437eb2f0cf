"""What the ingest role tells Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class IngestMetrics:
    """Counters and histograms of one ingest process.

    Parameters
    ----------
    registry
        Where they are registered; a registry of its own, which nobody sees, if left out.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        kept = registry if registry is not None else CollectorRegistry()
        self.files = Counter("rapid_ingest_files", "Files dealt with, by what became of them", ["fate"], registry=kept)
        self.retries = Counter("rapid_ingest_retries", "Attempts that failed and are repeated", ["why"], registry=kept)
        self.seconds = Histogram(
            "rapid_ingest_seconds", "From a raw's arrival to its event", buckets=SECONDS, registry=kept
        )
        self.batch_seconds = Histogram(
            "rapid_ingest_batch_seconds", "To ingest one batch", buckets=SECONDS, registry=kept
        )
        self.waiting = Gauge("rapid_ingest_waiting", "Files that wait in this process", registry=kept)
        self.queued = Gauge("rapid_ingest_queued", "Files on the lists that nobody has taken", registry=kept)
        self.set_aside = Gauge("rapid_ingest_set_aside", "Files set aside, for a person to look at", registry=kept)
        self.is_up = Gauge("rapid_ingest_up", "Whether the repository answers", registry=kept)


def registered() -> IngestMetrics:
    """Return metrics that ``/metrics`` shows."""
    return IngestMetrics(REGISTRY)
