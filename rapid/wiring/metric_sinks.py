"""Build the metric sinks that are configured, as the publish role runs them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import REGISTRY
from pydantic import ValidationError

from rapid.errors import ConfigurationError
from rapid.publish.status import DestinationStatus
from rapid.results.models import DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore
from rapid.sinks.influx import InfluxConfig, InfluxSink
from rapid.sinks.models import Sink
from rapid.sinks.pump import MetricPump, PumpMetrics
from rapid.sinks.sasquatch import SasquatchConfig, SasquatchSink
from rapid.wiring.settings import RoleSettings


class PumpRow:
    """A pump as the publish role sees whoever else is told of summaries."""

    def __init__(self, pump: MetricPump) -> None:
        self.pump = pump
        self.name = pump.name

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop."""
        await self.pump.run(stop)

    def put(self, summary: ExposureSummary) -> None:
        """Take in a summary; never waits."""
        self.pump.put(summary)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is sent; return whether it is."""
        return await self.pump.drain(timeout_s)

    @property
    def status(self) -> DestinationStatus:
        """How it stands."""
        stands = self.pump.status
        notes = [f"{stands.n_lost} summaries never reached the disk"] if stands.n_lost else []
        if stands.n_dead:
            notes.append(f"{stands.n_dead} dead letters are kept: rapid sinks dead")
        return DestinationStatus(
            name=self.name,
            is_up=stands.is_up,
            error=stands.error or None,
            n_waiting=stands.n_waiting,
            n_sent=stands.n_sent,
            n_dead=stands.n_dead,
            notes=notes,
        )


def open_sinks(settings: RoleSettings) -> dict[str, Sink]:
    """Return the sinks that are configured, by name.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a sink that is not described well.
    """
    makers: tuple[tuple[str, dict[str, Any], Callable[[dict[str, Any]], Sink]], ...] = (
        ("publish_influx", settings.publish_influx, lambda facts: InfluxSink(InfluxConfig.model_validate(facts))),
        (
            "publish_sasquatch",
            settings.publish_sasquatch,
            lambda facts: SasquatchSink(SasquatchConfig.model_validate(facts), settings.sinks_folder),
        ),
    )
    sinks: dict[str, Sink] = {}
    for field, facts, make in makers:
        if not facts:
            continue
        try:
            sink = make(facts)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(str(part) for part in (field, *first["loc"]))
            raise ConfigurationError(path, first["msg"].removeprefix("Value error, ")) from error
        sinks[sink.name] = sink
    return sinks


def make_pumps(settings: RoleSettings, results: ResultsStore) -> tuple[PumpRow, ...]:
    """Return the pumps of the sinks that are configured."""
    sinks = open_sinks(settings)
    if not sinks:
        return ()
    metrics = PumpMetrics(REGISTRY)

    def results_of(summary: ExposureSummary) -> Sequence[DetectorResult]:
        return results.results(summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline)

    return tuple(
        PumpRow(
            MetricPump(
                sink,
                results_of,
                settings.sinks_folder,
                give_up_s=settings.publish_max_age_s,
                max_bytes=settings.publish_spool_mb * 1_000_000,
                metrics=metrics,
            )
        )
        for sink in sinks.values()
    )
