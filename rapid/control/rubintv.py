"""RubinTV's admin page, unmodified: take its commands from Redis, and show it what came of them.

The page sets a ``RUBINTV_CONTROL_`` key. The leading head hears of it by a keyspace event, takes the key away,
changes the control state like any other door, and writes ``<key>_READBACK``, which the page hears of in the same way:
the value that now holds, or why it does not. Also when nothing changed: the page waits for the answer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable

import structlog

from rapid.control.keyspace import HOW_TO, Connected, KeyspaceListener
from rapid.control.models import ControlDocument
from rapid.control.spelling import (
    CONTROLS,
    KNOWN_KEYS,
    MAX_VALUE,
    PREFIX,
    READBACK,
    REJECTED_BETWEEN_PAIR,
    RESET_GATHERS,
    RESET_POOLS,
    Control,
    patch_of,
    rejection,
)
from rapid.control.store import AsyncControlStore, BetweenPairError
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.restart import order_restart
from rapid.dispatch.talk import Command, Talk
from rapid.errors import ConfigurationError, RapidError, StoreError
from rapid.pause import pause

log = structlog.get_logger()

BY = "RubinTV"
DOOR = "rubintv"

PROBE_S = 5.0
"""Within this time the door's own first readbacks must come back as events, or the server sends none."""

WAIT_S = 60.0
RETRY_S = 1.0
CANCEL_S = 1.0


class RubinTVDoor:
    """The commands of RubinTV's admin page, for one camera.

    The page's keys name no camera: of several cameras on one Redis database only one may listen to it.

    Parameters
    ----------
    board
        The board: its workers are restarted, its connection carries the commands.
    url
        The same server, for the connection that listens.
    store
        The control state.
    """

    def __init__(
        self,
        board: AsyncBoard,
        url: str,
        store: AsyncControlStore,
    ) -> None:
        self._connection = board.connection
        self._prefix = board.prefix
        self._url = url
        self._store = store
        self._reset = asyncio.Event()
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Serve the page until cancelled; return when it asks for the head to start afresh."""
        self._reset.clear()
        self._heard.clear()
        tasks = [
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._follow_changes()),
            asyncio.create_task(self._reset.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            pending = set(tasks)
            while pending:
                # A cancellation that meets a reply of the server can get lost in the client: ask again.
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=CANCEL_S)

    # Commands

    async def _listen(self) -> None:
        listener = KeyspaceListener(self._url, f"{PREFIX}*")
        probe: asyncio.Task[None] | None = None
        is_first = True
        try:
            async with contextlib.aclosing(listener.listen()) as happenings:
                async for happening in happenings:
                    if isinstance(happening, Connected):
                        await self._safely(self._show_all())
                        for key in KNOWN_KEYS:
                            # A reset from before this lead is done by now.
                            await self._safely(self._take(key, is_late=is_first))
                        is_first = False
                        probe = probe or asyncio.create_task(self._probe())
                        continue
                    self._heard.set()
                    if not happening.key.endswith((READBACK, "_STATE")):
                        await self._safely(self._take(happening.key, is_late=False))
        finally:
            if probe is not None:
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)
            await listener.close()

    async def _safely(self, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreError as error:
            log.error("RubinTV's commands wait for the server", error=error.message)

    async def _probe(self) -> None:
        try:
            await asyncio.wait_for(self._heard.wait(), PROBE_S)
        except TimeoutError:
            log.error(
                "commands of RubinTV's admin page will not be heard: the server sends no keyspace events", how_to=HOW_TO
            )

    async def _take(self, key: str, *, is_late: bool) -> None:
        """Take a command away and carry it out."""
        if key not in KNOWN_KEYS:
            log.warning("unknown command of RubinTV", key=key[:200])
            await self._show(key[:200], rejection("unknown control"))
            return
        value, why = await self._connection.run(_take_away(key))
        if why:
            await self._show(key, rejection(why))
        elif value is not None:
            log.info("command of RubinTV", key=key, value=value)
            await self._show(key, await self._obey(key, value.strip(), is_late=is_late))

    async def _obey(self, key: str, value: str, *, is_late: bool) -> str:
        """Carry a command out; return what to show."""
        control = CONTROLS.get(key)
        if control is not None:
            return await self._apply(control, value)
        if key in RESET_GATHERS:
            return rejection("gathers keep nothing between exposures, there is nothing to reset")
        if key in RESET_POOLS:
            n_told = await self._connection.run(order_restart(self._prefix, RESET_POOLS[key]))
            return f"RESTARTING {n_told} workers"
        if is_late:
            return "RESET: the head had just started"
        log.warning("head starts afresh", by=BY)
        self._reset.set()
        return "RESET"

    async def _apply(self, control: Control, word: str) -> str:
        try:
            value = control.from_word(word, self._store.camera, self._store.book)
            await self._store.change(patch_of(control, value), by=BY, door=DOOR)
        except BetweenPairError:
            return REJECTED_BETWEEN_PAIR
        except ConfigurationError as error:
            return rejection(error.message)
        except StoreError:
            raise
        except RapidError as error:
            return rejection(error.message)
        return control.shown(word)

    # Readbacks

    async def _show(self, key: str, value: str) -> None:
        await self._connection.run(_put(f"{key}{READBACK}", value))

    async def _show_all(self) -> None:
        """Show what holds, as it may be news to the page: at the start of a lead, and of a new server."""
        document = await self._store.read()
        for key, control in CONTROLS.items():
            await self._show(key, await self._word(key, control, document))

    async def _word(self, key: str, control: Control, document: ControlDocument) -> str:
        """Return the word for a field: that of the readback, if it still says what holds."""
        camera, book = self._store.camera, self._store.book
        shown = await self._connection.run(_get(f"{key}{READBACK}"))
        with contextlib.suppress(ConfigurationError):
            if shown and _value_at(document, control.path) == control.from_word(shown, camera, book):
                return shown
        return control.to_word(document.state, camera, book)

    async def _follow_changes(self) -> None:
        """Show what other doors change."""
        before: ControlDocument | None = None
        while True:
            try:
                if before is None:
                    before = await self._store.read()
                document = await self._store.wait(before.version, WAIT_S)
                if document is None:
                    continue
                for key, control in CONTROLS.items():
                    if _value_at(document, control.path) != _value_at(before, control.path):
                        await self._show(key, await self._word(key, control, document))
                before = document
            except StoreError as error:
                log.warning("readbacks wait for the server", error=error.message)
                await pause(RETRY_S)


def _value_at(document: ControlDocument, path: str) -> object:
    value: object = document.state.model_dump(mode="json")
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _take_away(key: str) -> Talk[tuple[str | None, str]]:
    """Return a key's value, which is gone then, or why it cannot be a command."""
    kind = yield Command(("TYPE", key))
    if kind in {b"none", "none"}:
        return None, ""
    if kind not in {b"string", "string"}:
        yield Command(("DEL", key))
        return None, "a command must be a string"
    length = yield Command(("STRLEN", key))
    if length > MAX_VALUE:
        yield Command(("DEL", key))
        return None, f"longer than {MAX_VALUE} bytes"
    value = yield Command(("GETDEL", key))
    return (None if value is None else value.decode(errors="replace")), ""


def _put(key: str, value: str) -> Talk[None]:
    yield Command(("SET", key, value))


def _get(key: str) -> Talk[str]:
    value = yield Command(("GET", key))
    return "" if value is None else value.decode(errors="replace")
