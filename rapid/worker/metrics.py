"""What a worker tells Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from rapid.results.models import DetectorResult


class WorkerMetrics:
    """Counters and histograms of one worker."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.run_seconds = Histogram(
            "rapid_payload_run_seconds",
            "Wall time of a pipeline on one detector",
            ["pipeline"],
            buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120),
            registry=registry,
        )
        self.cpu_seconds = Counter("rapid_payload_cpu_seconds", "CPU time of payloads", ["pipeline"], registry=registry)
        self.peak_memory = Histogram(
            "rapid_payload_peak_memory_bytes",
            "Peak memory of a payload run",
            ["pipeline"],
            buckets=tuple(x * 2**20 for x in (128, 256, 512, 768, 1024, 1536, 2048, 4096)),
            registry=registry,
        )
        self.failures = Counter("rapid_jobs_failed", "Failed attempts", ["pipeline", "code"], registry=registry)
        self.leases_lost = Counter("rapid_leases_lost", "Jobs given to another worker", registry=registry)
        self.preemptions = Counter("rapid_preemptions", "Backlog jobs given up for current ones", registry=registry)

    def observe(self, result: DetectorResult) -> None:
        """Take in what a finished job cost."""
        self.run_seconds.labels(pipeline=result.pipeline).observe(result.timings.get("total_s", 0.0))
        self.cpu_seconds.labels(pipeline=result.pipeline).inc(result.timings.get("cpu_s", 0.0))
        self.peak_memory.labels(pipeline=result.pipeline).observe(result.resources.get("max_rss_mb", 0.0) * 2**20)
