"""What the display tells Prometheus: who watches, and whether its sources answer."""

from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rapid.display.hub import Hub
from rapid.display.reader import Reader


class DisplayMetrics(Collector):
    """Read when asked for; a registry of its own, as a process may serve several displays."""

    def __init__(self, reader: Reader, hub: Hub) -> None:
        self._reader = reader
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield GaugeMetricFamily("rapid_display_viewers", "Viewers connected", value=float(self._hub.n_viewers))
        up = GaugeMetricFamily("rapid_display_source_up", "Whether a source answers", labels=["source"])
        for source in self._reader.sources:
            up.add_metric([source.name], float(source.is_up))
        yield up
        exposures = float(len(self._reader.night.tracks))
        yield GaugeMetricFamily("rapid_display_exposures", "Exposures of the night shown", value=exposures)


def metrics_routes(reader: Reader, hub: Hub) -> APIRouter:
    """Return the route of ``/metrics``."""
    registry = CollectorRegistry()
    registry.register(DisplayMetrics(reader, hub))
    router = APIRouter()

    @router.get("/metrics", tags=["system"], summary="Numbers for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
