"""What a head node tells Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram


class HeadMetrics:
    """Counters and histograms of one head."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.arrivals = Counter("rapid_arrivals", "Raws that arrived and could be read", registry=registry)
        self.quarantined = Counter("rapid_raws_quarantined", "Raws set aside", ["code"], registry=registry)
        self.dispatch_seconds = Histogram(
            "rapid_arrival_to_dispatch_seconds",
            "From the arrival of a raw to the post of its job",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
            registry=registry,
        )
