"""Have finished detectors of a batch done again: what undoing a bad calib needs.

Everything else of the batch stays as it is. A board that has forgotten the batch is posted it anew, with what is stored
of the others (`BatchSpec.finished`).
"""

from collections.abc import Mapping
from enum import Enum

from rapid.dispatch import keys
from rapid.dispatch.connection import AsyncConnection
from rapid.dispatch.library import function_name
from rapid.dispatch.models import BatchKey
from rapid.dispatch.talk import Command, Talk, to_json


class NotRedone(Enum):
    """Why nothing was queued."""

    UNKNOWN = -1
    """The board has forgotten the batch, or never knew it."""

    GATHERING = -2
    """A summary of it is being made: ask again when it is ready."""


async def redo(connection: AsyncConnection, instrument: str, key: BatchKey, raws: Mapping[int, str]) -> int | NotRedone:
    """Queue finished or failed detectors of a batch again, as backlog.

    Parameters
    ----------
    raws
        URI of the raw, by detector. A detector that is queued or running stays as it is; one that is switched off is
        the caller's to leave out.

    Returns
    -------
    queued
        How many were queued, or why none could be.

    Raises
    ------
    StoreError
        Raised if the server stays away.
    """

    def talk() -> Talk[int]:
        name = function_name("redo")
        reply = yield Command(("FCALL", name, 1, keys.prefix(instrument), key.id, to_json(dict(raws))))
        return int(reply)

    queued = await connection.run(talk())
    return queued if queued >= 0 else NotRedone(queued)
