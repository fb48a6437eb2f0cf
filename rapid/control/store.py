"""The control state on the board: read it, change it, wait for it to change.

`ControlStore` blocks, `AsyncControlStore` awaits; both hold the conversations of `ControlCommands` over a board's
connection. A change is checked here (`rapid.control.rules`) against the version it was made from, and put in place by
a server-side function only if that version still stands: two people who change things at the same time both get what
they asked for, or one of them is told. Carries invariant I9.
"""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from rapid.camera.models import Camera
from rapid.control.models import ControlChange, ControlDocument, ControlState
from rapid.control.rules import MAX_NAME, MAX_REASON, PAIR_FIELD, changed_fields, patch_state, validate_state
from rapid.dispatch import keys
from rapid.dispatch.connection import AsyncConnection, BlockingConnection
from rapid.dispatch.library import function_name
from rapid.dispatch.models import EventKind
from rapid.dispatch.talk import SLICE_S, Command, Talk, to_json
from rapid.errors import ConfigurationError, RefusedError, StoreError
from rapid.pipeline.models import PipelineBook

ATTEMPTS = 50
"""Changes made by others meanwhile that a change without a version of its own puts up with."""

LOG_KEPT = 500
"""Entries of the log that the server keeps; the results store has all."""


class VersionChangedError(RefusedError):
    """The control state is no longer the one that the change was made for."""

    code = "version_changed"


class BetweenPairError(RefusedError):
    """The pipeline of intra-/extra-focal pairs cannot change while the second half of one is due."""

    code = "between_pair"


class ControlCommands:
    """What is said about the control state of one camera.

    Parameters
    ----------
    camera, book
        What a state must be possible for.
    """

    def __init__(self, camera: Camera, book: PipelineBook) -> None:
        self.camera = camera
        self.book = book
        self.prefix = keys.prefix(camera.name)

    def _fcall(self, name: str, *args: Any) -> Command:
        # The second key says what is written, so that a user who may not is refused before anything happens.
        return Command(("FCALL", function_name(name), 2, self.prefix, f"{self.prefix}control_state", *args))

    def read(self) -> Talk[ControlDocument]:
        """Read the document."""
        flat = yield Command(("HGETALL", f"{self.prefix}control_state"))
        return _decode_document(flat)

    def change(
        self, patch: Mapping[str, Any], *, by: str, door: str, reason: str, expected_version: int | None
    ) -> Talk[ControlDocument]:
        """Change the document."""
        if len(reason) > MAX_REASON:
            raise ConfigurationError("reason", f"is longer than {MAX_REASON} characters")
        by, reason = _one_line(by)[:MAX_NAME], _one_line(reason)
        state: ControlState | None = None
        for _ in range(ATTEMPTS):
            document = yield from self.read()
            if state == document.state and by == document.changed_by:
                return document  # done by this very call: the answer was lost on the way, and the command sent again
            if expected_version not in {None, document.version}:
                break
            try:
                state = patch_state(document.state, patch)
                validate_state(state, self.camera, self.book)
            except ConfigurationError:
                yield Command(("FCALL", function_name("control_refused"), 1, self.prefix))
                raise
            changes = changed_fields(document.state.model_dump(mode="json"), state.model_dump(mode="json"))
            if not changes:
                return document
            entry = {
                "changed_by": by,
                "door": door,
                "reason": reason,
                "before": {path: old for path, (old, _) in changes.items()},
                "after": {path: new for path, (_, new) in changes.items()},
            }
            outcome, version, now_ms = yield self._fcall(
                "control_change",
                document.version,
                state.model_dump_json(),
                by,
                reason,
                state.worker_mode.value,
                to_json(entry),
                to_json({"fields": sorted(changes), "by": by, "door": door, "mode": state.worker_mode.value}),
                int(PAIR_FIELD in changes),
            )
            if outcome == b"between_pair":
                raise BetweenPairError(
                    f"{PAIR_FIELD}: the second exposure of an intra-/extra-focal pair is due; try again after it",
                    field=PAIR_FIELD,
                )
            if outcome == b"changed":
                return ControlDocument(version=version, state=state, changed_by=by, changed_ms=now_ms, reason=reason)
        raise VersionChangedError(
            f"the control state has changed: it is at version {document.version}", version=document.version
        )

    def history(self, limit: int) -> Talk[list[ControlChange]]:
        """Read the log."""
        entries = yield Command(("LRANGE", f"{self.prefix}control_log", 0, limit - 1))
        return [change for entry in entries if (change := _decode_change(entry)) is not None]

    def restore(self, expected_version: int, document: ControlDocument, changes: Iterable[ControlChange]) -> Talk[bool]:
        """Put a document and its log, oldest first, in place of what is there."""
        event = {"version": document.version, "fields": [], "by": "head", "door": "head", "restored": True}
        done = yield self._fcall(
            "control_restore",
            expected_version,
            document.version,
            document.state.model_dump_json(),
            document.changed_by,
            document.reason,
            document.state.worker_mode.value,
            to_json(event),
            *(change.model_dump_json() for change in list(changes)[-LOG_KEPT:]),
        )
        return bool(done)

    def wait(self, after_version: int, timeout_s: float) -> Talk[ControlDocument | None]:
        """Wait for another version."""
        deadline = time.monotonic() + timeout_s
        events = f"{self.prefix}events"
        newest = yield Command(("XREVRANGE", events, "+", "-", "COUNT", 1))
        last = newest[0][0] if newest else "0-0"
        while True:
            document = yield from self.read()
            if document.version != after_version:
                return document
            changed = False
            while not changed:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return None
                block_s = min(remaining, SLICE_S)
                block_ms = max(round(block_s * 1000), 1)
                reply = yield Command(("XREAD", "COUNT", 500, "BLOCK", block_ms, "STREAMS", events, last), block_s)
                for event_id, flat in reply[0][1] if reply else ():
                    last = event_id
                    changed = changed or flat[1] == EventKind.CONTROL_CHANGED.value.encode()


def _one_line(text: str) -> str:
    """Return text as every store can keep it: no control characters, no half characters."""
    whole = text.encode(errors="replace").decode()
    return " ".join("".join(letter if letter.isprintable() else " " for letter in whole).split())


def _decode_document(flat: list[bytes]) -> ControlDocument:
    if not flat:
        return ControlDocument()
    fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
    try:
        return ControlDocument(
            version=int(fields["version"]),
            state=ControlState.model_validate_json(fields["state"]),
            changed_by=fields["changed_by"].decode(errors="replace"),
            changed_ms=int(fields["changed_ms"]),
            reason=fields["reason"].decode(errors="replace"),
        )
    except (KeyError, ValueError, ValidationError) as error:
        where = error.errors(include_input=False)[0]["loc"] if isinstance(error, ValidationError) else error
        raise StoreError(f"the control state on the board cannot be read: {where}", error="unreadable") from error


def _decode_change(entry: bytes) -> ControlChange | None:
    """Return a log entry; None for one that somebody else wrote there."""
    try:
        return ControlChange.model_validate(json.loads(entry))
    except (ValueError, ValidationError):
        return None


class ControlStore:
    """The control state over a blocking connection.

    Parameters
    ----------
    connection
        That of a `Board`: ``board.connection``.
    camera, book
        What a state must be possible for.

    Examples
    --------
    >>> store = ControlStore(board.connection, camera, book)  # doctest: +SKIP
    >>> store.change({"pattern": "ccd_checkerboard"}, by="ann", door="cli").version  # doctest: +SKIP
    8
    """

    def __init__(self, connection: BlockingConnection, camera: Camera, book: PipelineBook) -> None:
        self._connection = connection
        self._say = ControlCommands(camera, book)

    def read(self) -> ControlDocument:
        """Return the control state in force: one round trip; the defaults, version 0, if it was never changed.

        Raises
        ------
        StoreError
            Raised if the server stays away, or holds something that is no control state.
        """
        return self._connection.run(self._say.read())

    def change(
        self, patch: Mapping[str, Any], *, by: str, door: str, reason: str = "", expected_version: int | None = None
    ) -> ControlDocument:
        """Change some fields; applies to the next exposure.

        Parameters
        ----------
        patch
            Fields to change, nested as the document is; None takes a value back to its default, or an entry out of
            a table.
        by, door, reason
            For the audit log: who, through which door (cli, http, display, redis, rubintv, head), and why.
        expected_version
            The version that the change was made for; any if None.

        Returns
        -------
        ControlDocument
            As it now is: read back. The old one, if the patch changes nothing.

        Raises
        ------
        ConfigurationError
            Raised, naming the field, if the state would not be valid. Nothing has changed then.
        VersionChangedError
            Raised if the document is at another version.
        BetweenPairError
            Raised for a change of the pipeline of pairs between the two exposures of one.
        """
        return self._connection.run(
            self._say.change(patch, by=by, door=door, reason=reason, expected_version=expected_version)
        )

    def history(self, limit: int = 50) -> list[ControlChange]:
        """Return the newest changes, newest first. The server keeps 500, the results store all."""
        return self._connection.run(self._say.history(limit))

    def wait(self, after_version: int, timeout_s: float) -> ControlDocument | None:
        """Return the document as soon as its version is another than this; None after the timeout."""
        return self._connection.run(self._say.wait(after_version, timeout_s))

    def restore(self, expected_version: int, document: ControlDocument, changes: Iterable[ControlChange]) -> bool:
        """Put a document and its log, oldest change first, back in place; False if the version there is another."""
        return self._connection.run(self._say.restore(expected_version, document, changes))


class AsyncControlStore:
    """The control state over an asyncio connection: the same methods as `ControlStore`, awaited."""

    def __init__(self, connection: AsyncConnection, camera: Camera, book: PipelineBook) -> None:
        self._connection = connection
        self._say = ControlCommands(camera, book)

    @property
    def camera(self) -> Camera:
        """Camera whose state this is."""
        return self._say.camera

    @property
    def book(self) -> PipelineBook:
        """Pipelines that a state may name."""
        return self._say.book

    async def read(self) -> ControlDocument:
        """See `ControlStore.read`."""
        return await self._connection.run(self._say.read())

    async def change(
        self, patch: Mapping[str, Any], *, by: str, door: str, reason: str = "", expected_version: int | None = None
    ) -> ControlDocument:
        """See `ControlStore.change`."""
        return await self._connection.run(
            self._say.change(patch, by=by, door=door, reason=reason, expected_version=expected_version)
        )

    async def history(self, limit: int = 50) -> list[ControlChange]:
        """See `ControlStore.history`."""
        return await self._connection.run(self._say.history(limit))

    async def wait(self, after_version: int, timeout_s: float) -> ControlDocument | None:
        """See `ControlStore.wait`."""
        return await self._connection.run(self._say.wait(after_version, timeout_s))

    async def restore(self, expected_version: int, document: ControlDocument, changes: Iterable[ControlChange]) -> bool:
        """See `ControlStore.restore`."""
        return await self._connection.run(self._say.restore(expected_version, document, changes))
