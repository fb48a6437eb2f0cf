"""The doors of the ingest role: raw sources, and lists in Redis that files are told of by."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

from rapid.arrival.models import Arrival, RawArrived, RawHeader, RawQuarantined
from rapid.dispatch.board import AsyncBoard
from rapid.errors import RapidError
from rapid.ingest import store
from rapid.ingest.inbox import Inbox
from rapid.ingest.models import Item, Receipt, SetAsideRecord

log = structlog.get_logger()

N_TAKEN = 100
"""Entries taken off a list in one go: what a killed process leaves to be done again."""

MAX_SHOWN_BYTES = 1024


class RawSource(Protocol):
    """The door raws come in by, as this role needs it."""

    def arrivals(self) -> AsyncIterator[Arrival]:
        """Yield what arrives, from everything already there on."""
        ...

    def read_header(self, uri: str) -> RawHeader:
        """Read the header of a raw; `RawError` says what is wrong with it."""
        ...


async def follow_source(
    source: RawSource, inbox: Inbox, quarantine: Callable[[RawQuarantined], Awaitable[None]]
) -> None:
    """Put in what arrives at a source, until cancelled.

    Parameters
    ----------
    quarantine
        Told of what cannot be read.
    """
    async for arrival in source.arrivals():
        if isinstance(arrival, RawQuarantined):
            await quarantine(arrival)
        elif isinstance(arrival, RawArrived):
            item = Item(
                arrival.uri,
                since_s=arrival.arrived_monotonic_s,
                size_bytes=arrival.size_bytes,
                replaces=arrival.replaces is not None,
            )
            try:
                item.header = source.read_header(arrival.uri)  # kept since the arrival: no reading
            except RapidError as error:
                log.debug("header is read again", uri=arrival.uri, error=error.message)
            await inbox.put(item)


async def take_list(
    board: AsyncBoard, names: store.QueueNames, inbox: Inbox, refuse: Callable[[SetAsideRecord], Awaitable[None]]
) -> None:
    """Put in what a list tells of, until cancelled; first what a process of this name had in hand before.

    Parameters
    ----------
    refuse
        Told of an entry that names no file.
    """
    entries = await board.connection.run(store.taken_before(names))
    if entries:
        log.info("going on with what was in hand", queue=names.queue, n=len(entries))
    while True:
        for entry in entries:
            uri = store.entry_uri(entry, is_foreign=names.is_foreign)
            if uri is None:
                text = entry[:MAX_SHOWN_BYTES].decode(errors="backslashreplace")
                reason = f"an entry of {names.queue} that names no file"
                await refuse(
                    SetAsideRecord(uri=text or "(empty)", code="bad_entry", reason=reason, at=datetime.now(UTC))
                )
                await board.connection.run(store.let_go(names.taken, entry))
                continue
            await inbox.put(Item(uri, since_s=time.monotonic(), receipts=[Receipt(names.taken, entry)]))
        entries = await board.connection.run(store.take_files(names, N_TAKEN))
