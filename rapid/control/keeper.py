"""Keep the control state in the results store, and bring it back: what the leading head does for it.

Redis can be flushed in mid-night (invariant I2). The head that leads writes every change into the results store as
it happens; at the start of a lead it looks whether the board still goes on from there, and restores it if not.
"""

import asyncio
import contextlib

import structlog

from rapid.control.decide import decide_restoration, mending_patch, states_of
from rapid.control.models import ControlChange, ControlDocument, ControlState
from rapid.control.store import LOG_KEPT, AsyncControlStore
from rapid.errors import RapidError, StoreError
from rapid.pause import pause
from rapid.results.control_log import ControlChangeRecord, ControlLog

log = structlog.get_logger()

WAIT_S = 60.0
"""How long one wait for a change lasts; a change ends it at once."""

RETRY_S = 1.0


class ControlKeeper:
    """Keeps one camera's control state over a flush of Redis.

    Parameters
    ----------
    store
        The state on the board.
    changes
        Where all changes are kept.
    """

    def __init__(self, store: AsyncControlStore, changes: ControlLog) -> None:
        self._store = store
        self._changes = changes
        self._kept = 0

    async def restore(self) -> ControlDocument:
        """Bring the state back if the board has lost it, and mend what can no longer be carried out.

        To be called at the start of a lead, before anything is dispatched.

        Raises
        ------
        StoreError
            Raised if board or results store stay away.
        """
        records = await asyncio.to_thread(self._changes.changes, self._store.camera.name, limit=LOG_KEPT)
        stored, stored_log = _document_of(records), _changes_of(records)
        self._kept = stored.version
        board: ControlDocument | None = None
        try:
            board = await self._store.read()
        except StoreError as error:
            if error.facts.get("error") != "unreadable":
                raise
            log.error("control state cannot be read", error=error.message)
        board_log = list(reversed(await self._store.history(LOG_KEPT)))
        restoration = decide_restoration(board, board_log, stored, stored_log)
        if restoration is not None:
            for change, why in restoration.dropped:
                log.error("change cannot be made anew", changed_by=change.changed_by, fields=change.after, reason=why)
            expected = board.version if board is not None else -1
            if await self._store.restore(expected, restoration.document, restoration.changes):
                log.warning("control state restored", version=restoration.document.version)
        document = await self._mended(await self._store.read())
        await self._keep(document)
        return document

    async def run(self) -> None:
        """Write every change into the results store, until cancelled."""
        while True:
            try:
                document = await self._store.wait(self._kept, WAIT_S)
                if document is None:
                    continue
                if document.version < self._kept:
                    await self.restore()
                else:
                    await self._keep(document)
            except StoreError as error:
                if error.facts.get("error") == "unreadable":
                    await self.restore()
                    continue
                log.warning("changes of the control state wait to be stored", error=error.message)
                await pause(RETRY_S)

    async def _mended(self, document: ControlDocument) -> ControlDocument:
        patch, reasons = mending_patch(document.state, self._store.camera, self._store.book)
        if not patch:
            return document
        log.error("control state can no longer be carried out", reasons=reasons)
        try:
            return await self._store.change(patch, by="head", door="head", reason="; ".join(reasons)[:1000])
        except StoreError:
            raise
        except RapidError as error:
            log.error("control state cannot be mended", error=error.message)
            return document

    async def _keep(self, document: ControlDocument) -> None:
        history = await self._store.history(LOG_KEPT)
        changes = [change for change in reversed(history) if self._kept < change.version <= document.version]
        states = states_of(document, changes)
        records = [
            _record_of(self._store.camera.name, change, states[change.version])
            for change in changes
            if change.version in states
        ]
        await asyncio.to_thread(self._changes.put, records)
        self._kept = document.version


def _record_of(camera: str, change: ControlChange, state: ControlState) -> ControlChangeRecord:
    return ControlChangeRecord(
        camera=camera,
        version=change.version,
        changed_ms=change.changed_ms,
        changed_by=change.changed_by,
        door=change.door,
        reason=change.reason,
        change={"before": change.before, "after": change.after},
        state=state.model_dump(mode="json"),
    )


def _changes_of(records: list[ControlChangeRecord]) -> list[ControlChange]:
    """Return changes, oldest first; those that another release wrote and this one cannot read are left out."""
    changes = []
    for record in reversed(records):
        facts = record.model_dump(exclude={"camera", "change", "state"})
        with contextlib.suppress(ValueError):
            changes.append(ControlChange.model_validate({"before": {}, "after": {}, **facts, **record.change}))
    return changes


def _document_of(records: list[ControlChangeRecord]) -> ControlDocument:
    """Return the newest document that the results store has; version 0 if it has none that can be read."""
    for record in records:
        with contextlib.suppress(ValueError):
            return ControlDocument(
                version=record.version,
                state=ControlState.model_validate(record.state),
                changed_by=record.changed_by,
                changed_ms=record.changed_ms,
                reason=record.reason,
            )
    return ControlDocument()
