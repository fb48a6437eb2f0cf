"""What a worker tells Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from rapid.dispatch.models import Job
from rapid.results.models import DetectorResult

SECONDS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 600)


class WorkerMetrics:
    """Counters and histograms of one worker."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.queue_seconds = Histogram(
            "rapid_queue_wait_seconds",
            "From the post of an exposure to the claim of a job of it",
            ["pipeline", "priority"],
            buckets=SECONDS,
            registry=registry,
        )
        self.run_seconds = Histogram(
            "rapid_job_run_seconds",
            "Wall time of a pipeline on one detector",
            ["pipeline"],
            buckets=SECONDS,
            registry=registry,
        )
        self.payload_seconds = Histogram(
            "rapid_payload_run_seconds",
            "Wall time of one payload on one detector",
            ["payload"],
            buckets=SECONDS,
            registry=registry,
        )
        self.cpu_seconds = Counter("rapid_job_cpu_seconds", "CPU time of jobs", ["pipeline"], registry=registry)
        self.read_bytes = Counter("rapid_job_read_bytes", "Bytes read by jobs", ["pipeline"], registry=registry)
        self.written_bytes = Counter(
            "rapid_job_written_bytes", "Bytes written by jobs", ["pipeline"], registry=registry
        )
        self.peak_memory = Histogram(
            "rapid_job_peak_memory_bytes",
            "Peak memory of a job",
            ["pipeline"],
            buckets=tuple(x * 2**20 for x in (128, 256, 512, 768, 1024, 1536, 2048, 4096)),
            registry=registry,
        )
        self.failures = Counter("rapid_jobs_failed", "Failed attempts", ["pipeline", "code"], registry=registry)
        self.leases_lost = Counter("rapid_leases_lost", "Jobs given to another worker", registry=registry)
        self.preemptions = Counter("rapid_preemptions", "Backlog jobs given up for current ones", registry=registry)

    def observe(self, job: Job, result: DetectorResult) -> None:
        """Take in what a finished job cost."""
        pipeline = result.pipeline
        waited_s = max(job.claimed_ms - job.posted_ms, 0) / 1000
        self.queue_seconds.labels(pipeline=pipeline, priority=job.priority.value).observe(waited_s)
        self.run_seconds.labels(pipeline=pipeline).observe(result.timings.get("total_s", 0.0))
        for payload in result.provenance.payloads:
            if (seconds := result.timings.get(f"{payload}_s")) is not None:
                self.payload_seconds.labels(payload=payload).observe(seconds)
        self.cpu_seconds.labels(pipeline=pipeline).inc(result.timings.get("cpu_s", 0.0))
        self.read_bytes.labels(pipeline=pipeline).inc(result.resources.get("read_bytes", 0.0))
        self.written_bytes.labels(pipeline=pipeline).inc(result.resources.get("written_bytes", 0.0))
        self.peak_memory.labels(pipeline=pipeline).observe(result.resources.get("max_rss_mb", 0.0) * 2**20)
