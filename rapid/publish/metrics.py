"""What the publish role tells Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)


class PublishMetrics:
    """Counters and histograms of one publish role.

    Parameters
    ----------
    registry
        Where they are registered; a registry of its own, which nobody sees, if left out.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        kept = registry if registry is not None else CollectorRegistry()
        names = ["destination"]
        self._up = Gauge("rapid_publish_up", "Whether a destination takes what is sent", names, registry=kept)
        self._sent = Counter("rapid_published", "Objects or rows sent", names, registry=kept)
        self._bytes = Counter("rapid_published_bytes", "Bytes sent", names, registry=kept)
        self._seconds = Histogram(
            "rapid_publish_seconds", "To make and send one", names, buckets=SECONDS, registry=kept
        )
        self.failures = Counter("rapid_publish_failures", "Attempts that failed", names, registry=kept)
        self.dead = Counter("rapid_publish_dead", "Given up for good", names, registry=kept)
        self.left_out = Counter(
            "rapid_publish_left_out", "Left out for want of room, to come again", names, registry=kept
        )
        self.waiting = Gauge("rapid_publish_waiting", "Waiting to be sent", names, registry=kept)
        self.missing = Gauge(
            "rapid_publish_missing", "Known from the results store to be missing there", names, registry=kept
        )
        self.behind = Histogram(
            "rapid_publish_behind_seconds",
            "From a summary to its row and images in the bucket",
            buckets=SECONDS,
            registry=kept,
        )
        self.unreadable = Counter(
            "rapid_publish_unreadable", "Events or rows that made no sense, left out", registry=kept
        )

    def sent(self, destination: str, n_bytes: int, seconds: float) -> None:
        """Count one that was sent."""
        self._sent.labels(destination=destination).inc()
        self._bytes.labels(destination=destination).inc(n_bytes)
        self._seconds.labels(destination=destination).observe(seconds)

    def is_up(self, destination: str, *, up: bool) -> None:
        """Say whether a destination answers."""
        self._up.labels(destination=destination).set(float(up))


def registered() -> PublishMetrics:
    """Return metrics that ``/metrics`` shows."""
    return PublishMetrics(REGISTRY)
