"""Whoever is told of every summary, besides RubinTV's bucket."""

import asyncio
from typing import Protocol

from rapid.publish.status import DestinationStatus
from rapid.results.models import ExposureSummary


class RowSink(Protocol):
    """Whoever else is told of every new summary: ConsDB, metric sinks."""

    name: str

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop."""
        ...

    def put(self, summary: ExposureSummary) -> None:
        """Take in a summary; never waits."""
        ...

    @property
    def status(self) -> DestinationStatus:
        """How it stands."""
        ...


class CatchingUpSink(RowSink, Protocol):
    """One that is told of campaigns' summaries, too, and finds by itself what it was not told of."""

    async def catch_up(self) -> None:
        """Put what was missed, for ever; begun anew each time the right to publish is ours."""
        ...

    def look_again(self) -> None:
        """Look now for what was missed."""
        ...
