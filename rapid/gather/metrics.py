"""What a gather tells Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from rapid.results.models import ExposureSummary

SECONDS = (0.1, 0.5, 1, 2, 3, 5, 8, 12, 20, 34, 60, 120, 300, 600)


class GatherMetrics:
    """Counters and histograms of one gather."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.arrival_seconds = Histogram(
            "rapid_arrival_to_gather_seconds",
            "From an exposure's first raw to its first summary",
            ["pipeline"],
            buckets=SECONDS,
            registry=registry,
        )
        self.gather_seconds = Histogram(
            "rapid_gather_run_seconds",
            "From the due time of a gather to its summary",
            ["pipeline", "reason"],
            buckets=SECONDS,
            registry=registry,
        )
        self.failures = Counter("rapid_gathers_failed", "Gathers that failed", ["pipeline"], registry=registry)
        self.leases_lost = Counter("rapid_gather_leases_lost", "Gathers given to another", registry=registry)

    def observe(self, summary: ExposureSummary, *, arrival_s: float, due_s: float) -> None:
        """Take in a summary that was completed so long after its first raw, and after it was due."""
        if summary.version == 1:
            self.arrival_seconds.labels(pipeline=summary.pipeline).observe(max(arrival_s, 0.0))
        self.gather_seconds.labels(pipeline=summary.pipeline, reason=summary.reason.value).observe(max(due_s, 0.0))
