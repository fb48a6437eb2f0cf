"""What the blocking and the asyncio board have in common: their settings and what they say."""

import os
import socket
import uuid

from rapid.dispatch.commands import BoardCommands

LEASE_MS = 10_000
"""How long a worker may be silent before its job returns. Heartbeats come three times as often."""

GRACE_MS = 1_500
"""How long a job is kept for the busy worker that has its detector's calibs."""

BACKLOG_AGE_MS = 12 * 3600 * 1000
"""A job older than a night is not worth a worker's time unless asked for again."""

MEMORY_MS = 60 * 3600 * 1000
"""A batch is forgotten two and a half days after its last change: its results are in the results store."""

IDLE_WAIT_S = 5.0

GATHER_LEASE_MS = 60_000
GATHER_RETRY_MS = 5_000
GATHER_FAILED = {"code": "gather_failed", "message": "the gather failed"}


class BoardSettings:
    """What both boards are made of.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` or ``unix://`` URL of Redis >= 7 or Valkey >= 7.2.
    instrument
        Whose board: the camera's name.
    lease_ms, grace_ms, backlog_age_ms, memory_ms
        See the module's constants.
    outage_s
        How long a call goes on trying to reach a server that does not answer.
    """

    def __init__(
        self,
        url: str,
        instrument: str,
        *,
        lease_ms: int = LEASE_MS,
        grace_ms: int = GRACE_MS,
        backlog_age_ms: int = BACKLOG_AGE_MS,
        memory_ms: int = MEMORY_MS,
        outage_s: float = 30.0,
    ) -> None:
        self.instrument = instrument
        self.lease_ms = lease_ms
        self._url = url
        self._outage_s = outage_s
        self._say = BoardCommands(
            instrument,
            boot=f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}",
            lease_ms=lease_ms,
            grace_ms=grace_ms,
            backlog_age_ms=backlog_age_ms,
            memory_ms=memory_ms,
        )

    @property
    def prefix(self) -> str:
        """What every key of this board begins with."""
        return self._say.prefix
