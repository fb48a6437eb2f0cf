"""Decide what the control state is after Redis lost it, or the software changed under it: pure, no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapid.camera.models import Camera
from rapid.control.models import ControlChange, ControlDocument, ControlState
from rapid.control.rules import as_patch, patch_state, validate_state
from rapid.errors import ConfigurationError
from rapid.pipeline.models import PipelineBook


@dataclass(frozen=True)
class Restoration:
    """What to put onto the board.

    Attributes
    ----------
    changes
        The log, oldest first.
    dropped
        Changes that cannot be made on the state that is restored, with the reason.
    """

    document: ControlDocument
    changes: tuple[ControlChange, ...]
    dropped: tuple[tuple[ControlChange, str], ...] = ()


def decide_restoration(
    board: ControlDocument | None,
    board_log: Sequence[ControlChange],
    stored: ControlDocument,
    stored_log: Sequence[ControlChange],
) -> Restoration | None:
    """Return what to put onto the board, or None if what is there goes on from what was stored.

    What was changed on a board that had been emptied is made anew on the stored state: both were meant.

    Parameters
    ----------
    board
        Document on the board: version 0 if there is none, None if it cannot be read.
    board_log, stored_log
        Changes, oldest first.
    stored
        Newest document of the results store; version 0 if it has none.
    """
    known = {(change.version, change.changed_ms) for change in stored_log}
    fresh = [change for change in board_log if (change.version, change.changed_ms) not in known]
    if board is not None:
        newest_stored = (stored.version, stored.changed_ms)
        goes_on = any((change.version, change.changed_ms) == newest_stored for change in board_log)
        log_is_short = bool(board_log) and board_log[0].version > stored.version
        if stored.version == 0 or (board.version >= stored.version and (goes_on or log_is_short)):
            return None
    elif stored.version == 0:
        return Restoration(ControlDocument(version=1, reason="the state on the board could not be read"), ())
    document, changes, dropped = stored, list(stored_log), []
    for change in fresh:
        try:
            state = patch_state(document.state, as_patch(change.after))
        except ConfigurationError as error:
            dropped.append((change, error.message))
            continue
        change = change.model_copy(update={"version": document.version + 1})
        changes.append(change)
        document = ControlDocument(
            version=change.version,
            state=state,
            changed_by=change.changed_by,
            changed_ms=change.changed_ms,
            reason=change.reason,
        )
    return Restoration(document, tuple(changes), tuple(dropped))


def states_of(document: ControlDocument, changes: Sequence[ControlChange]) -> dict[int, ControlState]:
    """Return the whole state after each change, by version: taken back one by one from the newest.

    Parameters
    ----------
    document
        The state after the last of the changes.
    changes
        Oldest first. Where one of them cannot be taken back, the states before it are left out.
    """
    state, states = document.state, {}
    for change in reversed(changes):
        states[change.version] = state
        try:
            state = patch_state(state, as_patch(change.before))
        except ConfigurationError:
            break
    return states


def mending_patch(state: ControlState, camera: Camera, book: PipelineBook) -> tuple[Mapping[str, Any], list[str]]:
    """Return a patch that takes fields back to their defaults until camera and pipelines can carry the state out.

    A pipeline that was set may have gone with an update; the night has to go on all the same.

    Returns
    -------
    patch : mapping
        Empty if the state is valid.
    reasons : list of str
        What was wrong, naming the fields.
    """
    patch: dict[str, Any] = {}
    reasons: list[str] = []
    for _ in range(len(ControlState.model_fields)):
        try:
            validate_state(patch_state(state, patch), camera, book)
        except ConfigurationError as error:
            reasons.append(error.message)
            patch[error.field.partition(".")[0]] = None
        else:
            return patch, reasons
    return dict.fromkeys(ControlState.model_fields), reasons
